//! Replay of real traces: PyTorch's, and lattice's on every path.

mod common;

use common::bundled_model;
use layerdiff::bundle::Bundle;
use layerdiff::capture::{Request, capture, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::model::{Graph, Op, PointFilter};
use layerdiff::parameters::Parameters;
use layerdiff::replay::{Place, Replay, replay};
use layerdiff::trace::Trace;
use std::collections::BTreeMap;
use std::path::Path;

/// Replays every component of every step.
fn replay_all(graph: &Graph, trace: &Trace, weights: &Path) -> Vec<(String, u32, Op, Replay)> {
    let parameters = Parameters::open(weights, graph.description()).unwrap();
    let mut places = Vec::new();
    for prompt in &trace.manifest().prompts {
        for step in 0..=prompt.step_token_ids.len() as u32 {
            places.extend(graph.components().iter().map(|component| Place { prompt, step, component }));
        }
    }
    let replays = replay(graph, trace, &parameters, &places, || ()).unwrap();
    let rows = places.iter().zip(replays);
    rows.map(|(place, replay)| (place.component.point.clone(), place.step, place.component.op, replay)).collect()
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
    let model = ModelDir::open(&bundled_model()).unwrap();
    let trace = Trace::open(&bundle.reference()).unwrap();
    let largest = largest(&replay_all(model.graph(), &trace, &bundled_model()));
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
        let request =
            Request { model: &model, prompts: &prompts, steps: 4, points: &points, dequantized: None, quiet: true };
        capture(opened.as_mut(), &request, &root.path().join("trace")).unwrap();
        let trace = Trace::open(&root.path().join("trace")).unwrap();
        let all = replay_all(model.graph(), &trace, if held { &weights } else { model.path() });
        let largest = largest(&all);
        report(&largest);
        assert!(engine == "lattice-q8_0" || largest.values().all(|(ratio, _)| *ratio <= 1.0), "{engine}");
    }
}
