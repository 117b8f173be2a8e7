//! Rotary position embedding.

use super::{Hypothesis, exact, first_of, to_bf16, to_f16};
use crate::replay::ops::frequency::Frequencies;
use crate::replay::ops::rope::{self, Turn, halves, rotate, rotate_by, rotate_pairs, table, table_by};
use crate::replay::{Edits, Judge, Replayed, Step, Stop};

pub(super) const TABLE: &[Hypothesis] = &[
    exact("rope-theta-1e6", "theta 1e6", |s, j| table(&s.edited(&Edits::of_number("theta", 1e6)), j)),
    exact("rope-theta-1e4", "theta 1e4", |s, j| table(&s.edited(&Edits::of_number("theta", 1e4)), j)),
    exact("rope-theta-5e5", "theta 5e5", |s, j| table(&s.edited(&Edits::of_number("theta", 5e5)), j)),
    exact("rope-position-plus-one", "positions one too high", |s, j| angles(s, j, 1.0, s.dim("rope_half"))),
    exact("rope-position-minus-one", "positions one too low", |s, j| angles(s, j, -1.0, s.dim("rope_half"))),
    exact("rope-position-zero", "positions of a step counted from 0", |s, j| {
        angles(s, j, -(s.past() as f64), s.dim("rope_half"))
    }),
    exact("rope-frequencies-full", "frequencies of the whole head instead of its rotated part", |s, j| {
        angles(s, j, 0.0, s.dim("head_dim") / 2)
    }),
    exact(
        "rope-linear-scaling",
        "positions divided by 2, 4 or 8: a linear scaling for long contexts",
        |s, j| {
            let (frequencies, first) = (Frequencies::new(s)?, s.past() as f64);
            first_of(s, j, [2.0, 4.0, 8.0], |s, j, factor| {
                table_by(s, j, |t, i| (first + t as f64) / factor * frequencies.of(i))
            })
        },
    ),
    exact("rope-scaling-skipped", "frequencies not scaled for long contexts", |s, j| {
        let plain = Frequencies::new(s)?.unscaled();
        let plain = plain.ok_or_else(|| Stop::Missing("the model does not scale them".into()))?;
        let first = s.past() as f64;
        table_by(s, j, |t, i| (first + t as f64) * plain.of(i))
    }),
    exact("rope-frequencies-bf16", "frequencies rounded to bf16", |s, j| {
        let (frequencies, first) = (Frequencies::new(s)?, s.past());
        table_by(s, j, |t, i| (first + t) as f64 * to_bf16(frequencies.of(i)))
    }),
    exact("rope-frequencies-f16", "frequencies rounded to f16", |s, j| {
        let (frequencies, first) = (Frequencies::new(s)?, s.past());
        table_by(s, j, |t, i| (first + t) as f64 * to_f16(frequencies.of(i)))
    }),
    exact("rope-table-exchanged", "sine and cosine exchanged", |s, j| {
        let frequencies = Frequencies::new(s)?;
        let quarter = std::f64::consts::FRAC_PI_2 * if s.word("function") == "sin" { 1.0 } else { -1.0 };
        let first = s.past();
        table_by(s, j, |t, i| quarter + (first + t) as f64 * frequencies.of(i))
    }),
];

