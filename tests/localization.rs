//! Where an error starts: planted into copies of a trace, and into the running engine.

mod common;

use common::{Captured, Draft, Run, command, finished, graph, prompt};
use layerdiff::align::align;
use layerdiff::basis::Gains;
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine;
use layerdiff::error::Result;
use layerdiff::floor::Floor;
use layerdiff::hook::{At, CaptureHook, Chain, Hook};
use layerdiff::localize::{CAP, Evidence, Judgement, MARGIN, State, Storage, localize};
use layerdiff::metrics::{self, Metrics};
use layerdiff::model::{Graph, ModelConfig, PointFilter, layer_of};
use layerdiff::tensor::{DType, Tensor, TensorView, Values};
use layerdiff::trace::{Trace, TraceWriter};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A reference and a candidate on disk.
struct Traces {
    root: TempDir,
}

impl Traces {
    fn of(reference: &Draft, candidate: &Draft) -> Self {
        let traces = Self { root: tempfile::tempdir().unwrap() };
        reference.write(&traces.path("reference"));
        candidate.write(&traces.path("candidate"));
        traces
    }

    /// The tiny trace, and a copy with a change.
    fn planted(change: impl FnOnce(&mut Draft)) -> Self {
        let (reference, mut candidate) = (Draft::tiny(), Draft::tiny());
        change(&mut candidate);
        Self::of(&reference, &candidate)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn run(&self, more: &[&str], threads: &str) -> Run {
        let mut args = vec!["compare", "reference", "candidate", "--json"];
        args.extend(more);
        finished(command(&args).current_dir(self.root.path()).env("RAYON_NUM_THREADS", threads))
    }

    fn compare(&self, more: &[&str]) -> Report {
        let run = self.run(more, "2");
        Report { code: run.code, json: run.json() }
    }

    /// The only fault must be at this point, and the exit code 1.
    #[track_caller]
    fn blame(&self, point: &str) -> Report {
        let report = self.compare(&[]);
        report.blames(point);
        report
    }
}

/// `report.json` and the exit code.
struct Report {
    code: i32,
    json: Value,
}

impl Report {
    fn outcome(&self) -> (i32, &str) {
        (self.code, self.json["outcome"].as_str().unwrap())
    }

    fn point(&self, point: &str) -> &Value {
        let mut points = self.json["points"].as_array().unwrap().iter();
        points.find(|p| p["point"] == point).unwrap_or_else(|| panic!("no {point}"))
    }

    fn state(&self, point: &str) -> &str {
        self.point(point)["state"].as_str().unwrap()
    }

    /// expected, matched, mismatched, unmeasured.
    fn coverage(&self) -> [u64; 4] {
        let c = &self.json["coverage"];
        let counts = ["expected", "matched", "mismatched", "unmeasured"].map(|key| c[key].as_u64().unwrap());
        assert_eq!(counts[0], counts[1] + counts[2] + counts[3]);
        counts
    }

