//! Components that compute each element from a few others.

use super::{Hypothesis, exact, to_bf16};
use crate::replay::ops::elementwise::{
    add_scaled, decay, decay_by, logistic, product, sigmoid, softplus, split_by, split_heads, sum, unary,
};
use crate::replay::ops::norm::silu;
use crate::replay::{Edits, Judge, Replayed, Step};
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

pub(super) const SIGMOID: &[Hypothesis] = &[
    exact("beta-no-sigmoid", "the sigmoid is left out", |s, j| unary(s, j, |x| x)),
    exact("beta-doubled", "twice the sigmoid (negative eigenvalues allowed)", |s, j| {
        unary(s, j, |x| 2.0 * logistic(x))
    }),
    exact("beta-complement", "1 − sigmoid", |s, j| unary(s, j, |x| logistic(-x))),
    exact("beta-tanh", "tanh instead of the sigmoid", |s, j| unary(s, j, f64::tanh)),
    exact("beta-softplus", "softplus instead of the sigmoid", |s, j| unary(s, j, softplus)),
    exact("beta-silu", "silu instead of the sigmoid", |s, j| unary(s, j, silu)),
    exact("beta-exp", "exp instead of the sigmoid", |s, j| unary(s, j, f64::exp)),
    exact("beta-twice", "the sigmoid twice", |s, j| unary(s, j, |x| logistic(logistic(x)))),
    exact("beta-one", "always 1", |s, j| unary(s, j, |_| 1.0)),
    exact("beta-late", "that of the token before", |s, j| {
        let width = s.input(0)?.len() / s.tokens().max(1);
        let edits = Edits::of_input(s, 0, |x| super::one_row_late(x, width))?;
        sigmoid(&s.edited(&edits), j)
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

pub(super) const DECAY: &[Hypothesis] = &[
    exact("decay-raw-a-log", "A_log · softplus instead of −exp(A_log) · softplus", |s, j| {
        decay_by(s, j, |a_log| -a_log, softplus)
    }),
    exact("decay-negated-a-log", "−A_log · softplus: exp is left out", |s, j| {
        decay_by(s, j, |a_log| a_log, softplus)
    }),
    exact("decay-sign", "exp(A_log) · softplus, without the minus", |s, j| {
        decay_by(s, j, |a| -a.exp(), softplus)
    }),
    exact("decay-no-softplus", "softplus is left out", |s, j| decay_by(s, j, f64::exp, |t| t)),
    exact("decay-sigmoid", "sigmoid instead of softplus", |s, j| decay_by(s, j, f64::exp, logistic)),
    exact("decay-relu", "relu instead of softplus", |s, j| decay_by(s, j, f64::exp, |t| t.max(0.0))),
    exact("decay-no-dt-bias", "dt_bias is left out", |s, j| {
        let edits = Edits::of_parameter(s, 1, |_, w| w.fill(0.0))?;
        decay(&s.edited(&edits), j)
    }),
    exact("decay-dt-bias-outside", "dt_bias is added after softplus", dt_bias_outside),
    exact("a-log-bf16", "A_log rounded to bf16", |s, j| {
        let edits = Edits::of_parameter(s, 0, |_, w| w.iter_mut().for_each(|w| *w = to_bf16(*w)))?;
        decay(&s.edited(&edits), j)
    }),
    exact("decay-not-exponentiated", "g instead of exp(g)", |s, j| {
        // A relative error of the exponential is an absolute one of the exponent.
        j.then(|_, y, bound| (y.ln(), bound / y));
        decay(s, j)
    }),
    exact("decay-late", "that of the token before", |s, j| {
        let width = s.input(0)?.len() / s.tokens().max(1);
        let edits = Edits::of_input(s, 0, |x| super::one_row_late(x, width))?;
        decay(&s.edited(&edits), j)
    }),
];

/// `exp(−exp(A_log) · (softplus(a) + dt_bias))`: the right formula without dt_bias, times the rest.
fn dt_bias_outside(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (a_log, dt_bias) = (step.parameter(0)?.to_f64(), step.parameter(1)?.to_f64());
    let rest: Vec<f64> = a_log.iter().zip(&dt_bias).map(|(a, dt)| (-a.exp() * dt).exp()).collect();
    judge.then(move |i, y, bound| (y * rest[i % rest.len()], 2.0 * bound * rest[i % rest.len()]));
    let edits = Edits::of_parameter(step, 1, |_, w| w.fill(0.0))?;
    decay(&step.edited(&edits), judge)
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf_f64(x * FRAC_1_SQRT_2))
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x)).tanh())
}
