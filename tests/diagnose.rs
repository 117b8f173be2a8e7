//! Diagnosis of formulas that are planted in lattice's real f32 pass.

mod common;

use common::bundled_model;
use common::planted::{self, CASES, Now};
use layerdiff::bundle::Bundle;
use layerdiff::capture::{Request, capture, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::diagnose::{Diagnosed, diagnose};
use layerdiff::engine::Engine;
use layerdiff::hook::{CaptureHook, Chain};
use layerdiff::model::PointFilter;
use layerdiff::parameters::Parameters;
use layerdiff::replay::{Held, Local, Place, replay};
use layerdiff::trace::{Trace, TraceWriter, WriteOptions};
use std::path::Path;

const TOKENS: [u32; 12] = [5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43];
const FORCED: [u32; 2] = [47, 53];

/// Runs the engine with a formula in place of a component's own.
fn plant(engine: &mut dyn Engine, model: &ModelDir, point: &str, formula: planted::Formula, out: &Path) {
    let options = WriteOptions {
        architecture: "qwen3_5".into(),
        config: model.config().as_json().clone(),
        provenance: engine.provenance(),
        adapter: None,
        shard_bytes: 8 << 20,
    };
    let mut writer = TraceWriter::create(out, options).unwrap();
    let mut prompt = common::prompt("p", &TOKENS);
    prompt.step_token_ids = FORCED.to_vec();
    writer.start_prompt(&prompt);
    let component = model.graph().get(point).unwrap();
    let parameters = Parameters::open(model.path(), model.graph().description()).unwrap();
    let mut hook = planted::Plant::new(component, &parameters, TOKENS.len(), formula);
    let points = PointFilter::default();
    let mut capture = CaptureHook::new(&mut writer, &points);
    engine.run(&TOKENS, &FORCED, &mut Chain(vec![&mut hook, &mut capture])).unwrap();
    writer.finish(None).unwrap();
}

/// What is said about a component, in the steps in which it errs.
fn diagnosis(trace: &Trace, held: &Held, point: &str, without: &[&str]) -> Option<Diagnosed> {
    let mut places = Vec::new();
    for prompt in &trace.manifest().prompts {
        let steps = 0..=prompt.step_token_ids.len() as u32;
        places.extend(steps.map(|step| Place { prompt, step, point }));
    }
    let replays = replay(trace, held, &places, || ()).unwrap();
    let wrong = |replay: &layerdiff::replay::Replay| !replay.local().is_some_and(Local::is_rounding);
    let faulty = places.into_iter().zip(&replays).filter(|(_, replay)| wrong(replay));
    let faulty: Vec<Place<'_>> = faulty.map(|(place, _)| place).collect();
    if faulty.is_empty() {
        return None;
    }
    diagnose(trace, held, &[faulty], without).remove(0)
}

fn diagnosis_of(point: &str, formula: planted::Formula, without: &[&str]) -> Option<Diagnosed> {
    let model = ModelDir::open(&bundled_model()).unwrap();
    let mut engine = open_engine("lattice-f32", &model, Some("serial")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("trace");
    plant(engine.as_mut(), &model, point, formula, &out);
    let held = Held::open(model.path(), model.graph().clone(), model.config().clone()).unwrap();
    diagnosis(&Trace::open(&out).unwrap(), &held, point, without)
}

#[test]
fn what_the_q8_0_engine_of_lattice_does_to_its_convolution_is_named() {
    let bundle = Bundle::unpack().unwrap();
    let model = ModelDir::open(&bundled_model()).unwrap();
    let reference = Trace::open(&bundle.reference()).unwrap();
    let prompts = &reference.manifest().prompts[..2];
    let mut engine = open_engine("lattice-q8_0", &model, None).unwrap();
    let root = tempfile::tempdir().unwrap();
    let (weights, out) = (root.path().join("weights"), root.path().join("trace"));
    assert!(engine.write_held(&model, &weights).unwrap());
    let points = PointFilter::default();
    let request =
        Request { model: &model, prompts, steps: 2, points: &points, dequantized: None, quiet: true };
    capture(engine.as_mut(), &request, &out).unwrap();
    let held = Held::open(&weights, model.graph().clone(), model.config().clone()).unwrap();
    let trace = Trace::open(&out).unwrap();
    for layer in [0, 1, 2, 4, 5, 6] {
        let found =
            diagnosis(&trace, &held, &format!("model.layers.{layer}.linear_attn.conv1d"), &[]).unwrap();
        let names: Vec<&str> = found.names.iter().map(|named| named.id).collect();
        assert_eq!(names, ["conv-newest-twice"], "{}", found.shape);
        println!("{layer}: {:.2e}", found.names[0].residual_ratio);
    }
}

#[test]
fn each_known_formula_is_named_where_it_is_planted() {
    let mut missed = Vec::new();
    for (id, point, formula) in CASES {
        let Some(found) = diagnosis_of(point, *formula, &[]) else {
            println!("{id:<28} {point:<44} within rounding");
            missed.push(*id);
            continue;
        };
        let named = |n: &layerdiff::diagnose::Named| {
            format!(
                "{} {:.2e} left {:.1e}{}",
                n.id,
                n.residual_ratio,
                n.left,
                if n.to_rounding { "" } else { " coarse" }
            )
        };
        let list: Vec<String> = found.names.iter().map(named).collect();
        println!("{id:<28} {point:<44} {}", list.join("; "));
        if !found.names.iter().any(|named| named.id == *id) {
            println!("    {}", found.shape);
            missed.push(*id);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn a_fault_that_nobody_has_thought_of_gets_no_name_and_its_channels_are_told() {
    let scaled = |now: &Now<'_>| {
        let right = now.right.iter().enumerate();
        right.map(|(i, y)| if [3, 17, 40, 41, 42].contains(&(i % 128)) { y * 1.01 } else { *y }).collect()
    };
    for point in
        ["model.layers.3.input_layernorm", "model.layers.3.self_attn.o_proj", "model.layers.0.mlp.down_proj"]
    {
        let found = diagnosis_of(point, scaled, &[]).unwrap();
        assert_eq!(found.names, [], "{point}");
        assert!(found.shape.contains("channels 3, 17, 40–42 of 128"), "{}", found.shape);
        assert!(found.shape.contains("1.010000 times"), "{}", found.shape);
    }
}

/// Formulas that are the same where they are planted: no input of the test tells them apart.
const EQUAL: [&[&str]; 4] = [
    &["norm-no-eps", "norm-eps-1e-12"],
    &["l2-no-eps", "l2-eps-1e-12"],
    &["conv-state-ignored", "conv-no-history"],
    &["decay-after-update", "decay-after-reading"],
];

#[test]
fn a_fault_that_is_taken_out_of_the_known_ones_gets_no_wrong_name() {
    for (id, point, formula) in CASES {
        let Some(found) = diagnosis_of(point, *formula, &[id]) else { continue };
        let equal = |other: &str| EQUAL.iter().any(|set| set.contains(id) && set.contains(&other));
        let wrong: Vec<&str> = found.names.iter().map(|n| n.id).filter(|n| !equal(n)).collect();
        println!("{id:<28} {wrong:?} {}", found.shape);
        assert!(wrong.is_empty(), "{id} at {point} is called {wrong:?}");
        assert!(!found.shape.is_empty());
    }
}

#[test]
fn every_formula_has_a_short_name_of_its_own_and_a_sentence() {
    let model = ModelDir::open(&bundled_model()).unwrap();
    let ops: Vec<_> = model.graph().components().iter().map(|c| c.op).collect();
    for op in ops {
        let known = layerdiff::diagnose::known(op);
        let ids: std::collections::BTreeSet<&str> = known.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), known.len(), "{op:?}");
        assert!(known.iter().all(|(_, name)| !name.is_empty() && !name.ends_with('.')), "{op:?}");
    }
}

/// What is said of a formula that has no name.
fn shape(point: &str, formula: planted::Formula) -> String {
    let found = diagnosis_of(point, formula, &[]).unwrap();
    assert_eq!(found.names, [], "{point}");
    found.shape
}

#[test]
fn what_an_unknown_error_looks_like_is_told() {
    let reversed = shape("model.layers.0.linear_attn.delta_rule", |now| {
        now.right
            .chunks_exact(128)
            .flat_map(|t| t.chunks_exact(32).rev().flatten().copied().collect::<Vec<_>>())
            .collect()
    });
    assert!(reversed.contains("The heads are in another order: 0 holds 3, 1 holds 2"), "{reversed}");
    let late = shape("model.layers.3.self_attn.q_norm", |now| match now.n {
        1 => now.right.to_vec(),
        n => {
            let width = now.right.len() / n;
            [&now.right[..width], &now.right[..now.right.len() - width]].concat()
        }
    });
    assert!(late.contains("tokens 1–11 of 12"), "{late}");
    assert!(late.contains("The tokens hold what belongs 1 before them."), "{late}");
    let negated = shape("model.layers.0.mlp.act", |now| now.right.iter().map(|y| -y).collect());
    assert!(negated.contains("These have the wrong sign."), "{negated}");
    let coarse = shape("model.layers.3.self_attn.k_norm", |now| {
        now.right.iter().map(|y| half::f16::from_f32(y * y).to_f32()).collect()
    });
    assert!(coarse.contains("Every value is exactly an f16 number."), "{coarse}");
    let zero = shape("model.layers.3.self_attn.o_proj", |now| {
        now.right.iter().enumerate().map(|(i, y)| if i % 128 < 32 { 0.0 } else { *y }).collect()
    });
    assert!(zero.contains("channels 0–31 of 128. All of these are 0."), "{zero}");
}

#[test]
fn numbers_that_are_not_finite_get_no_name_and_are_counted() {
    for point in ["model.layers.0.linear_attn.recurrent_state", "model.layers.3.input_layernorm"] {
        let text = shape(point, |now| {
            let right = now.right.iter().enumerate();
            right.map(|(i, y)| if i == 7 { f32::NAN } else { *y }).collect()
        });
        assert!(text.contains("NaN: 1."), "{text}");
    }
}