    #[track_caller]
    fn blames(&self, point: &str) {
        assert_eq!(self.outcome(), (1, "fault"), "{point}");
        let faults: Vec<&str> =
            self.json["faults"].as_array().unwrap().iter().map(|f| f["point"].as_str().unwrap()).collect();
        assert_eq!(faults, [point]);
        let first = &self.json["first_fault"];
        assert_eq!(
            (first["point"].as_str(), first["layer"].as_u64()),
            (Some(point), layer_of(point).map(|l| l as u64))
        );
        assert_eq!(self.json["growth"]["first_point"], point);
        assert_eq!(self.state(point), "born");
    }
}

/// Adds 0.05 to every number; a mask loses its first bit.
fn disturb(tensor: &mut Captured) {
    if tensor.dtype == DType::U8 {
        tensor.bytes[0] ^= 1;
    } else {
        tensor.map(|_, v| v + 0.05);
    }
}

#[test]
fn equal_traces_pass() {
    let report = Traces::planted(|_| ()).compare(&[]);
    assert_eq!(report.outcome(), (0, "pass"));
    let n = graph().components().len() as u64;
    assert_eq!(report.coverage(), [n, n, 0, 0]);
    assert_eq!(report.json["first_fault"], Value::Null);
    assert!(
        report.json["points"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| p["state"] == "explained" && p["rel_l2"] == 0.0)
    );
}

#[test]
fn a_disturbance_is_found_at_exactly_its_layer_and_point_wherever_it_is() {
    for component in graph().components() {
        Traces::planted(|d| disturb(d.at(&component.point))).blame(&component.point);
    }
}

#[test]
fn a_disturbance_below_the_customary_tolerance_passes() {
    let report = Traces::planted(|d| d.at("model.layers.2").map(|_, v| v * (1.0 + 3e-6))).compare(&[]);
    assert_eq!(report.outcome(), (0, "pass"));
    assert!(report.point("model.layers.2")["rel_l2"].as_f64().unwrap() > 1e-6);
}

#[test]
fn a_scaled_tensor_is_found_though_its_direction_is_right() {
    let report = Traces::planted(|d| d.at("model.layers.1.mlp.act").map(|_, v| v * 1.01))
        .blame("model.layers.1.mlp.act");
    let point = report.point("model.layers.1.mlp.act");
    assert!((point["norm_ratio"].as_f64().unwrap() - 1.01).abs() < 1e-6);
    assert!(point["cosine"].as_f64().unwrap() > 1.0 - 1e-12);
}

#[test]
fn a_swapped_pair_of_heads_is_found() {
    let point = "model.layers.3.self_attn.q_rope";
    let report = Traces::planted(|d| {
        let tensor = d.at(point);
        let (before, [_, heads, width]) = (tensor.values(), tensor.shape[..].try_into().unwrap());
        tensor.map(|i, v| {
            let head = i / width % heads;
            if head < 2 { before[i + width - 2 * width * head] } else { v }
        });
    })
    .blame(point);
    assert!((report.point(point)["norm_ratio"].as_f64().unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn a_sign_that_flips_in_one_token_is_found_at_that_token() {
    let point = "model.layers.0.linear_attn.out_proj";
    let report = Traces::planted(|d| d.at(point).map(|i, v| if i / 8 == 3 { -v } else { v })).blame(point);
    assert_eq!(report.point(point)["per_token"], json!([0.0, 0.0, 0.0, 2.0, 0.0]));
}

#[test]
fn one_nan_is_found_and_no_mean_hides_it() {
    let report =
        Traces::planted(|d| d.at("lm_head").map(|i, v| if i == 77 { f32::NAN } else { v })).blame("lm_head");
    let point = report.point("lm_head");
    assert_eq!((&point["rel_l2"], &point["max_abs"]), (&json!("inf"), &json!("inf")));
    assert_eq!(point["max_abs_at"]["index"], json!([2, 13]));
    assert_eq!(point["max_abs_at"]["candidate"], "NaN");
    assert_eq!(point["per_token"][2], "inf");
}

#[test]
fn a_score_that_the_mask_should_forbid_is_found() {
    let point = "model.layers.3.self_attn.scores";
    Traces::planted(|d| d.at(point).map(|i, v| if i == 1 { 0.5 } else { v })).blame(point);
}

#[test]
fn a_mask_s_bit_is_found() {
    let point = "model.layers.3.self_attn.attention_mask";
    let report = Traces::planted(|d| d.at(point).bytes[4] = 1).blame(point);
    assert_eq!(report.point(point)["max_abs_at"]["index"], json!([0, 4]));
}

#[test]
fn a_fault_of_a_later_prompt_and_step_is_named_with_both() {
    let reference = Draft::of(&[prompt("one", &[1, 2]), prompt("two", &[3, 4, 5])]).with_step(1);
    let mut candidate = reference.clone();
    let here = |t: &&mut Captured| t.point == "model.layers.1";
    candidate.tensors.iter_mut().filter(here).filter(|t| t.prompt == "two" || t.step == 1).for_each(disturb);
    let report = Traces::of(&reference, &candidate).compare(&[]);
    assert_eq!(report.outcome(), (1, "fault"));
    let places: Vec<(&str, u64)> = report.json["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["prompt"].as_str().unwrap(), f["step"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [("two", 0), ("one", 1)]);
    assert_eq!(report.json["prompt_id"], "two");
    let outcomes: Vec<&Value> =
        report.json["prompts"].as_array().unwrap().iter().map(|p| &p["outcome"]).collect();
    assert_eq!(outcomes, ["fault", "fault"]);
    let n = graph().components().len() as u64;
    assert_eq!(report.coverage(), [3 * n, 3 * n, 0, 0]);
}

#[test]
fn two_faults_that_do_not_feed_each_other_are_both_named_in_order_of_execution() {
    let report = Traces::planted(|d| {
        disturb(d.at("model.layers.3.self_attn.q_proj"));
        disturb(d.at("model.rotary_emb.sin"));
    })
    .compare(&[]);
    let faults: Vec<&Value> = report.json["faults"].as_array().unwrap().iter().map(|f| &f["point"]).collect();
    assert_eq!(faults, ["model.rotary_emb.sin", "model.layers.3.self_attn.q_proj"]);
}

// Coverage.

#[test]
fn a_point_that_a_side_lacks_is_unmeasured_and_never_passed() {
    let n = graph().components().len() as u64;
    let point = "model.layers.2.mlp.act";
    let without = |d: &mut Draft| d.tensors.retain(|t| t.point != point);
    let report = Traces::planted(without).compare(&[]);
    assert_eq!(report.outcome(), (2, "unmeasured"));
    assert_eq!(report.coverage(), [n, n - 1, 0, 1]);
    assert_eq!(
        (report.state(point), report.point(point)["note"].as_str()),
        ("unmeasured", Some("the candidate lacks it"))
    );
    let mut less = Draft::tiny();
    without(&mut less);
    let report = Traces::of(&less, &Draft::tiny()).compare(&[]);
    assert_eq!((report.outcome(), report.coverage()), ((2, "unmeasured"), [n, n - 1, 0, 1]));
    assert_eq!(report.point(point)["note"], "the reference lacks it");
    let report = Traces::of(&less, &less).compare(&[]);
    assert_eq!((report.outcome(), report.coverage()), ((2, "unmeasured"), [n, n - 1, 0, 1]));
    assert_eq!(report.point(point)["note"], "both traces lack it");
}

#[test]
fn a_fault_outweighs_what_is_unmeasured() {
    let n = graph().components().len() as u64;
    let report = Traces::planted(|d| {
        d.tensors.retain(|t| t.point != "model.layers.2.mlp.act");
        disturb(d.at("model.layers.1"));
    })
    .blame("model.layers.1");
    assert_eq!(report.coverage(), [n, n - 1, 0, 1]);
}

#[test]
fn a_point_that_the_architecture_does_not_know_counts_too() {
    let n = graph().components().len() as u64;
    let mut more = Draft::tiny();
    let mut extra = more.at("model.norm").clone();
    extra.point = "model.layers.1.mlp.router".into();
    more.tensors.push(extra);
    let report = Traces::of(&Draft::tiny(), &more).compare(&[]);
    assert_eq!((report.outcome(), report.coverage()), ((2, "unmeasured"), [n + 1, n, 0, 1]));
    assert_eq!(report.state("model.layers.1.mlp.router"), "unmeasured");
    let report = Traces::of(&more, &more).compare(&[]);
    assert_eq!((report.outcome(), report.coverage()), ((0, "pass"), [n + 1, n + 1, 0, 0]));
    let mut wrong = more.clone();
    disturb(wrong.at("model.layers.1.mlp.router"));
    Traces::of(&more, &wrong).blame("model.layers.1.mlp.router");
}

#[test]
fn a_form_that_cannot_be_compared_is_mismatched_and_never_passed() {
    let n = graph().components().len() as u64;
    let report = Traces::planted(|d| d.at("lm_head").shape = vec![32, 5]).compare(&[]);
    assert_eq!((report.outcome(), report.coverage()), ((2, "unmeasured"), [n, n - 1, 1, 0]));
    assert_eq!(report.state("lm_head"), "mismatched");
    let mut both = Draft::tiny();
    both.at("lm_head").shape = vec![32, 5];
    let report = Traces::of(&both, &both).compare(&[]);
    assert_eq!((report.outcome(), report.coverage()), ((2, "unmeasured"), [n, n - 1, 1, 0]));
}

#[test]
fn a_prompt_that_a_side_lacks_is_unmeasured() {
    let n = graph().components().len() as u64;
    let one = Draft::of(&[prompt("one", &[1, 2])]);
    let two = Draft::of(&[prompt("one", &[1, 2]), prompt("two", &[3])]);
    for traces in [Traces::of(&one, &two), Traces::of(&two, &one)] {
        let report = traces.compare(&[]);
        assert_eq!((report.outcome(), report.coverage()), ((2, "unmeasured"), [2 * n, n, 0, n]));
        let outcomes: Vec<&Value> =
            report.json["prompts"].as_array().unwrap().iter().map(|p| &p["outcome"]).collect();
        assert_eq!(outcomes, ["pass", "unmeasured"]);
    }
}

#[test]
fn a_step_that_a_side_lacks_is_unmeasured() {
    let n = graph().components().len() as u64;
    let longer = Draft::tiny().with_step(1);
    for traces in [Traces::of(&longer, &Draft::tiny()), Traces::of(&Draft::tiny(), &longer)] {
        let report = traces.compare(&[]);
        assert_eq!((report.outcome(), report.coverage()), ((2, "unmeasured"), [2 * n, n, 0, n]));
    }
}

#[test]
fn what_was_not_asked_for_is_not_missed() {
    let report = Traces::planted(|d| d.tensors.retain(|t| t.point.contains(".mlp.")))
        .compare(&["--points", "*.mlp.*"]);
    assert_eq!((report.outcome(), report.coverage()), ((0, "pass"), [16, 16, 0, 0]));
}

#[test]
fn a_fault_at_a_point_that_was_not_asked_for_is_not_seen_in_a_copy() {
    let report = Traces::planted(|d| disturb(d.at("model.layers.1"))).compare(&["--points", "*.mlp.*"]);
    assert_eq!(report.outcome(), (0, "pass"));
}

// Threads.

#[test]
fn a_report_is_the_same_to_the_byte_at_any_number_of_threads() {
    let traces = Traces::planted(|d| {
        d.tensors.iter_mut().filter(|t| t.dtype == DType::F32).for_each(|t| t.map(|i, v| v + 1e-5 * i as f32))
    });
    let one = traces.run(&[], "1");
    assert_eq!(one.code, 1);
    for threads in ["2", "3", "8"] {
        assert_eq!(traces.run(&[], threads), one, "{threads} threads");
    }
}

// The judgement alone.

/// Judges points, in order of execution, whose errors and floors are these; the numbers are F64, so that rounding is no excuse.
fn judge(floors: &[(&str, f64)], errors: &[(&str, f64)], parameter_error: &[(&str, f64)]) -> Vec<Judgement> {
    let graph = graph();
    let point = |(point, rel_l2): &(&str, f64)| {
        let rel_l2 = if rel_l2.is_finite() { json!(rel_l2) } else { json!(rel_l2.to_string()) };
        json!({"point": point, "step": 0, "prompt": "p-01", "rel_l2": rel_l2})
    };
    let hashes = json!({"weights": null, "tokenizer": null, "config": null});
    let side = json!({"engine": "test", "dtype": "float64", "hashes": hashes});
    let hashes = json!({"weights": "w", "tokenizer": "t", "config": "c"});
    let other = json!({"engine": "test", "dtype": "float32", "hashes": hashes});
    let report = json!({
        "engine": "arm", "prompts": [], "provenance": {"candidate": side, "reference": other},
        "points": floors.iter().map(point).collect::<Vec<_>>(),
    });
    let root = tempfile::tempdir().unwrap();
    let mut draft = Draft::tiny();
    draft.tensors.retain(|t| errors.iter().any(|(point, _)| *point == t.point));
    for tensor in &mut draft.tensors {
        tensor.bytes = tensor.values().iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        tensor.dtype = DType::F64;
    }
    draft.write(&root.path().join("trace"));
    let trace = Trace::open(&root.path().join("trace")).unwrap();
    let floor = if floors.is_empty() {
        Floor::Preset
    } else {
        Floor::from_report(&report.to_string(), &trace).unwrap()
    };
    let mut pairs = align(&graph, &trace, &trace, &PointFilter::default(), &Gains::default()).unwrap();
    pairs.retain(|pair| pair.note().is_none());
    let metrics: Vec<Metrics> = errors.iter().map(|(_, error)| with_error(*error)).collect();
    let parameter_error: BTreeMap<String, f64> =
        parameter_error.iter().map(|(n, e)| ((*n).to_owned(), *e)).collect();
    let evidence = |(pair, metrics)| Evidence { pair, metrics: Some(metrics), local: None, reference: None };
    let step: Vec<Evidence<'_>> = pairs.iter().zip(&metrics).map(evidence).collect();
    let storage = Storage { parameter_error, ..Storage::default() };
    localize(&graph, &floor, &storage, &step).into_iter().map(Option::unwrap).collect()
}

/// The metrics of 1 against 1 + `error`.
fn with_error(error: f64) -> Metrics {
    let (one, other) = (1f64.to_le_bytes(), (1.0 + error).to_le_bytes());
    let view = |bytes| TensorView { dtype: DType::F64, shape: &[1], bytes };
    metrics::compare(view(&one), view(&other), None)
}

fn states(judgements: &[Judgement]) -> Vec<State> {
    judgements.iter().map(|j| j.state).collect()
}

const LAYER: &str = "model.layers.0";
const NORM: &str = "model.layers.1.input_layernorm";
const QKV: &str = "model.layers.1.linear_attn.in_proj_qkv";

#[test]
fn an_error_up_to_the_margin_over_the_floor_is_explained() {
    let floors = [(LAYER, 1e-6)];
    assert_eq!(states(&judge(&floors, &[(LAYER, 0.99e-6 * MARGIN)], &[])), [State::Explained]);
    assert_eq!(states(&judge(&floors, &[(LAYER, 1.01e-6 * MARGIN)], &[])), [State::Born]);
}

#[test]
fn an_explained_error_may_grow_as_the_floor_does_where_the_floor_is_low_by_chance() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-6)];
    let errors = |input, output| [(LAYER, input), (NORM, output)];
    // Ten times as large as at its input, as is the floor: more than the floor here alone excuses.
    let grown = judge(&floors, &errors(2e-7, 1.9e-6 * MARGIN), &[]);
    assert_eq!(states(&grown), [State::Explained; 2]);
    let too_much = judge(&floors, &errors(2e-7, 2.1e-6 * MARGIN), &[]);
    assert_eq!(states(&too_much), [State::Explained, State::Born]);
    let out_of_nothing = judge(&floors, &errors(0.0, 1.9e-6 * MARGIN), &[]);
    assert_eq!(states(&out_of_nothing), [State::Explained, State::Born]);
}

#[test]
fn an_error_that_creeps_up_from_point_to_point_is_excused_up_to_the_cap_only() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let errors = [(LAYER, 0.99e-7 * MARGIN), (NORM, 0.9e-7 * CAP), (QKV, 1.1e-7 * CAP)];
    assert_eq!(states(&judge(&floors, &errors, &[])), [State::Explained, State::Explained, State::Born]);
}

#[test]
fn what_grows_out_of_a_fault_is_inherited_however_much_it_grows() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let errors = [(LAYER, 1e-2), (NORM, 0.3), (QKV, 40.0)];
    assert_eq!(states(&judge(&floors, &errors, &[])), [State::Born, State::Inherited, State::Inherited]);
}

