//! The directory of a trace.

use super::*;

#[test]
fn holds_the_manifest_and_the_shards_that_it_names_and_nothing_else() {
    let fixture = Fixture::new();
    let names: Vec<String> =
        tree(&fixture.path()).keys().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, [MANIFEST, "shard-00000.safetensors", "shard-00001.safetensors"]);
}

#[test]
fn that_is_missing_is_refused() {
    let fixture = Fixture::new();
    std::fs::remove_dir_all(fixture.path()).unwrap();
    fixture.is_refused("cannot read the trace");
}

#[test]
fn that_is_a_file_is_refused() {
    let fixture = Fixture::new();
    std::fs::remove_dir_all(fixture.path()).unwrap();
    std::fs::write(fixture.path(), "").unwrap();
    fixture.is_refused("not a trace");
}

#[test]
fn without_a_manifest_is_refused() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.path().join(MANIFEST)).unwrap();
    fixture.is_refused("not a trace");
}
