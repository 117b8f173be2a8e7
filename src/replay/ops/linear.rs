//! Products with a weight matrix.

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::{Precision, SMALLEST, within_range};
use crate::replay::step::{Replayed, Step, Stop};
use crate::tensor::TensorView;
use candle_core::{Device, Tensor};

/// Elements of a weight that are widened to 64 bits at a time.
const CHUNK: usize = 1 << 22;

/// Codes with one scale and bias.
const BLOCK: usize = 32;

/// By how much the products of codes, scales and biases may exceed those of the weights that they stand
/// for: in a block of 32 codes from the smallest to the largest weight, `|code · scale| + |bias|` is at
/// most three times the largest weight, and that at most the block's norm; a sum over 32 inputs is at
/// most √32 times theirs.
const CODES: f64 = 17.0;

/// The error of a product of k terms, as a multiple of `‖x‖ ‖w‖`.
///
/// A kernel on codes adds up a block, multiplies the sum with the scale, adds the bias times the block's
/// `Σ x`, and adds up the blocks: `32 + k/32` roundings and a few, but of larger numbers. One that decodes each
/// weight has k of the weights' own size, and three of a decoded weight's. Where the activations are codes
/// too, a block is added up in whole numbers, which do not round.
fn factor(precision: Precision, k: usize, step: &Step<'_>) -> f64 {
    let blocks = k.div_ceil(BLOCK);
    match (step.quantized, step.activation_bits) {
        (false, _) => precision.gamma(k + 2),
        (true, None) => precision.gamma(k + 2) + CODES * precision.gamma(BLOCK + blocks + 6),
        (true, Some(_)) => CODES * precision.gamma(blocks + 8),
    }
}

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
    let stored = step.precision()?.stored;
    // A code is decoded with a product, of up to 15/7 of the largest weight, and a sum, fused or not; and what
    // it is held against was decoded in 32 bits too.
    let unit = if step.quantized { 6.0 * step.precision()?.unit } else { 0.0 };
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
        let bounds: Vec<f64> = row.iter().map(|v| stored * v.abs() + unit * largest).collect();
        judge.check(t * width, &row, &bounds);
    }
    Ok(())
}

/// `x Wᵀ`; with x rounded to codes first, where the engine does that.
pub(crate) fn linear(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let mut x = step.input(0)?.to_f64();
    let w = step.parameter(0)?;
    let [n, k] = *w.shape else {
        return Err(Stop::Missing(format!("its weight is no matrix: {:?}", w.shape)));
    };
    let tokens = step.tokens();
    sized("the input", &x, tokens * k)?;
    if judge.len() != tokens * n {
        return Err(Stop::Missing(format!(
            "it has {} elements where {tokens} × {n} are needed",
            judge.len()
        )));
    }
    let precision = step.precision()?;
    if let Some(bits) = step.activation_bits {
        x.chunks_exact_mut(k).for_each(|row| round_to_codes(row, bits));
    }
    let norms: Vec<f64> = x.chunks_exact(k).map(norm).collect();
    let x = Tensor::from_vec(x, (tokens, k), &Device::Cpu).map_err(candle)?;
    let factor = factor(precision, k, step);
    let least = SMALLEST * k as f64;
    for start in (0..n).step_by((CHUNK / k.max(1)).max(1)) {
        let rows = (CHUNK / k.max(1)).max(1).min(n - start);
        let weights = chunk(&w, start * k, rows * k);
        let sizes: Vec<f64> = weights.chunks_exact(k).map(norm).collect();
        let weights = Tensor::from_vec(weights, (rows, k), &Device::Cpu).map_err(candle)?;
        let out = x.matmul(&weights.t().map_err(candle)?).map_err(candle)?;
        let out: Vec<f64> = out.flatten_all().and_then(|t| t.to_vec1()).map_err(candle)?;
        for ((t, out), norm) in out.chunks_exact(rows).enumerate().zip(&norms) {
            let bounds: Vec<f64> = sizes
                .iter()
                .zip(out)
                .map(|(size, y)| {
                    let size = size * norm;
                    within_range(size, factor * size + precision.stored * y.abs() + least)
                })
                .collect();
            judge.check(t * n + start, out, &bounds);
        }
        if judge.is_hopeless() {
            break;
        }
    }
    Ok(())
}

fn chunk(w: &TensorView<'_>, start: usize, len: usize) -> Vec<f64> {
    let mut out = vec![0.0; len];
    w.read_into(start, &mut out);
    out
}

fn norm(row: &[f64]) -> f64 {
    row.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Rounds a vector to multiples of its largest magnitude divided by the largest code, in 32 bits, halves
/// away from 0: the declared meaning of 8-bit activations, as lattice's Q8_0 kernel has it.
fn round_to_codes(row: &mut [f64], bits: u32) {
    let limit = ((1u32 << (bits - 1)) - 1) as f32;
    let largest = row.iter().fold(0.0f32, |m, v| m.max((*v as f32).abs()));
    if largest == 0.0 {
        return;
    }
    let scale = largest / limit;
    let inverse = 1.0 / scale;
    for value in row {
        let code = (*value as f32 * inverse).round().clamp(-limit, limit);
        *value = f64::from(code) * f64::from(scale);
    }
}

fn candle(error: candle_core::Error) -> Stop {
    Stop::Bad(crate::error::Error::new(format!("cannot multiply: {error}")))
}