#[test]
fn what_a_component_evens_out_is_absorbed_and_may_grow_again_without_a_new_fault() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let errors = [(LAYER, 1e-2), (NORM, 1e-7), (QKV, 1e-2)];
    assert_eq!(states(&judge(&floors, &errors, &[])), [State::Born, State::Absorbed, State::Inherited]);
}

#[test]
fn an_error_that_the_storage_of_the_parameters_makes_is_explained_there_and_downstream_only() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let stored = [("model.layers.1.input_layernorm.weight", 1e-4)];
    let error = 0.5e-4 * MARGIN;
    let downstream = judge(&floors, &[(LAYER, 1e-7), (NORM, error), (QKV, error)], &stored);
    assert_eq!(states(&downstream), [State::Explained; 3]);
    assert_eq!(states(&judge(&floors, &[(LAYER, error)], &stored)), [State::Born]);
}

#[test]
fn where_more_than_a_tenth_would_be_excused_nothing_is_judged() {
    let floors = [(NORM, 1e-7)];
    let stored = [("model.layers.1.input_layernorm.weight", 1e-2)];
    for (error, state) in
        [(0.0, State::Explained), (0.05, State::Unmeasured), (0.15, State::Unmeasured), (1.0, State::Born)]
    {
        assert_eq!(states(&judge(&floors, &[(NORM, error)], &stored)), [state], "{error}");
    }
}

