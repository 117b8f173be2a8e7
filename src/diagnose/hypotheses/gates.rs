//! Components that compute each element from a few others.

use super::{Hypothesis, exact, first_of, stored, to_bf16};
use crate::replay::Edits;
use crate::replay::ops::elementwise::{add_scaled, logistic, product, split_by, split_heads, sum};
use crate::replay::ops::norm::silu;
use candle_core::cpu::erf::erf_f64;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

pub(super) const SPLIT: &[Hypothesis] = &[
    exact("gate-split-halves", "all queries, then all gates, instead of both for each head", |s, j| {
        split_by(s, j, |at| (at.part * at.heads + at.head) * at.dim + at.i)
    }),
    exact("gate-split-exchanged", "query and gate of each head exchanged", |s, j| {
        split_by(s, j, |at| (at.head * at.parts + at.parts - 1 - at.part) * at.dim + at.i)
    }),
    exact("gate-split-halves-exchanged", "all gates, then all queries", |s, j| {
        split_by(s, j, |at| ((at.parts - 1 - at.part) * at.heads + at.head) * at.dim + at.i)
    }),
    exact("gate-split-interleaved", "query and gate interleaved element by element", |s, j| {
        split_by(s, j, |at| (at.head * at.dim + at.i) * at.parts + at.part)
    }),
    exact("gate-activated", "sigmoid is applied already", |s, j| {
        let unit = 5.0 * s.precision()?.unit;
        j.then(move |_, y, _| (logistic(y), unit * logistic(y)));
        split_heads(s, j)
    }),
];

pub(super) const GATE: &[Hypothesis] = &[
    exact("gate-skipped", "the gate is left out", |s, j| product(s, j, |x, _| x)),
    exact("gate-silu", "silu(gate) instead of sigmoid(gate)", |s, j| product(s, j, |x, g| x * silu(g))),
    exact("gate-exchanged", "sigmoid(context) · gate: the inputs are exchanged", |s, j| {
        product(s, j, |x, g| logistic(x) * g)
    }),
    exact("gate-no-sigmoid", "the bare gate instead of its sigmoid", |s, j| product(s, j, |x, g| x * g)),
    exact("gate-tanh", "tanh(gate) instead of sigmoid(gate)", |s, j| product(s, j, |x, g| x * g.tanh())),
    exact("gate-complement", "1 − sigmoid(gate)", |s, j| product(s, j, |x, g| x * logistic(-g))),
    exact("gate-twice", "sigmoid(gate) is applied twice", |s, j| {
        product(s, j, |x, g| x * logistic(g) * logistic(g))
    }),
    exact("gate-added", "the context is gated and added to itself", |s, j| {
        product(s, j, |x, g| x + x * logistic(g))
    }),
];

pub(super) const MLP: &[Hypothesis] = &[
    exact("gate-up-swapped", "silu(up) · gate: the inputs are exchanged", |s, j| {
        product(s, j, |g, u| silu(u) * g)
    }),
    exact("gelu-for-silu", "gelu (erf) instead of silu", |s, j| product(s, j, |g, u| gelu(g) * u)),
    exact("gelu-tanh-for-silu", "gelu (tanh) instead of silu", |s, j| product(s, j, |g, u| gelu_tanh(g) * u)),
    exact("gelu-quick-for-silu", "quick gelu instead of silu", |s, j| {
        product(s, j, |g, u| g * logistic(1.702 * g) * u)
    }),
    exact("relu-for-silu", "relu instead of silu", |s, j| product(s, j, |g, u| g.max(0.0) * u)),
    exact("sigmoid-for-silu", "sigmoid instead of silu", |s, j| product(s, j, |g, u| logistic(g) * u)),
    exact("up-plus-one", "silu(gate) · (up + 1)", |s, j| product(s, j, |g, u| silu(g) * (u + 1.0))),
    exact("activation-clamped", "gate and up clamped before the activation, as gpt-oss does", |s, j| {
        // No hardware says what the limit is: a small whole number, as all that are known.
        first_of(s, j, [1.0, 2.0, 3.0, 5.0, 7.0, 10.0], |s, j, limit| {
            product(s, j, |g, u| silu(g.min(limit)) * u.clamp(-limit, limit))
        })
    }),
    exact("silu-bf16", "silu(gate) rounded to bf16 before it is multiplied", |s, j| {
        let (up, unit) = (s.input(1)?.to_f64(), 2.0 * s.precision()?.unit);
        j.then(move |i, y, bound| {
            let (y, bound) = stored(to_bf16, y, bound);
            (y * up[i], bound * up[i].abs() + unit * (y * up[i]).abs())
        });
        product(s, j, |g, _| silu(g))
    }),
    exact("silu-missing", "gate · up, without silu", |s, j| product(s, j, |g, u| g * u)),
    exact("up-missing", "silu(gate) without up", |s, j| product(s, j, |g, _| silu(g))),
    exact("silu-outside", "silu(gate · up)", |s, j| product(s, j, |g, u| silu(g * u))),
    exact("silu-both", "silu(gate) · silu(up)", |s, j| product(s, j, |g, u| silu(g) * silu(u))),
];

pub(super) const ADD: &[Hypothesis] = &[
    exact("residual-dropped", "f(x) instead of x + f(x)", |s, j| sum(s, j, |_, f| f)),
    exact("branch-dropped", "x instead of x + f(x)", |s, j| sum(s, j, |x, _| x)),
    exact("residual-subtracted", "x − f(x)", |s, j| sum(s, j, |x, f| x - f)),
    exact("branch-twice", "x + 2 f(x): the branch is added twice", |s, j| sum(s, j, |x, f| x + 2.0 * f)),
    exact("residual-twice", "2 x + f(x): the residual is added twice", |s, j| sum(s, j, |x, f| 2.0 * x + f)),
    exact("residual-mean", "the mean of x and f(x)", |s, j| sum(s, j, |x, f| 0.5 * (x + f))),
    exact("residual-normed", "the residual is taken after the norm instead of before it", |s, j| {
        // The norm that the branch begins with: of the layer's input, or of what the attention left.
        let norm = match s.component.point.strip_suffix(".post_attention_residual") {
            Some(layer) => format!("{layer}.input_layernorm"),
            None => format!("{}.post_attention_layernorm", s.component.point),
        };
        let normed = s.at(&norm)?.to_f64();
        let edits = Edits::of_input(s, 0, |x| {
            x.iter_mut().zip(&normed).for_each(|(x, n)| *x = *n);
        })?;
        sum(&s.edited(&edits), j, |x, f| x + f)
    }),
];

pub(super) const ADD_SCALED: &[Hypothesis] = &[
    exact("adapter-unscaled", "the adapter without its scale", |s, j| {
        add_scaled(&s.edited(&Edits::of_number("scale", 1.0)), j)
    }),
    exact("adapter-dropped", "the adapter is left out", |s, j| sum(s, j, |x, _| x)),
    exact("adapter-scaled-twice", "the adapter's scale is applied twice", |s, j| {
        let scale = s.number("scale")?;
        add_scaled(&s.edited(&Edits::of_number("scale", scale * scale)), j)
    }),
    exact("adapter-subtracted", "the adapter is subtracted", |s, j| {
        let scale = s.number("scale")?;
        add_scaled(&s.edited(&Edits::of_number("scale", -scale)), j)
    }),
];

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf_f64(x * FRAC_1_SQRT_2))
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x)).tanh())
}
