//! A model that `torchrun` splits over two processes, held against one process by the real command.

mod common;

use common::layerdiff;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bundle/model");

fn capture(launch: &[&str], prompts: &Path, out: &Path) {
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let done = Command::new(python)
        .args(launch)
        .args(["-m", "layerdiff_hooks", "capture", "--model", MODEL, "--steps", "2", "--threads", "1"])
        .arg("--prompts")
        .arg(prompts)
        .arg("--out")
        .arg(out)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
#[ignore = "needs PyTorch"]
fn a_model_split_over_two_processes_passes_against_one_process_replay_included() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    std::fs::write(at("prompts.jsonl"), r#"{"id": "a", "token_ids": [5, 17, 200, 3, 45, 99, 1024, 7]}"#)
        .unwrap();
    capture(&[], &at("prompts.jsonl"), &at("one"));
    let torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"];
    capture(&torchrun, &at("prompts.jsonl"), &at("two"));
    let paths = ["one", "two", "report"].map(|name| at(name).to_str().unwrap().to_owned());
    let run = layerdiff(&["--json", "compare", &paths[0], &paths[1], "--model", MODEL, "--out", &paths[2]]);
    let report: Value = run.json();
    assert_eq!((run.code, &report["outcome"]), (0, &"pass".into()), "{report:#}");
    let coverage = &report["coverage"];
    assert_eq!((&coverage["matched"], &coverage["unmeasured"]), (&coverage["expected"], &0.into()));
    // Every component was judged by itself, also those that no process had whole.
    let points = report["points"].as_array().unwrap();
    assert!(points.iter().any(|p| p["rel_l2"].as_f64().is_some_and(|e| e > 0.0)));
    assert_eq!(report["provenance"]["candidate"]["parallel"]["processes"], 2);
    let page = std::fs::read_to_string(at("report").join("report.md")).unwrap();
    assert!(page.contains("split over 2 processes by gloo"), "{page}");
}