#[test]
fn storage_that_a_long_chain_passes_on_does_not_grow() {
    let stored = [("model.layers.0.input_layernorm.weight", 1e-4)];
    let floors: Vec<(&str, f64)> = [(LAYER, 1e-7), (NORM, 1e-6), (QKV, 1e-7)].to_vec();
    let errors = [("model.layers.0.input_layernorm", 1e-4), (LAYER, 1e-4), (NORM, 1e-4), (QKV, 1e-4)];
    let floors = [vec![("model.layers.0.input_layernorm", 1e-7)], floors].concat();
    let judged = judge(&floors, &errors, &stored);
    let explained: Vec<f64> = judged.iter().map(|j| j.explained / MARGIN).collect();
    assert!((explained[1] / explained[0] - 1.0).abs() < 1e-9, "{explained:?}");
    assert!((explained[2] / explained[0] - 10.0).abs() < 1e-9, "{explained:?}");
    assert!((explained[3] / explained[0] - 1.0).abs() < 1e-9, "{explained:?}");
}

#[test]
fn the_nearest_measured_point_upstream_stands_for_those_that_were_not_measured() {
    let judgements = judge(&[(LAYER, 1e-7), (QKV, 1e-7)], &[(LAYER, 1e-9), (QKV, 1e-2)], &[]);
    assert_eq!(judgements[1].inputs, [(LAYER.to_owned(), with_error(1e-9).rel_l2)]);
    assert_eq!(judgements[1].state, State::Born);
    let judgements = judge(&[(LAYER, 1e-7), (QKV, 1e-7)], &[(LAYER, 1e-2), (QKV, 1e-2)], &[]);
    assert_eq!(judgements[1].state, State::Inherited);
}

