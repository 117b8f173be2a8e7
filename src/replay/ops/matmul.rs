//! The product of rows with a weight matrix, in one pass over the weight for all steps that need it.

use super::sized;
use super::tried::Tried;
use crate::replay::judge::Judge;
use crate::replay::precision::{Precision, within_range};
use crate::replay::step::{Replayed, Step, Stop};
use crate::tensor::TensorView;
use candle_core::{Device, Tensor};

/// Elements of a weight that are widened to 64 bits at a time.
const CHUNK: usize = 1 << 22;

/// Codes with one scale and bias.
pub(super) const BLOCK: usize = 32;

/// By how much the products of codes, scales and biases may exceed those of the weights that they stand
/// for: in a block of 32 codes from the smallest to the largest weight, `|code · scale| + |bias|` is at
/// most three times the largest weight, and a sum over 32 inputs is at most √32 times their length.
const CODES: f64 = 3.0 * 5.656_854_249_492_381;

/// The error of a product of k terms, as a multiple of `‖x‖ ‖w‖`, and as one of `‖x‖` times the length of what
/// the largest weights of the blocks make, where they are codes.
///
/// A kernel on codes adds up a block, multiplies the sum with the scale, adds the bias times the block's
/// `Σ x`, and adds up the blocks: `32 + k/32` roundings and a few, but of larger numbers. One that decodes each
/// weight has k of the weights' own size, and three of a decoded weight's. Where the activations are codes
/// too, a block is added up in whole numbers, which do not round.
#[derive(Clone, Copy)]
struct Factor {
    weights: f64,
    codes: f64,
}

impl Factor {
    fn new(k: usize, step: &Step<'_>, of: impl Fn(usize) -> f64) -> Self {
        let blocks = k.div_ceil(BLOCK);
        match (step.quantized, step.activation_bits) {
            (false, _) => Self { weights: of(k + 2), codes: 0.0 },
            (true, None) => Self { weights: of(k + 2), codes: CODES * of(BLOCK + blocks + 6) },
            (true, Some(_)) => Self { weights: 0.0, codes: CODES * of(blocks + 8) },
        }
    }

    fn of(self, size: Size, norm: f64) -> f64 {
        (self.weights * size.weights + self.codes * size.codes) * norm
    }
}

/// The length of a row of weights, and that of the largest weights of its blocks.
#[derive(Clone, Copy)]
struct Size {
    weights: f64,
    codes: f64,
}

impl Size {
    fn new(row: &[f64], quantized: bool) -> Self {
        let largest = |block: &[f64]| block.iter().fold(0.0f64, |m, w| m.max(w.abs()));
        let blocks = || row.chunks(BLOCK).map(|block| largest(block).powi(2)).sum::<f64>().sqrt();
        Self { weights: norm(row), codes: if quantized { blocks() } else { 0.0 } }
    }
}

/// What is multiplied in one step.
pub(super) struct Rows {
    x: Vec<f64>,
    norms: Vec<f64>,
    precision: Precision,
    decoded: bool,
}

