//! Components that compute each element from a few others.

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::above;
use crate::replay::step::{Replayed, Step, Stop};

/// Roundings of `1 / (1 + exp(−x))`: exp to 2 units, sum, quotient.
const SIGMOID: f64 = 4.0;

/// `1 / (1 + exp(−x))`.
pub(crate) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One part of each head: `[part 0 | part 1 | …]` per head, copied.
pub(crate) fn split_heads(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    split_by(step, judge, |at| (at.head * at.parts + at.part) * at.dim + at.i)
}

/// Which element of a token's row is meant.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    /// The head, of how many.
    pub head: usize,
    pub heads: usize,
    /// The part of it, of how many.
    pub part: usize,
    pub parts: usize,
    /// The element of that, of how many.
    pub i: usize,
    pub dim: usize,
}

/// [`split_heads`] of a row that is laid out in another way.
pub(crate) fn split_by(step: &Step<'_>, judge: &mut Judge<'_>, layout: fn(Piece) -> usize) -> Replayed<()> {
    let x = step.input(0)?.to_f64();
    let (part, parts) = (step.number("part")? as usize, step.number("parts")? as usize);
    let dim = step.output()?.shape.last().copied().unwrap_or(1);
    sized("the input", x.len(), judge.len() * parts)?;
    let heads = judge.len() / (dim * step.tokens()).max(1);
    for (t, row) in x.chunks_exact((heads * parts * dim).max(1)).enumerate() {
        for head in 0..heads {
            let element = |i| row[layout(Piece { head, heads, part, parts, i, dim })];
            let out: Vec<f64> = (0..dim).map(element).collect();
            judge.check_exact((t * heads + head) * dim, &out);
        }
    }
    Ok(())
}

/// `x · sigmoid(gate)`.
pub(crate) fn sigmoid_gate(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let unit = step.precision()?.unit;
    binary(step, judge, |x, gate| x * logistic(gate), |_, _, y| (SIGMOID + 2.0) * unit * y.abs())
}

/// `sigmoid(x)`.
pub(crate) fn sigmoid(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    unary(step, judge, logistic)
}

/// Another function of each element.
pub(crate) fn unary(step: &Step<'_>, judge: &mut Judge<'_>, formula: fn(f64) -> f64) -> Replayed<()> {
    let x = step.input(0)?.to_f64();
    let precision = step.precision()?;
    sized("the input", x.len(), judge.len())?;
    let out: Vec<f64> = x.iter().map(|x| formula(*x)).collect();
    let bound = |y: &f64| (SIGMOID + 1.0) * precision.unit * y.abs() + precision.least;
    let bounds: Vec<f64> = out.iter().map(bound).collect();
    judge.check(0, &out, &bounds);
    Ok(())
}

/// `silu(gate) · up`.
pub(crate) fn silu_mul(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let unit = step.precision()?.unit;
    binary(step, judge, |gate, up| gate * logistic(gate) * up, |_, _, y| (SIGMOID + 3.0) * unit * y.abs())
}

/// The sum of the inputs that the layer has.
pub(crate) fn add(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let unit = step.precision()?.unit;
    binary(step, judge, |a, b| a + b, |_, _, y| unit * y.abs())
}

/// `a + scale · b`.
pub(crate) fn add_scaled(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (scale, unit) = (step.number("scale")?, step.precision()?.unit);
    // The scale itself may be kept in 32 bits.
    binary(step, judge, |a, b| a + scale * b, |_, b, y| unit * (y.abs() + 3.0 * (scale * b).abs()))
}

/// Another function of two inputs. Where its terms cancel, its rounding is relative to the inputs' product.
pub(crate) fn product(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    formula: impl Fn(f64, f64) -> f64,
) -> Replayed<()> {
    let unit = (SIGMOID + 4.0) * step.precision()?.unit;
    binary(step, judge, formula, |a, b, y| unit * (y.abs() + (a * b).abs()))
}

/// Another sum of two inputs.
pub(crate) fn sum(step: &Step<'_>, judge: &mut Judge<'_>, formula: fn(f64, f64) -> f64) -> Replayed<()> {
    let unit = 2.0 * step.precision()?.unit;
    binary(step, judge, formula, |_, _, y| unit * y.abs())
}

fn binary(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    formula: impl Fn(f64, f64) -> f64,
    bound: impl Fn(f64, f64, f64) -> f64,
) -> Replayed<()> {
    let (a, b) = (step.input(0)?.to_f64(), step.input(1)?.to_f64());
    if step.component.inputs.len() != 2 {
        return Err(Stop::Missing(format!("it has {} inputs, not 2", step.component.inputs.len())));
    }
    sized("the first input", a.len(), judge.len())?;
    sized("the second input", b.len(), judge.len())?;
    let out: Vec<f64> = a.iter().zip(&b).map(|(a, b)| formula(*a, *b)).collect();
    // The logistic function of −89 is 0 in 32 bits, where its exponential is infinite: then what it is
    // multiplied with counts.
    let precision = step.precision()?;
    let bounds: Vec<f64> = out
        .iter()
        .zip(a.iter().zip(&b))
        .map(|(y, (a, b))| {
            bound(*a, *b, *y) + precision.stored * y.abs() + precision.least * above(&[*a, *b])
        })
        .collect();
    judge.check(0, &out, &bounds);
    Ok(())
}

/// `exp(−exp(A_log) · softplus(a + dt_bias))` for each value head.
pub(crate) fn decay(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    decay_by(step, judge, f64::exp, softplus)
}

/// `ln(1 + eᵗ)` without overflow.
pub(crate) fn softplus(t: f64) -> f64 {
    t.max(0.0) + (-t.abs()).exp().ln_1p()
}

/// [`decay`] with another rate, of A_log, and another function than softplus.
pub(crate) fn decay_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    rate: fn(f64) -> f64,
    softplus: fn(f64) -> f64,
) -> Replayed<()> {
    let a = step.input(0)?.to_f64();
    let (a_log, dt_bias) = (step.parameter(0)?.to_f64(), step.parameter(1)?.to_f64());
    let precision = step.precision()?;
    let unit = precision.unit;
    sized("the input", a.len(), judge.len())?;
    sized("dt_bias", dt_bias.len(), a_log.len())?;
    let heads = (0..a_log.len()).cycle();
    let (mut out, mut bounds) = (Vec::new(), Vec::new());
    for (a, h) in a.iter().zip(heads) {
        let t = a + dt_bias[h];
        let softplus = softplus(t);
        let rate = rate(a_log[h]);
        let y = (-rate * softplus).exp();
        // softplus has slope at most 1 and may be computed as ln(1 + eᵗ), with an absolute error of a
        // unit; an error of the exponent is a relative one of its exponential.
        let softplus_error = unit * (t.abs() + 2.0 + 3.0 * softplus.abs());
        let exponent_error = rate.abs() * (softplus_error + 4.0 * unit * softplus.abs());
        out.push(y);
        bounds.push(y * (exponent_error.exp_m1() + 3.0 * unit + precision.stored) + precision.least);
    }
    judge.check(0, &out, &bounds);
    Ok(())
}
