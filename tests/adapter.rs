//! The instrumented passes with an adapter on the model, against the real engine with the same one.

mod common;

use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::{Engine, open};
use layerdiff::error::Result;
use layerdiff::hook::{At, CaptureHook, Hook, NoHook};
use layerdiff::model::{ADAPTER_PARTS, Op, PointFilter};
use layerdiff::tensor::{Tensor, Values};
use layerdiff::trace::{Evidence, SelfCheck, Trace, TraceWriter, WriteOptions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const PATHS: [&str; 2] = ["serial", "batched"];

fn adapted_model() -> ModelDir {
    ModelDir::open(&common::bundled_model()).unwrap().adapted(Some(&common::bundled_adapter())).unwrap()
}

fn engine(model: &ModelDir, path: &str) -> Box<dyn Engine> {
    let mut engine = open("lattice-f32", model.path(), model.base_graph(), Some(path)).unwrap();
    if let Some(adapter) = model.adapter() {
        assert!(engine.adapt(adapter).unwrap());
    }
    engine
}

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 7 + i * 31 + n) % 2048).collect()
}

fn mismatches(evidence: &[Evidence]) -> u64 {
    evidence.iter().map(|e| e.mismatches).sum()
}

/// Shape and values of a point, and whether they are derived.
type Seen = (Vec<usize>, Vec<f32>, bool);

/// Remembers the values of every point, and changes one of them.
#[derive(Default)]
struct Log {
    seen: BTreeMap<(u32, String), Seen>,
    nudged: Option<String>,
}

impl Hook for Log {
    fn wants(&self, point: &str) -> bool {
        self.nudged.as_ref().is_none_or(|nudged| nudged == point)
    }

    fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        if let Values::F32(values) = &mut tensor.values {
            self.seen
                .insert((at.step, at.point.to_owned()), (tensor.shape.clone(), values.clone(), at.derived));
            if self.nudged.is_some() {
                values.iter_mut().for_each(|v| *v = *v * 1.5 + 0.25);
            }
        }
        Ok(tensor)
    }
}

#[test]
fn the_bundled_adapter_changes_every_linear_of_every_layer() {
    let model = adapted_model();
    let sums = model.graph().components().iter().filter(|c| c.op == Op::AddScaled);
    let plain = ModelDir::open(&common::bundled_model()).unwrap();
    let linears = plain.graph().components().iter().filter(|c| c.op == Op::Linear && c.layer.is_some());
    assert_eq!(sums.count(), linears.count());
}

#[test]
fn with_an_adapter_both_paths_are_bit_identical_to_the_engine_at_any_length() {
    let model = adapted_model();
    for path in PATHS {
        let mut engine = engine(&model, path);
        for n in [1, 2, 3, 32, 33, 65, 130] {
            let evidence = engine.run(&tokens(n), &[5, 6, 7], &mut NoHook).unwrap();
            assert!(evidence.iter().all(|e| e.elements > 0), "{path}, {n} tokens: {evidence:?}");
            assert_eq!(mismatches(&evidence), 0, "{path}, {n} tokens: {evidence:?}");
        }
    }
}

#[test]
fn an_adapter_moves_the_logits_visibly() {
    let logits = |model: &ModelDir| {
        let mut log = Log::default();
        engine(model, "serial").run(&tokens(20), &[], &mut log).unwrap();
        log.seen.remove(&(0, "lm_head".to_owned())).unwrap().1
    };
    let (with, without) =
        (logits(&adapted_model()), logits(&ModelDir::open(&common::bundled_model()).unwrap()));
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let moved = norm(&mut with.iter().zip(&without).map(|(a, b)| a - b)) / norm(&mut without.iter().copied());
    assert!(moved > 1e-2, "{moved}");
}