#[test]
fn a_floor_that_is_not_finite_excuses_nothing() {
    for floor in [f64::INFINITY, f64::NAN] {
        assert_eq!(states(&judge(&[(LAYER, floor)], &[(LAYER, 1e-2)], &[])), [State::Born], "{floor}");
        assert_eq!(states(&judge(&[(LAYER, floor)], &[(LAYER, f64::NAN)], &[])), [State::Born], "{floor}");
        assert_eq!(states(&judge(&[(LAYER, floor)], &[(LAYER, 1e-7)], &[])), [State::Explained], "{floor}");
    }
}

#[test]
fn an_error_that_is_not_finite_is_never_explained() {
    for error in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(states(&judge(&[(LAYER, 1e300)], &[(LAYER, error)], &[])), [State::Born], "{error}");
        assert_eq!(states(&judge(&[], &[(LAYER, error)], &[])), [State::Born], "{error}");
        let stored = [("model.layers.0.mlp.down_proj.weight", f64::INFINITY)];
        let point = "model.layers.0.mlp.down_proj";
        assert_eq!(states(&judge(&[(point, 1e-7)], &[(point, error)], &stored)), [State::Born], "{error}");
    }
}

// The running engine.

/// Disturbs one point of the running engine.
struct Plant<'a>(Option<&'a str>, f32);

