//! Replay of traces that no sound run leaves: tensors of another shape, and numbers that are not finite.

mod common;

use common::{bundled_model, layerdiff};
use layerdiff::bundle::Bundle;
use layerdiff::checkpoint::ModelDir;
use layerdiff::diagnose::{Diagnosed, diagnose};
use layerdiff::model::{Component, Op};
use layerdiff::replay::{Held, Place, Replay, replay};
use layerdiff::tensor::DType;
use layerdiff::trace::{Entry, Trace, TraceWriter, WriteOptions};
use std::path::Path;
use tempfile::TempDir;

/// A tensor on its way into a trace.
struct Copied {
    shape: Vec<usize>,
    bytes: Vec<u8>,
    /// True if it is not to arrive.
    dropped: bool,
}

impl Copied {
    fn f32s(&self) -> Vec<f32> {
        self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn set(&mut self, values: &[f32]) {
        self.bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    }
}

/// PyTorch's bundled trace of four tokens and a decode step: the first layer of each kind, and what is outside.
struct Sound {
    trace: Trace,
    model: ModelDir,
    held: Held,
    _bundle: Bundle,
}

impl Sound {
    fn open() -> Self {
        let bundle = Bundle::unpack().unwrap();
        let trace = Trace::open(&bundle.reference()).unwrap();
        let prompts: Vec<_> =
            trace.manifest().prompts.iter().filter(|p| p.token_ids.len() == 4).cloned().collect();
        let trace = trace.restricted_to(&prompts[..1], 1);
        let model = ModelDir::open(&bundled_model()).unwrap();
        let held = Held::open(model.path(), model.graph().clone(), model.config().clone()).unwrap();
        Self { trace, model, held, _bundle: bundle }
    }

    fn components(&self) -> impl Iterator<Item = &Component> {
        let chosen = |c: &&Component| c.layer.is_none_or(|layer| layer == 0 || layer == 3);
        self.model.graph().components().iter().filter(chosen)
    }

    /// Those of them whose inputs are among them.
    fn whole(&self) -> impl Iterator<Item = &Component> {
        self.components()
            .filter(|c| c.inputs.iter().all(|input| self.components().any(|c| c.point == *input)))
    }

    /// The trace after a change of its tensors.
    fn changed(&self, to: &Path, change: impl Fn(&Entry, &mut Copied)) {
        let manifest = self.trace.manifest();
        let options = WriteOptions {
            architecture: manifest.architecture.clone(),
            config: manifest.config.clone(),
            provenance: manifest.provenance.clone(),
            adapter: None,
            shard_bytes: 8 << 20,
        };
        let mut writer = TraceWriter::create(to, options).unwrap();
        writer.start_prompt(&manifest.prompts[0]);
        let known = |e: &&Entry| self.components().any(|c| c.point == e.point);
        for entry in self.trace.entries().iter().filter(known) {
            let bytes = self.trace.view(entry).bytes.to_vec();
            let mut copied = Copied { shape: entry.shape.clone(), bytes, dropped: false };
            change(entry, &mut copied);
            let Copied { shape, bytes, dropped } = copied;
            if dropped {
                continue;
            }
            writer
                .push(entry.step, &entry.point, entry.dtype, &shape, bytes, &entry.basis, entry.derived)
                .unwrap();
        }
        writer.finish(manifest.self_check.clone()).unwrap();
    }