#[test]
fn every_point_of_an_adapted_model_is_offered_with_its_shape_and_says_whether_the_engine_holds_it() {
    let model = adapted_model();
    for path in PATHS {
        let mut log = Log::default();
        engine(&model, path).run(&tokens(40), &[5, 6], &mut log).unwrap();
        for (step, n, context) in [(0, 40, 40), (1, 1, 41), (2, 1, 42)] {
            for component in model.graph().components().iter().filter(|c| c.op != Op::CausalMask) {
                let point = component.point.clone();
                let (shape, _, derived) = &log.seen[&(step, point.clone())];
                assert_eq!(*shape, model.graph().shape(component, n, context), "{path}: {point}");
                let factor = component.is_adapter_part() && !point.ends_with("base_layer");
                if component.op == Op::Linear || component.op == Op::AddScaled {
                    assert_eq!(*derived, factor, "{path}: {point}");
                }
            }
        }
    }
}

#[test]
fn an_adapted_projection_is_its_base_plus_the_scaled_update() {
    let model = adapted_model();
    let mut log = Log::default();
    engine(&model, "batched").run(&tokens(12), &[], &mut log).unwrap();
    for sum in model.graph().components().iter().filter(|c| c.op == Op::AddScaled) {
        let values = |point: &str| &log.seen[&(0, point.to_owned())].1;
        let scale = sum.attrs["scale"].as_f64().unwrap() as f32;
        let parts = values(&sum.inputs[0]).iter().zip(values(&sum.inputs[1]));
        let expected: Vec<f32> = parts.map(|(base, up)| base + scale * up).collect();
        assert_eq!(*values(&sum.point), expected, "{}", sum.point);
        assert_ne!(*values(&sum.point), *values(&sum.inputs[0]), "{}", sum.point);
    }
}

#[test]
fn what_a_hook_returns_at_a_part_of_an_adapted_linear_is_what_the_engine_goes_on_with() {
    let model = adapted_model();
    for path in PATHS {
        let mut engine = engine(&model, path);
        for x in [
            "model.layers.0.linear_attn.in_proj_a",
            "model.layers.3.self_attn.q_proj",
            "model.layers.7.mlp.down_proj",
        ] {
            for part in ADAPTER_PARTS {
                let mut nudge = Log { nudged: Some(format!("{x}.{part}")), ..Log::default() };
                let evidence = engine.run(&tokens(34), &[5], &mut nudge).unwrap();
                assert!(mismatches(&evidence) > 0, "{path}: a change at {x}.{part} changes nothing");
            }
        }
    }
}

#[test]
fn engines_without_an_adapter_hook_say_so() {
    let model = adapted_model();
    for name in ["lattice-f16", "lattice-q8", "lattice-q8_0", "lattice-q4", "lattice-quarot-q4"] {
        let mut engine = open(name, model.path(), model.base_graph(), None).unwrap();
        assert!(!engine.adapt(model.adapter().unwrap()).unwrap(), "{name}");
        let evidence = engine.run(&tokens(5), &[5], &mut NoHook).unwrap();
        assert_eq!(mismatches(&evidence), 0, "{name}: {evidence:?}");
    }
}

/// A trace of the serial engine with the bundled adapter, four steps.
fn reference(target: &Path) {
    let (model, lora) = (common::bundled_model(), common::bundled_adapter());
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let named = ["--model".into(), path(&model), "--lora".into(), path(&lora), "--out".into(), path(target)];
    let fixed = ["capture", "--engine", "lattice-f32", "--path", "serial", "--prompt", "code-01", "--quiet"];
    let run = common::layerdiff(&[&fixed.map(str::to_owned)[..], &named].concat());
    assert_eq!(run.code, 0, "{run:#?}");
}

fn state<'a>(report: &'a Value, point: &str) -> &'a Value {
    let points = report["points"].as_array().unwrap();
    &points.iter().find(|p| p["point"] == point && p["step"] == 0).unwrap()["state"]
}

const FIRST: &str = "model.layers.0.linear_attn.in_proj_qkv";

