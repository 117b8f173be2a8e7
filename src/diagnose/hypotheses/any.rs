//! What can go wrong with any component.

use super::{Hypothesis, exact, stored, to_bf16, to_f16};
use crate::replay::ops::formula;
use crate::replay::{Edits, Judge, Replayed, Step, Stop};

/// Parameters beyond this are not copied.
const LARGEST: usize = 1 << 24;

pub(super) const ANY: &[Hypothesis] = &[
    exact("output-bf16", "the right formula, its output rounded to bf16", |s, j| {
        j.then(|_, y, bound| stored(to_bf16, y, bound));
        formula(s, j)
    }),
    exact("output-f16", "the right formula, its output rounded to f16", |s, j| {
        j.then(|_, y, bound| stored(to_f16, y, bound));
        formula(s, j)
    }),
    exact("inputs-bf16", "the right formula on inputs rounded to bf16", |s, j| inputs(s, j, to_bf16)),
    exact("inputs-f16", "the right formula on inputs rounded to f16", |s, j| inputs(s, j, to_f16)),
    exact("weights-bf16", "the right formula with its weights rounded to bf16", |s, j| {
        weights(s, j, to_bf16)
    }),
    exact("weights-f16", "the right formula with its weights rounded to f16", |s, j| weights(s, j, to_f16)),
];

fn inputs(step: &Step<'_>, judge: &mut Judge<'_>, round: fn(f64) -> f64) -> Replayed<()> {
    let mut edits = Edits::default();
    for i in 0..step.component.inputs.len() {
        if step.input(i).is_ok() {
            edits = edits.and_input(step, i, |x| x.iter_mut().for_each(|x| *x = round(*x)))?;
        }
    }
    formula(&step.edited(&edits), judge)
}

fn weights(step: &Step<'_>, judge: &mut Judge<'_>, round: fn(f64) -> f64) -> Replayed<()> {
    if step.component.params.len() != 1 || step.parameter(0)?.len() > LARGEST {
        return Err(Stop::Missing("it has no weight, or too large a one".into()));
    }
    let edits = Edits::of_parameter(step, 0, |_, w| w.iter_mut().for_each(|w| *w = round(*w)))?;
    formula(&step.edited(&edits), judge)
}
