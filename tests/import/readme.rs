//! The README's way from raw files to a verdict, as it stands there.

use crate::common::{command, finished};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_person_with_raw_files_and_a_reference_has_a_verdict_within_five_minutes() {
    let readme = include_str!("../../README.md");
    let section =
        readme.split("## Only dumps of your own").nth(1).expect("the section").split("\n## ").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("layerdiff "));
    let lines: Vec<&str> =
        lines.filter(|line| line.contains("tests/goldens/dumps") || line.contains(" mine")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let work = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let start = Instant::now();
    let mut last = None;
    for line in lines {
        let words: Vec<String> = line
            .split(" #")
            .next()
            .unwrap()
            .split_whitespace()
            .map(|word| match word {
                "mine" => work.path().join("mine").to_str().unwrap().to_owned(),
                word => word.to_owned(),
            })
            .collect();
        let run = finished(command(&words).current_dir(root));
        assert!(run.code < 2, "{run:#?}");
        last = Some(run);
    }
    let (took, verdict) = (start.elapsed(), last.unwrap());
    println!("from raw files to the verdict: {took:.1?}");
    assert!(took < Duration::from_secs(300));
    assert_eq!(verdict.code, 1);
    assert!(
        verdict.stdout.contains("model.layers.3 (layer 3) is the first point that differs"),
        "{}",
        verdict.stdout
    );
}