#[test]
fn an_engine_without_an_adapter_hook_is_found_out_at_the_first_adapted_projection() {
    let dir = tempfile::tempdir().unwrap();
    reference(&dir.path().join("reference"));
    let lora = common::bundled_adapter();
    let run = common::layerdiff(&[
        "run",
        "--engine",
        "lattice-f16",
        "--json",
        "--lora",
        lora.to_str().unwrap(),
        "--reference",
        dir.path().join("reference").to_str().unwrap(),
        "--out",
        dir.path().join("report").to_str().unwrap(),
    ]);
    let report = run.json();
    assert_eq!((run.code, &report["outcome"]), (1, &"fault".into()), "{run:#?}");
    assert_eq!(report["first_fault"]["point"], FIRST);
    for part in ADAPTER_PARTS {
        assert_eq!(state(&report, &format!("{FIRST}.{part}")), "unmeasured");
    }
    assert_eq!(state(&report, "model.layers.0.input_layernorm"), "explained");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("lattice-f16 has no adapter hook: the adapter was not applied"), "{warnings}");
    let candidate = &report["provenance"]["candidate"]["hashes"]["adapter"];
    assert!(candidate.as_str().is_some_and(|h| h.starts_with("sha256:")), "{candidate}");
    let page = std::fs::read_to_string(dir.path().join("report/report.md")).unwrap();
    let said = "lattice-f16 has no adapter hook: the adapter was not applied";
    assert_eq!(page.lines().nth(2), Some(format!("**{said}**").as_str()), "before anything else");
    assert_eq!(page.matches("the adapter was not applied").count(), 1, "{page}");
}

/// The candidate says that it ran the adapter, and doubled its alpha.
#[test]
fn a_doubled_scale_is_found_at_the_first_adapted_projection_and_its_parts_are_not_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    reference(&at("reference"));
    std::fs::create_dir(at("doubled")).unwrap();
    common::copy_adapter(&at("doubled"), |config| config["lora_alpha"] = 16.into(), |_| ());
    let model = adapted_model();
    let wrong = ModelDir::open(&common::bundled_model()).unwrap().adapted(Some(&at("doubled"))).unwrap();
    let mut engine = open("lattice-f32", model.path(), model.base_graph(), Some("serial")).unwrap();
    engine.adapt(wrong.adapter().unwrap()).unwrap();
    let mut provenance = engine.provenance();
    provenance.hashes = model.hashes().unwrap();
    let options = WriteOptions {
        architecture: "qwen3_5".into(),
        config: model.config().as_json().clone(),
        provenance,
        adapter: model.adapter().map(|a| a.description().clone()),
        shard_bytes: 8 << 20,
    };
    let mut writer = TraceWriter::create(&at("candidate"), options).unwrap();
    let prompt = Trace::open(&at("reference")).unwrap().manifest().prompts[0].clone();
    writer.start_prompt(&prompt);
    let all = PointFilter::default();
    let mut hook = CaptureHook::new(&mut writer, &all);
    let evidence = engine.run(&prompt.token_ids, &prompt.step_token_ids, &mut hook).unwrap();
    assert_eq!(mismatches(&evidence), 0);
    writer.finish(Some(SelfCheck::new(evidence))).unwrap();

    let (reference, candidate) = (at("reference"), at("candidate"));
    let run =
        common::layerdiff(&["compare", reference.to_str().unwrap(), candidate.to_str().unwrap(), "--json"]);
    let report = run.json();
    assert_eq!((run.code, &report["outcome"]), (1, &"fault".into()), "{}", report["verdict"]);
    assert_eq!(report["first_fault"]["point"], FIRST);
    assert_eq!(report["coverage"]["unmeasured"], 0);
    for part in ADAPTER_PARTS {
        assert_eq!(state(&report, &format!("{FIRST}.{part}")), "explained");
    }
}
