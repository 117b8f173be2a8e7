//! What `layerdiff inspect` shows of a trace.

mod common;

use common::{Draft, Run, layerdiff};
use serde_json::Value;
use tempfile::TempDir;

/// The tiny trace with one decoded token.
fn world() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut draft = Draft::tiny();
    draft.prompts[0].step_token_ids = vec![6];
    draft.at("model.layers.1.mlp.act").map(|i, v| if i == 3 { f32::NAN } else { v });
    draft.with_step(1).write(&root.path().join("trace"));
    root
}

fn inspect(root: &TempDir, args: &[&str]) -> Run {
    let trace = root.path().join("trace");
    let run = layerdiff(&[&["inspect", trace.to_str().unwrap()], args].concat());
    assert_eq!(run.code, 0, "{run:#?}");
    run
}

fn points(value: &Value) -> Vec<&str> {
    value["points"].as_array().unwrap().iter().map(|p| p["point"].as_str().unwrap()).collect()
}

#[test]
fn a_glob_shows_the_point_in_every_layer_that_has_it() {
    let root = world();
    let value = inspect(&root, &["*.mlp.act", "--json"]).json();
    assert_eq!(points(&value), [0, 1, 2, 3].map(|i| format!("model.layers.{i}.mlp.act")));
    assert_eq!(value["points"][1]["statistics"]["nan"], 1);
    let text = inspect(&root, &["*.mlp.act"]).stdout;
    let line = text.lines().find(|l| l.starts_with("model.layers.1.mlp.act")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[1..4], ["F32", "[5,", "12]"], "{line}");
    assert_eq!(words[words.len() - 2..], ["1", "0"], "NaN and infinite numbers are counted: {line}");
}

#[test]
fn a_glob_takes_the_points_of_the_step_that_was_asked_for() {
    let value = inspect(&world(), &["*.mlp.act", "--step", "1", "--json"]).json();
    let steps: Vec<&Value> = value["points"].as_array().unwrap().iter().map(|p| &p["step"]).collect();
    assert_eq!(steps, [1; 4]);
    assert_eq!(value["points"][0]["shape"], serde_json::json!([1, 12]));
}

#[test]
fn a_name_from_a_report_is_understood() {
    let root = world();
    assert_eq!(inspect(&root, &["logits", "--json"]).json()["point"], "lm_head");
    assert_eq!(inspect(&root, &["logits"]).stdout, inspect(&root, &["lm_head"]).stdout);
}

#[test]
fn a_self_check_is_told_in_words() {
    let root = tempfile::tempdir().unwrap();
    let mut draft = Draft::minimal();
    let check = serde_json::json!({"status": "bit-equal", "evidence": [
        {"what": "logits", "entry_point": "run", "elements": 5, "mismatches": 0}]});
    draft.self_check = Some(serde_json::from_value(check).unwrap());
    draft.options.shard_bytes = 1 << 20;
    draft.write(&root.path().join("trace"));
    let text = inspect(&root, &[]).stdout;
    assert!(text.contains("self-check  bit-equal\n"), "{text}");
    assert!(text.contains("3 in 1 shard, "), "{text}");
}
