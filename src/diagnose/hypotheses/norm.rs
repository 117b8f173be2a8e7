//! Norms.

use super::{Hypothesis, coarse, exact, first_of, stored, to_bf16};
use crate::replay::ops::elementwise::{logistic, unary};
use crate::replay::ops::norm::{
    Inverse, gated_rms_norm, gated_rms_norm_by, l2_norm, l2_norm_by, of_mean, of_sum, rms_norm, rms_norm_by,
    silu, squares,
};
use crate::replay::{Edits, Judge, Replayed, Step, Stop};

/// In 32 bits these are one, but for rows whose mean square is below 2e-5.
const NO_EPS: [f64; 2] = [0.0, 1e-12];

pub(super) const RMS_NORM: &[Hypothesis] = &[
    exact("norm-no-shift", "weight w instead of 1 + w", |s, j| number(s, j, "shift", 0.0)),
    exact("norm-double-shift", "weight 2 + w instead of 1 + w", |s, j| number(s, j, "shift", 2.0)),
    exact("norm-no-weight", "the weight is left out", |s, j| {
        let edits = Edits::of_parameter(s, 0, |_, w| w.fill(0.0))?;
        rms_norm(&s.edited(&edits), j)
    }),
    exact("shift-bf16", "1 + w rounded to bf16", |s, j| {
        let shift = s.number("shift")?;
        let edits = Edits::of_parameter(s, 0, |_, w| {
            w.iter_mut().for_each(|w| *w = to_bf16(shift + *w) - shift);
        })?;
        rms_norm(&s.edited(&edits), j)
    }),
    exact("norm-eps-outside", "epsilon added to the root instead of under it", |s, j| {
        rms_norm_by(s, j, outside)
    }),
    exact("norm-eps-1e-5", "epsilon 1e-5", |s, j| number(s, j, "eps", 1e-5)),
    exact("norm-no-eps", "no epsilon, or one of 1e-12, which is next to none", |s, j| {
        first_of(s, j, NO_EPS, |s, j, eps| number(s, j, "eps", eps))
    }),
    exact("norm-sum", "the sum of squares instead of their mean", |s, j| rms_norm_by(s, j, of_sum)),
    exact("norm-centered", "layer norm: the mean is subtracted first", centered),
    exact("norm-skipped", "not normed: the input times the weight", |s, j| rms_norm_by(s, j, one)),
    exact("norm-left-out", "neither normed nor weighted: the input as it is", |s, j| unary(s, j, |x| x)),
    exact("norm-all-heads", "one mean for all heads of a token instead of one for each", all_heads),
    exact("norm-cast-before-gain", "the normed row rounded to bf16 before it is weighted", |s, j| {
        let (w, shift) = (s.parameter(0)?.to_f64(), s.number("shift")?);
        let unit = 2.0 * s.precision()?.unit;
        j.then(move |i, y, bound| {
            let gain = shift + w[i % w.len()];
            let (y, bound) = stored(to_bf16, y, bound);
            (y * gain, bound * gain.abs() + unit * (y * gain).abs())
        });
        // A weight of 0 beside a shift of 1.
        let edits = Edits::of_parameter(s, 0, |_, w| w.fill(1.0 - shift))?;
        rms_norm(&s.edited(&edits), j)
    }),
    coarse("norm-sum-bf16", "the sum of squares taken in bf16", |s, j| rms_norm_by(s, j, in_bf16)),
];

pub(super) const GATED: &[Hypothesis] = &[
    exact("gated-norm-sigmoid", "gate sigmoid(z) instead of silu(z)", |s, j| {
        gated_rms_norm_by(s, j, of_mean, logistic)
    }),
    exact("gated-norm-no-silu", "gate z instead of silu(z)", |s, j| gated_rms_norm_by(s, j, of_mean, |z| z)),
    exact("gated-norm-no-gate", "the gate is left out", |s, j| gated_rms_norm_by(s, j, of_mean, |_| 1.0)),
    exact("gated-norm-gate-first", "gated before it is normed", |s, j| {
        let z = s.input(1)?.to_f64();
        let gate = |x: &mut [f64]| x.iter_mut().zip(&z).for_each(|(x, z)| *x *= silu(*z));
        let edits = Edits::of_input(s, 0, gate)?;
        gated_rms_norm_by(&s.edited(&edits), j, of_mean, |_| 1.0)
    }),
    exact("gated-norm-shifted", "weight 1 + w instead of w", |s, j| {
        gated_rms_norm(&s.edited(&Edits::of_number("shift", 1.0)), j)
    }),
    exact("gated-norm-eps-outside", "epsilon added to the root instead of under it", |s, j| {
        gated_rms_norm_by(s, j, outside, silu)
    }),
    exact("gated-norm-eps-1e-5", "epsilon 1e-5", |s, j| {
        gated_rms_norm(&s.edited(&Edits::of_number("eps", 1e-5)), j)
    }),
    exact("gated-norm-no-eps", "no epsilon, or one of 1e-12, which is next to none", |s, j| {
        first_of(s, j, NO_EPS, |s, j, eps| gated_rms_norm(&s.edited(&Edits::of_number("eps", eps)), j))
    }),
    exact("gated-norm-sum", "the sum of squares instead of their mean", |s, j| {
        gated_rms_norm_by(s, j, of_sum, silu)
    }),
    exact("gated-norm-skipped", "not normed: only gated", |s, j| gated_rms_norm_by(s, j, one, silu)),
    coarse("gated-norm-sum-bf16", "the sum of squares taken in bf16", |s, j| {
        gated_rms_norm_by(s, j, in_bf16, silu)
    }),
];

