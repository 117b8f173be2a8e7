//! The whole way with a live `PyTorch`. Needs the Python side: `make test` runs these.

use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;

fn layerdiff(args: &[&str]) -> (i32, Value) {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"))
        .args(args)
        .arg("--json")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    (output.status.code().unwrap(), json)
}

fn worst(report: &Value) -> (f64, &str) {
    let points = report["points"].as_array().unwrap();
    let errors =
        points.iter().map(|p| (p["rel_l2"].as_f64().unwrap_or(f64::INFINITY), p["point"].as_str().unwrap()));
    errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
#[ignore = "needs PyTorch"]
fn a_live_capture_agrees_with_the_bundled_reference_to_1e_6_at_every_point() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let model = "src/bundle/model";
    let args =
        ["capture", "--engine", "torch", "--model", model, "--prompt", "code-01", "--out", path(&live)];
    assert_eq!(layerdiff(&args).0, 0);
    let (code, report) = layerdiff(&["compare", "src/bundle/reference", path(&live)]);
    assert_eq!(code, 0, "{}", report["verdict"]);
    assert!(worst(&report).0 <= 1e-6, "{:?}", worst(&report));
}

#[test]
#[ignore = "needs PyTorch"]
fn run_with_a_live_reference_passes_and_measures_its_own_floor() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let (code, report) = layerdiff(&["run", "--reference", "torch", "--out", path(&out)]);
    assert_eq!((code, &report["outcome"]), (0, &Value::from("pass")), "{}", report["verdict"]);
    assert_eq!(report["floor"]["kind"], "measured");
    assert_eq!(report["provenance"]["reference"]["engine"], "torch");
    assert_eq!(report["prompt_id"], "code-01");
    assert!(report["warnings"].as_array().unwrap().is_empty(), "{}", report["warnings"]);
}

#[test]
#[ignore = "needs PyTorch"]
fn no_standard_prompt_raises_a_false_alarm_on_any_path() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = ["--model", "src/bundle/model", "--prompts", "prompts/standard.jsonl"];
    let (reference, arm) = (dir.path().join("reference"), dir.path().join("arm"));
    for (dtype, out) in [("float32", &reference), ("float64", &arm)] {
        let args =
            [&["capture", "--engine", "torch", "--dtype", dtype, "--out", path(out)][..], &prompts].concat();
        assert_eq!(layerdiff(&args).0, 0);
    }
    for (engine, numeric_path, limit) in
        [("lattice-f32", "serial", 1e-5), ("lattice-f32", "batched", 1e-5), ("lattice-f16", "serial", 1e-4)]
    {
        let out = dir.path().join("report");
        let args = [
            "run",
            "--reference",
            path(&reference),
            "--floor",
            path(&arm),
            "--engine",
            engine,
            "--path",
            numeric_path,
        ];
        let (code, report) = layerdiff(&[&args[..], &["--out", path(&out)], &prompts].concat());
        assert_eq!(code, 0, "{engine} {numeric_path}: {}", report["verdict"]);
        let coverage = &report["coverage"];
        assert_eq!(coverage["expected"], coverage["matched"], "{coverage}");
        assert_eq!(report["prompts"].as_array().unwrap().len(), 60);
        assert_eq!(report["self_check"]["status"], "bit-equal");
        assert!(worst(&report).0 <= limit, "{engine} {numeric_path}: {:?}", worst(&report));
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
