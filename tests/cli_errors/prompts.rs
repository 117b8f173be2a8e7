//! Prompts, engines, references and points that are not there.

use crate::common::Draft;
use crate::world::{CAPTURE, CAPTURE_BUNDLED, COMPARE, RUN, World, refused};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::Path;

#[test]
fn an_unknown_engine_is_answered_with_the_nearest() {
    refused!(World::new(), &CAPTURE_BUNDLED.replace("lattice-f32", "latice-f32"));
}

#[test]
fn an_unknown_path_is_answered_with_the_known_ones() {
    refused!(World::new(), &format!("{CAPTURE_BUNDLED} --path paralel"));
}

#[test]
fn an_unknown_prompt_is_answered_with_the_nearest() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"code-01\", \"text\": \"x\"}");
    refused!(world, &format!("{CAPTURE_BUNDLED} --prompt code-1"));
}

#[test]
fn a_prompt_that_the_reference_lacks_is_refused_by_run() {
    let mut draft = Draft::tiny();
    draft.options.provenance.hashes = layerdiff::trace::Hashes::default();
    let world = World::new();
    draft.write(&world.path("bare"));
    refused!(world, "run --model @@ --reference @bare --prompt code-01 --out @report");
}

#[test]
fn a_mistyped_reference_is_answered_with_the_nearest_engine() {
    refused!(World::new(), &RUN.replace("@reference", "latice-f32:serial"));
}

#[test]
fn a_mistyped_word_for_a_reference_is_answered_with_the_nearest() {
    refused!(World::new(), &RUN.replace("@reference", "slef"));
}

#[test]
fn an_unknown_path_of_the_reference_is_answered_with_the_known_ones() {
    refused!(World::new(), &RUN.replace("@reference", "lattice-f32:paralel"));
}

#[test]
fn a_reference_that_is_the_candidate_is_refused() {
    refused!(
        World::new(),
        &format!("{} --engine lattice-f32", RUN.replace("@reference", "lattice-f32:batched"))
    );
}

#[test]
fn a_prompt_of_one_token_cannot_be_cut() {
    let world = World::new();
    world.file("prompts.jsonl", r#"{"id": "one", "token_ids": [7]}"#);
    refused!(world, &format!("{} --prompts @prompts.jsonl", RUN.replace("@reference", "self")));
}

#[test]
fn an_engine_against_itself_has_no_arm_of_other_weights() {
    refused!(World::new(), &format!("{} --quantized @candidate", RUN.replace("@reference", "self")));
}

#[test]
fn a_floor_of_pytorch_is_none_for_an_engine_against_itself() {
    let floor = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/floors/float64.json");
    let world = World::new();
    symlink(floor, world.path("floor.json")).unwrap();
    let run = RUN.replace("@reference", "self");
    refused!(world, &format!("{run} --prompts @prompts.jsonl --engine lattice-f32 --floor @floor.json"));
}

#[test]
fn a_trace_whose_name_is_a_word_is_reached_by_its_path() {
    let world = World::new();
    Draft::tiny().write(&world.path("self"));
    let run = world.run("run --model @@ --reference ./self --out @report");
    assert!(run.stderr.contains("the trace was captured on another model"), "{run:#?}");
}

#[test]
fn a_missing_file_of_prompts_is_named() {
    let world = World::new();
    std::fs::remove_file(world.path("prompts.jsonl")).unwrap();
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn an_empty_file_of_prompts_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "\n\n");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_malformed_line_of_prompts_is_named_by_its_number() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"x\"}\n\n{\"id\": \"b\", \"text\": }\n");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_with_a_bad_id_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"../a\", \"text\": \"x\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_whose_id_is_the_parent_directory_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"..\", \"text\": \"x\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_with_nothing_in_it_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn two_prompts_of_one_id_are_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"a\", \"text\": \"y\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"token_ids\": [1, 4000000000]}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_that_is_too_long_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", &json!({"id": "a", "token_ids": vec![1; 9000]}).to_string());
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_model_without_a_tokenizer_takes_no_text() {
    let world = World::with_config(|_| ());
    std::fs::remove_file(world.path("model/tokenizer.json")).unwrap();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"x\"}");
    refused!(world, CAPTURE);
}

#[test]
fn a_bad_glob_is_explained() {
    refused!(World::new(), &format!("{COMPARE} --points *.{{q_rope"));
}

#[test]
fn a_glob_that_chooses_nothing_is_refused_by_compare() {
    refused!(World::new(), &format!("{COMPARE} --points *.q_rop"));
}

#[test]
fn a_glob_that_chooses_nothing_is_refused_by_capture() {
    refused!(World::new(), &format!("{CAPTURE_BUNDLED} --points *.q_rop"));
}

#[test]
fn an_unknown_choice_of_rows_is_answered_with_the_known_ones() {
    refused!(World::new(), &format!("{CAPTURE_BUNDLED} --scores rows:1"));
}