/// How much the disturbance adds to each number, unless a test says otherwise.
const SHIFT: f32 = 0.05;

impl Hook for Plant<'_> {
    fn wants(&self, point: &str) -> bool {
        self.0 == Some(point)
    }

    fn call(&mut self, _at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        match &mut tensor.values {
            Values::F32(values) => values.iter_mut().for_each(|v| *v += self.1),
            // The last token loses sight of the first.
            Values::U8(values) => {
                let row = values.len() - tensor.shape[1];
                values[row] = 0;
            }
        }
        Ok(tensor)
    }
}

/// The bundled model in the serial f32 engine.
struct Lattice {
    model: ModelDir,
    engine: Box<dyn engine::Engine>,
}

impl Lattice {
    fn open() -> Self {
        let model = ModelDir::open(&common::bundled_model()).unwrap();
        let engine = engine::open("lattice-f32", model.path(), model.graph(), Some("serial")).unwrap();
        Self { model, engine }
    }

    /// Captures a pass with a disturbance at `point`.
    fn capture(&mut self, point: Option<&str>, target: &Path) {
        self.capture_shifted(point, SHIFT, target);
    }

    fn capture_shifted(&mut self, point: Option<&str>, shift: f32, target: &Path) {
        let mut options = Draft::tiny().options;
        options.config = self.model.config().as_json().clone();
        let mut writer = TraceWriter::create(target, options).unwrap();
        let tokens = [5, 7, 11, 13];
        writer.start_prompt(&prompt("p", &tokens));
        let points = PointFilter::default();
        let mut hook = CaptureHook::new(&mut writer, &points);
        self.engine.run(&tokens, &[], &mut Chain(vec![&mut Plant(point, shift), &mut hook])).unwrap();
        writer.finish(None).unwrap();
    }

