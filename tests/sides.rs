//! Where the candidate is sound by replay and the two sides disagree all the same: which one errs, if any.

mod common;

use common::{Form, bundled_model, layerdiff};
use layerdiff::capture::open_engine;
use layerdiff::checkpoint::ModelDir;
use layerdiff::faults::{Plant, Planted, Weights, named, sites};
use layerdiff::hook::{CaptureHook, Chain};
use layerdiff::model::PointFilter;
use layerdiff::parameters::Parameters;
use layerdiff::trace::{TraceWriter, WriteOptions};
use serde_json::Value;
use std::path::Path;

const TOKENS: [u32; 6] = [5, 7, 11, 13, 17, 19];
const FORCED: [u32; 2] = [23, 29];

/// A run of lattice's f32 engine with a fault of the catalogue, if one is named, in the first layer that has it.
fn captured(out: &Path, fault: Option<&str>, stated: bool) {
    let model = ModelDir::open(&bundled_model()).unwrap();
    let mut engine = open_engine("lattice-f32", &model, Some("serial")).unwrap();
    let mut provenance = engine.provenance();
    provenance.hashes = model.hashes().unwrap();
    if !stated {
        provenance.hashes.weights = None;
    }
    let options = WriteOptions {
        architecture: "qwen3_5".into(),
        config: model.config().as_json().clone(),
        provenance,
        adapter: None,
        shard_bytes: 8 << 20,
    };
    let mut writer = TraceWriter::create(out, options).unwrap();
    let mut prompt = common::prompt("p", &TOKENS);
    prompt.step_token_ids = FORCED.to_vec();
    writer.start_prompt(&prompt);
    let points = PointFilter::default();
    let parameters = Parameters::open(model.path(), model.graph().description()).unwrap();
    let weights = Weights { held: &parameters, source: &parameters, config: model.config() };
    let fault = fault.map(|name| named(name).unwrap());
    let places: Vec<_> = fault.into_iter().flat_map(|fault| sites(fault, model.graph())).collect();
    let one = |fault| Planted { fault, site: &places[0], size: 1.0 };
    let planted: Vec<Planted<'_>> = fault.into_iter().map(one).collect();
    let mut plant = Plant::new(&planted, model.graph(), weights, TOKENS.len());
    let mut capture = CaptureHook::new(&mut writer, &points);
    engine.run(&TOKENS, &FORCED, &mut Chain(vec![&mut plant, &mut capture])).unwrap();
    writer.finish(None).unwrap();
}

/// The comparison of two such runs, with its exit code.
fn compared(reference: (Option<&str>, bool), candidate: Option<&str>) -> (Value, i32) {
    let root = tempfile::tempdir().unwrap();
    let [r, c] = ["reference", "candidate"].map(|name| root.path().join(name));
    captured(&r, reference.0, reference.1);
    captured(&c, candidate, true);
    let model = bundled_model();
    let run = layerdiff(&[
        "--json".as_ref(),
        "compare".as_ref(),
        r.as_os_str(),
        c.as_os_str(),
        "--model".as_ref(),
        model.as_os_str(),
    ]);
    (run.json(), run.code)
}

/// What is said of a point of the prefill.
fn point<'a>(report: &'a Value, name: &str) -> &'a Value {
    let here = |p: &&Value| p["point"] == name && p["step"] == 0;
    report["points"].as_array().unwrap().iter().find(here).unwrap()
}

#[test]
fn two_sound_runs_pass() {
    let (report, code) = compared((None, true), None);
    assert_eq!((report["outcome"].as_str(), code), (Some("pass"), 0), "{}", report["verdict"]);
}

#[test]
fn each_kind_of_component_has_the_median_and_the_largest_of_its_ratios() {
    let (report, _) = compared((None, true), Some("shift-bf16"));
    let model = ModelDir::open(&bundled_model()).unwrap();
    let points = report["points"].as_array().unwrap();
    let kinds = report["ratios"].as_array().unwrap();
    for kind in kinds {
        let of = |p: &&Value| {
            let component = model.graph().get(p["point"].as_str().unwrap()).unwrap();
            serde_json::to_value(component.op).unwrap() == kind["op"]
        };
        let here: Vec<&Value> = points.iter().filter(of).collect();
        let mut all: Vec<f64> = here.iter().map(|p| p["local_ratio"].as_f64().unwrap()).collect();
        let largest = here.iter().find(|p| p["local_ratio"] == kind["max"]).unwrap();
        assert_eq!(
            (&kind["point"], &kind["step"], &kind["prompt"]),
            (&largest["point"], &largest["step"], &largest["prompt"])
        );
        all.sort_by(f64::total_cmp);
        assert_eq!(kind["points"].as_u64(), Some(all.len() as u64));
        assert_eq!(kind["median"].as_f64(), Some(all[(all.len() - 1) / 2]));
        assert_eq!(kind["max"].as_f64(), all.last().copied());
    }
    let judged: u64 = kinds.iter().map(|k| k["points"].as_u64().unwrap()).sum();
    assert_eq!(judged, points.len() as u64);
    assert_eq!(kinds[0]["op"], "rms_norm");
    assert!(kinds[0]["max"].as_f64() > Some(100.0));
}

