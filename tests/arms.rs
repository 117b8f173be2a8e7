//! The arms: what quantization costs is told apart from what an engine adds.

mod common;

use common::changed::Changed;
use common::{Draft, bundled_model, edit_manifest, layerdiff};
use layerdiff::bundle::Bundle;
use layerdiff::capture::{Request, capture, dequantized, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::Engine;
use layerdiff::model::PointFilter;
use layerdiff::prompt::{Prompt, select};
use layerdiff::tensor::Values;
use layerdiff::trace::{Trace, TraceWriter, WriteOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A point, and what happens to each number there.
type Fault = (&'static str, fn(&mut f32));

/// Traces of the bundled model's short prompt.
struct Traces {
    root: TempDir,
    bundle: Bundle,
}

impl Traces {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), bundle: Bundle::unpack().unwrap() }
    }

    fn prompts(&self) -> Vec<Prompt> {
        let reference = Trace::open(&self.bundle.reference()).unwrap();
        select(reference.manifest().prompts.clone(), &["instruction-07".to_owned()]).unwrap()
    }

    /// Captures `engine`, with `change` at `point` if there is one.
    fn candidate(&self, engine: &str, fault: Option<Fault>) -> PathBuf {
        let model = ModelDir::open(&bundled_model()).unwrap();
        let mut opened = open_engine(engine, &model, None).unwrap();
        let weights = tempfile::tempdir().unwrap();
        let weights = dequantized(opened.as_ref(), &model, &weights.path().join("f32")).unwrap();
        let mut changed;
        let running: &mut dyn Engine = match fault {
            Some((point, change)) => {
                changed = Changed::new(opened.as_mut(), point, move |_, _, tensor| {
                    if let Values::F32(values) = &mut tensor.values {
                        values.iter_mut().for_each(change);
                    }
                });
                &mut changed
            }
            None => opened.as_mut(),
        };
        let (points, prompts) = (PointFilter::default(), self.prompts());
        let request = Request {
            model: &model,
            prompts: &prompts,
            steps: 2,
            points: &points,
            dequantized: weights.as_ref(),
            quiet: true,
        };
        let out = self.root.path().join(format!("{engine}-{}", fault.map_or("sound", |(point, _)| point)));
        capture(running, &request, &out).unwrap();
        out
    }

    fn arm(&self, engine: &str) -> PathBuf {
        self.bundle.reference().parent().unwrap().join("quantized").join(engine)
    }

    /// Compares with the reference; the steps that the candidate lacks are cut off.
    fn compare(&self, candidate: &Path, more: &[&str]) -> common::Run {
        let floor = self.bundle.floors().unwrap()[0].clone();
        let (reference, model) = (self.bundle.reference(), bundled_model());
        let args = [
            "compare",
            path(&reference),
            path(candidate),
            "--model",
            path(&model),
            "--prompt",
            "instruction-07",
            "--floor",
            path(&floor),
            "--json",
        ];
        layerdiff(&[&args[..], more].concat())
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn points(report: &Value) -> impl Iterator<Item = &Value> {
    report["points"].as_array().unwrap().iter()
}

/// A fifth too large: far less than four bits cost.
fn a_fifth_more(value: &mut f32) {
    *value *= 1.2;
}

#[test]
fn a_fault_that_is_smaller_than_the_price_of_quantization_is_named_exactly() {
    let traces = Traces::new();
    for (engine, point) in [
        ("lattice-q8", "model.layers.2.linear_attn.delta_rule"),
        ("lattice-q4", "model.layers.4.mlp.act"),
        ("lattice-q4", "model.layers.3.self_attn.k_rope"),
        ("lattice-quarot-q4", "model.layers.5.linear_attn.out_proj"),
        ("lattice-quarot-q4", "model.layers.0.post_attention_layernorm"),
    ] {
        let candidate = traces.candidate(engine, Some((point, a_fifth_more)));
        let arm = traces.arm(engine);
        let report = traces.compare(&candidate, &["--quantized", path(&arm)]).json();
        assert_eq!(report["first_fault"]["point"], point, "{engine}: {}", report["verdict"]);
        // The arm is what makes the difference.
        let run = traces.compare(&candidate, &[]);
        assert_eq!((run.code, &run.json()["outcome"]), (2, &"unmeasured".into()), "{engine}");
    }
}

#[test]
fn a_sound_quantized_engine_adds_rounding_only_to_a_price_that_is_orders_of_magnitude_larger() {
    let traces = Traces::new();
    for engine in ["lattice-q8", "lattice-q4", "lattice-quarot-q4"] {
        let candidate = traces.candidate(engine, None);
        let run = traces.compare(&candidate, &["--quantized", path(&traces.arm(engine)), "--points", "*"]);
        let report = run.json();
        let measured: Vec<&Value> = points(&report).filter(|p| p["step"].as_u64() <= Some(2)).collect();
        assert_eq!(measured.len(), 3 * 187);
        for point in measured {
            let (own, price) = (point["engine_error"].as_f64(), point["quantization"].as_f64());
            assert!(own.is_some_and(|e| e <= 1e-5), "{engine}: {point}");
            assert!(price.is_some(), "{engine}: {point}");
            if point["point"] == "lm_head" {
                assert!(price > own.map(|e| 1000.0 * e), "{engine}: {point}");
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_a_fault_even_without_arm_q() {
    let traces = Traces::new();
    let candidate = traces.candidate("lattice-q4", Some(("model.layers.6.mlp.up_proj", |v| *v = f32::NAN)));
    let run = traces.compare(&candidate, &[]);
    assert_eq!(run.code, 1);
    assert_eq!(run.json()["first_fault"]["point"], "model.layers.6.mlp.up_proj");
}

#[test]
fn without_arm_q_the_total_error_is_shown_and_nothing_passes() {
    let traces = Traces::new();
    let run = traces.compare(&traces.candidate("lattice-q8", None), &[]);
    let report = run.json();
    assert_eq!((run.code, &report["outcome"]), (2, &"unmeasured".into()));
    assert_eq!(report["coverage"]["matched"], 0);
    assert!(points(&report).all(|p| p["state"] == "unmeasured" && p["engine_error"].is_null()));
    assert!(points(&report).filter(|p| p["step"] == 0).all(|p| p["rel_l2"].is_number()));
    assert_eq!(report["arms"]["quantization"]["status"], "unmeasured");
    assert_eq!(report["arms"]["engine"]["status"], "unmeasured");
}

#[test]
fn an_arm_that_is_none_is_refused() {
    let traces = Traces::new();
    let candidate = traces.candidate("lattice-q8", None);
    let refused = |arm: &Path, words: &str| {
        let run = traces.compare(&candidate, &["--quantized", path(arm)]);
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    };
    refused(
        &traces.arm("lattice-q4"),
        "arm Q was captured on other weights than the candidate computes with",
    );
    refused(&traces.bundle.reference(), "on other weights");
    refused(&candidate, "this is no arm Q");
    let rounded = traces.root.path().join("rounded");
    copy(&traces.arm("lattice-q8"), &rounded);
    edit_manifest(&rounded, |manifest| manifest["provenance"]["activation_bits"] = 8.into());
    refused(&rounded, "rounds its activations otherwise");
    edit_manifest(&rounded, |manifest| {
        manifest["provenance"]["activation_bits"] = Value::Null;
        manifest["prompts"][0]["token_ids"][1] = 3.into();
    });
    refused(&rounded, "of different tokens");
}

#[test]
fn an_arm_without_a_hash_is_taken_with_a_warning() {
    let traces = Traces::new();
    let candidate = traces.candidate("lattice-q8", None);
    edit_manifest(&candidate, |manifest| manifest["provenance"]["hashes"]["dequantized"] = Value::Null);
    let report = traces.compare(&candidate, &["--quantized", path(&traces.arm("lattice-q8"))]).json();
    assert!(report["warnings"].to_string().contains("whether arm Q carries the candidate's weights"));
}

/// Arm Q of Q8_0 as a candidate, with numbers of its own at two points.
fn disturbed(traces: &Traces, points: &[&str], change: impl Fn(f32) -> f32) -> PathBuf {
    let out = traces.root.path().join("disturbed");
    let trace = Trace::open(&traces.arm("lattice-q8_0")).unwrap();
    let manifest = trace.manifest();
    let mut provenance = manifest.provenance.clone();
    provenance.engine = "another".to_owned();
    provenance.quantized = true;
    let options = WriteOptions {
        architecture: manifest.architecture.clone(),
        config: manifest.config.clone(),
        provenance,
        adapter: None,
        shard_bytes: 8 << 20,
    };
    let mut writer = TraceWriter::create(&out, options).unwrap();
    writer.start_prompt(&manifest.prompts[0]);
    for entry in trace.entries() {
        let view = trace.view(entry);
        let mut bytes = view.bytes.to_vec();
        if points.contains(&entry.point.as_str()) {
            bytes = view.to_f64().iter().flat_map(|v| change(*v as f32).to_le_bytes()).collect();
        }
        writer
            .push(entry.step, &entry.point, entry.dtype, &entry.shape, bytes, &entry.basis, entry.derived)
            .unwrap();
    }
    writer.finish(manifest.self_check.clone()).unwrap();
    out
}

#[test]
fn an_engine_that_rounds_its_activations_is_not_excused_whatever_it_computes() {
    let traces = Traces::new();
    let arm = traces.arm("lattice-q8_0");
    let sound = disturbed(&traces, &[], |v| v);
    let run = traces.compare(&sound, &["--quantized", path(&arm), "--other-weights"]);
    assert_eq!(run.json()["outcome"], "pass", "{run:#?}");
    for change in [|_| 0.0, |v: f32| -v, |v| v * 1.5] {
        let _ = std::fs::remove_dir_all(traces.root.path().join("disturbed"));
        let points = ["model.layers.7.self_attn.o_proj", "lm_head"];
        let candidate = disturbed(&traces, &points, change);
        let run = traces.compare(&candidate, &["--quantized", path(&arm), "--other-weights"]);
        assert_ne!(run.json()["outcome"], "pass");
    }
}

#[test]
fn an_impossible_number_of_bits_is_refused() {
    let traces = Traces::new();
    let candidate = traces.candidate("lattice-q8", None);
    for bits in [0u32, 1, 17, 33, u32::MAX] {
        edit_manifest(&candidate, |manifest| manifest["provenance"]["activation_bits"] = bits.into());
        let run = traces.compare(&candidate, &[]);
        assert!(run.code == 2 && run.stderr.contains("impossible number of bits"), "{bits}: {run:#?}");
    }
}

#[test]
fn a_trace_that_says_it_rounds_its_activations_and_does_not_is_a_fault() {
    let traces = Traces::new();
    let rounded = traces.root.path().join("rounded");
    copy(&traces.bundle.reference(), &rounded);
    edit_manifest(&rounded, |manifest| {
        manifest["provenance"]["activation_bits"] = 8.into();
        manifest["provenance"]["engine"] = "another".into();
    });
    let report = traces.compare(&rounded, &[]).json();
    assert_eq!(report["outcome"], "fault");
    assert_eq!(report["first_fault"]["component"], "linear_attn.in_proj_qkv");
    assert_eq!(report["arms"]["quantization"]["status"], "unmeasured");
}

#[test]
fn a_floor_that_was_measured_against_another_reference_is_refused() {
    let traces = Traces::new();
    let arm = traces.arm("lattice-q8_0");
    let floor = arm.with_file_name("lattice-q8_0.floor.json");
    let (reference, candidate) = (traces.bundle.reference(), traces.candidate("lattice-f32", None));
    let run = layerdiff(&["compare", path(&reference), path(&candidate), "--floor", path(&floor)]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("error: "), "{run:#?}");
}

#[test]
fn an_arm_whose_capture_disturbed_it_is_refused() {
    let traces = Traces::new();
    let candidate = traces.candidate("lattice-q8", None);
    let arm = traces.root.path().join("arm");
    copy(&traces.arm("lattice-q8"), &arm);
    edit_manifest(&arm, |manifest| {
        manifest["self_check"]["status"] = "different".into();
        manifest["self_check"]["evidence"][0]["mismatches"] = 3.into();
    });
    let run = traces.compare(&candidate, &["--quantized", path(&arm)]);
    assert!(run.code == 2 && run.stderr.contains("self-check failed"), "{run:#?}");
}

#[test]
fn what_an_arm_lacks_is_unmeasured() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::tiny();
        change(&mut draft);
        draft.write(&root.path().join(name));
        root.path().join(name)
    };
    let reference = write("reference", &|_| ());
    let candidate = write("candidate", &|draft| draft.options.provenance.quantized = true);
    let arm = write("arm", &|draft| draft.tensors.retain(|t| t.point != "model.layers.1.mlp.act"));
    let run =
        layerdiff(&["compare", path(&reference), path(&candidate), "--quantized", path(&arm), "--json"]);
    let report = run.json();
    assert_eq!((run.code, &report["outcome"]), (2, &"unmeasured".into()));
    assert_eq!(report["coverage"]["unmeasured"], 1);
    let lacking = points(&report).find(|p| p["state"] == "unmeasured").unwrap();
    assert_eq!(lacking["point"], "model.layers.1.mlp.act");
    assert!(lacking["note"].as_str().unwrap().contains("arm Q"), "{lacking}");
}

#[test]
fn a_storage_error_beyond_16_bits_is_no_excuse() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, error: f64| {
        let mut draft = Draft::tiny();
        if error > 0.0 {
            let name = "model.layers.0.mlp.up_proj.weight".to_owned();
            draft.options.provenance.parameter_error = [(name, error)].into();
        }
        draft.write(&root.path().join(name));
        root.path().join(name)
    };
    let reference = write("reference", 0.0);
    for (error, outcome) in [(1e-3, "pass"), (1e-2, "unmeasured")] {
        let candidate = write(&format!("candidate-{outcome}"), error);
        let run = layerdiff(&["compare", path(&reference), path(&candidate), "--json"]);
        assert_eq!(run.json()["outcome"], outcome);
    }
}

#[test]
fn weights_that_are_not_known_have_an_unmeasured_price_on_whichever_side_they_are() {
    let root = tempfile::tempdir().unwrap();
    let [known, unknown] = [true, false].map(|known| {
        let mut draft = Draft::tiny();
        if !known {
            draft.options.provenance.hashes.weights = None;
        }
        let path = root.path().join(if known { "known" } else { "unknown" });
        draft.write(&path);
        path
    });
    let arms = |reference: &Path, candidate: &Path| {
        let compare = ["compare", path(reference), path(candidate), "--json"];
        let report = layerdiff(&compare).json();
        assert_eq!(report["outcome"], "pass", "by the total error");
        let figures: Vec<Value> =
            points(&report).flat_map(|p| [p["quantization"].clone(), p["engine_error"].clone()]).collect();
        let shown = layerdiff(&compare[..3]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let status = ["quantization", "engine"].map(|arm| report["arms"][arm]["status"].clone());
        (status, figures, shown)
    };
    let (status, figures, shown) = arms(&known, &known);
    assert_eq!(status, ["exact", "measured"]);
    assert!(figures.iter().all(Value::is_number) && shown.contains("quantization Q−T 0 (the same weights)"));
    for (reference, candidate) in [(&known, &unknown), (&unknown, &known), (&unknown, &unknown)] {
        let (status, figures, shown) = arms(reference, candidate);
        assert_eq!(status, ["unmeasured", "unmeasured"]);
        assert!(figures.iter().all(Value::is_null));
        assert!(
            shown.contains(
                "quantization Q−T and engine C−Q UNMEASURED (what a side computed with is not known"
            ),
            "{shown}"
        );
    }
}

#[test]
fn a_model_does_not_say_what_a_trace_without_a_hash_computed_with_and_the_hint_says_what_does() {
    let traces = Traces::new();
    let (known, unknown) = (traces.bundle.reference(), traces.root.path().join("unknown"));
    copy(&known, &unknown);
    edit_manifest(&unknown, |manifest| manifest["provenance"]["hashes"]["weights"] = Value::Null);
    let hint = "since its weights are unknown: `--weights DIR` says what it computes with";
    let compare = |candidate: &Path, more: &[&str]| {
        let points = ["--points", "model.layers.0.mlp.*", "--prompt", "instruction-07"];
        let args = [&["compare", path(&known), path(candidate)], &points[..], more].concat();
        let rests_on = layerdiff(&[&args[..], &["--json"]].concat()).json()["verdict"]["rests_on"].clone();
        (rests_on.as_str().unwrap().to_owned(), layerdiff(&args).stderr)
    };
    let model = bundled_model();
    let (named, of_both) = (["--weights", path(&model)], ["--model", path(&model)]);
    for more in [&[][..], &of_both] {
        let (rests_on, said) = compare(&unknown, more);
        assert!(rests_on == "growth" && said.contains(hint), "{more:?}: {rests_on}, {said}");
    }
    for (candidate, more) in [(&unknown, &named), (&known, &of_both)] {
        let (rests_on, said) = compare(candidate, more);
        assert!(rests_on.starts_with("replay") && !said.contains(hint), "{more:?}: {rests_on}, {said}");
    }
    let (rests_on, said) = compare(&known, &[]);
    assert!(rests_on == "growth" && said.contains("hint: with `--model DIR`"), "{rests_on}, {said}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