    /// What comes of the replay of all its components after a change, by step.
    fn replayed(&self, change: impl Fn(&Entry, &mut Copied)) -> Vec<(u32, &Component, Replay)> {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("trace");
        self.changed(&out, change);
        let trace = Trace::open(&out).unwrap();
        let prompt = &trace.manifest().prompts[0];
        let all: Vec<_> = (0..2).flat_map(|step| self.whole().map(move |c| (step, c))).collect();
        let places: Vec<Place<'_>> =
            all.iter().map(|(step, c)| Place { prompt, step: *step, point: &c.point }).collect();
        let replays = replay(&trace, &self.held, &places, || ()).unwrap();
        all.into_iter().zip(replays).map(|((step, c), replay)| (step, c, replay)).collect()
    }
}

/// Another shape, filled with zeros.
fn reshaped(to: &mut Copied, size: usize, shape: Vec<usize>) {
    to.bytes = vec![0; shape.iter().product::<usize>() * size];
    to.shape = shape;
}

/// Another shape than a given one.
type Shape = fn(&[usize]) -> Vec<usize>;

/// Ways to be of another shape.
const SHAPES: [Shape; 4] = [
    |shape| [&shape[..shape.len() - 1], &[shape[shape.len() - 1] - 1]].concat(),
    |shape| [&[shape[0] + 1], &shape[1..]].concat(),
    |shape| vec![shape.iter().product()],
    // As one of fewer heads, or of nothing.
    |shape| [&[shape[0]], &shape[1..].iter().map(|n| n / 2).collect::<Vec<_>>()[..]].concat(),
];

#[test]
fn a_tensor_of_another_shape_is_not_replayed_and_says_what_was_expected() {
    let sound = Sound::open();
    for component in sound.components() {
        for (step, shape) in (0..2).flat_map(|step| SHAPES.map(|shape| (step, shape))) {
            let is_it = |e: &Entry| e.point == component.point && e.step == step;
            let all = sound.replayed(|entry, copied| {
                if is_it(entry) {
                    reshaped(copied, entry.dtype.size(), shape(&entry.shape));
                }
            });
            for (at, reader, replay) in all {
                let now =
                    at == step && reader.inputs.iter().chain([&reader.point]).any(|p| *p == component.point);
                let later = at == step + 1 && reader.carried.contains(&component.point);
                let place = format!("{} step {at}, for {} step {step}", reader.point, component.point);
                match replay {
                    Replay::Unmeasured(why) if now || later => {
                        let said = format!(
                            "{} has another shape than the model gives it: expected [",
                            component.point
                        );
                        assert!(why.starts_with(&said) && why.contains("], got ["), "{place}: {why}");
                    }
                    Replay::Done(_) if !(now || later) => {}
                    other => panic!("{place}: {other:?}"),
                }
            }
        }
    }
}

/// Replays the prefill of a component whose first input is NaN at its last token, and whose own first number is
/// multiplied.
fn poisoned(sound: &Sound, component: &Component, times: f32) -> Replay {
    let all = sound.replayed(|entry, copied| {
        let mut values = copied.f32s();
        if entry.step == 0 && entry.point == component.inputs[0] {
            // Of scores and probabilities, which have tokens in their second axis, one number.
            let by_head = matches!(component.op, Op::Softmax | Op::AttentionContext);
            let poisoned = if by_head { 1 } else { values.len() / 4 };
            values.iter_mut().rev().take(poisoned).for_each(|v| *v = f32::NAN);
            copied.set(&values);
        }
        if entry.step == 0 && entry.point == component.point {
            values[0] = values[0] * times + (times - 1.0);
            copied.set(&values);
        }
    });
    let found = all.into_iter().find(|(step, c, _)| *step == 0 && c.point == component.point);
    found.unwrap().2
}

#[test]
fn what_a_nan_cannot_reach_is_judged_and_the_rest_is_counted() {
    let sound = Sound::open();
    for component in sound.whole().filter(|c| !c.inputs.is_empty()) {
        // Within a chunk of the delta rule every token is reached.
        let all_reached = matches!(component.op, Op::DeltaRule | Op::DeltaRuleState);
        match poisoned(&sound, component, 1.0) {
            Replay::Unmeasured(why) => {
                assert!(why.contains(&format!("not finite in its input {}", component.inputs[0])), "{why}");
                let others = why.ends_with("; the others are within their bounds");
                assert_eq!(others, !all_reached, "{}: {why}", component.point);
            }
            Replay::Done(local) => panic!("{}: {local:?}", component.point),
        }
        match poisoned(&sound, component, 2.0) {
            Replay::Unmeasured(why) => assert!(all_reached, "{}: {why}", component.point),
            Replay::Done(local) => {
                assert!(!all_reached && local.ratio > 1.0, "{}: {local:?}", component.point);
                assert!(local.undefined > 0 && local.undefined < local.elements, "{local:?}");
                assert_eq!((local.beyond, local.worst.unwrap().index), (1, 0), "{}", component.point);
            }
        }
    }
}

#[test]
fn a_report_counts_what_was_not_replayed_by_its_reason() {
    let sound = Sound::open();
    let root: TempDir = tempfile::tempdir().unwrap();
    let [reference, candidate] = ["reference", "candidate"].map(|name| root.path().join(name));
    sound.changed(&reference, |_, _| ());
    let point = "model.layers.0.linear_attn.q_l2norm";
    sound.changed(&candidate, |entry, copied| {
        if entry.point == point && entry.step == 0 {
            reshaped(copied, entry.dtype.size(), vec![4, 1, 32]);
        }
    });
    let [reference, candidate] = [&reference, &candidate].map(|path| path.to_str().unwrap());
    let model = bundled_model();
    let model = ["--model", model.to_str().unwrap()];
    let out = root.path().join("report");
    let args = [&["compare", reference, candidate][..], &model, &["--out", out.to_str().unwrap()]].concat();
    let run = layerdiff(&[&args[..], &["--json"]].concat());
    assert_eq!(run.code, 2, "{}", run.stderr);
    let report = run.json();
    let reason =
        format!("{point} has another shape than the model gives it: expected [4, 2, 32], got [4, 1, 32]");
    // The norm itself, and the delta rule that reads it.
    let found =
        report["replay_unmeasured"].as_array().unwrap().iter().find(|r| r["reason"] == reason.as_str());
    assert_eq!(found.unwrap()["components"], 2, "{}", report["replay_unmeasured"]);
    let row = report["points"].as_array().unwrap().iter();
    let mut row = row.filter(|p| p["point"] == "model.layers.0.linear_attn.delta_rule" && p["step"] == 0);
    assert_eq!(row.next().unwrap()["replay_unmeasured"], reason.as_str());
    let page = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(page.contains("- **Replay:** ") && page.contains("components not replayed: "), "{page}");
    assert!(layerdiff(&args).stdout.contains(" components not replayed: "));
}

/// The diagnosis of a component whose prefill is replaced by a formula of its inputs.
fn diagnosed(
    sound: &Sound,
    component: &Component,
    change: impl Fn(&Entry, &mut Copied),
) -> Option<Diagnosed> {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("trace");
    sound.changed(&out, change);
    let trace = Trace::open(&out).unwrap();
    let place = Place { prompt: &trace.manifest().prompts[0], step: 0, point: &component.point };
    diagnose(&trace, &sound.held, &[vec![place]]).remove(0)
}

#[test]
fn a_wrong_formula_is_named_by_the_tokens_that_a_nan_does_not_reach() {
    let sound = Sound::open();
    for (point, id, wrong) in [
        ("model.layers.0.mlp.act", "gate-up-swapped", swapped as fn(&[Vec<f32>]) -> Vec<f32>),
        ("model.layers.0.post_attention_residual", "residual-dropped", |inputs| inputs[1].clone()),
    ] {
        let component = sound.model.graph().get(point).unwrap();
        let inputs: Vec<Vec<f32>> = component.inputs.iter().map(|input| values(&sound, input)).collect();
        let found = diagnosed(&sound, component, |entry, copied| {
            let mut values = copied.f32s();
            let last = values.len() / 4 * 3;
            if entry.step == 0 && component.inputs.contains(&entry.point) {
                values[last..].fill(f32::NAN);
                copied.set(&values);
            }
            if entry.step == 0 && entry.point == point {
                values.copy_from_slice(&wrong(&inputs));
                // As a kernel that fails closed leaves it.
                values[last..].fill(0.0);
                copied.set(&values);
            }
        });
        let found = found.unwrap();
        let names: Vec<&str> = found.names.iter().map(|named| named.id).collect();
        assert_eq!(names, [id], "{point}: {}", found.shape);
    }
}

/// What was captured at a point in the prefill.
fn values(sound: &Sound, point: &str) -> Vec<f32> {
    let entry = sound.trace.entries().iter().find(|e| e.step == 0 && e.point == point).unwrap();
    sound.trace.view(entry).to_f64().into_iter().map(|v| v as f32).collect()
}

/// An MLP's activation with gate and up in each other's place.
fn swapped(inputs: &[Vec<f32>]) -> Vec<f32> {
    let silu = |x: f32| x / (1.0 + (-x).exp());
    inputs[0].iter().zip(&inputs[1]).map(|(gate, up)| silu(*up) * gate).collect()
}

#[test]
fn a_component_of_which_an_input_was_not_captured_is_not_diagnosed_though_another_is_nan() {
    let sound = Sound::open();
    let known = sound.whole().filter(|c| c.inputs.len() > 1);
    for (component, missing) in known.flat_map(|c| (0..c.inputs.len()).map(move |i| (c, i))) {
        let found = diagnosed(&sound, component, |entry, copied| {
            if entry.step == 0 && component.inputs.contains(&entry.point) {
                copied.dropped = entry.point == component.inputs[missing];
                // A mask of other than 0 and 1 makes no trace.
                if entry.dtype == DType::F32 {
                    let mut values = copied.f32s();
                    *values.last_mut().unwrap() = f32::NAN;
                    copied.set(&values);
                }
            }
        });
        assert_eq!(found, None, "{} without {}", component.point, component.inputs[missing]);
    }
}
