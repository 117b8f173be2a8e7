//! Norms over rows.

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::{Precision, SMALLEST};
use crate::replay::step::{Replayed, Step};

/// Relative error of `1 / √(mean x² + ε)` over n numbers: half of that of the sum, whose terms are all
/// positive, and a rounding for each of mean, ε, root and quotient; approximate roots of 2 units are
/// allowed for.
fn inverse_root(precision: Precision, n: usize) -> f64 {
    0.5 * precision.gamma(n + 3) + 4.0 * precision.sum
}

/// Infinite where the squares of a row leave the range of 32 bits, in which engines add them; else 1.
fn overflow(row: &[f64]) -> f64 {
    // In any order: half the range is safe from what rounding adds.
    let sum: f64 = row.iter().map(|v| v * v).sum();
    if sum > f64::from(f32::MAX) / 2.0 { f64::INFINITY } else { 1.0 }
}

/// `x · 1/√(mean x² + ε) · (shift + w)` over rows as wide as w.
pub(in crate::replay) fn rms_norm(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (x, w) = (step.input(0)?.to_f64(), step.parameter(0)?.to_f64());
    let (eps, shift) = (step.number("eps")?, step.number("shift")?);
    let precision = step.precision()?;
    sized("the input", &x, judge.len())?;
    // Product, shift and product again, and the rounding of what is stored.
    let relative = inverse_root(precision, w.len()) + 3.0 * precision.unit + precision.stored;
    for (i, row) in x.chunks_exact(w.len()).enumerate() {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / w.len() as f64;
        let overflow = overflow(row);
        let inverse = 1.0 / (mean + eps).sqrt();
        let out: Vec<f64> = row.iter().zip(&w).map(|(v, w)| v * inverse * (shift + w)).collect();
        // The shift may cancel: its rounding is relative to the larger of its terms.
        let bounds: Vec<f64> = out
            .iter()
            .zip(row.iter().zip(&w))
            .map(|(y, (v, w))| {
                let shifted = precision.unit * (v * inverse).abs() * (shift.abs() + w.abs());
                overflow * (relative * y.abs() + shifted + SMALLEST)
            })
            .collect();
        judge.check(i * w.len(), &out, &bounds);
    }
    Ok(())
}

/// `w · o/√(mean o² + ε) · silu(z)` over rows as wide as w.
pub(in crate::replay) fn gated_rms_norm(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (o, z) = (step.input(0)?.to_f64(), step.input(1)?.to_f64());
    let (w, eps, shift) = (step.parameter(0)?.to_f64(), step.number("eps")?, step.number("shift")?);
    let precision = step.precision()?;
    sized("the input", &o, judge.len())?;
    sized("the gate", &z, judge.len())?;
    // silu is a sigmoid of 4 roundings and a product; three more products.
    let relative = inverse_root(precision, w.len()) + 10.0 * precision.unit + precision.stored;
    for (i, (row, gates)) in o.chunks_exact(w.len()).zip(z.chunks_exact(w.len())).enumerate() {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / w.len() as f64;
        let overflow = overflow(row);
        let inverse = 1.0 / (mean + eps).sqrt();
        let out: Vec<f64> = row
            .iter()
            .zip(gates)
            .zip(&w)
            .map(|((v, z), w)| (shift + w) * v * inverse * z / (1.0 + (-z).exp()))
            .collect();
        let bounds: Vec<f64> = out.iter().map(|y| overflow * (relative * y.abs() + SMALLEST)).collect();
        judge.check(i * w.len(), &out, &bounds);
    }
    Ok(())
}

/// `x / √(Σx² + ε)` over the heads of a part of the convolution's output.
pub(in crate::replay) fn l2_norm(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let input = step.input(0)?;
    let (x, eps) = (input.to_f64(), step.number("eps")?);
    let (heads, dim) = (step.dim("key_heads"), step.dim("key_dim"));
    let start = if step.word("slice") == "key" { heads * dim } else { 0 };
    let width = step.dim("conv_dim");
    sized("the input", &x, step.tokens() * width)?;
    let precision = step.precision()?;
    let relative = inverse_root(precision, dim) + 2.0 * precision.unit + precision.stored;
    for (t, row) in x.chunks_exact(width).enumerate() {
        for (h, head) in row[start..start + heads * dim].chunks_exact(dim).enumerate() {
            let inverse = 1.0 / (head.iter().map(|v| v * v).sum::<f64>() + eps).sqrt();
            let out: Vec<f64> = head.iter().map(|v| v * inverse).collect();
            let overflow = overflow(head);
            let bounds: Vec<f64> = out.iter().map(|y| overflow * (relative * y.abs() + SMALLEST)).collect();
            judge.check((t * heads + h) * dim, &out, &bounds);
        }
    }
    Ok(())
}
