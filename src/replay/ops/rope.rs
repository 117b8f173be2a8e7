//! Rotary position embedding.

use super::frequency::Frequencies;
use super::sized;
use crate::model::{Component, Op};
use crate::replay::judge::Judge;
use crate::replay::step::{Replayed, Step};

/// Absolute error of `cos` or `sin` of an angle, without the rounding of what is stored.
///
/// A frequency `θ^−e` is a power to some units, and the rounding of its exponent is enlarged by e ln θ: the
/// logarithm of how much smaller the angle is than that of frequency 1, the position. The product with the
/// position is rounded once, and the function itself.
/// A scaled frequency has `stretch` times that.
fn of_an_angle(unit: f64, angle: f64, position: f64, stretch: f64) -> f64 {
    let exponent = if angle == 0.0 { 0.0 } else { (position / angle).abs().max(1.0).ln() };
    unit * ((6.0 + exponent) * stretch * angle.abs() + 2.0)
}

/// `cos` or `sin` of `position · θ^(−i/half)`, or of the position and a [scaled frequency](Frequencies).
///
/// The angle is a product of a rounded frequency (a power: some units) and the position: its absolute
/// error, and that of its cosine, grows with it.
pub(crate) fn table(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let frequencies = Frequencies::new(step)?;
    let first = (step.past() + shift(step)?) as f64;
    table_by(step, judge, |t, i| (first + t as f64) * frequencies.of(i))
}

/// A position's row of a table, with its bounds.
fn row(step: &Step<'_>, table: &Component, position: f64) -> Replayed<(Vec<f64>, Vec<f64>)> {
    let frequencies = Frequencies::new(step)?;
    let half = step.dim("rope_half");
    let precision = step.precision()?;
    // The tables are made in 32 bits whatever they are stored in.
    let unit = precision.sum;
    let angles: Vec<f64> = (0..half).map(|i| position * frequencies.of(i)).collect();
    let sine = table.attrs.get("function").and_then(serde_json::Value::as_str) == Some("sin");
    let function: fn(f64) -> f64 = if sine { f64::sin } else { f64::cos };
    let out: Vec<f64> = angles.iter().map(|a| function(*a)).collect();
    let bound = |(i, (a, y)): (usize, (&f64, &f64))| {
        let error = of_an_angle(unit, *a, position, frequencies.stretch(i));
        error + precision.stored * y.abs() + precision.least
    };
    let bounds = angles.iter().zip(&out).enumerate().map(bound).collect();
    Ok((out, bounds))
}

/// The position that the candidate gives the first token of a prompt.
///
/// Attention sees differences of positions only, so that an engine may count from 1, or from 2 as OPT does:
/// if it does so in all tables of the prefill, then that is where it counts from in every step.
fn shift(step: &Step<'_>) -> Replayed<usize> {
    let tables = || step.graph.components().iter().filter(|c| c.op == Op::RopeTable);
    let fits = |table: &Component, shift: usize| -> Replayed<bool> {
        // A table that was not captured says nothing; the one that is replayed is there.
        let Some(entry) = step.trace.find(&step.prompt.id, 0, &table.point) else {
            return Ok(table.point != step.component.point);
        };
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

/// [`table`] with other angles, from token and pair.
pub(crate) fn table_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    angle: impl Fn(usize, usize) -> f64,
) -> Replayed<()> {
    let (half, frequencies) = (step.dim("rope_half"), Frequencies::new(step)?);
    sized("the table", judge.len(), step.tokens() * half)?;
    let precision = step.precision()?;
    // The tables are made in 32 bits whatever they are stored in.
    let unit = precision.sum;
    for t in 0..step.tokens() {
        let angles: Vec<f64> = (0..half).map(|i| angle(t, i)).collect();
        let function: fn(f64) -> f64 = if step.word("function") == "sin" { f64::sin } else { f64::cos };
        let out: Vec<f64> = angles.iter().map(|a| function(*a)).collect();
        let bounds: Vec<f64> = angles
            .iter()
            .zip(&out)
            .enumerate()
            .map(|(i, (a, y))| {
                let error = of_an_angle(unit, *a, angles[0], frequencies.stretch(i));
                error + precision.stored * y.abs() + precision.least
            })
            .collect();
        judge.check(t * half, &out, &bounds);
    }
    Ok(())
}

/// How heads are turned.
pub(crate) struct Turn<F: Fn(usize, usize) -> (f64, f64, f64)> {
    /// Number of pairs in a head.
    pub pairs: usize,
    /// The two elements of a pair.
    pub pair: fn(usize, usize) -> (usize, usize),
    /// Cosine, sine, and the error of both, of token and pair.
    pub angle: F,
}

/// The pairs `(i, n + i)` of n.
pub(crate) fn halves(i: usize, pairs: usize) -> (usize, usize) {
    (i, pairs + i)
}

/// Cosine, sine, and their error where the table is no captured one but was made with a unit roundoff.
pub(crate) fn exact(unit: f64, angle: f64) -> (f64, f64, f64) {
    (angle.cos(), angle.sin(), of_an_angle(unit, angle, angle, 1.0))
}

/// `(a cos − b sin, b cos + a sin)` over the pairs `(i, half + i)` of each head; the rest is copied.
pub(crate) fn rotate(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    rotate_pairs(step, judge, halves)
}

/// [`rotate`] over other pairs.
pub(crate) fn rotate_pairs(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    pair: fn(usize, usize) -> (usize, usize),
) -> Replayed<()> {
    let (cos, sin, half) = (step.input(1)?.to_f64(), step.input(2)?.to_f64(), step.dim("rope_half"));
    sized("the cosines", cos.len(), step.tokens() * half)?;
    sized("the sines", sin.len(), step.tokens() * half)?;
    let angle = |t: usize, i: usize| (cos[t * half + i], sin[t * half + i], 0.0);
    rotate_by(step, judge, &Turn { pairs: half, pair, angle })
}

/// [`rotate`] in another way.
pub(crate) fn rotate_by<F: Fn(usize, usize) -> (f64, f64, f64)>(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    turn: &Turn<F>,
) -> Replayed<()> {
    let (x, dim) = (step.input(0)?.to_f64(), step.dim("head_dim"));
    let precision = step.precision()?;
    sized("the input", x.len(), judge.len())?;
    let row = x.len() / step.tokens().max(1);
    for (i, head) in x.chunks_exact(dim).enumerate() {
        let t = i * dim / row;
        let (mut out, mut bounds) = (head.to_vec(), vec![0.0; dim]);
        for j in 0..turn.pairs {
            let (first, second) = (turn.pair)(j, turn.pairs);
            let (cos, sin, error) = (turn.angle)(t, j);
            let (a, b) = (head[first], head[second]);
            (out[first], out[second]) = (a * cos - b * sin, b * cos + a * sin);
            // Two products, each of which may be too small, and a sum; the output is rounded to its type.
            let size = |p: f64, q: f64, y: f64| {
                2.0 * precision.unit * (p.abs() + q.abs())
                    + error * (a.abs() + b.abs())
                    + precision.stored * y.abs()
                    + 2.0 * precision.least
            };
            bounds[first] = size(a * cos, b * sin, out[first]);
            bounds[second] = size(b * cos, a * sin, out[second]);
        }
        judge.check(i * dim, &out, &bounds);
    }
    Ok(())
}
