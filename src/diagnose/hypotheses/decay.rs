//! How much a GatedDeltaNet forgets and writes: decay and beta.

use super::{Hypothesis, exact, one_row_late, to_bf16};
use crate::replay::ops::elementwise::{decay, decay_by, logistic, sigmoid, softplus, unary};
use crate::replay::ops::norm::silu;
use crate::replay::{Edits, Judge, Replayed, Step};
use std::f64::consts::LN_2;

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
        let edits = Edits::of_input(s, 0, |x| one_row_late(x, width))?;
        sigmoid(&s.edited(&edits), j)
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
    exact("decay-rate-bf16", "exp(A_log) rounded to bf16", |s, j| {
        decay_by(s, j, |a_log| to_bf16(a_log.exp()), softplus)
    }),
    exact("decay-first-order", "1 + g instead of exp(g)", |s, j| {
        let unit = 2.0 * s.precision()?.unit;
        // A relative error of the exponential is an absolute one of the exponent.
        j.then(move |_, y, bound| (1.0 + y.ln(), bound / y + unit * (1.0 + y.ln().abs())));
        decay(s, j)
    }),
    exact("decay-exp2", "2^g instead of exp(g)", |s, j| {
        let unit = 8.0 * s.precision()?.unit;
        j.then(move |_, y, bound| {
            let other = y.powf(LN_2);
            (other, other * (bound / y + unit * (1.0 + y.ln().abs())))
        });
        decay(s, j)
    }),
    exact("decay-not-exponentiated", "g instead of exp(g)", |s, j| {
        // A relative error of the exponential is an absolute one of the exponent.
        j.then(|_, y, bound| (y.ln(), bound / y));
        decay(s, j)
    }),
    exact("decay-late", "that of the token before", |s, j| {
        let width = s.input(0)?.len() / s.tokens().max(1);
        let edits = Edits::of_input(s, 0, |x| one_row_late(x, width))?;
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
