//! Names of shards, some of which lead elsewhere.

use super::*;

fn is_refused(name: &str) {
    refused(|m| m["shards"][0]["file"] = name.into(), "names a shard outside the trace's directory");
}

#[test]
fn with_a_separator_is_refused() {
    is_refused("sub/shard.safetensors");
    is_refused("sub\\shard.safetensors");
    is_refused("C:shard.safetensors");
    is_refused("a\0.safetensors");
}

#[test]
fn that_leads_out_of_the_directory_is_refused_though_the_file_is_there() {
    let fixture = Fixture::new();
    std::fs::rename(
        fixture.path().join("shard-00000.safetensors"),
        fixture.root.path().join("x.safetensors"),
    )
    .unwrap();
    edit_manifest(&fixture.path(), |m| m["shards"][0]["file"] = "../x.safetensors".into());
    fixture.is_refused("names a shard outside the trace's directory");
    is_refused("..");
    is_refused("..safetensors");
}

#[test]
fn that_is_absolute_is_refused() {
    is_refused("/etc/shard.safetensors");
}

#[test]
fn that_is_hidden_is_refused() {
    is_refused(".shard.safetensors");
    is_refused(".safetensors");
}

#[test]
fn with_another_ending_is_refused() {
    for name in ["", "shard", "shard.bin", "shard.safetensors.gz", "manifest.json", "shard.SAFETENSORS"] {
        is_refused(name);
    }
}

#[test]
fn that_comes_twice_is_refused() {
    refused(|m| m["shards"][1] = m["shards"][0].clone(), "lists the shard \"shard-00000.safetensors\" twice");
}