impl Rows {
    /// The step's input, rounded to codes where the engine does that.
    pub fn read(step: &Step<'_>, judge: &Judge<'_>) -> Replayed<Self> {
        let mut x = step.input(0)?.to_f64();
        let [n, k] = shape(step)?;
        let tokens = step.tokens();
        sized("the input", x.len(), tokens * k)?;
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
        Ok(Self { x, norms, precision: step.precision()?, decoded: step.step > 0 })
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
    let all: Vec<&Rows> = parts.iter().map(|(rows, _)| *rows).collect();
    let blocks = Block::of(&all, k)?;
    let mut held: Vec<Part<'_, '_, '_>> =
        parts.iter_mut().map(|(rows, judge)| Part::new(step, rows, judge, [n, k])).collect();
    let most = (CHUNK / k.max(1)).max(1);
    for start in (0..n).step_by(most) {
        let count = most.min(n - start);
        let rows = chunk(&w, start * k, count * k);
        let sizes = rows.chunks_exact(k).map(|row| Size::new(row, step.quantized)).collect();
        let weights = Tensor::from_vec(rows.clone(), (count, k), &Device::Cpu).map_err(candle)?;
        let weights = weights.t().map_err(candle)?;
        let chunk = Chunk { start, rows, sizes };
        for block in &blocks {
            let out = block.x.matmul(&weights).map_err(candle)?;
            let out: Vec<f64> = out.flatten_all().and_then(|t| t.to_vec1()).map_err(candle)?;
            let rows = block.tokens.iter().zip(out.chunks_exact(count));
            rows.for_each(|((part, t), out)| held[*part].check(*t, &chunk, out));
        }
        if held.iter().all(|part| part.judge.is_hopeless()) {
            break;
        }
    }
    held.into_iter().for_each(Part::finish);
    Ok(())
}

/// Decode steps that are multiplied together, with zeros in place of those that are missing.
const DECODED: usize = 8;

/// Rows that are multiplied at once.
///
/// In which order a product adds up may depend on how many rows it has. A prefill is therefore multiplied alone
/// and decode steps in blocks of one size: a result is the same bits whatever else is replayed beside it.
struct Block {
    x: Tensor,
    /// For each row the part, and the token in it.
    tokens: Vec<(usize, usize)>,
}

impl Block {
    fn of(parts: &[&Rows], k: usize) -> Replayed<Vec<Self>> {
        let block = |tokens: Vec<(usize, usize)>, height: usize| -> Replayed<Self> {
            let mut x = Vec::with_capacity(height * k);
            tokens.iter().for_each(|(part, t)| x.extend(&parts[*part].x[t * k..(t + 1) * k]));
            x.resize(height * k, 0.0);
            Ok(Self { x: Tensor::from_vec(x, (height, k), &Device::Cpu).map_err(candle)?, tokens })
        };
        let of = |part: usize| (0..parts[part].len()).map(move |t| (part, t));
        let (decoded, prefills): (Vec<usize>, Vec<usize>) = (0..parts.len()).partition(|i| parts[*i].decoded);
        let prefills = prefills.into_iter().map(|part| block(of(part).collect(), parts[part].len()));
        let decoded: Vec<(usize, usize)> = decoded.into_iter().flat_map(of).collect();
        let decoded = decoded.chunks(DECODED).map(|tokens| block(tokens.to_vec(), DECODED));
        prefills.chain(decoded).collect()
    }
}

/// Rows of the weight from `start` on, one after the other.
struct Chunk {
    start: usize,
    rows: Vec<f64>,
    sizes: Vec<Size>,
}

/// One step while its component is replayed.
struct Part<'a, 'b, 'c> {
    rows: &'a Rows,
    judge: &'b mut Judge<'c>,
    shape: [usize; 2],
    worst: Factor,
    likely: Factor,
    tried: Option<Tried>,
}

impl<'a, 'b, 'c> Part<'a, 'b, 'c> {
    fn new(step: &Step<'_>, rows: &'a Rows, judge: &'b mut Judge<'c>, shape: [usize; 2]) -> Self {
        let (precision, k) = (rows.precision, shape[1]);
        let worst = Factor::new(k, step, |n| precision.gamma(n));
        let likely = Factor::new(k, step, |n| precision.likely(n));
        let tried = precision.sums_in_32_bits().then(|| {
            // One rounding to 16 bits hides what a sum loses.
            let sampled = precision.stored == 0.0 && judge.sample();
            Tried::new(sampled.then_some([rows.len(), shape[0]]), step.quantized)
        });
        Self { rows, judge, shape, worst, likely: if tried.is_some() { likely } else { worst }, tried }
    }

    fn check(&mut self, t: usize, chunk: &Chunk, out: &[f64]) {
        let [n, k] = self.shape;
        let (precision, norm) = (self.rows.precision, self.rows.norms[t]);
        let least = precision.lost(k);
        let beside = |y: f64| precision.stored * y.abs() + least;
        let bound = |(size, y): (&Size, &f64)| {
            within_range(size.weights * norm, self.likely.of(*size, norm) + beside(*y))
        };
        let mut bounds: Vec<f64> = chunk.sizes.iter().zip(out).map(bound).collect();
        let first = t * n + chunk.start;
        if let Some(tried) = &mut self.tried {
            let x = &self.rows.x[t * k..(t + 1) * k];
            let row = |i: usize| &chunk.rows[i * k..(i + 1) * k];
            for i in tried.chosen(first..first + out.len()) {
                let i = i - first;
                let sum = self.likely.of(chunk.sizes[i], norm);
                tried.try_usual(x, row(i), out[i], bounds[i], least > 1e-3 * sum && sum > 0.0);
            }
            for i in self.judge.beyond(first, out, &bounds) {
                let most = self.worst.of(chunk.sizes[i], norm) + beside(out[i]);
                if bounds[i] < most {
                    bounds[i] = (bounds[i] + tried.try_beyond(x, row(i), out[i], bounds[i])).min(most);
                }
            }
        }
        self.judge.check(first, out, &bounds);
    }

    fn finish(self) {
        if let Some(tried) = self.tried {
            self.judge.expect(tried.usual());
        }
    }
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