pub(super) const L2_NORM: &[Hypothesis] = &[
    exact("l2-no-eps", "no epsilon, or one of 1e-12, which is next to none", |s, j| {
        first_of(s, j, NO_EPS, |s, j, eps| {
            if eps == 0.0 {
                return l2(s, j, |row, _| if squares(row) > 1e-12 { of_sum(row, 0.0) } else { 0.0 });
            }
            l2_norm(&s.edited(&Edits::of_number("eps", eps)), j)
        })
    }),
    exact("l2-eps-1e-5", "epsilon 1e-5", |s, j| l2_norm(&s.edited(&Edits::of_number("eps", 1e-5)), j)),
    exact("l2-eps-outside", "epsilon added to the root instead of under it", |s, j| {
        l2(s, j, |row, eps| 1.0 / (squares(row).sqrt() + eps))
    }),
    exact("l2-as-rms", "an RMS norm times d^-½: epsilon is added to the mean, not to the sum", |s, j| {
        l2(s, j, |row, eps| of_mean(row, eps) / (row.len() as f64).sqrt())
    }),
    exact("l2-mean", "the mean of squares instead of their sum: an RMS norm", |s, j| l2(s, j, of_mean)),
    exact("l2-skipped", "not normed", |s, j| l2(s, j, one)),
    exact("l2-scaled", "the query's scale d^-½ is applied here already", |s, j| {
        let scale = 1.0 / (s.dim("key_dim") as f64).sqrt();
        j.then(move |_, y, bound| (y * scale, bound * scale));
        l2_norm(s, j)
    }),
    exact("l2-exchanged", "queries and keys exchanged", |s, j| {
        let keys = s.dim("key_heads") * s.dim("key_dim");
        l2_norm_by(s, j, of_sum, if s.word("slice") == "key" { 0 } else { keys })
    }),
];

fn number(step: &Step<'_>, judge: &mut Judge<'_>, name: &'static str, value: f64) -> Replayed<()> {
    rms_norm(&step.edited(&Edits::of_number(name, value)), judge)
}

fn l2(step: &Step<'_>, judge: &mut Judge<'_>, inverse: Inverse) -> Replayed<()> {
    let keys = step.dim("key_heads") * step.dim("key_dim");
    l2_norm_by(step, judge, inverse, if step.word("slice") == "key" { keys } else { 0 })
}

fn one(_: &[f64], _: f64) -> f64 {
    1.0
}

fn outside(row: &[f64], eps: f64) -> f64 {
    1.0 / ((squares(row) / row.len() as f64).sqrt() + eps)
}

/// The right norm of each head, times what a mean over all heads of its token makes of it.
fn all_heads(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (x, width, eps) = (step.input(0)?.to_f64(), step.parameter(0)?.len(), step.number("eps")?);
    let token = x.len() / step.tokens().max(1);
    if token == width {
        return Err(Stop::Missing("it has no heads".into()));
    }
    let factors: Vec<f64> = x
        .chunks_exact(token.max(1))
        .flat_map(|row| row.chunks_exact(width).map(|head| of_mean(row, eps) / of_mean(head, eps)))
        .collect();
    // The sum is longer: half its rounding is the root's.
    let longer = 0.5 * step.precision()?.gamma(token);
    judge.then(move |i, y, bound| {
        let factor = factors[i / width];
        (y * factor, (bound + longer * y.abs()) * factor)
    });
    rms_norm(step, judge)
}

/// Squares are rounded, and the sum after each of them.
fn in_bf16(row: &[f64], eps: f64) -> f64 {
    let sum = row.iter().fold(0.0, |sum, x| to_bf16(sum + to_bf16(x * x)));
    1.0 / (sum / row.len() as f64 + eps).sqrt()
}

/// The mean is a sum too, and its rounding is one of `γ_n mean|x|` before the row is scaled.
fn centered(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (x, w) = (step.input(0)?.to_f64(), step.parameter(0)?.to_f64());
    let (width, shift, eps) = (w.len(), step.number("shift")?, step.number("eps")?);
    let precision = step.precision()?;
    let rounding = |row: &[f64]| {
        let size = row.iter().map(|x| x.abs()).sum::<f64>() / width as f64;
        let mut row = row.to_vec();
        center(&mut row, width);
        (precision.gamma(width) + precision.unit) * size * of_mean(&row, eps)
    };
    let sizes: Vec<f64> = x.chunks_exact(width).map(rounding).collect();
    judge.then(move |i, y, bound| (y, bound + sizes[i / width] * (shift + w[i % width]).abs()));
    let edits = Edits::of_input(step, 0, |x| center(x, width))?;
    rms_norm(&step.edited(&edits), judge)
}

fn center(x: &mut [f64], width: usize) {
    for row in x.chunks_exact_mut(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        row.iter_mut().for_each(|x| *x -= mean);
    }
}
