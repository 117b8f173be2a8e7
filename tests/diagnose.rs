//! Diagnosis of formulas that are planted in lattice's real f32 pass.

mod common;

use common::planted::{self, CASES, Now};
use common::{Form, bundled_model};
use layerdiff::bundle::Bundle;
use layerdiff::capture::{Request, capture, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::diagnose::{Diagnosed, Named, diagnose};
use layerdiff::engine::Engine;
use layerdiff::hook::{CaptureHook, Chain};
use layerdiff::model::{Component, PointFilter};
use layerdiff::parameters::Parameters;
use layerdiff::replay::{Held, Local, Place, replay};
use layerdiff::trace::{Trace, TraceWriter, WriteOptions};
use std::path::Path;
use tempfile::TempDir;

const TOKENS: [u32; 12] = [5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43];
const FORCED: [u32; 2] = [47, 53];

/// An engine in which formulas are planted, with the weights that it holds.
struct Bench {
    model: ModelDir,
    engine: Box<dyn Engine>,
    held: Held,
    parameters: Parameters,
    work: TempDir,
}

impl Bench {
    fn open(engine: &str, model: &Path) -> Self {
        let model = ModelDir::open(model).unwrap();
        let engine = open_engine(engine, &model, Some("serial")).unwrap();
        let work = tempfile::tempdir().unwrap();
        let own = work.path().join("weights");
        let weights = if engine.write_held(&model, &own).unwrap() { own } else { model.path().to_owned() };
        let held = Held::open(&weights, model.graph().clone(), model.config().clone()).unwrap();
        let parameters = Parameters::open(&weights, model.graph().description()).unwrap();
        Self { model, engine, held, parameters, work }
    }

    fn component(&self, point: &str) -> Component {
        self.model.graph().get(point).unwrap().clone()
    }

    /// What is said of a component that computes a formula in place of its own.
    fn diagnose(
        &mut self,
        component: &Component,
        formula: planted::Formula,
        without: &[&str],
    ) -> Option<Diagnosed> {
        let out = self.work.path().join("trace");
        let options = WriteOptions {
            architecture: "qwen3_5".into(),
            config: self.model.config().as_json().clone(),
            provenance: self.engine.provenance(),
            adapter: None,
            shard_bytes: 8 << 20,
        };
        let mut writer = TraceWriter::create(&out, options).unwrap();
        let mut prompt = common::prompt("p", &TOKENS);
        prompt.step_token_ids = FORCED.to_vec();
        writer.start_prompt(&prompt);
        let mut hook = planted::Plant::new(component, &self.parameters, TOKENS.len(), formula);
        let points = PointFilter::default();
        let mut capture = CaptureHook::new(&mut writer, &points);
        self.engine.run(&TOKENS, &FORCED, &mut Chain(vec![&mut hook, &mut capture])).unwrap();
        writer.finish(None).unwrap();
        let found = diagnosis(&Trace::open(&out).unwrap(), &self.held, &component.point, without);
        std::fs::remove_dir_all(&out).unwrap();
        found
    }
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
    let mut found = diagnose(trace, held, &[faulty]).remove(0)?;
    found.names = found.without(without);
    Some(found)
}

fn diagnosis_of(point: &str, formula: planted::Formula, without: &[&str]) -> Option<Diagnosed> {
    let mut bench = Bench::open("lattice-f32", &bundled_model());
    let component = bench.component(point);
    bench.diagnose(&component, formula, without)
}

/// Which of the cases are not given their names by an engine.
fn missed(engine: &str) -> Vec<&'static str> {
    let mut bench = Bench::open(engine, &bundled_model());
    let mut missed = Vec::new();
    for (id, point, formula) in CASES {
        let component = bench.component(point);
        let Some(found) = bench.diagnose(&component, *formula, &[]) else {
            println!("{id:<28} {point:<44} within rounding");
            missed.push(*id);
            continue;
        };
        let named = |n: &Named| {
            let coarse = if n.to_rounding { "" } else { " coarse" };
            format!("{} {:.2e} left {:.1e}{coarse}", n.id, n.residual_ratio, n.left)
        };
        let list: Vec<String> = found.names.iter().map(named).collect();
        println!("{id:<28} {point:<44} {}", list.join("; "));
        if !found.names.iter().any(|named| named.id == *id) {
            println!("    {}", found.shape);
            missed.push(*id);
        }
    }
    missed
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
    assert_eq!(missed("lattice-f32"), [""; 0]);
}

#[test]
fn each_known_formula_is_named_on_the_f16_and_q4_engines_too() {
    let missed = ["lattice-f16", "lattice-q4"].map(missed);
    assert_eq!(missed, [[""; 0]; 2]);
}

#[test]
fn weights_that_belong_elsewhere_are_named() {
    let mut bench = Bench::open("lattice-f32", &bundled_model());
    let product = |now: &Now<'_>| planted::linear(now.x[0], 128, |j, i| now.w[0][j * 128 + i], 256);
    for (weight, id) in [
        ("model.layers.1.mlp.up_proj.weight", "weight-of-another-layer"),
        ("model.layers.0.mlp.gate_proj.weight", "weight-of-a-sibling"),
    ] {
        let mut component = bench.component("model.layers.0.mlp.up_proj");
        component.params = vec![weight.to_owned()];
        let found = bench.diagnose(&component, product, &[]).unwrap();
        assert_eq!(found.names.iter().map(|n| n.id).collect::<Vec<_>>(), [id]);
    }
}

#[test]
fn a_parameter_rounded_to_bf16_is_named_where_it_is_no_bf16_number_already() {
    let model = Form::F32.write(|name, values| {
        if name.ends_with("A_log") {
            values.iter_mut().for_each(|a| *a *= 1.001);
        }
    });
    let mut bench = Bench::open("lattice-f32", model.path());
    let component = bench.component("model.layers.0.linear_attn.decay");
    let rounded = |now: &Now<'_>| {
        planted::decay(now, |a, l, dt| {
            (-half::bf16::from_f32(l).to_f32().exp() * (a + dt).exp().ln_1p()).exp()
        })
    };
    let found = bench.diagnose(&component, rounded, &[]).unwrap();
    assert_eq!(found.names.iter().map(|n| n.id).collect::<Vec<_>>(), ["a-log-bf16"]);
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
const EQUAL: [&[&str]; 2] =
    [&["conv-state-ignored", "conv-no-history"], &["decay-after-update", "decay-after-reading"]];

#[test]
fn a_fault_that_is_taken_out_of_the_known_ones_gets_no_wrong_name() {
    let mut bench = Bench::open("lattice-f32", &bundled_model());
    for (id, point, formula) in CASES {
        let component = bench.component(point);
        let Some(found) = bench.diagnose(&component, *formula, &[id]) else { continue };
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
