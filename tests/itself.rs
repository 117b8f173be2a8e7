//! Engines against themselves and against each other, without PyTorch.

mod common;

use common::changed::Changed;
use common::{Run, bundled_model, layerdiff};
use layerdiff::basis::Gains;
use layerdiff::capture::{Request, capture_fed, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::{CANDIDATES, Engine};
use layerdiff::floor::Floor;
use layerdiff::hook::At;
use layerdiff::model::PointFilter;
use layerdiff::report::{Options, Outcome, Report, assemble};
use layerdiff::split::{Feed, cut};
use layerdiff::tensor::{Tensor, Values};
use layerdiff::trace::Trace;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Points of a step of the bundled model, and how many of them are states that a pass leaves at its end.
const POINTS: usize = 187;
const STATES: usize = 2 * 6;
/// Linears of its layers, all of which the bundled adapter changes.
const LINEARS: usize = 62;
/// Decode steps when nobody says how many.
const STEPS: usize = 4;

/// Some tokens, different for each length.
fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 7 + i * 31 + n) % 2048).collect()
}

/// A directory with prompts of these lengths, for the command.
fn prompts(lengths: &[u32]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let lines = lengths.iter().map(|n| json!({"id": format!("n-{n}"), "token_ids": tokens(*n)}).to_string());
    let path = dir.path().join("prompts.jsonl");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    (dir, path)
}

/// `layerdiff run` on prompts of these lengths, with its report's directory.
fn run(lengths: &[u32], args: &[&str]) -> (Run, TempDir) {
    let (dir, prompts) = prompts(lengths);
    let (prompts, out) = (prompts.to_str().unwrap().to_owned(), dir.path().join("report"));
    let common = ["run", "--json", "--prompts", &prompts, "--out", out.to_str().unwrap()];
    (layerdiff(&[&common[..], args].concat()), dir)
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path.join("report.json")).unwrap()).unwrap()
}

/// All `expected` points were compared and pass; returns the largest error.
#[track_caller]
fn passes(report: &Value, expected: usize) -> f64 {
    assert_eq!(report["outcome"], "pass", "{}", report["verdict"]);
    assert_eq!(report["self_check"]["status"], "bit-equal", "{}", report["self_check"]);
    let coverage = json!({"expected": expected, "matched": expected, "mismatched": 0, "unmeasured": 0});
    assert_eq!(report["coverage"], coverage, "{}", report["engine"]);
    let errors = report["points"].as_array().unwrap().iter().map(|p| p["rel_l2"].as_f64().unwrap());
    errors.fold(0.0, f64::max)
}

#[test]
fn every_engine_agrees_with_itself_and_a_serial_one_bit_for_bit() {
    let lengths = [2, 5, 65, 130];
    let expected = lengths.len() * (POINTS * (2 + STEPS) - STATES);
    let (all, dir) = run(&lengths, &["--reference", "self", "--engine", "all"]);
    assert_eq!((all.code, &all.json()["outcome"]), (0, &json!("pass")), "{}", all.stderr);
    for engine in CANDIDATES {
        let report = report(&dir.path().join("report").join(engine));
        let error = passes(&report, expected);
        assert_eq!(report["arms"]["quantization"]["status"], "exact");
        // The prefill of the f32 engine is batched and its decode is serial: they round differently.
        assert!(if engine == "lattice-f32" { error < 1e-5 } else { error == 0.0 }, "{engine}: {error}");
        assert_eq!(report["points"].as_array().unwrap().len(), expected / lengths.len());
    }
    let serial = ["--reference", "self", "--engine", "lattice-f32", "--path", "serial"];
    assert_eq!(passes(&run(&lengths, &serial).0.json(), expected), 0.0);
}

#[test]
fn a_run_against_itself_says_what_was_compared_and_what_cannot_be() {
    let (run, dir) = run(&[9], &["--reference", "self", "--engine", "lattice-f32", "--steps", "0"]);
    let report = run.json();
    passes(&report, 2 * POINTS - STATES);
    let path = |side: &str| report["provenance"][side]["path"].clone();
    assert_eq!(path("reference"), "batched, 8 tokens and 1 step");
    assert_eq!(path("candidate"), "batched, 9 tokens");
    let states: Vec<&Value> = report["points"].as_array().unwrap().iter().filter(|p| is_state(p)).collect();
    assert_eq!(states.len(), STATES);
    assert!(states.iter().all(|p| p["step"] == 1), "{states:?}");
    let note = report["warnings"][0].as_str().unwrap();
    assert!(note.contains("12 states at the end of step 0 are unmeasured by nature"), "{note}");
    let page = std::fs::read_to_string(dir.path().join("report/report.md")).unwrap();
    assert!(page.starts_with("# PASS: lattice-f32 against itself"), "{page}");
    assert!(page.contains("batched, 9 tokens; against batched, 8 tokens and 1 step"), "{page}");
}

fn is_state(point: &Value) -> bool {
    point["point"].as_str().unwrap().ends_with("_state")
}

