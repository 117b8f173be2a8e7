//! Token metrics through the real command, with real `PyTorch` and real lattice.

mod common;

use common::{Run, command, finished, tree};
use layerdiff::tokens::{Share, mcnemar};
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

/// What numpy and scipy compute of two paths.
fn numpy(what: &str, one: &Path, other: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/scripts/token_metrics.py");
    let output = Command::new(python()).arg(script).arg(what).arg(one).arg(other).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
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
    let candidate = dumps.join("lattice-q8/traces");
    let numpy = numpy("distributions", &dumps.join("reference"), &candidate);
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

/// A report's own counts are few; these are all up to sixty.
#[test]
#[ignore = "needs Python with scipy"]
fn every_interval_and_every_test_of_flips_up_to_sixty_is_that_of_scipy() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/scripts/token_metrics.py");
    let output = Command::new(python()).arg(script).args(["table", "60"]).output().unwrap();
    let scipy: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let pairs = scipy["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 60 * 61 / 2 + 60);
    for (i, pair) in pairs.iter().enumerate() {
        let [a, b] = [0, 1].map(|side| pair[side].as_u64().unwrap() as usize);
        let (share, p) = (Share::new(a, b), mcnemar(a, b));
        let of = |value: &Value| value.as_f64().unwrap();
        for (ours, theirs) in [
            (share.low, of(&scipy["wilson"][i][0])),
            (share.high, of(&scipy["wilson"][i][1])),
            (p, of(&scipy["mcnemar"][i])),
        ] {
            assert!((ours - theirs).abs() < 1e-12, "{a} and {b}: {ours} {theirs}");
        }
    }
}

/// Intervals and McNemar's test are those of scipy, and the counts those of a second count.
#[test]
#[ignore = "needs PyTorch"]
fn intervals_and_the_test_of_flips_are_those_of_scipy() {
    let dir = tempfile::tempdir().unwrap();
    let (out, dumps) = (dir.path().join("report"), dir.path().join("dumps"));
    let on = ["--fault", "rope-interleaved", "--layer", "3", "--dumps", path(&dumps)];
    let (run, report) = tokens(&out, &on);
    assert_eq!(run.code, 1, "{run:#?}");
    let answers = dumps.join("lattice-f16.rope-interleaved.3");
    let scipy = numpy("statistics", &out.join("report.json"), &answers);
    let shares = scipy["shares"].as_object().unwrap();
    assert!(shares.contains_key("/choices/candidate") && shares.contains_key("/greedy/exact"), "{shares:?}");
    for (at, theirs) in shares {
        let ours = report.pointer(at).unwrap();
        for (i, end) in ["low", "high"].into_iter().enumerate() {
            let (a, b) = (ours[end].as_f64().unwrap(), theirs[i].as_f64().unwrap());
            assert!((a - b).abs() < 1e-12, "{at} {end}: {a} {b}");
        }
    }
    let (ours, theirs) = (&report["choices"], &scipy["choices"]);
    for key in ["lost", "won", "changed"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    let (a, b) = (ours["p_value"].as_f64().unwrap(), theirs["p_value"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-12, "{a} {b}");
}

/// Both sides leave the same: a trace of the same tokens and points, and what each said by itself.
#[test]
#[ignore = "needs PyTorch"]
fn both_sides_leave_a_trace_of_each_prompt_with_text_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let dumps = dir.path().join("dumps");
    let on = ["--choices", "none", "--engine", "lattice-q8", "--dumps", path(&dumps)];
    let (_, report) = tokens(&dir.path().join("report"), &on);
    let manifest = |of: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(of.join("manifest.json")).unwrap()).unwrap()
    };
    for prompt in ["instruction-07", "code-01"] {
        let reference = manifest(&dumps.join("reference").join(prompt));
        let candidate = manifest(&dumps.join("lattice-q8/traces").join(prompt));
        for key in ["id", "text", "token_ids", "step_token_ids"] {
            assert_eq!(reference["prompts"][0][key], candidate["prompts"][0][key], "{key}");
        }
        let points = |of: &Value| -> Vec<String> {
            let all = of["tensors"].as_array().unwrap().iter();
            all.map(|t| format!("{} {} {}", t["step"], t["point"], t["shape"])).collect()
        };
        assert_eq!(points(&reference), points(&candidate));
        assert_eq!(reference["prompts"][0]["step_token_ids"], reference["generated"]["token_ids"]);
        for side in [&reference, &candidate] {
            let said = &side["generated"];
            assert_eq!(said["token_ids"].as_array().unwrap().len(), 12);
            assert!(!said["text"].as_str().unwrap().is_empty() && said["seconds"].as_f64().unwrap() > 0.0);
        }
        // What was forced was not generated.
        assert!(manifest(&dumps.join("float64").join(prompt))["generated"].is_null());
        let record = dumps.join(format!("lattice-q8/{prompt}.record.json"));
        let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        assert_eq!(record["greedy"]["candidate"], candidate["generated"]["token_ids"]);
    }
    assert!(!report.to_string().contains("seconds"), "a time would differ from run to run");
}

