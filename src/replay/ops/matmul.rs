//! The product of rows with a weight matrix, in one pass over the weight for all steps that need it.

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

/// What is multiplied in one step.
pub(super) struct Rows {
    x: Vec<f64>,
    norms: Vec<f64>,
    precision: Precision,
}

impl Rows {
    /// The step's input, rounded to codes where the engine does that.
    pub fn read(step: &Step<'_>, judge: &Judge<'_>) -> Replayed<Self> {
        let mut x = step.input(0)?.to_f64();
        let [n, k] = shape(step)?;
        let tokens = step.tokens();
        sized("the input", &x, tokens * k)?;
        if judge.len() != tokens * n {
            return Err(Stop::Missing(format!(
                "it has {} elements where {tokens} × {n} are needed",
                judge.len()
            )));
        }
        if let Some(bits) = step.activation_bits {
            x.chunks_exact_mut(k.max(1)).for_each(|row| round_to_codes(row, bits));
        }
        let norms = x.chunks_exact(k.max(1)).map(norm).collect();
        Ok(Self { x, norms, precision: step.precision()? })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.norms.len()
    }
}

fn shape(step: &Step<'_>) -> Replayed<[usize; 2]> {
    let w = step.parameter(0)?;
    match *w.shape {
        [n, k] => Ok([n, k]),
        _ => Err(Stop::Missing(format!("its weight is no matrix: {:?}", w.shape))),
    }
}

/// Holds the products of several steps of one component against what was captured: its weight, which
/// `step` names, is widened once for all of them.
pub(super) fn multiply(step: &Step<'_>, parts: &mut [(&Rows, &mut Judge<'_>)]) -> Replayed<()> {
    let w = step.parameter(0)?;
    let [n, k] = shape(step)?;
    let all: Vec<f64> = parts.iter().flat_map(|(rows, _)| rows.x.iter().copied()).collect();
    let tokens = parts.iter().map(|(rows, _)| rows.len()).sum::<usize>();
    let x = Tensor::from_vec(all, (tokens, k), &Device::Cpu).map_err(candle)?;
    let most = (CHUNK / k.max(1)).max(1);
    for start in (0..n).step_by(most) {
        let count = most.min(n - start);
        let weights = chunk(&w, start * k, count * k);
        let sizes: Vec<f64> = weights.chunks_exact(k).map(norm).collect();
        let weights = Tensor::from_vec(weights, (count, k), &Device::Cpu).map_err(candle)?;
        let out = x.matmul(&weights.t().map_err(candle)?).map_err(candle)?;
        let out: Vec<f64> = out.flatten_all().and_then(|t| t.to_vec1()).map_err(candle)?;
        let mut out = out.chunks_exact(count);
        for (rows, judge) in parts.iter_mut() {
            let factor = factor(rows.precision, k, step);
            let least = SMALLEST * k as f64 + rows.precision.least;
            for ((t, norm), out) in rows.norms.iter().enumerate().zip(&mut out) {
                let bound = |(size, y): (&f64, &f64)| {
                    let size = size * norm;
                    within_range(size, factor * size + rows.precision.stored * y.abs() + least)
                };
                let bounds: Vec<f64> = sizes.iter().zip(out).map(bound).collect();
                judge.check(t * n + start, out, &bounds);
            }
        }
        if parts.iter().all(|(_, judge)| judge.is_hopeless()) {
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

/// The length of a row; eight sums side by side, for none to wait for another.
fn norm(row: &[f64]) -> f64 {
    let (blocks, rest) = row.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, v)| *sum += v * v);
    }
    let rest: f64 = rest.iter().map(|v| v * v).sum();
    (sums.iter().sum::<f64>() + rest).sqrt()
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
