//! The whole way with a live `PyTorch`. Needs the Python side: `make test` runs these.

mod common;

use assert_cmd::Command;
use common::Form;
use safetensors::Dtype;
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
fn a_live_capture_agrees_with_the_bundled_reference_to_1e_5_at_every_point() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let model = "src/bundle/model";
    let args =
        ["capture", "--engine", "torch", "--model", model, "--prompt", "code-01", "--out", path(&live)];
    assert_eq!(layerdiff(&args).0, 0);
    let (code, report) = layerdiff(&["compare", "src/bundle/reference", path(&live), "--prompt", "code-01"]);
    assert_eq!(code, 0, "{}", report["verdict"]);
    // PyTorch sums in another order on another processor: 2.03e-6 has been seen.
    assert!(worst(&report).0 <= 1e-5, "{:?}", worst(&report));
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
    let (reference, arm) = (dir.path().join("reference"), dir.path().join("arm"));
    // The arm takes the reference's tokens, those that it decoded included.
    for (dtype, prompts, out) in
        [("float32", "prompts/standard.jsonl", &reference), ("float64", path(&reference), &arm)]
    {
        let model = ["--model", "src/bundle/model", "--dtype", dtype];
        let args = [&["capture", "--engine", "torch", "--prompts", prompts, "--out", path(out)][..], &model]
            .concat();
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
        let (code, report) =
            layerdiff(&[&args[..], &["--model", "src/bundle/model", "--out", path(&out)]].concat());
        assert_eq!(code, 0, "{engine} {numeric_path}: {}", report["verdict"]);
        let coverage = &report["coverage"];
        assert_eq!(coverage["expected"], coverage["matched"], "{coverage}");
        assert_eq!(report["prompts"].as_array().unwrap().len(), 60);
        assert_eq!(report["self_check"]["status"], "bit-equal");
        // The README says 16.4: another processor may differ, but not by much.
        assert!(report["growth"]["largest_factor"].as_f64().unwrap() < 32.0, "{}", report["growth"]);
        assert!(worst(&report).0 <= limit, "{engine} {numeric_path}: {:?}", worst(&report));
    }
}

/// Runs `hooks/scripts/synthetic.py`.
fn synthetic(args: &[&str]) {
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| ".venv/bin/python".into());
    let run = Command::new(python)
        .arg("hooks/scripts/synthetic.py")
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = run.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs PyTorch"]
fn another_shape_with_random_weights_passes_on_every_path() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("model"), dir.path().join("report"));
    synthetic(&["--shape", "tiny", path(&model)]);
    let reference = dir.path().join("reference");
    let args = [
        "capture",
        "--engine",
        "torch",
        "--model",
        path(&model),
        "--prompt",
        "code-01",
        "--out",
        path(&reference),
    ];
    assert_eq!(layerdiff(&args).0, 0);
    for (engine, numeric_path) in
        [("lattice-f32", "serial"), ("lattice-f32", "batched"), ("lattice-f16", "serial")]
    {
        let args = [
            "run",
            "--model",
            path(&model),
            "--reference",
            path(&reference),
            "--engine",
            engine,
            "--path",
            numeric_path,
        ];
        let (code, report) = layerdiff(&[&args[..], &["--out", path(&out)]].concat());
        assert_eq!(code, 0, "{engine} {numeric_path}: {}", report["verdict"]);
    }
}

#[test]
#[ignore = "needs PyTorch"]
fn a_checkpoint_passes_in_whatever_form_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let all = Form { dtype: Dtype::F16, shards: 3, flat: true, untied: false };
    for (form, engine) in [
        (all, "lattice-f16"),
        (Form { untied: true, ..all }, "lattice-f32"),
        (Form { dtype: Dtype::F32, ..all }, "lattice-f32"),
    ] {
        let model = form.write(|_, values| {
            // f16 holds these, so that no form rounds.
            values.iter_mut().filter(|v| v.abs() < 1e-4).for_each(|v| *v = 0.0);
        });
        let args = ["run", "--reference", "torch", "--engine", engine, "--model", path(model.path())];
        let (code, report) = layerdiff(&[&args[..], &["--out", path(&out)]].concat());
        assert_eq!(code, 0, "{engine} {form:?}: {}", report["verdict"]);
        assert!(worst(&report).0 < 1e-4, "{engine} {form:?}: {:?}", worst(&report));
    }
}

/// lattice's F16 engine has no head of its own: it takes the embedding, whatever the checkpoint says.
#[test]
#[ignore = "needs PyTorch"]
fn the_f16_engine_is_found_to_ignore_an_untied_head_and_the_f32_engine_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("model"), dir.path().join("report"));
    synthetic(&["--untie", "src/bundle/model", path(&model)]);
    let run = |engine: &str| {
        layerdiff(&[
            "run",
            "--model",
            path(&model),
            "--reference",
            "torch",
            "--engine",
            engine,
            "--out",
            path(&out),
        ])
    };
    let (code, report) = run("lattice-f16");
    assert_eq!(
        (code, &report["first_fault"]["point"]),
        (1, &Value::from("lm_head")),
        "{}",
        report["verdict"]
    );
    // In the prefill and in each step, and nowhere else.
    assert!(report["faults"].as_array().unwrap().iter().all(|f| f["point"] == "lm_head"));
    assert_eq!(run("lattice-f32").0, 0);
}