/// MMLU's archive: a directory for each split, a file without a header for each subject.
#[test]
#[ignore = "needs PyTorch"]
fn the_archive_of_mmlu_is_asked_with_five_examples_from_its_dev_split() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("mmlu");
    for (split, subject, text) in [
        (
            "test",
            "abstract_algebra",
            "\"What is 1, and\nthen 1?\",one,\"two, or\nso\",3,4,B\n\" Is it \"\"it\"\"? \",a,b,c,d,D\n",
        ),
        ("test", "anatomy", "Where?,here,there,up,down,A\n"),
        (
            "dev",
            "abstract_algebra",
            "q1,a,b,c,d,A\nq2,a,b,c,d,B\nq3,a,b,c,d,C\nq4,a,b,c,d,D\nq5,a,b,c,d,A\nq6,a,b,c,d,B\n",
        ),
        ("dev", "anatomy", "r1,a,b,c,d,D\nr2,a,b,c,d,C\nr3,a,b,c,d,B\nr4,a,b,c,d,A\nr5,a,b,c,d,D\n"),
        ("val", "anatomy", "not asked,a,b,c,d,A\n"),
    ] {
        std::fs::create_dir_all(archive.join(split)).unwrap();
        std::fs::write(archive.join(split).join(format!("{subject}_{split}.csv")), text).unwrap();
    }
    std::fs::write(archive.join("README.txt"), "not a question").unwrap();
    let dumps = dir.path().join("dumps");
    let on = ["--choices", path(&archive), "--dumps", path(&dumps)];
    let (run, report) = tokens(&dir.path().join("report"), &on);
    assert_eq!(run.code, 0, "{run:#?}");
    let choices = &report["choices"];
    assert_eq!((&choices["shots"], &choices["candidate"]["count"]), (&5.into(), &3.into()));
    assert_eq!(choices["source"], path(&archive));
    let asked = |number: usize| -> String {
        let of = dumps.join(format!("questions/question-{number:04}/manifest.json"));
        let of: Value = serde_json::from_slice(&std::fs::read(of).unwrap()).unwrap();
        of["prompts"][0]["text"].as_str().unwrap().to_owned()
    };
    let shot = |q: &str, letter: char| format!("{q}\nA. a\nB. b\nC. c\nD. d\nAnswer: {letter}\n\n");
    let about =
        |subject| format!("The following are multiple choice questions (with answers) about {subject}.\n\n");
    let five =
        [("q1", 'A'), ("q2", 'B'), ("q3", 'C'), ("q4", 'D'), ("q5", 'A')].map(|(q, l)| shot(q, l)).concat();
    let algebra = about("abstract algebra") + &five;
    assert_eq!(
        asked(1),
        format!("{algebra}What is 1, and\nthen 1?\nA. one\nB. two, or\nso\nC. 3\nD. 4\nAnswer:")
    );
    assert_eq!(asked(2), format!("{algebra}Is it \"it\"?\nA. a\nB. b\nC. c\nD. d\nAnswer:"));
    assert!(asked(3).starts_with(&(about("anatomy") + &shot("r1", 'D'))));
}

/// Killed in the middle and started again, the command gives the same report; nothing is lost or counted twice.
#[test]
#[ignore = "needs PyTorch"]
fn an_interrupted_run_goes_on_and_gives_the_same_report_byte_for_byte() {
    for started in ["reference/instruction-07/manifest.json", "lattice-f16/instruction-07.record.json"] {
        interrupted_when(started);
    }
}

/// Kills a run when this file is in its dumps.
fn interrupted_when(started: &str) {
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
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/short.toml");
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"))
        .args(args)
        .args(["--prompt", "code-01", "--profile", profile, "--dumps", path(&dumps), "--json"])
        .env("LAYERDIFF_PYTHON", python())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = dumps.join(started);
    for _ in 0..60_000 {
        if started.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(started.exists() && !out.exists());
    let kept = std::fs::read(&started).unwrap();
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
    assert_eq!(std::fs::read(&started).unwrap(), kept, "what was finished is not made again");
}

/// A run that was killed between a prompt's trace and its record, or while it removed a trace.
#[test]
#[ignore = "needs PyTorch"]
fn a_trace_without_its_record_and_a_record_without_its_trace_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (out, dumps) = (dir.path().join("report"), dir.path().join("dumps"));
    let on = ["--choices", "none", "--dumps", path(&dumps)];
    assert_eq!(tokens(&out, &on).0.code, 0);
    let expected = tree(&out);
    let of = dumps.join("lattice-f16");
    std::fs::remove_file(of.join("instruction-07.record.json")).unwrap();
    std::fs::remove_file(of.join("traces/code-01/manifest.json")).unwrap();
    assert_eq!(tokens(&out, &on).0.code, 0);
    assert_eq!(tree(&out), expected);
    assert!(
        of.join("instruction-07.record.json").exists() && of.join("traces/code-01/manifest.json").exists()
    );
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