    /// Two captures, the second with a disturbance.
    fn traces(&mut self, point: Option<&str>) -> Traces {
        let traces = Traces { root: tempfile::tempdir().unwrap() };
        self.capture(None, &traces.path("reference"));
        self.capture(point, &traces.path("candidate"));
        traces
    }
}

/// All points that depend on `point`.
fn downstream<'a>(graph: &'a Graph, point: &'a str) -> Vec<&'a str> {
    let mut found = vec![point];
    for component in graph.components() {
        if component.inputs.iter().any(|i| found.contains(&i.as_str())) {
            found.push(&component.point);
        }
    }
    found.split_off(1)
}

#[test]
fn two_runs_of_one_engine_are_equal_and_pass() {
    let traces = Lattice::open().traces(None);
    assert_eq!(traces.compare(&[]).outcome(), (0, "pass"));
    let bytes = |name: &str| common::tree(&traces.path(name)).into_values().collect::<Vec<_>>();
    assert_eq!(bytes("reference"), bytes("candidate"));
}

#[test]
fn a_disturbance_of_any_layer_is_found_at_its_output_and_inherited_by_all_that_follows() {
    let mut lattice = Lattice::open();
    let graph = lattice.model.graph().clone();
    for layer in 0..graph.layer_types().len() {
        let point = format!("model.layers.{layer}");
        let report = lattice.traces(Some(&point)).blame(&point);
        let after = downstream(&graph, &point);
        for component in graph.components().iter().filter(|c| c.point != point) {
            let state = report.state(&component.point);
            if after.contains(&component.point.as_str()) {
                assert!(
                    ["inherited", "absorbed"].contains(&state),
                    "{layer}: {} is {state}",
                    component.point
                );
            } else {
                assert_eq!(state, "explained", "{layer}: {}", component.point);
            }
        }
        assert_eq!(report.state("lm_head"), "inherited");
    }
}

