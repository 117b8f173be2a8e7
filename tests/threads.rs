//! The number of threads changes no byte of a report, but for the line that states it.

mod common;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// All files of a report, and its JSON.
fn reported(threads: &str, engine: &str) -> (BTreeMap<PathBuf, Option<Vec<u8>>>, Value) {
    let root = tempfile::tempdir().unwrap();
    // The same words in the same place: the command line is part of the report.
    let args = ["run", "--engine", engine, "--prompt", "code-01", "--steps", "2", "--out", "report"];
    let mut command = common::command(&args);
    let run = common::finished(command.current_dir(root.path()).env("RAYON_NUM_THREADS", threads));
    assert!(run.code < 2, "{run:?}");
    let mut files = common::tree(&root.path().join("report"));
    files = files.into_iter().map(|(path, bytes)| (path.file_name().unwrap().into(), bytes)).collect();
    let json = serde_json::from_slice(files[&PathBuf::from("report.json")].as_ref().unwrap()).unwrap();
    (files, json)
}

#[test]
fn one_thread_and_two_give_the_same_report_byte_for_byte() {
    // One that passes, and one whose faults are diagnosed.
    let engines = [
        ("lattice-f32", "pass"),
        ("lattice-f16", "pass"),
        ("lattice-q8", "pass"),
        ("lattice-q4", "pass"),
        ("lattice-q8_0", "fault"),
    ];
    for (engine, code) in engines {
        let ((one, json), (two, _)) = (reported("1", engine), reported("2", engine));
        assert_eq!(json["outcome"], code);
        assert!(json["ratios"].as_array().unwrap().len() > 20, "{engine}");
        assert_eq!(json["provenance"]["candidate"]["threads"], 1);
        assert!(one.keys().eq(two.keys()));
        for (path, bytes) in &one {
            // The reference, which comes with layerdiff, states a number of threads too.
            let stated = |bytes: &Option<Vec<u8>>| {
                let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
                text.replace("\"threads\": 2", "\"threads\": 1").replace("2 threads", "1 thread")
            };
            assert!(stated(bytes) == stated(&two[path]), "{engine}: {} differs", path.display());
        }
    }
}
