//! Token metrics through the real command, with real `PyTorch` and real lattice.

mod common;

use common::{Run, command, finished, tree};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `tokens` on two short prompts; `more` comes last.
fn tokens(out: &Path, more: &[&str]) -> (Run, Value) {
    let prompts = ["--prompt", "instruction-07", "--prompt", "code-01"];
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/short.toml");
    let mut args =
        vec!["--json", "tokens", "--tokens", "12", "--worst", "1", "--profile", profile, "--out", path(out)];
    args.extend(prompts);
    args.extend(more);
    let run = layerdiff(&args);
    let report = run.json();
    (run, report)
}

/// Runs the command with the Python that has `PyTorch`.
fn layerdiff(args: &[&str]) -> Run {
    finished(command(args).env("LAYERDIFF_PYTHON", python()))
}

fn python() -> String {
    std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
#[ignore = "needs PyTorch"]
fn f16_passes_its_gate_and_its_divergence_is_that_of_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let (run, report) = tokens(&out, &["--choices", "none"]);
    assert_eq!((run.code, &report["outcome"]), (0, &Value::from("pass")), "{run:#?}");
    assert_eq!(report["gate"]["profile"], "short");
    assert_eq!(report["self_check"]["status"], "bit-equal");
    let kl = &report["distribution"]["kl"];
    assert_eq!(kl["count"], 24);
    assert!(kl["max"].as_f64().unwrap() < 1e-9, "{kl}");
    assert!(report["distribution"]["kl_floor"]["max"].as_f64().unwrap() < 1e-10);
    assert!(report["worst"].as_array().unwrap().is_empty());
    for file in ["report.json", "report.md", "junit.xml", "kl.svg", "divergence.png"] {
        assert!(out.join(file).is_file(), "{file}");
    }
}

#[test]
#[ignore = "needs PyTorch"]
fn a_planted_fault_fails_the_gate_and_the_report_names_its_component() {
    let dir = tempfile::tempdir().unwrap();
    let plant = ["--choices", "none", "--fault", "rope-interleaved", "--layer", "3"];
    let (run, report) = tokens(&dir.path().join("report"), &plant);
    assert_eq!((run.code, &report["outcome"]), (1, &Value::from("fault")), "{run:#?}");
    let layers = &report["worst"][0]["layers"];
    let point = layers["first_fault"].as_str().unwrap();
    assert!(
        point == "model.layers.3.self_attn.q_rope" || point == "model.layers.3.self_attn.k_rope",
        "{point}"
    );
    assert!(layers["diagnosis"].as_str().unwrap().contains("interleaved"), "{layers}");
    assert_eq!(report["self_check"]["status"], "unmeasured");
}

/// The figures are those that numpy computes from the same logits.
#[test]
#[ignore = "needs PyTorch"]
fn divergence_and_total_variation_are_those_of_numpy() {
    let dir = tempfile::tempdir().unwrap();
    let dumps = dir.path().join("dumps");
    let on = ["--choices", "none", "--engine", "lattice-q8", "--dumps", path(&dumps)];
    let (run, _) = tokens(&dir.path().join("report"), &on);
    assert!(run.code < 2, "{run:#?}");
    let candidate = dir.path().join("candidate");
    std::fs::create_dir(&candidate).unwrap();
    for prompt in ["instruction-07", "code-01"] {
        let (model, of) = (common::bundled_model(), dumps.join("reference").join(prompt));
        let to = candidate.join(prompt);
        let args = ["capture", "--engine", "lattice-q8", "--points", "lm_head", "--steps", "12", "--model"];
        let args = [args.as_slice(), &[path(&model), "--prompts", path(&of), "--out", path(&to)]].concat();
        assert_eq!(layerdiff(&args).code, 0);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/scripts/token_metrics.py");
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let numpy =
        Command::new(python).arg(script).arg(dumps.join("reference")).arg(&candidate).output().unwrap();
    let numpy: Value = serde_json::from_slice(&numpy.stdout).unwrap();
    for prompt in ["instruction-07", "code-01"] {
        let record = std::fs::read_to_string(dumps.join(format!("lattice-q8/{prompt}.record.json"))).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        let ours = record["positions"].as_array().unwrap();
        assert_eq!(ours.len(), 12);
        for (ours, theirs) in ours.iter().zip(numpy[prompt].as_array().unwrap()) {
            for key in ["kl", "tv"] {
                let (a, b) = (ours[key].as_f64().unwrap(), theirs[key].as_f64().unwrap());
                assert!((a - b).abs() <= 1e-12 + 1e-9 * b, "{prompt} {key}: {a} {b}");
            }
        }
    }
}

/// Killed in the middle and started again, the command gives the same report; nothing is lost or counted twice.
#[test]
#[ignore = "needs PyTorch"]
fn an_interrupted_run_goes_on_and_gives_the_same_report_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (dumps, whole) = (dir.path().join("dumps"), dir.path().join("whole"));
    let on = ["--dumps", path(&whole)];
    let (first, report) = tokens(&dir.path().join("report"), &on);
    assert!(first.code < 2, "{first:#?}");
    assert_eq!(report["prompts"].as_array().unwrap().len(), 2);
    let expected = tree(&dir.path().join("report"));
    // Nothing is left to be done: what was written reads back as the same figures.
    assert_eq!(tokens(&dir.path().join("report"), &on).0.code, first.code);
    assert_eq!(tree(&dir.path().join("report")), expected);

    let out = dir.path().join("again");
    let args =
        ["tokens", "--tokens", "12", "--worst", "1", "--out", path(&out), "--prompt", "instruction-07"];
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"))
        .args(args)
        .args(["--prompt", "code-01", "--dumps", path(&dumps), "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = dumps.join("reference/instruction-07/manifest.json");
    for _ in 0..1200 {
        if started.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(started.exists() && !out.exists());
    let (second, _) = tokens(&dir.path().join("report"), &["--dumps", path(&dumps)]);
    assert_eq!(second.code, first.code);
    let found = tree(&dir.path().join("report"));
    for (file, bytes) in &expected {
        // The command line names another directory of dumps.
        let text = |bytes: &Option<Vec<u8>>| {
            let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
            text.replace(path(&dumps), path(&whole))
        };
        assert_eq!(text(bytes), text(&found[file]), "{}", file.display());
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
#[ignore = "needs PyTorch"]
fn dumps_of_another_job_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dumps = dir.path().join("dumps");
    let on = ["--choices", "none", "--dumps", path(&dumps)];
    assert_eq!(tokens(&dir.path().join("report"), &on).0.code, 0);
    let run = layerdiff(&[
        "tokens",
        "--tokens",
        "13",
        "--choices",
        "none",
        "--dumps",
        path(&dumps),
        "--out",
        path(&dir.path().join("x")),
    ]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("these dumps are of another model or setting"), "{run:#?}");
    let prompts = dir.path().join("prompts.jsonl");
    std::fs::write(&prompts, r#"{"id": "code-01", "text": "something else"}"#).unwrap();
    let run = layerdiff(&[
        "tokens",
        "--tokens",
        "12",
        "--choices",
        "none",
        "--dumps",
        path(&dumps),
        "--prompts",
        path(&prompts),
        "--out",
        path(&dir.path().join("x")),
    ]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("the dump of prompt `code-01` is of other tokens"), "{run:#?}");
}
