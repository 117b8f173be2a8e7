//! What a shard holds, against what the manifest says of it.

use super::*;

const KEY: &str = "p-01/0/model.embed_tokens";

fn with_header(change: impl FnOnce(&mut Value), why: &str) {
    let fixture = Fixture::new();
    edit_header(&fixture.path(), 0, change);
    fixture.is_refused(why);
}

#[test]
fn is_stored_as_prompt_step_point() {
    let bytes = shard(&Fixture::new().path(), 0);
    let names = safetensors::SafeTensors::deserialize(&bytes)
        .unwrap()
        .names()
        .iter()
        .map(|n| (*n).to_owned())
        .collect::<Vec<_>>();
    assert_eq!(names, [KEY]);
}

#[test]
fn of_another_dtype_than_its_entry_s_is_refused() {
    refused(|m| m["tensors"][0]["dtype"] = "BF16".into(), "another dtype than the manifest says");
    with_header(
        |h| h[KEY] = json!({"dtype": "F64", "shape": [5, 4], "data_offsets": [0, 160]}),
        "another dtype than the manifest says",
    );
}

#[test]
fn of_a_dtype_that_the_format_lacks_is_refused() {
    with_header(
        |h| h[KEY] = json!({"dtype": "I64", "shape": [5, 4], "data_offsets": [0, 160]}),
        "another dtype than the manifest says",
    );
    with_header(|h| h[KEY]["dtype"] = "F31".into(), "malformed");
}

#[test]
fn of_another_shape_than_its_entry_s_is_refused() {
    refused(|m| m["tensors"][0]["shape"] = json!([8, 5]), "another shape than the manifest says");
    refused(|m| m["tensors"][0]["shape"] = json!([40]), "another shape than the manifest says");
    with_header(|h| h[KEY]["shape"] = json!([5, 8, 1]), "another shape than the manifest says");
}

#[test]
fn without_an_entry_is_refused() {
    with_header(
        |h| {
            h[KEY] = json!({"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]});
            h["stray"] = json!({"dtype": "F32", "shape": [5, 4], "data_offsets": [80, 160]});
        },
        "another shape",
    );
    let fixture = Fixture::new();
    let mut bytes = shard(&fixture.path(), 0);
    bytes.extend([0; 4]);
    replace_shard(&fixture.path(), 0, &bytes);
    edit_header(&fixture.path(), 0, |h| {
        h["stray"] = json!({"dtype": "F32", "shape": [1], "data_offsets": [160, 164]});
    });
    fixture.is_refused("holds `stray`, which the manifest does not list");
}

#[test]
fn that_is_missing_is_refused() {
    with_header(
        |h| {
            let tensor = h.as_object_mut().unwrap().remove(KEY).unwrap();
            h["p-01/0/other"] = tensor;
        },
        "lacks `p-01/0/model.embed_tokens`",
    );
    refused(|m| m["tensors"][0]["shard"] = 1.into(), "no tensor of the manifest is in shard");
}

#[test]
fn is_in_every_shard() {
    let fixture = Fixture::new();
    std::fs::copy(fixture.path().join("shard-00000.safetensors"), fixture.path().join("more.safetensors"))
        .unwrap();
    edit_manifest(&fixture.path(), |m| {
        let bytes = m["shards"][0]["bytes"].clone();
        m["shards"].as_array_mut().unwrap().push(json!({"file": "more.safetensors", "bytes": bytes}));
    });
    fixture.is_refused("no tensor of the manifest is in shard \"more.safetensors\"");
}
