//! Made-up reports with the points of a real architecture.

use super::*;
use crate::metrics::{ErrorsByValue, Magnitudes, Metrics, NonFinite, Quantiles, ValueRow};
use crate::model::{Component, Graph, ModelConfig};
use crate::trace::{Evidence, Hashes, Provenance, SelfCheck};
use serde_json::json;

fn graph(layers: usize) -> Graph {
    let config = json!({
        "model_type": "qwen3_5_text", "hidden_size": 64, "vocab_size": 512, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
        "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25}
    });
    Graph::for_config(&ModelConfig::new(json!({"model_type": "qwen3_5", "text_config": config})).unwrap())
        .unwrap()
}

pub(super) fn metrics(rel_l2: f64) -> Metrics {
    Metrics {
        elements: 4096,
        rel_l2,
        rms_reference: 1.0,
        rms_difference: rel_l2,
        max_abs: rel_l2 * 4.0,
        max_abs_at: None,
        cosine: 1.0,
        norm_ratio: 1.0,
        quantiles: Quantiles::default(),
        magnitudes: Magnitudes::default(),
        non_finite: NonFinite::default(),
        per_token: (0..16).map(|i| Some(rel_l2 * (0.3 + 0.1 * f64::from(i % 7)))).collect(),
    }
}

/// Between 0.5 and 2, by the name alone.
fn noise(name: &str) -> f64 {
    let hash = name
        .bytes()
        .fold(14_695_981_039_346_656_037_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(1_099_511_628_211));
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    2f64.powf(((hash ^ (hash >> 32)) >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0)
}

fn exact(component: &Component) -> bool {
    component.point == "model.embed_tokens" || component.local.ends_with("attention_mask")
}

fn point(graph: &Graph, component: &Component) -> PointReport {
    let depth = component.layer.map_or(0.0, |l| l as f64 + 1.0);
    let scale = if exact(component) { 0.0 } else { (1.0 + depth).sqrt() * noise(&component.point) };
    PointReport {
        point: component.point.clone(),
        step: 0,
        prompt: "code-01".to_owned(),
        layer: component.layer,
        family: component.family.clone(),
        shape: graph.shape(component, 16, 16),
        state: State::Explained,
        note: None,
        metrics: Some(metrics(3e-7 * scale)),
        floors: [("bfloat16".to_owned(), 2e-3 * scale)].into(),
        quantization: Some(0.0),
        engine_error: Some(3e-7 * scale),
        armed: false,
        engine_metrics: None,
        floor: Some(2e-3 * scale),
        explained: Some(8e-3 * scale.max(0.01)),
        local_ratio: Some(0.3 * noise(&component.point)),
        replay_unmeasured: None,
    }
}

/// One entry for each kind of component.
fn ratios(graph: &Graph) -> Vec<Ratios> {
    let mut kinds: Vec<Ratios> = Vec::new();
    for component in graph.components() {
        if kinds.iter().all(|kind| kind.op != component.op) {
            kinds.push(Ratios {
                op: component.op,
                points: 3,
                median: 0.1 * noise(&component.point),
                max: 0.4 * noise(&component.point),
                point: component.point.clone(),
                step: 0,
                prompt: "code-01".to_owned(),
            });
        }
    }
    kinds
}

/// Errors of 16 heads of every point that has some, some larger.
fn heads(graph: &Graph) -> Vec<HeadErrors> {
    let with = |c: &&Component| graph.axes(c).iter().any(|a| a.ends_with("heads"));
    let of = |c: &Component| HeadErrors {
        point: c.point.clone(),
        step: 0,
        prompt: "code-01".to_owned(),
        axis: "heads".to_owned(),
        rel_l2: (0..16).map(|head| 3e-7 * noise(&format!("{} {head}", c.point))).collect(),
    };
    graph.components().iter().filter(with).map(of).collect()
}

/// Errors that grow with the value, at one point of each component.
fn by_value(points: &[PointReport]) -> Vec<PointByValue> {
    let first = points.iter().filter(|p| p.layer.is_none_or(|layer| layer == 0 || layer == 3));
    let row =
        |value: i32| ValueRow { value, exact: 10, from: value - 25, counts: vec![1, 8, 40, 200, 90, 10] };
    let counts = ErrorsByValue {
        rows: (-8..4).map(row).collect(),
        at_zero: ValueRow { exact: 30, ..ValueRow::default() },
        not_finite: 2,
    };
    let of = |p: &PointReport| PointByValue {
        point: p.point.clone(),
        step: 0,
        prompt: "code-01".to_owned(),
        counts: counts.clone(),
    };
    first.map(of).collect()
}

fn provenance(engine: &str, version: &str) -> Provenance {
    Provenance {
        engine: engine.to_owned(),
        engine_version: version.to_owned(),
        path: "prefill".to_owned(),
        dtype: "float32".to_owned(),
        attention_implementation: (engine == "torch").then(|| "eager".to_owned()),
        cpu_features: vec!["avx2".to_owned(), "fma".to_owned(), "f16c".to_owned()],
        host: "linux x86_64".to_owned(),
        threads: Some(1),
        hashes: Hashes {
            weights: Some(format!("sha256:{}", "0123456789abcdef".repeat(4))),
            tokenizer: Some(format!("sha256:{}", "fedcba9876543210".repeat(4))),
            config: None,
            adapter: None,
            dequantized: None,
        },
        libraries: if engine == "torch" {
            [("transformers".to_owned(), "5.2.0".to_owned())].into()
        } else {
            [].into()
        },
        ..Provenance::default()
    }
}

fn prompt(id: &str) -> PromptReport {
    PromptReport {
        id: id.to_owned(),
        category: Some("code".to_owned()),
        text: Some("def add(a, b):".to_owned()),
        tokens: 16,
        token_ids: (0..16).collect(),
        step_token_ids: Vec::new(),
        token_texts: Vec::new(),
        outcome: Outcome::Pass,
        coverage: Coverage { expected: 195, matched: 195, mismatched: 0, unmeasured: 0 },
        worst_point: Some("lm_head".to_owned()),
        worst_rel_l2: Some(1.2e-6),
        first_fault: None,
    }
}

fn arms(quantization: &str) -> Arms {
    let arm = |status: &str| Arm {
        status: status.to_owned(),
        description: "as it was run".to_owned(),
        dtype: None,
        provenance: None,
    };
    let floor = |dtype: &str| Arm { dtype: Some(dtype.to_owned()), ..arm("measured") };
    Arms {
        total: arm("measured"),
        floor: vec![floor("float64"), floor("bfloat16")],
        quantization: arm(quantization),
        engine: arm("measured"),
    }
}

fn figures(point: &PointReport) -> Figures {
    Figures {
        point: point.point.clone(),
        layer: point.layer,
        step: point.step,
        prompt: point.prompt.clone(),
        total: point.metrics.as_ref().map(|m| m.rel_l2),
        floor: point.floors.clone(),
        quantization: point.quantization,
        engine: point.engine_error,
    }
}

/// A sound engine on quantized weights, with an arm Q.
pub(super) fn quantized() -> Report {
    let mut report = sound(8);
    report.engine = "lattice-q4".to_owned();
    report.arms = arms("measured");
    for point in &mut report.points {
        let price = 0.1 * noise(&point.point);
        point.engine_metrics = point.metrics.clone();
        point.armed = true;
        point.metrics = Some(metrics(price));
        point.quantization = Some(price);
    }
    report.worst = report.points.last().map(figures);
    report.dearest = report.worst.clone();
    let token = |position| TokenError {
        step: u32::from(position > 15),
        position,
        total: Some(0.1 * noise(&format!("total {position}"))),
        quantization: Some(0.1 * noise(&format!("total {position}"))),
        engine: Some(1e-6 * noise(&format!("engine {position}"))),
    };
    report.by_token = (0..20).map(token).collect();
    report
}

/// A sound engine, a quantized one, a faulty one, and one that could not be run.
pub(super) fn engines() -> ReportSet {
    let mut set = ReportSet::new(vec!["layerdiff".to_owned(), "run".to_owned()]);
    for report in [healthy(), quantized(), faulty()] {
        set.add(report);
    }
    set.add_error("lattice-quarot-q4", "this width cannot be rotated\n  expected: a power of two, got: 96");
    set
}

/// A report without any fault.
pub(super) fn sound(layers: usize) -> Report {
    let graph = graph(layers);
    let points: Vec<PointReport> = graph.components().iter().map(|c| point(&graph, c)).collect();
    let expected = points.len() as u64;
    Report {
        format: "layerdiff-report".to_owned(),
        version: 1,
        outcome: Outcome::Pass,
        verdict: Verdict {
            headline: format!("No component of lattice-f32 errs beyond the floor in {expected} points."),
            reasoning: vec![
                "Every point was compared.".to_owned(),
                "The largest error is 1.2e-6 at `lm_head`; the floor there is 4.0e-3.".to_owned(),
            ],
            rests_on: "growth".to_owned(),
        },
        engine: "lattice-f32".to_owned(),
        prompt_id: "code-01".to_owned(),
        prompts: vec![prompt("code-01")],
        architecture: "qwen3_5".to_owned(),
        layer_types: graph.layer_types().to_vec(),
        coverage: Coverage { expected, matched: expected, mismatched: 0, unmeasured: 0 },
        self_check: SelfCheck::new(vec![Evidence {
            what: "logits".to_owned(),
            entry_point: "Model::forward".to_owned(),
            elements: 8192,
            mismatches: 0,
            rel_l2: None,
        }]),
        first_fault: None,
        faults: Vec::new(),
        diagnosis: Vec::new(),
        ratios: ratios(&graph),
        replay_unmeasured: Vec::new(),
        growth: Growth::default(),
        floor: FloorReport {
            kind: "measured".to_owned(),
            description: "the reference in bfloat16, at the same points".to_owned(),
        },
        arms: arms("exact"),
        worst: points.last().map(figures),
        dearest: None,
        by_token: Vec::new(),
        heads: heads(&graph),
        by_value: by_value(&points),
        by_prompt: Vec::new(),
        points,
        warnings: Vec::new(),
        provenance: ReportProvenance {
            layerdiff: "0.1.0".to_owned(),
            command: ["layerdiff", "run", "--engine", "lattice-f32"].map(str::to_owned).to_vec(),
            reference: provenance("torch", "2.9.0"),
            candidate: provenance("lattice-f32", "0.15.0"),
        },
    }
}

/// Eight layers, no fault.
pub(super) fn healthy() -> Report {
    sound(8)
}

/// Makes `name` the place where a fault of size `error` is born; what comes later inherits it.
pub(super) fn plant(report: &mut Report, name: &str, error: f64) {
    let at = report.points.iter().position(|p| p.point == name).unwrap();
    for (i, point) in report.points.iter_mut().enumerate().skip(at) {
        let first = i == at;
        if first || point.metrics.as_ref().is_some_and(|m| m.rel_l2 > 0.0) {
            let inherited = error * 0.12 * noise(&point.point);
            point.metrics = Some(metrics(if first { error } else { inherited }));
            point.state = if first { State::Born } else { State::Inherited };
        }
    }
    let point = &report.points[at];
    let fault = Fault {
        point: name.to_owned(),
        side: Side::Candidate,
        layer: point.layer,
        component: stops::local(point).to_owned(),
        step: 0,
        prompt: point.prompt.clone(),
        ratio: error / point.explained.unwrap_or(1e-6),
        rel_l2: error,
        reason: "its inputs agree and its output does not".to_owned(),
    };
    report.outcome = Outcome::Fault;
    report.prompts[0].outcome = Outcome::Fault;
    report.prompts[0].first_fault = Some(name.to_owned());
    report.prompts[0].worst_rel_l2 = Some(error);
    report.prompts[0].worst_point = Some(name.to_owned());
    report.verdict.headline = format!("`{name}` computes something else than the reference.");
    report.growth = Growth {
        first_layer: fault.layer,
        first_point: Some(name.to_owned()),
        step: Some(0),
        prompt: Some(fault.prompt.clone()),
        largest_factor: None,
    };
    report.first_fault.get_or_insert(fault.clone());
    report.faults.push(fault);
}

/// Eight layers, with a fault in the rotary embedding of layer 3.
pub(super) fn faulty() -> Report {
    let mut report = sound(8);
    plant(&mut report, "model.layers.3.self_attn.k_rope", 0.41);
    report.diagnosis.push(Diagnosis {
        point: "model.layers.3.self_attn.k_rope".to_owned(),
        name: "RoPE pairs interleaved (2i, 2i+1)".to_owned(),
        id: Some("rope-interleaved".to_owned()),
        residual_ratio: 0.4,
        left: 1e-7,
        to_rounding: true,
        description: "1536 of 2048 values are beyond rounding: tokens 1–7 of 8.".to_owned(),
    });
    let sentence = super::diagnosis::sentence(&report.diagnosis);
    report.verdict.reasoning.splice(1..1, sentence);
    report
}

/// Eight layers, with infinity and NaN from layer 5 on, points that were not compared, and no floor.
pub(super) fn broken() -> Report {
    let mut report = sound(8);
    plant(&mut report, "model.layers.5.mlp.act", f64::INFINITY);
    let mut left_out = 0;
    for point in &mut report.points {
        point.floor = None;
        point.explained = None;
        if point.state == State::Inherited {
            point.metrics = Some(metrics(f64::NAN));
        }
        let missing =
            matches!(point.layer, Some(1 | 2)) && (point.family == "gdn" || point.family == "residual");
        if missing || point.point.ends_with("k_l2norm") {
            point.metrics = None;
            point.state = if missing { State::Unmeasured } else { State::Mismatched };
            point.note = Some("the candidate lacks it".to_owned());
            left_out += 1;
        }
    }
    report.coverage.matched -= left_out;
    report.coverage.unmeasured = left_out;
    report.replay_unmeasured = vec![NotReplayed {
        reason: "model.layers.1.linear_attn.norm was not captured".to_owned(),
        components: 2,
        point: "model.layers.1.linear_attn.out_proj".to_owned(),
        step: 0,
        prompt: "code-01".to_owned(),
    }];
    report.floor =
        FloorReport { kind: "preset".to_owned(), description: "1e-3, no floor arm was given".to_owned() };
    report.warnings = vec!["no floor was measured; the preset one is coarse".to_owned()];
    report
}

/// Twenty-four layers and twelve prompts, with two faults.
pub(super) fn large() -> Report {
    let mut report = sound(24);
    report.prompts = (1..=12).map(|i| prompt(&format!("code-{i:02}"))).collect();
    plant(&mut report, "model.layers.9.linear_attn.decay", 0.3);
    plant(&mut report, "model.layers.15.mlp.down_proj", 0.7);
    let of = |p: &PointReport| PromptError {
        rel_l2: p.judged().map(|m| m.rel_l2),
        per_token: p.judged().map(|m| m.per_token.clone()).unwrap_or_default(),
        engine_per_token: Vec::new(),
    };
    let points = report.points.iter().map(of).collect();
    report.by_prompt = vec![PromptErrors { prompt: "code-01".to_owned(), points }];
    report.verdict.headline =
        "`model.layers.9.linear_attn.decay` computes something else, and so does one more component."
            .to_owned();
    report
}

/// More than fits anywhere: 96 layers, 60 prompts, a fault in each layer, hostile names.
pub(super) fn huge() -> Report {
    let mut report = sound(96);
    for layer in 0..96 {
        plant(&mut report, &format!("model.layers.{layer}.mlp.down_proj"), 0.1 + f64::from(layer) * 1e-3);
    }
    report.prompts = (0..60).map(|i| prompt(&format!("p|`<script>{i}"))).collect();
    report.prompts[7].outcome = Outcome::Fault;
    report.prompts[7].worst_rel_l2 = Some(f64::NAN);
    report.verdict.headline = "<script>alert(1)</script> | `x\u{1b}[31m` *b* [l](http://a) @all".to_owned();
    report.verdict.reasoning = vec!["line\nbreak `<script>` and an `open".to_owned(); 40];
    report.warnings = (0..30).map(|i| format!("warning {i} <script>")).collect();
    report.self_check.evidence = vec![report.self_check.evidence[0].clone(); 9];
    report.faults[3].point = "a|b`c<script>\nd".to_owned();
    report.ratios[0].point = "a|b`c<script>\nd".to_owned();
    report.points[700].point = "model.layers.9.<script>|`".to_owned();
    report.points[700].metrics = Some(metrics(3.0));
    report.engine = "e<script>|`".to_owned();
    report.provenance.command.push("--prompt\n```<script>".to_owned());
    report
}

/// One layer, one prompt.
pub(super) fn tiny() -> Report {
    sound(1)
}
