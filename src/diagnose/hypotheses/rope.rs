//! Rotary position embedding.

use super::{Hypothesis, exact, first_of, to_bf16, to_f16};
use crate::model::Op;
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
            let (theta, half, first) = (s.number("theta")?, s.dim("rope_half") as f64, s.past() as f64);
            first_of(s, j, [2.0, 4.0, 8.0], |s, j, factor| {
                table_by(s, j, |t, i| (first + t as f64) / factor * theta.powf(-(i as f64) / half))
            })
        },
    ),
    exact("rope-frequencies-bf16", "frequencies rounded to bf16", |s, j| {
        let (theta, half, first) = (s.number("theta")?, s.dim("rope_half") as f64, s.past());
        table_by(s, j, |t, i| (first + t) as f64 * to_bf16(theta.powf(-(i as f64) / half)))
    }),
    exact("rope-frequencies-f16", "frequencies rounded to f16", |s, j| {
        let (theta, half, first) = (s.number("theta")?, s.dim("rope_half") as f64, s.past());
        table_by(s, j, |t, i| (first + t) as f64 * to_f16(theta.powf(-(i as f64) / half)))
    }),
    exact("rope-table-exchanged", "sine and cosine exchanged", |s, j| {
        let (theta, half) = (s.number("theta")?, s.dim("rope_half"));
        let quarter = std::f64::consts::FRAC_PI_2 * if s.word("function") == "sin" { 1.0 } else { -1.0 };
        let first = s.past();
        table_by(s, j, |t, i| quarter + (first + t) as f64 * theta.powf(-(i as f64) / half as f64))
    }),
];

pub(super) const ROPE: &[Hypothesis] = &[
    exact("rope-interleaved", "RoPE pairs interleaved (2i, 2i+1)", |s, j| {
        rotate_pairs(s, j, |i, _| (2 * i, 2 * i + 1))
    }),
    exact("rope-full-dim", "RoPE over the whole head instead of its rotated part", |s, j| {
        let pairs = s.dim("head_dim") / 2;
        turned(s, j, 0.0, theta(s)?, pairs, pairs)
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
        turned(s, j, 1.0, theta(s)?, s.dim("rope_half"), s.dim("rope_half"))
    }),
    exact("rope-position-minus-one", "RoPE at positions one too low", |s, j| {
        turned(s, j, -1.0, theta(s)?, s.dim("rope_half"), s.dim("rope_half"))
    }),
    exact("rope-theta-1e6", "RoPE with theta 1e6", |s, j| {
        turned(s, j, 0.0, 1e6, s.dim("rope_half"), s.dim("rope_half"))
    }),
    exact("rope-theta-1e4", "RoPE with theta 1e4", |s, j| {
        turned(s, j, 0.0, 1e4, s.dim("rope_half"), s.dim("rope_half"))
    }),
    exact("rope-frequencies-full", "RoPE with the frequencies of the whole head", |s, j| {
        turned(s, j, 0.0, theta(s)?, s.dim("rope_half"), s.dim("head_dim") / 2)
    }),
];

/// The base of the frequencies, from the table's component.
fn theta(step: &Step<'_>) -> Replayed<f64> {
    let table = step.graph.components().iter().find(|c| c.op == Op::RopeTable);
    let component = table.ok_or_else(|| Stop::Missing("the architecture has no table".into()))?;
    Ok(Step { component, ..*step }.number("theta")?)
}

/// The table with positions moved on, and the frequencies of `of` pairs.
fn angles(step: &Step<'_>, judge: &mut Judge<'_>, moved: f64, of: usize) -> Replayed<()> {
    let theta = step.number("theta")?;
    let first = step.past() as f64 + moved;
    table_by(step, judge, |t, i| (first + t as f64) * theta.powf(-(i as f64) / of as f64))
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

/// Heads of which `pairs` are turned, at positions moved on, with the frequencies of `of` pairs.
fn turned(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    moved: f64,
    theta: f64,
    pairs: usize,
    of: usize,
) -> Replayed<()> {
    let first = step.past() as f64 + moved;
    let unit = step.precision()?.sum;
    let angle =
        |t: usize, i: usize| rope::exact(unit, (first + t as f64) * theta.powf(-(i as f64) / of as f64));
    rotate_by(step, judge, &Turn { pairs, pair: halves, angle })
}
