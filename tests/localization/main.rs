//! Where an error starts: planted into copies of a trace, and into the running engine.

#[path = "../common/mod.rs"]
mod common;

mod running_engine;
mod the_judgement;

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
        let reasons = report.json["verdict"]["reasoning"].to_string();
        assert!(
            reasons.contains("Nothing was compared of prompt two: if a side lacks it, `--prompt` chooses"),
            "{reasons}"
        );
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
