//! Rotary position embedding.

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::SMALLEST;
use crate::replay::step::{Replayed, Step};

/// `cos` or `sin` of `position · θ^(−i/half)`.
///
/// The angle is a product of a rounded frequency (a power: some units) and the position: its absolute
/// error, and that of its cosine, grows with it.
pub(in crate::replay) fn table(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    const FREQUENCY: f64 = 6.0;
    let theta = step.constant("theta")?;
    let half = step.dim("rope_half");
    let precision = step.precision()?;
    // The tables are made in 32 bits whatever they are stored in.
    let unit = precision.sum;
    for t in 0..step.tokens() {
        let position = (step.past() + t) as f64;
        let angle = |i: usize| position * theta.powf(-(i as f64) / half as f64);
        let angles: Vec<f64> = (0..half).map(angle).collect();
        let function: fn(f64) -> f64 = if step.word("function") == "sin" { f64::sin } else { f64::cos };
        let out: Vec<f64> = angles.iter().map(|a| function(*a)).collect();
        let bounds: Vec<f64> = angles
            .iter()
            .zip(&out)
            .map(|(a, y)| unit * (FREQUENCY * a + 2.0) + precision.stored * y.abs() + SMALLEST)
            .collect();
        judge.check(t * half, &out, &bounds);
    }
    Ok(())
}

/// `(a cos − b sin, b cos + a sin)` over the pairs `(i, half + i)` of each head; the rest is copied.
pub(in crate::replay) fn rotate(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (x, cos, sin) = (step.input(0)?.to_f64(), step.input(1)?.to_f64(), step.input(2)?.to_f64());
    let (half, dim) = (step.dim("rope_half"), step.dim("head_dim"));
    let precision = step.precision()?;
    sized("the input", &x, judge.len())?;
    sized("the cosines", &cos, step.tokens() * half)?;
    sized("the sines", &sin, step.tokens() * half)?;
    let row = x.len() / step.tokens().max(1);
    for (i, head) in x.chunks_exact(dim).enumerate() {
        let t = i * dim / row;
        let (cos, sin) = (&cos[t * half..(t + 1) * half], &sin[t * half..(t + 1) * half]);
        let (mut out, mut bounds) = (head.to_vec(), vec![0.0; dim]);
        for j in 0..half {
            let (a, b) = (head[j], head[half + j]);
            (out[j], out[half + j]) = (a * cos[j] - b * sin[j], b * cos[j] + a * sin[j]);
            // Two products and a sum; the output is rounded to its type.
            let size = |a: f64, b: f64, y: f64| {
                2.0 * precision.unit * (a.abs() + b.abs()) + precision.stored * y.abs() + SMALLEST
            };
            bounds[j] = size(a * cos[j], b * sin[j], out[j]);
            bounds[half + j] = size(b * cos[j], a * sin[j], out[half + j]);
        }
        judge.check(i * dim, &out, &bounds);
    }
    Ok(())
}
