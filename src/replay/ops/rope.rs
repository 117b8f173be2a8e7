//! Rotary position embedding.

use super::sized;
use crate::model::{Component, Op};
use crate::replay::judge::Judge;
use crate::replay::precision::SMALLEST;
use crate::replay::step::{Replayed, Step};

/// `cos` or `sin` of `position · θ^(−i/half)`.
///
/// The angle is a product of a rounded frequency (a power: some units) and the position: its absolute
/// error, and that of its cosine, grows with it.
pub(in crate::replay) fn table(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let shift = shift(step)?;
    for t in 0..step.tokens() {
        let (out, bounds) = row(step, step.component, (step.past() + t + shift) as f64)?;
        judge.check(t * out.len(), &out, &bounds);
    }
    Ok(())
}

/// A position's row of a table, with its bounds.
fn row(step: &Step<'_>, table: &Component, position: f64) -> Replayed<(Vec<f64>, Vec<f64>)> {
    const FREQUENCY: f64 = 6.0;
    let theta = step.number("theta")?;
    let half = step.dim("rope_half");
    let precision = step.precision()?;
    // The tables are made in 32 bits whatever they are stored in.
    let unit = precision.sum;
    let angles: Vec<f64> = (0..half).map(|i| position * theta.powf(-(i as f64) / half as f64)).collect();
    let sine = table.attrs.get("function").and_then(serde_json::Value::as_str) == Some("sin");
    let function: fn(f64) -> f64 = if sine { f64::sin } else { f64::cos };
    let out: Vec<f64> = angles.iter().map(|a| function(*a)).collect();
    let bound = |(a, y): (&f64, &f64)| unit * (FREQUENCY * a + 2.0) + precision.stored * y.abs() + SMALLEST;
    let bounds = angles.iter().zip(&out).map(bound).collect();
    Ok((out, bounds))
}

/// The position that the candidate gives the first token of a prompt.
///
/// Attention sees differences of positions only, so that an engine may count from 1, or from 2 as OPT does:
/// if it does so in all tables of the prefill, then that is where it counts from in every step.
fn shift(step: &Step<'_>) -> Replayed<usize> {
    let tables = || step.graph.components().iter().filter(|c| c.op == Op::RopeTable);
    let fits = |table: &Component, shift: usize| -> Replayed<bool> {
        let Some(entry) = step.trace.find(&step.prompt.id, 0, &table.point) else { return Ok(false) };
        let values = step.trace.view(entry).to_f64();
        for (t, captured) in values.chunks_exact(step.dim("rope_half").max(1)).enumerate() {
            let (out, bounds) = row(step, table, (t + shift) as f64)?;
            if captured.iter().zip(out).zip(bounds).any(|((c, y), bound)| (c - y).abs() > bound) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    for shift in 1..=2 {
        let mut all = true;
        for table in tables() {
            all = all && fits(table, shift)?;
        }
        if all {
            return Ok(shift);
        }
    }
    Ok(0)
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
