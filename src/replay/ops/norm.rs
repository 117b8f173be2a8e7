//! Norms over rows.

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::{Precision, SMALLEST, above, within_range};
use crate::replay::step::{Replayed, Step};

/// What a row is multiplied with to be normed, from the row and ε.
pub(crate) type Inverse = fn(&[f64], f64) -> f64;

/// `Σ x²`.
pub(crate) fn squares(row: &[f64]) -> f64 {
    row.iter().map(|v| v * v).sum()
}

/// `1 / √(mean x² + ε)`.
pub(crate) fn of_mean(row: &[f64], eps: f64) -> f64 {
    1.0 / (squares(row) / row.len() as f64 + eps).sqrt()
}

/// `1 / √(Σ x² + ε)`.
pub(crate) fn of_sum(row: &[f64], eps: f64) -> f64 {
    1.0 / (squares(row) + eps).sqrt()
}

/// `x · sigmoid(x)`.
pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Relative error of `1 / √(mean x² + ε)` over n numbers: half of that of the sum, whose terms are all
/// positive, and a rounding for each of mean, ε, root and quotient; approximate roots of 2 units are
/// allowed for.
fn inverse_root(precision: Precision, n: usize) -> f64 {
    0.5 * precision.gamma(n + 3) + 4.0 * precision.sum
}

/// What squares too small for 32 bits add to that: each of n may be lost. Beside any ε that is nothing; without
/// one, as a wrong formula has it, a row of small numbers has no digits left.
fn underflow(inverse: f64, n: usize) -> f64 {
    n as f64 * SMALLEST * inverse * inverse
}

/// `x · 1/√(mean x² + ε) · (shift + w)` over rows as wide as w.
pub(crate) fn rms_norm(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    rms_norm_by(step, judge, of_mean)
}

/// [`rms_norm`] with another inverse root.
pub(crate) fn rms_norm_by(step: &Step<'_>, judge: &mut Judge<'_>, inverse: Inverse) -> Replayed<()> {
    let (x, w) = (step.input(0)?.to_f64(), step.parameter(0)?.to_f64());
    let (eps, shift) = (step.number("eps")?, step.number("shift")?);
    let precision = step.precision()?;
    sized("the input", x.len(), judge.len())?;
    // Product, shift and product again, and the rounding of what is stored.
    let relative = inverse_root(precision, w.len()) + 3.0 * precision.unit + precision.stored;
    for (i, row) in x.chunks_exact(w.len()).enumerate() {
        let (size, inverse) = (squares(row), inverse(row, eps));
        let relative = relative + underflow(inverse, w.len());
        let out: Vec<f64> = row.iter().zip(&w).map(|(v, w)| v * inverse * (shift + w)).collect();
        // The shift may cancel: its rounding is relative to the larger of its terms.
        let bounds: Vec<f64> = out
            .iter()
            .zip(row.iter().zip(&w))
            .map(|(y, (v, w))| {
                let gain = shift.abs() + w.abs();
                let shifted = precision.unit * (v * inverse).abs() * gain;
                within_range(
                    size,
                    relative * y.abs() + shifted + precision.least * above(&[*v, inverse, gain]),
                )
            })
            .collect();
        judge.check(i * w.len(), &out, &bounds);
    }
    Ok(())
}

/// `w · o/√(mean o² + ε) · silu(z)` over rows as wide as w.
pub(crate) fn gated_rms_norm(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    gated_rms_norm_by(step, judge, of_mean, silu)
}

/// [`gated_rms_norm`] with another inverse root and gate.
pub(crate) fn gated_rms_norm_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    inverse: Inverse,
    gate: fn(f64) -> f64,
) -> Replayed<()> {
    let (o, z) = (step.input(0)?.to_f64(), step.input(1)?.to_f64());
    let (w, eps, shift) = (step.parameter(0)?.to_f64(), step.number("eps")?, step.number("shift")?);
    let precision = step.precision()?;
    sized("the input", o.len(), judge.len())?;
    sized("the gate", z.len(), judge.len())?;
    // silu is a sigmoid of 4 roundings and a product; three more products.
    let relative = inverse_root(precision, w.len()) + 10.0 * precision.unit + precision.stored;
    for (i, (row, gates)) in o.chunks_exact(w.len()).zip(z.chunks_exact(w.len())).enumerate() {
        let (size, inverse) = (squares(row), inverse(row, eps));
        let relative = relative + underflow(inverse, w.len());
        let factors = || row.iter().zip(gates).zip(&w).map(|((v, z), w)| (*v, *z, shift + w));
        let out: Vec<f64> = factors().map(|(v, z, w)| w * v * inverse * gate(z)).collect();
        let bound = |(y, (v, z, w)): (&f64, (f64, f64, f64))| {
            within_range(size, relative * y.abs() + precision.least * above(&[v, z, w, inverse]))
        };
        let bounds: Vec<f64> = out.iter().zip(factors()).map(bound).collect();
        judge.check(i * w.len(), &out, &bounds);
    }
    Ok(())
}

/// `x / √(Σx² + ε)` over the heads of a part of the convolution's output.
pub(crate) fn l2_norm(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let start = if step.word("slice") == "key" { step.dim("key_heads") * step.dim("key_dim") } else { 0 };
    l2_norm_by(step, judge, of_sum, start)
}

/// [`l2_norm`] with another inverse root, of the part of the convolution's output that begins at `start`.
pub(crate) fn l2_norm_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    inverse: Inverse,
    start: usize,
) -> Replayed<()> {
    let input = step.input(0)?;
    let (x, eps) = (input.to_f64(), step.number("eps")?);
    let (heads, dim) = (step.dim("key_heads"), step.dim("key_dim"));
    let width = step.dim("conv_dim");
    sized("the input", x.len(), step.tokens() * width)?;
    let precision = step.precision()?;
    let relative = inverse_root(precision, dim) + 2.0 * precision.unit + precision.stored;
    for (t, row) in x.chunks_exact(width).enumerate() {
        for (h, head) in row[start..start + heads * dim].chunks_exact(dim).enumerate() {
            let inverse = inverse(head, eps);
            let relative = relative + underflow(inverse, dim);
            let out: Vec<f64> = head.iter().map(|v| v * inverse).collect();
            let least = precision.least * above(&[inverse]);
            let size = squares(head);
            let bounds: Vec<f64> =
                out.iter().map(|y| within_range(size, relative * y.abs() + least)).collect();
            judge.check((t * heads + h) * dim, &out, &bounds);
        }
    }
    Ok(())
}