#[test]
#[ignore = "needs PyTorch"]
fn with_an_adapter_on_both_sides_every_point_agrees_on_every_path() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, arm, out) =
        (dir.path().join("reference"), dir.path().join("arm"), dir.path().join("report"));
    let lora = ["--lora", "src/bundle/adapter", "--model", "src/bundle/model"];
    for (prompts, dtype, target) in
        [(["--prompt", "code-01"], "float32", &reference), (["--prompts", path(&reference)], "float64", &arm)]
    {
        let args = ["capture", "--engine", "torch", "--dtype", dtype, "--out", path(target)];
        assert_eq!(layerdiff(&[&args[..], &prompts, &lora].concat()).0, 0);
    }
    for numeric_path in ["serial", "batched"] {
        let sides = ["run", "--reference", path(&reference), "--floor", path(&arm), "--out", path(&out)];
        let candidate = ["--engine", "lattice-f32", "--path", numeric_path];
        let (code, report) = layerdiff(&[&sides[..], &candidate, &lora].concat());
        assert_eq!(code, 0, "{numeric_path}: {}", report["verdict"]);
        let coverage = &report["coverage"];
        // 373 points, in the prefill and in four steps.
        assert_eq!((&coverage["expected"], &coverage["matched"]), (&1865.into(), &1865.into()), "{coverage}");
        assert_eq!(report["self_check"]["status"], "bit-equal");
        assert!(worst(&report).0 <= 1e-5, "{numeric_path}: {:?}", worst(&report));
        assert!(report["growth"]["largest_factor"].as_f64().unwrap() < 8.0, "{}", report["growth"]);
    }
}

#[test]
#[ignore = "needs PyTorch"]
fn in_16_bits_an_adapter_costs_pytorch_no_more_than_16_bits_cost() {
    let dir = tempfile::tempdir().unwrap();
    let lora = ["--lora", "src/bundle/adapter", "--model", "src/bundle/model", "--steps", "0"];
    let at = |dtype: &str| dir.path().join(dtype);
    for dtype in ["float32", "bfloat16", "float16"] {
        let target = at(dtype);
        let args =
            ["capture", "--engine", "torch", "--dtype", dtype, "--prompt", "code-01", "--out", path(&target)];
        assert_eq!(layerdiff(&[&args[..], &lora].concat()).0, 0);
    }
    for (dtype, limit) in [("bfloat16", 2e-1), ("float16", 2e-2)] {
        let (_, report) = layerdiff(&["compare", path(&at("float32")), path(&at(dtype))]);
        assert_eq!(report["coverage"]["unmeasured"], 0);
        let point = |name: &str| {
            let points = report["points"].as_array().unwrap();
            points.iter().find(|p| p["point"] == name).unwrap()["rel_l2"].as_f64().unwrap()
        };
        assert!(point("lm_head") < limit, "{dtype}: {}", point("lm_head"));
    }
}

#[test]
#[ignore = "needs PyTorch"]
fn the_adapter_moves_pytorch_s_logits_visibly() {
    let dir = tempfile::tempdir().unwrap();
    let adapted = dir.path().join("adapted");
    let args = ["capture", "--engine", "torch", "--model", "src/bundle/model", "--prompt", "code-01"];
    let more = ["--lora", "src/bundle/adapter", "--steps", "0", "--out", path(&adapted)];
    assert_eq!(layerdiff(&[&args[..], &more].concat()).0, 0);
    let (code, report) = layerdiff(&[
        "compare",
        "src/bundle/reference",
        path(&adapted),
        "--other-weights",
        "--points",
        "lm_head",
    ]);
    let step_0 = report["points"].as_array().unwrap().iter().find(|p| p["step"] == 0).unwrap();
    assert_eq!(code, 1);
    assert!(step_0["rel_l2"].as_f64().unwrap() > 1e-2, "{step_0}");
}

#[test]
#[ignore = "needs PyTorch"]
fn pytorch_in_any_precision_has_no_local_error_beyond_its_rounding_and_f32_agrees_with_16_bits() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in ["float64", "bfloat16", "float16"] {
        let (trace, out) = (dir.path().join(dtype), dir.path().join(format!("report-{dtype}")));
        let model = ["--model", "src/bundle/model"];
        let args =
            ["capture", "--engine", "torch", "--dtype", dtype, "--prompt", "code-01", "--out", path(&trace)];
        assert_eq!(layerdiff(&[&args[..], &model].concat()).0, 0);
        // Against itself: only its local errors can be found.
        let (code, report) = layerdiff(&[&["compare", path(&trace), path(&trace)], &model[..]].concat());
        assert_eq!(
            (code, &report["verdict"]["rests_on"]),
            (0, &"replay".into()),
            "{dtype}: {}",
            report["verdict"]
        );
        let sides = ["run", "--engine", "lattice-f32", "--reference", path(&trace), "--out", path(&out)];
        let (code, report) = layerdiff(&sides);
        assert_eq!(code, 0, "{dtype}: {}", report["verdict"]);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
