//! The gated delta rule, for its output and for its state.

use super::{Hypothesis, coarse, exact, to_bf16, to_f16};
use crate::model::Op;
use crate::replay::ops::delta_rule::{Fading, Memory, RULE, Rule, output_by, state_by};
use crate::replay::{Edits, Judge, Replayed, Step, Stop};

pub(super) const RULES: &[Hypothesis] = &[
    exact("heads-tiled", "key heads tiled: value head h reads key head h % n", |s, j| {
        run(s, j, &Rule { group: |h, _, kv| h % kv, ..RULE })
    }),
    exact("heads-first", "every value head reads the first key head", |s, j| {
        run(s, j, &Rule { group: |_, _, _| 0, ..RULE })
    }),
    exact("q-scale-missing", "the query's scale d^-½ is left out", |s, j| {
        run(s, j, &Rule { scale: |_| 1.0, ..RULE })
    }),
    exact("q-scale-twice", "the query is scaled by 1/d instead of d^-½", |s, j| {
        run(s, j, &Rule { scale: |d| 1.0 / d, ..RULE })
    }),
    exact("memory-undecayed", "the memory is read before the state is decayed", |s, j| {
        run(s, j, &Rule { memory: Memory::Undecayed, ..RULE })
    }),
    exact("memory-missing", "the memory is not taken off: linear attention without the delta", |s, j| {
        run(s, j, &Rule { memory: Memory::Nothing, ..RULE })
    }),
    exact("decay-after-update", "the state is decayed after the update instead of before it", |s, j| {
        run(s, j, &Rule { fading: Fading::After, ..RULE })
    }),
    exact("decay-after-reading", "the state is decayed only after the token is done", |s, j| {
        run(s, j, &Rule { fading: Fading::AfterReading, ..RULE })
    }),
    exact("decay-missing", "the state is not decayed", |s, j| {
        run(s, j, &Rule { fading: Fading::Never, ..RULE })
    }),
    exact("decay-not-exponentiated", "the state is multiplied by g instead of exp(g)", |s, j| {
        let edits = Edits::of_input(s, last(s), |g| g.iter_mut().for_each(|g| *g = g.ln()))?;
        run(&s.edited(&edits), j, &RULE)
    }),
    exact("decay-twice", "the state is decayed twice", |s, j| {
        let edits = Edits::of_input(s, last(s), |g| g.iter_mut().for_each(|g| *g *= *g))?;
        run(&s.edited(&edits), j, &RULE)
    }),
    exact("read-before-write", "the output is read before the token is written", |s, j| {
        if s.component.op != Op::DeltaRule {
            return Err(Stop::Missing("it is not read".into()));
        }
        run(s, j, &Rule { read_first: true, ..RULE })
    }),
    exact(
        "chunk-state-lost",
        "the state is lost at the border of each chunk of 16, 32, 64 or 128 tokens",
        |s, j| {
            let (chunks, heads) = ([16, 32, 64, 128].into_iter(), s.dim("value_heads"));
            // A decay of 0 forgets all that was before.
            super::first_of(s, j, chunks.filter(|chunk| *chunk < s.tokens()), |s, j, chunk| {
                let edits = Edits::of_input(s, last(s), |g| {
                    g.chunks_mut(chunk * heads).skip(1).for_each(|g| g[..heads].fill(0.0));
                })?;
                run(&s.edited(&edits), j, &RULE)
            })
        },
    ),
    exact("state-zero", "the state is not returned: 0", |s, j| {
        if s.component.op != Op::DeltaRuleState {
            return Err(Stop::Missing("it is no state".into()));
        }
        j.check_exact(0, &vec![0.0; j.len()]);
        Ok(())
    }),
    exact("beta-on-value-only", "v β − m instead of (v − m) β", beta_on_value_only),
    exact("beta-missing", "beta is left out", |s, j| {
        let edits = Edits::of_input(s, last(s) - 1, |beta| beta.fill(1.0))?;
        run(&s.edited(&edits), j, &RULE)
    }),
    exact("state-transposed", "the memory is read from the transposed state", |s, j| {
        run(s, j, &Rule { transposed: [true, false], ..RULE })
    }),
    exact("state-transposed-output", "the output is read from the transposed state", |s, j| {
        run(s, j, &Rule { transposed: [false, true], ..RULE })
    }),
    exact("state-transposed-both", "memory and output are read from the transposed state", |s, j| {
        // How it is read leaves no trace in the state.
        if s.component.op != Op::DeltaRule {
            return Err(Stop::Missing("it is not read".into()));
        }
        run(s, j, &Rule { transposed: [true, true], ..RULE })
    }),
    exact("state-ignored", "the state of the step before is lost", |s, j| {
        run(&s.edited(&Edits::fresh()), j, &RULE)
    }),
    exact("queries-keys-exchanged", "queries and keys exchanged", |s, j| {
        if s.component.op != Op::DeltaRule {
            return Err(Stop::Missing("it has no queries".into()));
        }
        let (q, k) = (s.input(0)?.to_f64(), s.input(1)?.to_f64());
        let edits = Edits::of_input(s, 0, |x| x.copy_from_slice(&k))?;
        run(&s.edited(&edits.and_input(s, 1, |x| x.copy_from_slice(&q))?), j, &RULE)
    }),
    coarse("state-bf16", "the state is stored in bf16 after each token", |s, j| {
        run(s, j, &Rule { stored: Some(|state, _| state.iter_mut().for_each(|m| *m = to_bf16(*m))), ..RULE })
    }),
    coarse("state-f16", "the state is stored in f16 after each token", |s, j| {
        run(s, j, &Rule { stored: Some(|state, _| state.iter_mut().for_each(|m| *m = to_f16(*m))), ..RULE })
    }),
    coarse("state-int8", "the state is stored in 8 bits by row after each token", |s, j| {
        run(s, j, &Rule { stored: Some(int8), ..RULE })
    }),
];

/// The decay's place among the inputs; beta is before it.
fn last(step: &Step<'_>) -> usize {
    step.component.inputs.len() - 1
}

/// β is multiplied into the values, and is 1 after that.
fn beta_on_value_only(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (heads, width, dv) = (step.dim("value_heads"), step.dim("conv_dim"), step.dim("value_dim"));
    let beta = step.input(last(step) - 1)?.to_f64();
    let edits = Edits::of_input(step, last(step) - 2, |conv| {
        for (row, beta) in conv.chunks_exact_mut(width).zip(beta.chunks_exact(heads)) {
            let values = &mut row[width - heads * dv..];
            values.chunks_exact_mut(dv).zip(beta).for_each(|(v, beta)| v.iter_mut().for_each(|v| *v *= beta));
        }
    })?;
    let edits = edits.and_input(step, last(step) - 1, |beta| beta.fill(1.0))?;
    run(&step.edited(&edits), judge, &RULE)
}

fn run(step: &Step<'_>, judge: &mut Judge<'_>, rule: &Rule) -> Replayed<()> {
    if step.component.op == Op::DeltaRule {
        output_by(step, judge, rule)
    } else {
        state_by(step, judge, rule)
    }
}

/// Multiples of a 127th of the row's largest magnitude, made in 32 bits, as engines do.
fn int8(state: &mut [f64], width: usize) {
    for row in state.chunks_exact_mut(width) {
        let scale = row.iter().fold(0.0f32, |m, v| m.max(v.abs() as f32)) / 127.0;
        if scale > 0.0 {
            row.iter_mut().for_each(|v| *v = f64::from((*v as f32 / scale).round() * scale));
        }
    }
}
