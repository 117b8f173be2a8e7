//! Replay of real traces: PyTorch's, and lattice's on every path.

mod common;

use common::bundled_model;
use layerdiff::bundle::Bundle;
use layerdiff::capture::{Request, capture, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::Engine;
use layerdiff::hook::{At, CaptureHook, Chain, Hook};
use layerdiff::model::{Op, PointFilter};
use layerdiff::replay::{Held, Local, Place, Replay, replay};
use layerdiff::tensor::{Tensor, Values};
use layerdiff::trace::{Trace, TraceWriter, WriteOptions};
use std::collections::BTreeMap;
use std::path::Path;

/// Replays every component of every step with the weights in a directory.
fn replay_all(trace: &Trace, weights: &Path) -> Vec<(String, u32, Op, Replay)> {
    let model = ModelDir::open(weights).unwrap();
    let held = Held::open(weights, model.graph().clone(), model.config().clone()).unwrap();
    let mut places = Vec::new();
    for prompt in &trace.manifest().prompts {
        for step in 0..=prompt.step_token_ids.len() as u32 {
            places.extend(model.graph().components().iter().map(|c| Place { prompt, step, point: &c.point }));
        }
    }
    let replays = replay(trace, &held, &places, || ()).unwrap();
    let op = |point: &str| model.graph().get(point).unwrap().op;
    let rows = places.iter().zip(replays);
    rows.map(|(place, replay)| (place.point.to_owned(), place.step, op(place.point), replay)).collect()
}

/// The largest ratio of each kind of component, and where; panics where something was not replayed.
fn largest(all: &[(String, u32, Op, Replay)]) -> BTreeMap<String, (f64, String)> {
    let mut largest: BTreeMap<String, (f64, String)> = BTreeMap::new();
    for (point, step, op, replay) in all {
        let Replay::Done(local) = replay else { panic!("{point} step {step}: {replay:?}") };
        let entry = largest.entry(format!("{op:?}")).or_insert((-1.0, String::new()));
        if local.ratio > entry.0 {
            *entry = (local.ratio, format!("{point} step {step} {:?} rel {:.1e}", local.worst, local.rel_l2));
        }
    }
    largest
}

fn report(largest: &BTreeMap<String, (f64, String)>) {
    for (op, (ratio, at)) in largest {
        println!("{op:<18} {ratio:.3e}  {at}");
    }
}

#[test]
fn a_sound_pytorch_run_has_no_local_error_beyond_rounding() {
    let bundle = Bundle::unpack().unwrap();
    let trace = Trace::open(&bundle.reference()).unwrap();
    let largest = largest(&replay_all(&trace, &bundled_model()));
    report(&largest);
    assert!(largest.values().all(|(ratio, _)| *ratio <= 1.0));
}

#[test]
fn a_sound_lattice_run_has_no_local_error_beyond_rounding() {
    let bundle = Bundle::unpack().unwrap();
    let model = ModelDir::open(&bundled_model()).unwrap();
    let prompts = Trace::open(&bundle.reference()).unwrap().manifest().prompts.clone();
    let points = PointFilter::default();
    for (engine, path) in [
        ("lattice-f32", "serial"),
        ("lattice-f32", "batched"),
        ("lattice-f16", "serial"),
        ("lattice-q8", "serial"),
        ("lattice-q4", "serial"),
        ("lattice-quarot-q4", "serial"),
        ("lattice-q8_0", "serial"),
    ] {
        println!("---- {engine} {path}");
        let root = tempfile::tempdir().unwrap();
        let mut opened = open_engine(engine, &model, Some(path)).unwrap();
        let weights = root.path().join("weights");
        let held = opened.write_held(&model, &weights).unwrap();
        let request = Request {
            model: &model,
            prompts: &prompts,
            steps: 4,
            points: &points,
            dequantized: None,
            quiet: true,
        };
        capture(opened.as_mut(), &request, &root.path().join("trace")).unwrap();
        let trace = Trace::open(&root.path().join("trace")).unwrap();
        let all = replay_all(&trace, if held { &weights } else { model.path() });
        let largest = largest(&all);
        report(&largest);
        assert!(engine == "lattice-q8_0" || largest.values().all(|(ratio, _)| *ratio <= 1.0), "{engine}");
    }
}

/// Changes one number of a point of the prefill, or one bit of a mask.
struct Nudge<'a>(&'a str, f32);

impl Hook for Nudge<'_> {
    fn wants(&self, point: &str) -> bool {
        point == self.0
    }

    fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> layerdiff::error::Result<Tensor> {
        if at.step == 0 {
            match &mut tensor.values {
                Values::F32(values) => {
                    // The largest in size, so that the change is one of its size.
                    let finite = values.iter_mut().filter(|v| v.is_finite());
                    let largest = finite.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
                    *largest *= 1.0 + self.1;
                }
                Values::U8(values) => values[0] ^= 1,
            }
        }
        Ok(tensor)
    }
}

/// Points whose local error is beyond rounding when `point` is nudged by `size`.
fn found(engine: &mut dyn Engine, model: &ModelDir, point: &str, size: f32) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("trace");
    let options = WriteOptions {
        architecture: "qwen3_5".into(),
        config: model.config().as_json().clone(),
        provenance: engine.provenance(),
        adapter: None,
        shard_bytes: 8 << 20,
    };
    let mut writer = TraceWriter::create(&out, options).unwrap();
    let tokens = [5, 7, 11, 13, 17, 19];
    let mut prompt = common::prompt("p", &tokens);
    prompt.step_token_ids = vec![23];
    writer.start_prompt(&prompt);
    let points = PointFilter::default();
    let mut hook = CaptureHook::new(&mut writer, &points);
    engine.run(&tokens, &[23], &mut Chain(vec![&mut Nudge(point, size), &mut hook])).unwrap();
    writer.finish(None).unwrap();
    let all = replay_all(&Trace::open(&out).unwrap(), model.path());
    let beyond = all.into_iter().filter(|(.., replay)| !replay.local().is_some_and(Local::is_rounding));
    beyond.map(|(point, step, ..)| format!("{point} step {step}")).collect()
}

#[test]
fn one_wrong_number_anywhere_is_found_at_exactly_its_component_and_nowhere_else() {
    let model = ModelDir::open(&bundled_model()).unwrap();
    let mut engine = open_engine("lattice-f32", &model, Some("serial")).unwrap();
    let full = model.graph().layer_types().iter().position(|t| t == "full_attention");
    for component in model.graph().components() {
        if component.layer.is_some_and(|layer| layer != 0 && Some(layer) != full) {
            continue;
        }
        let found = found(engine.as_mut(), &model, &component.point, 1e-3);
        assert_eq!(found, [format!("{} step 0", component.point)]);
    }
}
