//! Shards that are damaged or are no files.

use super::*;

#[test]
fn that_was_cut_off_is_refused() {
    let fixture = Fixture::new();
    let bytes = shard(&fixture.path(), 0);
    std::fs::write(fixture.path().join("shard-00000.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    fixture.is_refused("wrong size");
}

#[test]
fn that_was_extended_is_refused() {
    let fixture = Fixture::new();
    let mut bytes = shard(&fixture.path(), 0);
    bytes.push(0);
    std::fs::write(fixture.path().join("shard-00000.safetensors"), &bytes).unwrap();
    fixture.is_refused("wrong size");
    replace_shard(&fixture.path(), 0, &bytes);
    fixture.is_refused("a shard of the trace is malformed");
}

#[test]
fn of_another_size_than_the_manifest_says_is_refused() {
    refused(|m| m["shards"][1]["bytes"] = 0.into(), "wrong size");
    refused(|m| m["shards"][1]["bytes"] = u64::MAX.into(), "wrong size");
}

#[test]
fn that_is_missing_is_refused() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.path().join("shard-00001.safetensors")).unwrap();
    fixture.is_refused("cannot read a shard of the trace");
}

#[test]
fn that_is_empty_is_refused() {
    let fixture = Fixture::new();
    replace_shard(&fixture.path(), 0, b"");
    fixture.is_refused("a shard of the trace is malformed");
}

#[test]
#[cfg(unix)]
fn that_is_a_symbolic_link_is_refused() {
    let fixture = Fixture::new();
    let file = fixture.path().join("shard-00000.safetensors");
    let away = fixture.root.path().join("away.safetensors");
    std::fs::rename(&file, &away).unwrap();
    std::os::unix::fs::symlink(&away, &file).unwrap();
    fixture.is_refused("not a regular file");
}

#[test]
fn that_is_a_directory_is_refused() {
    let fixture = Fixture::new();
    let file = fixture.path().join("shard-00000.safetensors");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    fixture.is_refused("not a regular file");
}
