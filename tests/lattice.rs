//! The instrumented passes against the real engine, on the bundled model.

mod common;

use common::{Form, Seen};
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::{Engine, open};
use layerdiff::error::Result;
use layerdiff::hook::{At, Hook, NoHook};
use layerdiff::model::Graph;
use layerdiff::tensor::{Tensor, Values};
use layerdiff::trace::Evidence;
use safetensors::Dtype;
use std::path::Path;

const PATHS: [(&str, &str); 3] =
    [("lattice-f32", "serial"), ("lattice-f32", "batched"), ("lattice-f16", "serial")];

fn model() -> ModelDir {
    ModelDir::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/model")).unwrap()
}

fn engine(model: &ModelDir, (name, path): (&str, &str)) -> Box<dyn Engine> {
    open(name, model.path(), model.graph(), Some(path)).unwrap()
}

/// Some tokens, different for each length.
fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 7 + i * 31 + n) % 2048).collect()
}

fn mismatches(evidence: &[Evidence]) -> u64 {
    evidence.iter().map(|e| e.mismatches).sum()
}

#[test]
fn every_path_is_bit_identical_to_the_engine_at_any_length() {
    let model = model();
    for path in PATHS {
        let mut engine = engine(&model, path);
        // 1 has no neighbour; 32 and 33 straddle a matrix kernel's threshold; 65 and more fill several tiles.
        for n in [1, 2, 3, 4, 5, 31, 32, 33, 64, 65, 130, 300] {
            let evidence = engine.run(&tokens(n), &[5, 6, 7], &mut NoHook).unwrap();
            assert!(evidence.iter().all(|e| e.elements > 0), "{path:?}, {n} tokens: {evidence:?}");
            assert_eq!(mismatches(&evidence), 0, "{path:?}, {n} tokens: {evidence:?}");
        }
    }
}

/// Changes the numbers of one point so that no softmax and no norm can hide it.
struct Nudge<'a>(&'a str);

impl Hook for Nudge<'_> {
    fn wants(&self, point: &str) -> bool {
        point == self.0
    }

    fn call(&mut self, _at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        match &mut tensor.values {
            Values::F32(values) => values.iter_mut().for_each(|v| *v = *v * 1.5 + 0.25),
            // The last token loses sight of the first.
            Values::U8(values) => {
                let row = values.len() - tensor.shape[1];
                values[row] = 0;
            }
        }
        Ok(tensor)
    }
}

/// The engines that show enough of themselves for any change to be seen: all hidden states or logits.
const OPEN: usize = 3;

#[test]
fn what_a_hook_returns_at_any_point_is_what_the_engine_goes_on_with() {
    let model = model();
    for path in &PATHS[..OPEN] {
        let mut engine = engine(&model, *path);
        let sees_logits = path.0 != "lattice-f16";
        for component in model.graph().components() {
            let point = component.point.as_str();
            // The F16 engine shows one token of its logits only.
            if point == "lm_head" && !sees_logits {
                continue;
            }
            // A state is read by the next step.
            let evidence = engine.run(&tokens(34), &[5], &mut Nudge(point)).unwrap();
            assert!(mismatches(&evidence) > 0, "{path:?}: a change at {point} changes nothing");
        }
    }
}

/// Remembers what was offered.
#[derive(Default)]
struct Log(Vec<(u32, String, Vec<usize>)>);

impl Hook for Log {
    fn wants(&self, _point: &str) -> bool {
        true
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        self.0.push((at.step, at.point.to_owned(), tensor.shape.clone()));
        Ok(tensor)
    }
}

#[test]
fn every_point_is_offered_once_a_step_with_its_shape_after_its_inputs() {
    let model = model();
    let graph: &Graph = model.graph();
    for path in PATHS {
        let mut log = Log::default();
        engine(&model, path).run(&tokens(70), &[5, 6], &mut log).unwrap();
        assert_eq!(log.0.len(), 3 * graph.components().len(), "{path:?}");
        for (step, n, context) in [(0, 70, 70), (1, 1, 71), (2, 1, 72)] {
            let at = |step: u32, point: &str| log.0.iter().position(|(s, p, _)| *s == step && p == point);
            for component in graph.components() {
                let point = &component.point;
                let i = at(step, point).unwrap_or_else(|| panic!("{path:?}: {point} is missing"));
                assert_eq!(log.0[i].2, graph.shape(component, n, context), "{path:?}: {point}");
                for input in &component.inputs {
                    assert!(at(step, input).unwrap() < i, "{path:?}: {point} before its input {input}");
                }
                for carried in component.carried.iter().filter(|_| step > 0) {
                    assert!(at(step - 1, carried).unwrap() < i, "{path:?}: {point} before {carried}");
                }
            }
        }
    }
}

