//! The entries of the manifest.

use super::*;

#[test]
fn without_any_one_of_its_keys_is_refused_with_the_key_s_name() {
    for key in ["order", "prompt", "step", "point", "dtype", "shape", "basis", "derived", "shard"] {
        refused(|m| drop(m["tensors"][0].as_object_mut().unwrap().remove(key)), &format!("`{key}`"));
    }
}

#[test]
fn has_its_position_in_the_order_of_execution() {
    for order in [1, 3, u64::MAX] {
        refused(|m| m["tensors"][0]["order"] = order.into(), "the order of execution has a gap or a repeat");
    }
    refused(|m| m["tensors"][1]["order"] = 0.into(), "a repeat at `model.layers.3.self_attn.attention_mask`");
    refused(|m| m["tensors"].as_array_mut().unwrap().swap(0, 1), "the order of execution");
}

#[test]
fn of_an_unknown_prompt_is_refused() {
    refused(|m| m["tensors"][0]["prompt"] = "p-02".into(), "belongs to no prompt of the trace");
}

#[test]
fn may_belong_to_any_step() {
    let root = tempfile::tempdir().unwrap();
    let mut draft = Draft::minimal();
    let mut later = draft.tensors[0].clone();
    later.step = u32::MAX;
    draft.tensors.push(later);
    draft.write(&root.path().join("trace"));
    let trace = Trace::open(&root.path().join("trace")).unwrap();
    assert!(trace.find("p-01", u32::MAX, "model.embed_tokens").is_some());
    assert!(trace.find("p-01", 1, "model.embed_tokens").is_none());
    refused(|m| m["tensors"][0]["step"] = (-1).into(), "malformed");
    refused(|m| m["tensors"][0]["step"] = (1u64 << 32).into(), "malformed");
}

#[test]
fn without_a_point_or_a_basis_is_refused() {
    refused(|m| m["tensors"][0]["point"] = "".into(), "tensor 0 of the trace has no point");
    refused(|m| m["tensors"][2]["basis"] = "".into(), "tensor 2 of the trace has no basis");
}

#[test]
fn of_a_dtype_that_the_format_lacks_is_refused() {
    for dtype in ["I64", "I32", "BOOL", "F8_E4M3", "f32", "float32", ""] {
        refused(|m| m["tensors"][0]["dtype"] = dtype.into(), "malformed");
    }
}

#[test]
fn of_a_shape_that_overflows_is_refused() {
    let huge = u64::MAX / 2;
    for shape in
        [json!([huge, huge]), json!([huge]), json!([1_u64 << 32, 1_u64 << 32]), json!([huge, huge, 0])]
    {
        refused(|m| m["tensors"][0]["shape"] = shape, "is impossibly large");
    }
    refused(|m| m["tensors"][0]["shape"] = json!([5, -8]), "malformed");
    refused(|m| m["tensors"][0]["shape"] = json!([0, huge, huge]), "another shape");
}

#[test]
fn in_a_shard_that_is_not_listed_is_refused() {
    for shard in [2_u64, u64::MAX] {
        refused(|m| m["tensors"][0]["shard"] = shard.into(), "is in a shard that is not listed");
    }
}

#[test]
fn that_shares_prompt_step_and_point_is_refused_with_the_usual_cause() {
    let fixture = Fixture::edited(|m| m["tensors"][2]["point"] = m["tensors"][0]["point"].clone());
    fixture.is_refused("the trace holds `model.embed_tokens` (step 0, prompt `p-01`) twice");
    fixture.is_refused("a warm-up pass or a graph replay");
}

#[test]
fn keeps_basis_and_derivation() {
    let root = tempfile::tempdir().unwrap();
    let mut draft = Draft::minimal();
    draft.tensors[0].basis = "quarot".into();
    draft.tensors[0].derived = true;
    draft.write(&root.path().join("trace"));
    let trace = Trace::open(&root.path().join("trace")).unwrap();
    assert_eq!((trace.entries()[0].basis.as_str(), trace.entries()[0].derived), ("quarot", true));
    assert_eq!((trace.entries()[2].basis.as_str(), trace.entries()[2].derived), ("original", false));
}
