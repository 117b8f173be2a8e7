//! The release through the real command, with real `PyTorch` and real lattice.

mod common;

use common::{Run, command, finished};
use serde_json::Value;
use std::path::Path;

const SHORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/short.toml");

/// `release` on one short prompt, twelve tokens and two steps by layer; `more` comes last.
fn release(out: &Path, more: &[&str]) -> (Run, Value) {
    let out = out.to_str().unwrap();
    let mut args = vec!["--json", "release", "--prompt", "instruction-07", "--tokens", "12", "--steps", "2"];
    args.extend(["--worst", "1", "--choices", "none", "--profile", SHORT, "--out", out]);
    args.extend(more);
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = finished(command(&args).env("LAYERDIFF_PYTHON", python));
    let report = run.json();
    (run, report)
}

#[test]
#[ignore = "needs PyTorch"]
fn every_engine_has_its_layers_and_its_tokens_in_one_report() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("release");
    let (run, report) = release(&out, &[]);
    assert_eq!(
        report,
        serde_json::from_slice::<Value>(&std::fs::read(out.join("report.json")).unwrap()).unwrap()
    );
    assert_eq!((&report["format"], &report["version"]), (&"layerdiff-release".into(), &1.into()));
    let page = std::fs::read_to_string(out.join("report.md")).unwrap();
    let engines = report["engines"].as_array().unwrap();
    let names: Vec<&str> = engines.iter().map(|e| e["engine"].as_str().unwrap()).collect();
    let all = ["f32", "f16", "q8", "q8_0", "q4", "quarot-q4"].map(|name| format!("lattice-{name}"));
    assert_eq!(names, all);
    for engine in engines {
        let name = engine["engine"].as_str().unwrap();
        assert_eq!(engine["errors"], Value::Array(Vec::new()), "{run:#?}");
        assert_eq!(engine["tokens"]["profile"], "short");
        assert!(engine["tokens"]["mean_kl"].is_number() && engine["tokens"]["greedy_ten"].is_number());
        let criteria = engine["tokens"]["criteria"].as_array().unwrap();
        assert!(criteria.len() == 2 && criteria.iter().all(|c| c["pass"].is_boolean()), "{criteria:?}");
        assert_eq!((&criteria[1]["metric"], &criteria[1]["at_most"]), (&"mean_kl".into(), &0.01.into()));
        let coverage = &engine["layers"]["coverage"];
        assert_eq!(coverage["matched"], coverage["expected"], "{name}");
        for file in ["report.json", "report.md", "junit.xml", "kl.svg"] {
            assert!(out.join(name).join("tokens").join(file).is_file(), "{name} {file}");
        }
        for file in ["report.json", "report.md", "overview.svg", "junit.xml"] {
            assert!(out.join(name).join("layers").join(file).is_file(), "{name} {file}");
        }
        assert!(page.contains(&format!("({name}/tokens/report.md)")), "{page}");
    }
    // The exit code is that of the worst part.
    let outcomes = engines.iter().flat_map(|e| [&e["layers"]["outcome"], &e["tokens"]["outcome"]]);
    let bad = outcomes.filter(|outcome| **outcome != "pass").count();
    assert_eq!(run.code == 0, bad == 0, "{report}");
    assert_eq!(report["outcome"], ["pass", "fault", "unmeasured"][run.code as usize]);
    for exact in ["lattice-f32", "lattice-f16"] {
        let of = engines.iter().find(|e| e["engine"] == exact).unwrap();
        assert_eq!(of["outcome"], "pass", "{exact}");
    }
}

#[test]
#[ignore = "needs PyTorch"]
fn a_planted_fault_fails_the_release_and_its_component_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("release");
    let plant =
        ["--prompt", "code-01", "--engine", "lattice-f16", "--fault", "rope-interleaved", "--layer", "3"];
    let (run, report) = release(&out, &plant);
    assert_eq!((run.code, &report["outcome"]), (1, &"fault".into()), "{run:#?}");
    assert_eq!(report["planted"], "with rope-interleaved planted in layer 3");
    let [engine] = report["engines"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(
        (&engine["layers"]["outcome"], &engine["tokens"]["outcome"]),
        (&"fault".into(), &"fault".into())
    );
    let rope = ["q", "k"].map(|side| format!("model.layers.3.self_attn.{side}_rope"));
    assert!(rope.iter().any(|point| engine["layers"]["first_fault"] == point.as_str()), "{engine}");
    assert!(engine["layers"]["diagnosis"].as_str().unwrap().contains("interleaved"), "{engine}");
    let page = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(page.contains("with rope-interleaved planted in layer 3") && page.contains("_rope"), "{page}");
    let failures = std::fs::read_to_string(out.join("junit.xml")).unwrap().matches("<failure ").count();
    // The layer, the outcome of the layers, two criteria, the outcome of the tokens.
    assert_eq!(failures, 5);
    let shown = finished(&mut command(&["show", out.to_str().unwrap(), "--format", "github"]));
    assert!(shown.code == 0 && shown.stdout.len() < 65_000, "{shown:#?}");
    let [verdict, curve] = ["# FAULT: release", "```text\n"].map(|part| shown.stdout.find(part).unwrap());
    assert!(verdict == 0 && curve > verdict && shown.stdout.contains("<details open>"), "{shown:#?}");
}

#[test]
#[ignore = "needs PyTorch"]
fn a_criterion_that_the_run_is_too_short_for_is_said_before_it_and_leaves_the_release_unmeasured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("release");
    let mut args =
        vec!["release", "--prompt", "instruction-07", "--tokens", "2", "--steps", "0", "--worst", "0"];
    args.extend(["--choices", "none", "--engine", "lattice-f16", "--out", out.to_str().unwrap()]);
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = finished(command(&args).env("LAYERDIFF_PYTHON", python));
    assert_eq!(run.code, 2, "{run:#?}");
    let said: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("note: ")).collect();
    assert_eq!(
        said,
        [
            "note: profile fp16 will be UNMEASURED: greedy_match, first 10 tokens needs --tokens 10",
            "note: profile fp16 will be UNMEASURED: mean_kl, first 100 tokens needs --tokens 100",
        ]
    );
    assert!(run.stdout.starts_with("UNMEASURED"), "{run:#?}");
}
