//! A release in parts, and the parts that it refuses.

use crate::common::{self, tree};
use crate::tokens::{DUMPS, with_dumps};
use crate::world::{World, refused};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

/// `release` on the stand-in's dumps.
fn release_line(more: &str) -> String {
    DUMPS.replacen("tokens ", "release --engine lattice-f16 --worst 0 ", 1) + more
}

/// The parts of a release as a scheduler lays them out.
fn with_parts() -> (World, String) {
    let world = with_dumps(|_| ());
    let rows = world.run(&release_line(" --part tokens")).json();
    let rows: Vec<String> = rows.as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(rows.len(), 1);
    std::fs::create_dir(world.path("parts")).unwrap();
    world.file("parts/lattice-f16.tokens.jsonl", &rows[0]);
    let layers = world.run(&release_line(" --part layers"));
    assert_eq!(layers.code, 2, "{layers:#?}");
    let error = layers.stderr.strip_prefix("error: ").unwrap().trim_end();
    world.file("parts/lattice-f16.layers.error", error);
    let worst = world.run(&release_line(" --parts @parts --part worst"));
    world.file("parts/lattice-f16.worst.json", &worst.stdout);
    let [row] = rows.try_into().unwrap();
    (world, row)
}

#[test]
fn a_release_of_parts_is_the_release_byte_for_byte() {
    let (world, _) = with_parts();
    let whole = world.run(&release_line(""));
    // The error names a temporary directory, which is another in each run.
    let report = std::fs::read_to_string(world.path("out/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let error = report["engines"][0]["errors"][0].as_str().unwrap();
    world.file("parts/lattice-f16.layers.error", error.strip_prefix("layers: ").unwrap());
    let expected = tree(&world.path("out"));
    assert!(expected.len() > 5);
    for spelling in [" --parts @parts", " --parts=parts"] {
        std::fs::remove_dir_all(world.path("out")).unwrap();
        let parts = world.run(&release_line(spelling));
        assert_eq!((parts.code, &parts.stdout), (whole.code, &whole.stdout), "{parts:#?}");
        assert_eq!(tree(&world.path("out")), expected, "{spelling}");
    }
}

#[test]
fn a_plan_says_what_there_is_to_do() {
    let world = with_dumps(|_| ());
    let plan = || world.run(&release_line(" --part plan")).json();
    let first = plan();
    assert_eq!((&first["engines"][0], &first["prompts"][0]["id"]), (&"lattice-f16".into(), &"p".into()));
    assert_eq!(first["job"]["setting"]["tokens"], 1);
    assert_eq!(first["python"], world.path("python").to_str().unwrap());
    assert_eq!(plan(), first);
    for other in [
        r#"{"id": "p", "token_ids": [1, 2, 4]}"#,
        r#"{"id": "p", "token_ids": [1, 2, 3], "category": "code"}"#,
    ] {
        world.file("prompts.jsonl", other);
        assert_ne!(plan()["job"]["prompts"], first["job"]["prompts"], "{other}");
    }
}

#[test]
fn a_part_of_several_engines_is_refused() {
    refused!(World::new(), "release --part tokens --choices none");
}

#[test]
fn a_part_of_an_unknown_prompt_is_refused() {
    refused!(World::new(), "release --engine lattice-f16 --part tokens --only nowhere --choices none");
}

#[test]
fn the_worst_prompts_need_the_rows() {
    refused!(World::new(), "release --engine lattice-f16 --part worst --choices none");
}

#[test]
fn a_release_without_its_parts_is_refused() {
    let (world, _) = with_parts();
    world.file("parts/lattice-f16.tokens.jsonl", "");
    refused!(world, &release_line(" --parts @parts"));
}

#[test]
fn a_part_that_is_there_twice_is_refused() {
    let (world, row) = with_parts();
    world.file("parts/lattice-f16.tokens.jsonl", &format!("{row}\n{row}\n"));
    refused!(world, &release_line(" --parts @parts"));
}

#[test]
fn a_part_that_was_made_with_another_number_of_threads_is_refused() {
    let (world, row) = with_parts();
    let mut other: Value = serde_json::from_str(&row).unwrap();
    other["candidate"]["threads"] = 99.into();
    world.file("parts/lattice-f16.tokens.jsonl", &format!("{row}\n{other}\n"));
    let run = world.run(&release_line(" --parts @parts"));
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("the part of `p` was made by other hands"), "{run:#?}");
    assert!(run.stderr.contains("threads 99"), "{run:#?}");
}

/// Runs the release of these parts, which must be refused with these words.
#[track_caller]
fn refused_parts(world: &World, more: &str, words: &[&str]) {
    let run = world.run(&release_line(&format!(" --parts @parts{more}")));
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:#?}");
    assert!(words.iter().all(|word| run.stderr.contains(word)), "{words:?} {run:#?}");
    assert!(run.stderr.contains("\n  hint: "), "{run:#?}");
}

/// The bundled model with a line more in its configuration, in `model`.
fn add_model(world: &World) {
    let bundled = common::bundled_model();
    let config = std::fs::read_to_string(bundled.join("config.json")).unwrap();
    std::fs::create_dir(world.path("model")).unwrap();
    world.file("model/config.json", &format!("{config}\n"));
    for name in ["model.safetensors", "tokenizer.json"] {
        symlink(bundled.join(name), world.path("model").join(name)).unwrap();
    }
}

#[test]
fn rows_of_another_engine_model_or_option_are_refused() {
    let (world, row) = with_parts();
    add_model(&world);
    let made: Value = serde_json::from_str(&row).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut other = made.clone();
        change(&mut other);
        world.file("parts/lattice-f16.tokens.jsonl", &other.to_string());
    };
    refused_parts(&world, " --model @model", &["`p` is of another release", "model.config \"sha256:"]);
    refused_parts(&world, " --steps 3", &["`p` is of another release", "steps 3", "steps 16"]);
    refused_parts(&world, " --temperature 2", &["`p` is of another release", "setting.temperature 2.0"]);
    let other = world.run(&release_line(" --part plan --model @model")).json()["job"].clone();
    with(&|row| row["job"] = other.clone());
    // Who forges the job has the runs against him.
    refused_parts(&world, " --model @model", &["`p` is of another model", "config \"sha256:"]);
    with(&|row| row["engine"] = "lattice-q8_0".into());
    refused_parts(&world, "", &["`p` is of another engine", "lattice-q8_0"]);
    with(&|row| row["candidate"]["engine"] = "lattice-q8_0".into());
    refused_parts(&world, "", &["`p` is of another engine", "lattice-q8_0"]);
    with(&|row| row["result"]["prompt_tokens"] = 4.into());
    refused_parts(&world, "", &["`p` is of other tokens"]);
    with(&|row| drop(row.as_object_mut().unwrap().remove("job")));
    refused_parts(&world, "", &["the part is malformed: missing field `job`"]);
}

