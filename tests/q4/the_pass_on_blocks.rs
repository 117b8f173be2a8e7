//! The instrumented pass on Q4 blocks.

use super::*;

/// The logits after the last token.
#[derive(Default)]
struct LastLogits {
    values: Vec<f32>,
    calls: usize,
}

impl Hook for LastLogits {
    fn wants(&self, point: &str) -> bool {
        point == "lm_head"
    }

    fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        let Values::F32(values) = &tensor.values else { unreachable!() };
        self.values = values[values.len() - tensor.shape[1]..].to_vec();
        self.calls += 1;
        Ok(tensor)
    }
}

fn engine(name: &str) -> Box<dyn Engine> {
    open(name, &bundled_model(), bundled().graph(), None).unwrap()
}

#[test]
fn is_checked_against_the_f32_engine_bit_for_bit_and_by_a_cross_check() {
    for name in ["lattice-q4", "lattice-quarot-q4"] {
        let mut engine = engine(name);
        for n in [1, 2, 33, 130] {
            let tokens: Vec<u32> = (0..n).map(|i| (i * i * 7 + i * 31 + n) % 2048).collect();
            let found = engine.run(&tokens, &[5, 6, 7], &mut NoHook).unwrap();
            let (cross, bits): (Vec<_>, Vec<_>) = found.iter().partition(|e| e.rel_l2.is_some());
            assert!(bits.len() >= 2 && bits.iter().all(|e| e.elements > 0 && e.mismatches == 0), "{found:?}");
            assert!(bits.iter().all(|e| e.what.contains("on the dequantized weights")), "{found:?}");
            let [cross] = cross[..] else { panic!("{found:?}") };
            let largest = cross.rel_l2.unwrap();
            assert!(largest > 0.0 && largest < 1e-4, "{name}, {n} tokens: {found:?}");
            assert_eq!(SelfCheck::new(found).status, Status::BitEqual);
        }
    }
}

#[test]
fn decodes_a_token_as_it_prefills_it_bit_for_bit() {
    let all: Vec<u32> = (0..40).map(|i| (i * i * 7 + i * 31) % 2048).collect();
    for name in ["lattice-q4", "lattice-quarot-q4"] {
        let mut engine = engine(name);
        let (mut prefill, mut steps) = (LastLogits::default(), LastLogits::default());
        engine.run(&all, &[], &mut prefill).unwrap();
        let found = engine.run(&all[..37], &all[37..], &mut steps).unwrap();
        assert_eq!(SelfCheck::new(found).status, Status::BitEqual);
        assert_eq!((prefill.calls, steps.calls), (1, 4), "{name}");
        assert_eq!(prefill.values, steps.values, "{name}");
    }
}

#[test]
fn takes_the_likeliest_token_of_its_own_logits_at_each_step() {
    let prompt = [5, 6, 7];
    for name in ["lattice-q4", "lattice-quarot-q4"] {
        let mut engine = engine(name);
        let ids = engine.greedy(&prompt, 3).unwrap();
        assert_eq!(ids.len(), 3);
        for n in 0..3 {
            let mut logits = LastLogits::default();
            engine.run(&prompt, &ids[..n], &mut logits).unwrap();
            let likelier = logits.values.iter().filter(|v| **v > logits.values[ids[n] as usize]);
            assert_eq!(likelier.count(), 0, "{name}, step {n}");
        }
    }
}

#[test]
fn fails_its_cross_check_when_it_computes_something_else_even_at_a_step_only() {
    struct AtStep(u32);
    impl Hook for AtStep {
        fn wants(&self, point: &str) -> bool {
            point == "model.layers.5"
        }
        fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
            if let (Values::F32(values), true) = (&mut tensor.values, at.step == self.0) {
                values.iter_mut().for_each(|v| *v *= 1.2);
            }
            Ok(tensor)
        }
    }
    for (step, status) in [(2, Status::Different), (3, Status::BitEqual)] {
        let found = engine("lattice-q4").run(&[1, 2, 3], &[4, 5], &mut AtStep(step)).unwrap();
        assert_eq!(SelfCheck::new(found).status, status, "step {step}");
    }
}

#[test]
fn refuses_an_empty_prompt() {
    assert!(engine("lattice-q4").run(&[], &[], &mut NoHook).is_err());
}

#[test]
fn fails_its_cross_check_when_it_computes_something_else() {
    struct Nudge;
    impl Hook for Nudge {
        fn wants(&self, point: &str) -> bool {
            point == "model.layers.3.self_attn.o_proj"
        }
        fn call(&mut self, _at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
            if let Values::F32(values) = &mut tensor.values {
                values.iter_mut().for_each(|v| *v = *v * 1.5 + 0.25);
            }
            Ok(tensor)
        }
    }
    let found = engine("lattice-q4").run(&[1, 2, 3], &[], &mut Nudge).unwrap();
    assert_eq!(SelfCheck::new(found).status, Status::Different);
}

#[test]
fn differs_from_the_dequantized_f32_engine_by_rounding_only_at_every_point() {
    for name in ["q4", "quarot"] {
        let errors = errors(&format!("{name}-f32-trace"), &format!("{name}-trace"));
        let (point, error) = worst(&errors);
        println!("{name}: C-Q worst {error:.2e} at {point}");
        assert_eq!(errors.len(), bundled().graph().components().len());
        assert!(error > 0.0 && error < 1e-4, "{name} {point}: {error}");
    }
}

#[test]
fn says_what_quantization_costs_each_parameter() {
    for name in ["lattice-q4", "lattice-quarot-q4"] {
        let errors = engine(name).provenance().parameter_error;
        assert!((0.02..0.2).contains(&errors["model.layers.0.mlp.up_proj.weight"]), "{errors:?}");
    }
}

#[test]
fn refuses_a_directory_of_the_other_kind() {
    for (name, dir, hint) in
        [("lattice-q4", "quarot", "lattice-quarot-q4"), ("lattice-quarot-q4", "q4", "lattice-q4")]
    {
        let error = open(name, &Made::at(dir), bundled().graph(), None).err().unwrap().to_string();
        assert!(error.contains(&format!("use --engine {hint}")), "{error}");
    }
    let error = open("lattice-f32", &Made::at("q4"), bundled().graph(), None).err().unwrap().to_string();
    assert!(error.contains("cannot run a quantized directory"), "{error}");
}

#[test]
fn refuses_a_prompt_past_the_rotary_table() {
    let root = tempfile::tempdir().unwrap();
    let prompts = root.path().join("long.jsonl");
    std::fs::write(&prompts, json!({"id": "long", "token_ids": vec![1; 8200]}).to_string()).unwrap();
    let out = root.path().join("trace");
    let model = Made::at("q4");
    let args = ["capture", "--engine", "lattice-q4", "--model", model.to_str().unwrap(), "--prompts"];
    let run = layerdiff(&[&args[..], &[prompts.to_str().unwrap(), "--out", out.to_str().unwrap()]].concat());
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("too long") && run.stderr.contains("at most 8192 tokens"), "{run:#?}");
}