pub(super) const ROPE: &[Hypothesis] = &[
    exact("rope-interleaved", "RoPE pairs interleaved (2i, 2i+1)", |s, j| {
        rotate_pairs(s, j, |i, _| (2 * i, 2 * i + 1))
    }),
    exact("rope-full-dim", "RoPE over the whole head instead of its rotated part", |s, j| {
        let pairs = s.dim("head_dim") / 2;
        turned(s, j, 0.0, pairs, Frequencies::new(s)?.with_pairs(pairs))
    }),
    exact("rope-last-dims", "RoPE over the last dims of a head instead of its first", last_dims),
    exact("rope-negated-sine", "RoPE turned the other way: the sine is negated", |s, j| {
        let edits = Edits::of_input(s, 2, |sin| sin.iter_mut().for_each(|x| *x = -*x))?;
        rotate(&s.edited(&edits), j)
    }),
    exact("rope-exchanged", "RoPE with sine and cosine exchanged", |s, j| {
        let (cos, sin) = (s.input(1)?.to_f64(), s.input(2)?.to_f64());
        let edits = Edits::of_input(s, 1, |x| x.copy_from_slice(&sin))?;
        rotate(&s.edited(&edits.and_input(s, 2, |x| x.copy_from_slice(&cos))?), j)
    }),
    exact("rope-skipped", "RoPE not applied, which is the same as position 0 for all tokens", |s, j| {
        let turn = Turn { pairs: 0, pair: halves, angle: |_, _| (1.0, 0.0, 0.0) };
        rotate_by(s, j, &turn)
    }),
    exact("rope-position-plus-one", "RoPE at positions one too high", |s, j| {
        turned(s, j, 1.0, s.dim("rope_half"), Frequencies::new(s)?)
    }),
    exact("rope-position-minus-one", "RoPE at positions one too low", |s, j| {
        turned(s, j, -1.0, s.dim("rope_half"), Frequencies::new(s)?)
    }),
    exact("rope-theta-1e6", "RoPE with theta 1e6", |s, j| {
        turned(s, j, 0.0, s.dim("rope_half"), Frequencies::new(s)?.with_theta(1e6))
    }),
    exact("rope-theta-1e4", "RoPE with theta 1e4", |s, j| {
        turned(s, j, 0.0, s.dim("rope_half"), Frequencies::new(s)?.with_theta(1e4))
    }),
    exact("rope-frequencies-full", "RoPE with the frequencies of the whole head", |s, j| {
        turned(s, j, 0.0, s.dim("rope_half"), Frequencies::new(s)?.with_pairs(s.dim("head_dim") / 2))
    }),
];

/// The table with positions moved on, and the frequencies of `of` pairs.
fn angles(step: &Step<'_>, judge: &mut Judge<'_>, moved: f64, of: usize) -> Replayed<()> {
    let frequencies = Frequencies::new(step)?.with_pairs(of);
    let first = step.past() as f64 + moved;
    table_by(step, judge, |t, i| (first + t as f64) * frequencies.of(i))
}

/// Heads whose halves change places around the right rotation, where the rotated part fits into each.
fn last_dims(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (dim, rotated) = (step.dim("head_dim"), 2 * step.dim("rope_half"));
    if rotated == dim {
        return Err(Stop::Missing("the whole head is rotated".into()));
    }
    let mut right = Judge::new(step.output()?).keeping(usize::MAX);
    let edits = Edits::of_input(step, 0, |x| {
        x.chunks_exact_mut(dim).for_each(|head| head.rotate_right(rotated));
    })?;
    rotate(&step.edited(&edits), &mut right)?;
    let mut turned = right.seen().replayed;
    turned.chunks_exact_mut(dim).for_each(|head| head.rotate_left(rotated));
    // Two products and a sum of numbers no larger than the pair.
    let x = step.input(0)?.to_f64();
    let unit = 4.0 * step.precision()?.unit;
    let bounds: Vec<f64> = x
        .chunks_exact(dim)
        .flat_map(|head| {
            let largest = head.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            std::iter::repeat_n(2.0 * unit * largest, dim)
        })
        .collect();
    judge.check(0, &turned, &bounds);
    Ok(())
}

/// Heads of which `pairs` are turned, at positions moved on, with other frequencies.
fn turned(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    moved: f64,
    pairs: usize,
    frequencies: Frequencies,
) -> Replayed<()> {
    let first = step.past() as f64 + moved;
    let unit = step.precision()?.sum;
    let angle = |t: usize, i: usize| rope::exact(unit, (first + t as f64) * frequencies.of(i));
    rotate_by(step, judge, &Turn { pairs, pair: halves, angle })
}