#[test]
fn answers_to_another_question_are_refused() {
    let (world, row) = with_parts();
    world.file(
        "choices.jsonl",
        r#"{"question": "Why?", "choices": ["a", "b", "c", "d"], "answer": 0, "subject": "sea"}"#,
    );
    let asked = " --choices @choices.jsonl";
    let line = |more: &str| release_line(more).replace(" --choices none", asked);
    let mut prompt: Value = serde_json::from_str(&row).unwrap();
    prompt["job"] = world.run(&line(" --part plan")).json()["job"].clone();
    let mut answer = prompt.clone();
    answer["id"] = "question-0001".into();
    answer["kind"] = "question".into();
    answer["result"] = json!({
        "id": "question-0001", "subject": "sea", "answer": 0, "token_ids": [1], "letters": [1, 2, 3, 4],
        "reference": [-1.0, -2.0, -3.0, -4.0], "candidate": [-1.0, -2.0, -3.0, -4.0],
    });
    world.file("parts/lattice-f16.tokens.jsonl", &format!("{prompt}\n{answer}\n"));
    let run = world.run(&line(" --parts @parts"));
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("the part of `question-0001` is of other tokens"), "{run:#?}");
}

#[test]
fn a_report_by_layer_of_another_engine_or_job_is_refused() {
    let (world, row) = with_parts();
    let row: Value = serde_json::from_str(&row).unwrap();
    std::fs::remove_file(world.path("parts/lattice-f16.layers.error")).unwrap();
    let mut report = world.run("compare @reference @candidate --json").json();
    let lay = |sheet: &Value| world.file("parts/lattice-f16.layers.json", &sheet.to_string());
    lay(&report);
    refused_parts(&world, "", &["the part is malformed: missing field"]);
    let mut sheet = json!({"engine": "lattice-q8_0", "job": row["job"], "result": report});
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another engine", "lattice-q8_0"]);
    sheet["engine"] = "lattice-f16".into();
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another engine"]);
    report["provenance"]["candidate"]["engine"] = "lattice-f16".into();
    sheet["result"] = report.clone();
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another model"]);
    report["provenance"]["reference"]["hashes"] = row["reference"]["hashes"].clone();
    sheet["result"] = report;
    sheet["job"]["fault"] = "rope-interleaved".into();
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another release", "fault \"rope-interleaved\""]);
    sheet["job"] = row["job"].clone();
    lay(&sheet);
    let run = world.run(&release_line(" --parts @parts --json"));
    assert!(run.json()["engines"][0]["layers"].is_object(), "{run:#?}");
}

#[test]
fn what_was_found_in_other_prompts_or_engines_is_refused() {
    let (world, row) = with_parts();
    let row: Value = serde_json::from_str(&row).unwrap();
    let greedy = json!({"reference": [4], "candidate": [5], "divergence": null});
    let worst = json!({
        "id": "p", "prompt": "", "common": "", "reference": "", "candidate": "", "greedy": greedy,
        "top": [[], []], "layers": null,
    });
    let mut sheet = json!({"engine": "lattice-q8_0", "job": row["job"], "result": worst});
    let lay = |sheet: &Value| world.file("parts/lattice-f16.worst.json", &format!("[{sheet}]"));
    lay(&sheet);
    refused_parts(&world, "", &["the part of the worst prompts is of another engine", "lattice-q8_0"]);
    sheet["engine"] = "lattice-f16".into();
    lay(&sheet);
    refused_parts(&world, "", &["the part of the worst prompts is of others", "none", "p"]);
    sheet["job"]["worst"] = 5.into();
    lay(&sheet);
    refused_parts(&world, "", &["the part of the worst prompts is of another release", "worst 5"]);
}

#[test]
fn a_missing_model_directory_is_named_by_release() {
    refused!(World::new(), "release --model @model --out @out");
}

#[test]
fn more_steps_than_the_model_takes_are_refused_by_release_before_an_engine_runs() {
    let line = DUMPS.replacen("tokens ", "release --steps 100000 ", 1);
    refused!(with_dumps(|_| ()), &line);
}

#[test]
fn an_unknown_fault_is_answered_with_the_nearest_by_tokens() {
    refused!(World::new(), "tokens --fault rope-interleavd --out @out");
}

#[test]
fn a_release_of_an_unknown_engine_is_answered_with_the_nearest() {
    refused!(World::new(), "release --engine lattice-f61 --out @out");
}