#[test]
fn an_engine_with_an_adapter_agrees_with_itself() {
    let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/adapter");
    let args = ["--reference", "self", "--lora", adapter.to_str().unwrap(), "--steps", "1"];
    for (path, limit) in [("serial", 0.0), ("batched", 1e-5)] {
        let (run, _dir) = run(&[5], &[&args[..], &["--engine", "lattice-f32", "--path", path]].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        // A linear is four points: with the weights alone, down, up and the sum.
        assert!(passes(&run.json(), 3 * (POINTS + 3 * LINEARS) - STATES) <= limit);
    }
}

#[test]
fn serial_and_batched_agree_within_customary_tolerances() {
    let lengths = [1, 2, 5, 65, 130];
    let expected = lengths.len() * POINTS * (1 + STEPS);
    for (reference, path) in [("lattice-f32:serial", "batched"), ("lattice-f32", "serial")] {
        let args = ["--reference", reference, "--engine", "lattice-f32", "--path", path];
        let report = run(&lengths, &args).0.json();
        let error = passes(&report, expected);
        assert!((1e-8..1e-5).contains(&error), "{reference} against {path}: {error}");
        assert_eq!(report["floor"]["kind"], "preset");
        assert_eq!(report["provenance"]["candidate"]["path"], path);
        assert_ne!(report["provenance"]["reference"]["path"], path);
    }
}

#[test]
fn all_engines_against_one_of_them_are_the_others_and_replay_sees_what_quantization_hides() {
    let (all, dir) = run(&[5], &["--reference", "lattice-f16", "--engine", "all", "--steps", "1"]);
    let set = all.json();
    // The convolution of Q8_0 is proved wrong by its own inputs.
    assert_eq!((all.code, &set["outcome"]), (1, &json!("fault")));
    for engine in set["engines"].as_array().unwrap() {
        let wanted = if engine["engine"] == "lattice-q8_0" { "fault" } else { "pass" };
        assert_eq!(engine["outcome"], wanted, "{engine}");
    }
    let engines: Vec<&str> =
        set["engines"].as_array().unwrap().iter().map(|e| e["engine"].as_str().unwrap()).collect();
    assert_eq!(engines, CANDIDATES.into_iter().filter(|e| *e != "lattice-f16").collect::<Vec<_>>());
    let f32 = report(&dir.path().join("report/lattice-f32"));
    assert!(passes(&f32, 2 * POINTS) > 0.0);
    assert_eq!(f32["arms"]["quantization"]["status"], "stated");
    // Whichever side is quantized: its price is not known, the candidate's components are.
    let (run, _dir) = run(&[5], &["--reference", "lattice-q8", "--engine", "lattice-f32", "--steps", "1"]);
    let report = run.json();
    assert_eq!((run.code, &report["outcome"]), (0, &json!("pass")), "{}", report["verdict"]);
    assert_eq!(report["verdict"]["rests_on"], "replay");
    assert_eq!(report["arms"]["quantization"]["status"], "unmeasured");
}

/// What the decode steps of an engine compute in place of what its prefill does.
fn forgetful(at: At<'_>, _: usize, tensor: &mut Tensor) {
    match &mut tensor.values {
        _ if at.step == 0 => {}
        Values::F32(values) => values.iter_mut().for_each(|v| *v *= 1.01),
        // The token loses sight of the first.
        Values::U8(values) => values[0] = 0,
    }
}

/// Holds an engine against itself on a prompt of five tokens and one decode step after it.
fn judge(model: &ModelDir, engine: &mut dyn Engine) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let prompts = [cut(&common::prompt("p", &tokens(5))).unwrap()];
    let points = PointFilter::default();
    let request =
        Request { model, prompts: &prompts, steps: 2, points: &points, dequantized: None, quiet: true };
    let traces = [(Feed::Apart, "reference"), (Feed::Joined, "candidate")].map(|(feed, name)| {
        let path = dir.path().join(name);
        capture_fed(feed, engine, &request, &path).unwrap();
        Trace::open(&path).unwrap()
    });
    let options = Options {
        graph: model.graph(),
        points: &points,
        floor: &Floor::Preset,
        floors: &[],
        quantized: None,
        held: None,
        reference_held: None,
        gains: &Gains::default(),
        other_weights: false,
        live: None,
        command: Vec::new(),
        quiet: true,
    };
    assemble(&traces[0], &traces[1], &options).unwrap()
}

#[test]
fn an_error_in_the_decode_step_alone_is_found_at_its_point() {
    let model = ModelDir::open(&bundled_model()).unwrap();
    // A GatedDeltaNet layer and one of full attention, and what is outside of the layers.
    let elsewhere = |layer: Option<usize>| layer.is_none_or(|i| [0, 3].contains(&i));
    let points =
        || model.graph().components().iter().filter(|c| elsewhere(c.layer)).map(|c| c.point.as_str());
    for name in ["lattice-f32", "lattice-f16", "lattice-quarot-q4"] {
        let mut engine = open_engine(name, &model, None).unwrap();
        assert_eq!(judge(&model, engine.as_mut()).outcome, Outcome::Pass);
        for point in points() {
            let report = judge(&model, &mut Changed::new(engine.as_mut(), point, forgetful));
            let first = report.first_fault.unwrap_or_else(|| panic!("{name}: nothing found at {point}"));
            assert_eq!((first.point.as_str(), first.step), (point, 1), "{name}: {}", first.reason);
            assert_eq!(report.outcome, Outcome::Fault);
        }
    }
}