/// The engine without a reference: the last of n tokens as a decode step after n − 1, and as a part
/// of the prefill, are the same computation on a serial path.
#[test]
fn a_serial_prefill_of_n_tokens_equals_one_of_n_minus_1_and_a_step_bit_for_bit() {
    #[derive(Default)]
    struct Last(Vec<f32>);
    impl Hook for Last {
        fn wants(&self, point: &str) -> bool {
            point == "lm_head"
        }
        fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
            let Values::F32(values) = &tensor.values else { unreachable!() };
            self.0 = values[values.len() - tensor.shape[1]..].to_vec();
            Ok(tensor)
        }
    }
    let model = model();
    for path in PATHS.iter().filter(|(_, path)| *path == "serial") {
        let mut engine = engine(&model, *path);
        let all = tokens(40);
        let (mut prefill, mut step) = (Last::default(), Last::default());
        engine.run(&all, &[], &mut prefill).unwrap();
        engine.run(&all[..39], &all[39..], &mut step).unwrap();
        assert_eq!(prefill.0, step.0, "{path:?}");
    }
}

#[test]
fn the_f16_engine_says_what_its_storage_costs_each_parameter() {
    let model = model();
    let provenance = engine(&model, PATHS[2]).provenance();
    // The checkpoint is bf16, whose values 16-bit floats hold exactly unless they are tiny.
    assert!(
        provenance.parameter_error.values().all(|e| *e > 0.0 && *e < 1e-5),
        "{:?}",
        provenance.parameter_error
    );
    assert!(engine(&model, PATHS[0]).provenance().parameter_error.is_empty());
}

/// The bundled model in three shards.
fn sharded() -> tempfile::TempDir {
    Form { dtype: Dtype::BF16, shards: 3, ..Form::F32 }.write(|_, _| ())
}

#[test]
fn shards_give_the_f16_engine_the_bits_of_one_file_and_it_says_that_they_were_merged() {
    let root = sharded();
    let [one, many] = [model(), ModelDir::open(root.path()).unwrap()].map(|model| {
        let mut engine = engine(&model, PATHS[2]);
        let mut logits = Seen("lm_head", Vec::new());
        let evidence = engine.run(&tokens(40), &[5, 6], &mut logits).unwrap();
        assert_eq!(mismatches(&evidence), 0, "{evidence:?}");
        (logits.1, engine.provenance())
    });
    assert!(!one.0.is_empty());
    assert!(one.0.iter().map(|v| v.to_bits()).eq(many.0.iter().map(|v| v.to_bits())));
    assert_eq!(one.1.parameter_error, many.1.parameter_error);
    assert!(one.1.notes.is_empty() && many.1.notes[0].contains("were merged into one"), "{:?}", many.1.notes);
}

#[test]
fn shards_that_contradict_each_other_are_refused() {
    let root = sharded();
    let refusal = || {
        let model = ModelDir::open(root.path()).unwrap();
        open("lattice-f16", model.path(), model.graph(), None).err().unwrap().to_string()
    };
    std::fs::copy(root.path().join("model-0-of-3.safetensors"), root.path().join("model-1-of-3.safetensors"))
        .unwrap();
    assert!(refusal().contains("two shards hold"), "{}", refusal());
    std::fs::write(root.path().join("model-1-of-3.safetensors"), "short").unwrap();
    assert!(refusal().contains("a shard of the checkpoint is damaged"), "{}", refusal());
    std::fs::remove_file(root.path().join("model-1-of-3.safetensors")).unwrap();
    assert!(refusal().contains("cannot read a shard of the checkpoint"), "{}", refusal());
}
