//! Products with a weight matrix.

use super::matmul::{Rows, multiply};
use crate::replay::judge::Judge;
use crate::replay::step::{Replayed, Step, Stop};

/// Row `id` of the embedding for each token, as it is stored.
pub(crate) fn embedding(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    embedding_by(step, judge, |id, _| id)
}

/// [`embedding`] of another row, of the id and the number of rows.
pub(crate) fn embedding_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    which: fn(usize, usize) -> usize,
) -> Replayed<()> {
    let w = step.parameter(0)?;
    let width = w.shape.last().copied().unwrap_or(0);
    let precision = step.precision()?;
    // A code is decoded with a product, of up to 15/7 of the largest weight, and a sum, fused or not; and what
    // it is held against was decoded in 32 bits too.
    let unit = if step.quantized { 6.0 * precision.unit } else { 0.0 };
    let least = if precision.stored > 0.0 { precision.least } else { 0.0 };
    if judge.len() != step.ids().len() * width {
        return Err(Stop::Missing("it has another number of tokens than the prompt".into()));
    }
    for (t, id) in step.ids().iter().enumerate() {
        let mut row = vec![0.0; width];
        let at = which(*id as usize, w.len() / width.max(1));
        if (at + 1) * width > w.len() {
            return Err(Stop::Missing(format!("token {id} is beyond the embedding")));
        }
        w.read_into(at * width, &mut row);
        let largest = row.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let bounds: Vec<f64> =
            row.iter().map(|v| precision.stored * v.abs() + unit * largest + least).collect();
        judge.check(t * width, &row, &bounds);
    }
    Ok(())
}

/// `x Wᵀ`; with x rounded to codes first, where the engine does that.
pub(crate) fn linear(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let rows = Rows::read(step, judge)?;
    multiply(step, &mut [(&rows, judge)])
}
