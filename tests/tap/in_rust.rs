//! An engine in Rust that depends on the tap alone.

use super::{built, cargo, common, judged, names, open, prefill, reference};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

fn engine(theta: &str, tokens: &str, trace: Option<&Path>, prompts: Option<&Path>) -> Output {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tap/engine");
        cargo(&["build", "--offline", "--locked"], &dir);
    });
    let mut command = Command::new(built("engine"));
    command.arg(common::bundled_model()).args([theta, tokens]);
    for (name, value) in [("LAYERDIFF_TRACE", trace), ("LAYERDIFF_PROMPTS", prompts)] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().unwrap()
}

/// What a trace of its prefill is judged to be, against the reference's prefill.
fn verdict(theta: &str) -> (String, BTreeSet<String>) {
    let root = tempfile::tempdir().unwrap();
    let [reference, out] = ["reference", "out"].map(|name| root.path().join(name));
    prefill(&reference);
    let output = engine(theta, "4", Some(&out), Some(&reference));
    assert!(output.status.success(), "{output:?}");
    judged(&reference, &out, "model.rotary_emb.*")
}

#[test]
fn three_lines_in_an_engine_write_a_trace_that_passes() {
    assert_eq!(verdict("1e7"), ("pass".to_owned(), BTreeSet::new()));
}

#[test]
fn a_wrong_base_of_the_rotation_is_found_in_both_tables() {
    let points = ["cos", "sin"].map(|name| format!("model.rotary_emb.{name}"));
    assert_eq!(verdict("1e4"), ("fault".to_owned(), points.into()));
}

#[test]
fn without_the_variable_the_engine_runs_and_writes_nothing() {
    let output = engine("1e7", "4", None, Some(Path::new("nowhere")));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn an_engine_that_ran_other_tokens_is_told_so_in_its_own_words() {
    let root = tempfile::tempdir().unwrap();
    let output = engine("1e7", "5", Some(&root.path().join("out")), Some(&reference()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("step 0: another shape") && said.contains("expected: [4, 8]"), "{said}");
    assert!(names(root.path()).is_empty());
}

#[test]
fn prompts_are_also_taken_from_a_file_that_has_their_tokens() {
    let root = tempfile::tempdir().unwrap();
    let [file, out] = ["prompts.jsonl", "out"].map(|name| root.path().join(name));
    std::fs::write(&file, r#"{"id": "mine", "token_ids": [3, 1, 2]}"#).unwrap();
    let output = engine("1e7", "3", Some(&out), Some(&file));
    assert!(output.status.success(), "{output:?}");
    let prompts = open(&out).manifest().prompts.clone();
    assert_eq!((prompts.len(), prompts[0].id.as_str(), &prompts[0].token_ids), (1, "mine", &vec![3, 1, 2]));
    std::fs::write(&file, r#"{"id": "mine", "text": "Go on."}"#).unwrap();
    let output = engine("1e7", "3", Some(&root.path().join("other")), Some(&file));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("has no token_ids") && said.contains("no tokenizer"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
