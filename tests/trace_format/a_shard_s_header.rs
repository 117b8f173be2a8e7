//! Headers of shards, hostile ones among them.

use super::*;

fn with_length(length: u64) {
    let fixture = Fixture::new();
    let mut bytes = shard(&fixture.path(), 0);
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    replace_shard(&fixture.path(), 0, &bytes);
    fixture.is_refused("a shard of the trace is malformed");
}

#[test]
fn longer_than_the_file_is_refused() {
    let bytes = shard(&Fixture::new().path(), 0).len() as u64;
    with_length(bytes - 7);
    with_length(bytes);
    with_length(99_000_000);
}

#[test]
fn of_a_length_that_overflows_is_refused() {
    for length in [1 << 63, (1 << 63) - 1, u64::MAX, u64::MAX - 7, 1 << 32] {
        with_length(length);
    }
}

#[test]
fn of_more_than_100_mb_is_refused() {
    let fixture = Fixture::new();
    let file = fixture.path().join("shard-00000.safetensors");
    std::fs::write(&file, 100_000_001_u64.to_le_bytes()).unwrap();
    // Holes take no room on the disk.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(100_000_100).unwrap();
    edit_manifest(&fixture.path(), |m| m["shards"][0]["bytes"] = 100_000_100.into());
    fixture.is_refused("a shard of the trace is malformed");
}

#[test]
fn that_is_not_json_is_refused() {
    for header in [&b"x"[..], b"[]", b"{\"a\": 1}", b"{\xff}", b"{", b""] {
        let fixture = Fixture::new();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        replace_shard(&fixture.path(), 0, &bytes);
        fixture.is_refused("a shard of the trace");
    }
}

#[test]
fn whose_offsets_leave_the_data_or_overlap_is_refused() {
    let key = "p-01/0/model.embed_tokens";
    for offsets in
        [json!([0, 1_u64 << 40]), json!([0, u64::MAX]), json!([4, 164]), json!([160, 0]), json!([0, 156])]
    {
        let fixture = Fixture::new();
        edit_header(&fixture.path(), 0, |h| h[key]["data_offsets"] = offsets);
        fixture.is_refused("a shard of the trace is malformed");
    }
}