#[test]
fn a_reference_that_errs_is_named_and_the_candidate_is_not() {
    let (report, code) = compared((Some("conv-no-silu"), true), None);
    assert_eq!((report["outcome"].as_str(), code), (Some("fault"), 1));
    let faults = report["faults"].as_array().unwrap();
    assert!(faults.iter().all(|f| f["side"] == "reference"), "{faults:#?}");
    assert_eq!(report["first_fault"]["point"], "model.layers.0.linear_attn.conv1d");
    let headline = report["verdict"]["headline"].as_str().unwrap();
    assert!(
        headline.starts_with("FAULT of the reference: its model.layers.0.linear_attn.conv1d"),
        "{headline}"
    );
}

#[test]
fn a_candidate_that_errs_is_named_though_the_reference_errs_elsewhere_too() {
    let (report, _) = compared((Some("conv-no-silu"), true), Some("gate-up-swapped"));
    let faults = report["faults"].as_array().unwrap();
    let of =
        |side: &str| faults.iter().filter(|f| f["side"] == side).map(|f| &f["point"]).collect::<Vec<_>>();
    assert!(of("candidate").iter().all(|p| **p == "model.layers.0.mlp.act"), "{faults:#?}");
    assert!(!of("candidate").is_empty());
    assert!(of("reference").iter().all(|p| **p == "model.layers.0.linear_attn.conv1d"), "{faults:#?}");
    assert!(!of("reference").is_empty());
}

#[test]
fn a_reference_of_unknown_weights_that_disagrees_settles_nothing() {
    let (report, code) = compared((Some("conv-no-silu"), false), None);
    assert_eq!((report["outcome"].as_str(), code), (Some("unmeasured"), 2), "{}", report["verdict"]);
    assert_eq!(report["faults"], serde_json::json!([]));
    let note = point(&report, "model.layers.0.linear_attn.conv1d")["note"].as_str().unwrap();
    assert!(note.contains("a replay of the reference would settle it"), "{note}");
}

#[test]
fn positions_counted_from_one_are_no_fault_and_what_differs_is_said() {
    let (report, code) = compared((None, true), Some("positions-plus-one"));
    assert_eq!((report["outcome"].as_str(), code), (Some("unmeasured"), 2), "{}", report["verdict"]);
    assert_eq!(report["faults"], serde_json::json!([]));
    let note = point(&report, "model.rotary_emb.sin")["note"].as_str().unwrap();
    assert!(note.contains("both sides give here what their own inputs and weights give"), "{note}");
    // What attention makes of it is the same: only differences of positions matter.
    assert_eq!(point(&report, "model.layers.3.self_attn.scores")["note"], Value::Null);
}

#[test]
fn positions_of_the_decode_steps_alone_that_are_off_by_one_are_a_fault() {
    for fault in ["decode-position-plus-one", "decode-position-zero"] {
        let (report, code) = compared((None, true), Some(fault));
        assert_eq!((report["outcome"].as_str(), code), (Some("fault"), 1));
        let first = &report["first_fault"];
        assert_eq!(
            (first["component"].as_str(), first["step"].as_u64()),
            (Some("self_attn.q_rope"), Some(1))
        );
        assert_eq!(first["side"], "candidate");
    }
}

/// Swaps the rows of neighbouring value heads, which share a key head.
fn swapped(values: &mut [f32], start: usize, row: usize) {
    for pair in values[start..].chunks_exact_mut(2 * row) {
        let (a, b) = pair.split_at_mut(row);
        a.swap_with_slice(b);
    }
}

#[test]
fn value_heads_permuted_together_with_the_columns_of_out_proj_are_no_fault() {
    // The bundled model has 2 key heads and 4 value heads of 32, and is 128 wide.
    let (width, head, keys, heads) = (128, 32, 2 * 2 * 32, 4);
    let permuted = Form::F32.write(|name, values| {
        let of = |end: &str| name.contains("linear_attn") && name.ends_with(end);
        if of("in_proj_qkv.weight") {
            swapped(values, keys * width, head * width);
        } else if of("conv1d.weight") {
            swapped(values, keys * 4, head * 4);
        } else if of("in_proj_z.weight") {
            swapped(values, 0, head * width);
        } else if of("in_proj_a.weight") || of("in_proj_b.weight") {
            swapped(values, 0, width);
        } else if of("A_log") || of("dt_bias") {
            swapped(values, 0, 1);
        } else if of("out_proj.weight") {
            values.chunks_exact_mut(heads * head).for_each(|row| swapped(row, 0, head));
        }
    });
    let out = tempfile::tempdir().unwrap();
    let run = layerdiff(&[
        "--json".as_ref(),
        "run".as_ref(),
        "--engine".as_ref(),
        "lattice-f32".as_ref(),
        "--weights".as_ref(),
        permuted.path().as_os_str(),
        "--prompt".as_ref(),
        "code-01".as_ref(),
        "--out".as_ref(),
        out.path().join("report").as_os_str(),
    ]);
    let report = run.json();
    assert_eq!(report["faults"], serde_json::json!([]), "{}", report["verdict"]);
    // Their own numbers are other ones, of which nothing can be said; what leaves the layer is the same.
    assert_eq!((report["outcome"].as_str(), run.code), (Some("unmeasured"), 2), "{}", report["verdict"]);
    for name in ["model.layers.0.linear_attn.out_proj", "model.layers.0", "lm_head"] {
        assert_eq!(point(&report, name)["note"], Value::Null, "{}", point(&report, name));
    }
}
