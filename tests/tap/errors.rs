//! What an engine may do wrong is told at the end, in words that help, and leaves nothing behind.

use super::{common, names, open, tiny_model};
use layerdiff::tap::Tap;
use std::path::Path;

/// What `finish` says after `calls`, which come after the prompt `a` of two tokens.
fn said(calls: impl FnOnce(&Tap)) -> String {
    let (root, model) = (tempfile::tempdir().unwrap(), tiny_model());
    let tap = Tap::to(root.path().join("deep/out"), "test", "1", model.path()).unwrap();
    tap.prompt("a", &[1, 2]);
    tap.tensor("model.norm", &[2, 8], &[0.5_f32; 16]);
    calls(&tap);
    let error = tap.finish().unwrap_err().to_string();
    assert!(names(root.path()).is_empty(), "{error}");
    assert!(!tap.is_on());
    error
}

#[track_caller]
fn all_in(error: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

const HEAD: &str = "lm_head";

#[test]
fn a_mistyped_point_is_answered_with_the_nearest() {
    let error = said(|tap| tap.tensor("model.layers.3.mlp.act_fn", &[2, 12], &[0.0_f32; 24]));
    all_in(&error, &["no point `model.layers.3.mlp.act_fn`", "did you mean `model.layers.3.mlp.act`?"]);
}

#[test]
fn another_shape_than_the_model_s_is_refused_with_the_step() {
    let error = said(|tap| tap.tensor(HEAD, &[32, 2], &[0.0_f32; 64]));
    all_in(&error, &["`lm_head` in step 0", "expected: [2, 32]", "got: [32, 2]"]);
    let error = said(|tap| {
        tap.step(3);
        tap.tensor(HEAD, &[2, 32], &[0.0_f32; 64]);
    });
    all_in(&error, &["`lm_head` in step 1", "expected: [1, 32]"]);
}

#[test]
fn another_number_of_values_than_the_shape_says_is_refused() {
    all_in(&said(|tap| tap.tensor(HEAD, &[2, 32], &[0.0_f32; 63])), &["expected: 64 for [2, 32]", "got: 63"]);
    let error = said(|tap| tap.strided(HEAD, &[2, 32], &[33, 1], &[0.0_f32; 64]));
    all_in(&error, &["expected: at least 65 for [2, 32]"]);
    let error = said(|tap| tap.strided(HEAD, &[2, 32], &[usize::MAX, 1], &[0.0_f32; 64]));
    all_in(&error, &["a shape that fits in memory"]);
    let error = said(|tap| tap.strided(HEAD, &[2, 32], &[1], &[0.0_f32; 64]));
    all_in(&error, &["`lm_head`", "as many strides as sizes"]);
}

#[test]
fn a_mask_for_numbers_and_numbers_for_a_mask_are_refused() {
    let mask = "model.layers.3.self_attn.attention_mask";
    all_in(&said(|tap| tap.tensor(HEAD, &[2, 32], &[0_u8; 64])), &["another type", "got: U8"]);
    all_in(&said(|tap| tap.tensor(mask, &[2, 2], &[0.0_f32; 4])), &["expected: U8, a mask", "got: F32"]);
    all_in(&said(|tap| tap.tensor(mask, &[2, 2], &[0_u8, 1, 2, 0])), &["not a mask", "got: 2"]);
    let error = said(|tap| tap.strided(mask, &[2, 2], &[3, 1], &[0_u8, 1, 7, 2, 0]));
    all_in(&error, &["not a mask", "got: 2"]);
}

#[test]
fn what_strides_skip_is_not_part_of_a_mask() {
    let (root, model) = (tempfile::tempdir().unwrap(), tiny_model());
    let tap = Tap::to(root.path().join("out"), "test", "1", model.path()).unwrap();
    let mask = "model.layers.3.self_attn.attention_mask";
    tap.prompt("a", &[1, 2]);
    tap.strided(mask, &[2, 2], &[3, 1], &[1_u8, 0, 7, 1, 1, 9]);
    tap.finish().unwrap();
    let trace = open(&root.path().join("out"));
    assert_eq!(trace.view(trace.find("a", 0, mask).unwrap()).bytes, [1, 0, 1, 1]);
}

#[test]
fn a_tensor_that_comes_twice_is_refused_with_the_usual_cause() {
    let error = said(|tap| tap.tensor("model.norm", &[2, 8], &[0.5_f32; 16]));
    all_in(&error, &["`model.norm` (step 0, prompt `a`) was tapped twice", "warm-up"]);
    let error = said(|tap| tap.rows("model.norm", 1, &[1, 8], &[0.5_f32; 8]));
    all_in(&error, &["was tapped twice"]);
}

#[test]
fn rows_must_be_all_there_of_one_type_and_within_the_tensor() {
    let row = |first: usize| move |tap: &Tap| tap.rows(HEAD, first, &[1, 32], &[0.0_f32; 32]);
    all_in(
        &said(row(0)),
        &["`lm_head` (step 0, prompt `a`) lacks rows", "expected: 2 rows", "none at row 1"],
    );
    all_in(&said(row(1)), &["none at row 0"]);
    all_in(&said(row(2)), &["expected: rows of [2, 32]", "got: [1, 32] from row 2 on"]);
    all_in(&said(row(usize::MAX)), &["rows of [2, 32]"]);
    all_in(&said(|tap| tap.rows(HEAD, 0, &[0, 32], &[0.0_f32; 0])), &["rows of [2, 32]"]);
    all_in(&said(|tap| tap.rows(HEAD, 0, &[], &[0.0_f32; 1])), &["rows of [2, 32]"]);
    let error = said(|tap| {
        row(0)(tap);
        tap.rows(HEAD, 1, &[1, 32], &[0.0_f64; 32]);
    });
    all_in(&error, &["rows of `lm_head`", "different types", "F32", "F64"]);
}

#[test]
fn bad_prompts_and_tokens_are_refused() {
    all_in(&said(|tap| tap.prompt("a", &[1])), &["two prompts share the id `a`", "warm-up"]);
    all_in(&said(|tap| tap.prompt("../b", &[1])), &["bad id", "../b"]);
    all_in(&said(|tap| tap.prompt("b", &[])), &["prompt `b` has no tokens"]);
    all_in(&said(|tap| tap.prompt("b", &[32])), &["outside the model's vocabulary", "below 32"]);
    all_in(&said(|tap| tap.step(99)), &["outside the model's vocabulary", "got: 99"]);
}

#[test]
fn the_first_error_is_the_one_that_is_told() {
    let error = said(|tap| {
        tap.step(99);
        tap.tensor("nonsense", &[1], &[0.0_f32]);
    });
    all_in(&error, &["got: 99"]);
}

#[test]
fn a_tensor_before_any_prompt_is_refused_with_both_ways_out() {
    let (root, model) = (tempfile::tempdir().unwrap(), tiny_model());
    let tap = Tap::to(root.path().join("out"), "test", "1", model.path()).unwrap();
    tap.tensor("model.norm", &[2, 8], &[0.5_f32; 16]);
    all_in(&tap.finish().unwrap_err().to_string(), &["before any prompt", "`prompt`", "LAYERDIFF_PROMPTS"]);
    assert!(names(root.path()).is_empty());
}

#[test]
fn a_tap_that_is_told_nothing_writes_nothing_and_says_so() {
    let (root, model) = (tempfile::tempdir().unwrap(), tiny_model());
    let tap = Tap::to(root.path().join("out"), "test", "1", model.path()).unwrap();
    all_in(&tap.finish().unwrap_err().to_string(), &["nothing was tapped"]);
    assert!(names(root.path()).is_empty());
    // It is off now, and a second end has nothing to say.
    tap.finish().unwrap();
}

#[test]
fn a_tap_that_is_not_finished_leaves_nothing() {
    let (root, model) = (tempfile::tempdir().unwrap(), tiny_model());
    let tap = Tap::to(root.path().join("deep/out"), "test", "1", model.path()).unwrap();
    tap.prompt("a", &[1, 2]);
    tap.tensor("model.norm", &[2, 8], &[0.5_f32; 16]);
    assert!(names(root.path()).is_empty(), "also while it runs");
    drop(tap);
    assert!(names(root.path()).is_empty());
}

#[test]
fn a_bad_target_or_model_is_refused_before_the_engine_runs() {
    let (root, model) = (tempfile::tempdir().unwrap(), tiny_model());
    let start = |target: &Path, model: &Path| Tap::to(target, "test", "1", model).unwrap_err().to_string();
    all_in(&start(root.path(), model.path()), &["already exists"]);
    all_in(&start(&root.path().join("out"), root.path()), &["cannot read the model's configuration"]);
    std::fs::write(root.path().join("config.json"), r#"{"model_type": "mamba"}"#).unwrap();
    all_in(&start(&root.path().join("out"), root.path()), &["no description for model_type `mamba`"]);
    assert_eq!(names(root.path()), ["config.json"]);
}

#[test]
fn weights_that_are_not_the_model_s_are_said_to_be_others() {
    let root = tempfile::tempdir().unwrap();
    let other = common::Form::F32.write(|_, _| ());
    let tap = Tap::to(root.path().join("out"), "test", "1", common::bundled_model()).unwrap();
    tap.quantized(Some(other.path()));
    tap.prompt("a", &[1, 2]);
    tap.tensor("model.norm", &[2, 128], &[0.5_f32; 256]);
    tap.finish().unwrap();
    let provenance = open(&root.path().join("out")).manifest().provenance.clone();
    assert!(provenance.quantized);
    let hashes = provenance.hashes;
    assert!(hashes.weights.is_some() && hashes.dequantized.is_some() && hashes.weights != hashes.dequantized);
}

#[test]
fn dequantized_weights_must_be_there() {
    let without = tiny_model();
    let refused = |dir: &Path, why: &str| {
        let error = said(|tap| tap.quantized(Some(dir)));
        all_in(&error, &[why, dir.to_str().unwrap()]);
    };
    refused(without.path(), "no weights where the engine's dequantized ones should be");
    refused(&without.path().join("nowhere"), "cannot list the model's directory");
}