#[test]
fn a_disturbance_of_any_component_is_the_first_fault() {
    let mut lattice = Lattice::open();
    let graph = lattice.model.graph().clone();
    // One layer of each type, and what is outside.
    let full = graph.layer_types().iter().position(|t| t == "full_attention");
    let linear = graph.layer_types().iter().rposition(|t| t == "linear_attention");
    for component in
        graph.components().iter().filter(|c| c.layer.is_none() || c.layer == full || c.layer == linear)
    {
        let report = lattice.traces(Some(&component.point)).compare(&[]);
        assert_eq!(report.outcome(), (1, "fault"), "{}", component.point);
        assert_eq!(report.json["first_fault"]["point"], component.point);
    }
}

#[test]
fn a_fault_between_the_points_that_were_asked_for_is_seen_at_the_next_of_them() {
    let traces = Lattice::open().traces(Some("model.layers.2.mlp.act"));
    let report = traces.compare(&["--points", "model.layers.[0-9]"]);
    report.blames("model.layers.2");
    let reasoning = report.json["verdict"]["reasoning"].to_string();
    assert!(reasoning.contains("upstream") && reasoning.contains("model.layers.1 "), "{reasoning}");
    traces.compare(&["--points", "model.layers.*.down_proj"]).blames("model.layers.2.mlp.down_proj");
    let report = traces.compare(&["--points", "model.norm"]);
    report.blames("model.norm");
    assert!(report.json["verdict"]["reasoning"].to_string().contains("Nothing upstream"));
}

#[test]
fn a_candidate_is_not_its_own_floor() {
    let traces = Lattice::open().traces(Some("model.layers.2"));
    assert_eq!(traces.compare(&["--floor", "candidate"]).outcome(), (2, "invalid"));
}

#[test]
fn a_floor_of_the_same_disturbance_excuses_it_and_a_floor_of_another_does_not() {
    let mut lattice = Lattice::open();
    let traces = Traces { root: tempfile::tempdir().unwrap() };
    let shift = SHIFT / 100.0;
    lattice.capture(None, &traces.path("reference"));
    lattice.capture_shifted(Some("model.layers.2"), shift, &traces.path("candidate"));
    for (point, name) in [("model.layers.2", "same"), ("model.layers.4", "other")] {
        lattice.capture_shifted(Some(point), shift, &traces.path(name));
        let manifest = traces.path(name).join("manifest.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replacen("\"dtype\":\"float32\"", "\"dtype\":\"float64\"", 1))
            .unwrap();
    }
    assert_eq!(traces.compare(&["--floor", "same"]).outcome(), (0, "pass"));
    traces.compare(&["--floor", "other"]).blames("model.layers.2");
}

#[test]
fn a_trace_s_graph_is_that_of_its_own_configuration() {
    let traces = Traces::planted(|_| ());
    let trace = Trace::open(&traces.path("reference")).unwrap();
    let config = ModelConfig::new(trace.manifest().config.clone()).unwrap();
    let points: Vec<String> =
        Graph::for_config(&config).unwrap().components().iter().map(|c| c.point.clone()).collect();
    assert_eq!(points, trace.entries().iter().map(|e| e.point.clone()).collect::<Vec<_>>());
}
