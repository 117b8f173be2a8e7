//! Linears on Q4 blocks as they are stored.
//!
//! lattice 0.15 has no Q4 kernel for the processor. This one does the arithmetic of the Metal decode
//! kernel, `gemv_q4_decode`, in its order, with f32 throughout:
//!
//! - 128 lanes share a row. Lane `l` of group `g` takes codes `8 · (l mod 4) …` of the blocks
//!   `8g + l/4, + 32, + 64, …` of the row.
//! - For a block, a lane sums `code · x` in pairs and `x` one by one, and adds
//!   `Σ(code · x) · scale + bias · Σx` to its own sum: the bias is factored out.
//! - A group's 32 lanes are added up, then the four groups in order.
//!
//! Metal leaves two things open: how a group is added up (here in halves: 16, 8, 4, 2, 1), and
//! whether a product and a sum are rounded once or twice (here twice). The kernel wants rows of whole
//! blocks. Here a row may begin and end inside a block: what lies outside of it counts as `x = 0`,
//! which changes nothing for a row of whole blocks.
//!
//! The Metal engine rounds three things to 16 bits when it loads or looks them up: the embedding's
//! rows, `in_proj_a` and `in_proj_b`. That is not the stored format's doing and not done here.

use crate::checkpoint::q4::decode;
use lattice_weights::q4_weights::{Q4_BLOCK_WEIGHTS, Q4Block, q4_f16_to_f32};
use rayon::prelude::*;

/// Codes that a lane takes from a block.
const PER_LANE: usize = 8;
/// Lanes of a group.
const LANES: usize = 32;
/// Groups that share a row.
const GROUPS: usize = 4;
/// Blocks that a group takes at once.
const BLOCKS: usize = LANES * PER_LANE / Q4_BLOCK_WEIGHTS;
/// Rows below which another thread costs more than it brings.
const ROWS_PER_THREAD: usize = 32;

/// A matrix `[rows, cols]` in Q4 blocks that run over its flattened elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Q4Matrix {
    blocks: Vec<Q4Block>,
    rows: usize,
    cols: usize,
}

impl Q4Matrix {
    /// A matrix of these blocks.
    ///
    /// # Panics
    /// When there are not as many blocks as the elements fill.
    pub fn new(blocks: Vec<Q4Block>, rows: usize, cols: usize) -> Self {
        assert_eq!(blocks.len(), (rows * cols).div_ceil(Q4_BLOCK_WEIGHTS), "{rows} x {cols}");
        Self { blocks, rows, cols }
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.rows
    }

    /// `x Wᵀ` for `x` of `m` rows of `k` numbers. Each result is computed alone, so that threads
    /// change no bit.
    ///
    /// # Panics
    /// When `k` is not the matrix's number of columns.
    pub fn rows(&self, x: &[f32], m: usize, k: usize) -> Vec<f32> {
        assert_eq!((k, x.len()), (self.cols, m * k));
        let mut out = vec![0.0; m * self.rows];
        for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(self.rows)) {
            let results = out.par_iter_mut().enumerate().with_min_len(ROWS_PER_THREAD);
            results.for_each(|(row, result)| *result = self.dot(row, x));
        }
        out
    }

    /// Row `i`, `code · scale + bias`: an embedding.
    pub fn row(&self, i: usize) -> Vec<f32> {
        let (start, end) = (i * self.cols, (i + 1) * self.cols);
        let first = start / Q4_BLOCK_WEIGHTS;
        let blocks = &self.blocks[first..end.div_ceil(Q4_BLOCK_WEIGHTS)];
        let skipped = start - first * Q4_BLOCK_WEIGHTS;
        blocks.iter().flat_map(decode).skip(skipped).take(self.cols).collect()
    }

    fn dot(&self, row: usize, x: &[f32]) -> f32 {
        let (start, end) = (row * self.cols, (row + 1) * self.cols);
        let first = start / Q4_BLOCK_WEIGHTS;
        let blocks = &self.blocks[first..end.div_ceil(Q4_BLOCK_WEIGHTS)];
        let mut lanes = [0.0f32; LANES * GROUPS];
        for (ib, block) in blocks.iter().enumerate() {
            let (scale, bias) = (q4_f16_to_f32(block.scale), q4_f16_to_f32(block.bias));
            let lane = ib / BLOCKS % GROUPS * LANES + ib % BLOCKS * (Q4_BLOCK_WEIGHTS / PER_LANE);
            for (il, sum) in lanes[lane..lane + Q4_BLOCK_WEIGHTS / PER_LANE].iter_mut().enumerate() {
                let at = (first + ib) * Q4_BLOCK_WEIGHTS + il * PER_LANE;
                let codes = &block.packed[il * PER_LANE / 2..][..PER_LANE / 2];
                if start <= at && at + PER_LANE <= end {
                    add(sum, codes, x[at - start..][..PER_LANE].as_array().expect("a lane's"), scale, bias);
                } else {
                    let inside = std::array::from_fn(|i| {
                        if (start..end).contains(&(at + i)) { x[at + i - start] } else { 0.0 }
                    });
                    add(sum, codes, &inside, scale, bias);
                }
            }
        }
        lanes.chunks_exact_mut(LANES).map(add_up).fold(0.0, |sum, group| sum + group)
    }
}

/// Adds a lane's share of a block to its sum.
fn add(sum: &mut f32, codes: &[u8], x: &[f32; PER_LANE], scale: f32, bias: f32) {
    let (mut products, mut inputs) = (0.0f32, 0.0f32);
    for x in x {
        inputs += x;
    }
    for (code, x) in codes.iter().zip(x.chunks_exact(2)) {
        products += f32::from(code & 0x0f) * x[0] + f32::from(code >> 4) * x[1];
    }
    *sum += products * scale + bias * inputs;
}

/// The sum of a group's lanes, in halves.
fn add_up(lanes: &mut [f32]) -> f32 {
    let mut half = lanes.len() / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(a, b)| *a += *b);
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use lattice_weights::q4_weights::{Q4Tensor, dequantize_q4_to_f32, quantize_f32_to_q4};

    fn noise(n: usize, mut state: u32) -> Vec<f32> {
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn matrix(rows: usize, cols: usize) -> (Q4Matrix, Vec<f32>) {
        let tensor = quantize_f32_to_q4(&noise(rows * cols, 7), &[rows, cols]).unwrap();
        let dense = dequantize_q4_to_f32(&tensor);
        (Q4Matrix::new(tensor.blocks, rows, cols), dense)
    }

    /// Sum and size of the products, in f64.
    fn exact(w: &[f32], x: &[f32]) -> (f64, f64) {
        let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
    }

    #[test]
    fn a_product_is_the_dequantized_one_within_rounding_wherever_a_row_begins() {
        for (rows, cols) in [(3, 32), (2, 4096), (5, 7), (7, 33), (4, 100), (1, 1), (3, 48)] {
            let (matrix, dense) = matrix(rows, cols);
            let x = noise(2 * cols, 11);
            let out = matrix.rows(&x, 2, cols);
            for (i, got) in out.iter().enumerate() {
                let w = &dense[i % rows * cols..][..cols];
                let (sum, size) = exact(w, &x[i / rows * cols..][..cols]);
                assert!(
                    (f64::from(*got) - sum).abs() <= 1e-6 * size.max(1.0) * 4.0,
                    "{rows}x{cols} {i}: {got} {sum}"
                );
            }
        }
    }

    #[test]
    fn rows_are_those_of_lattice_s_dequantizer_bit_for_bit() {
        for (rows, cols) in [(3, 32), (5, 7), (7, 33), (1, 1)] {
            let (matrix, dense) = matrix(rows, cols);
            let ours: Vec<f32> = (0..rows).flat_map(|i| matrix.row(i)).collect();
            assert!(ours.iter().zip(&dense).all(|(a, b)| a.to_bits() == b.to_bits()), "{rows}x{cols}");
        }
    }

    #[test]
    fn a_negative_scale_is_as_good_as_any() {
        let block =
            Q4Block { scale: 0xbc00, bias: 0x4000, packed: std::array::from_fn(|i| (i * 17 % 256) as u8) };
        let tensor = Q4Tensor { blocks: vec![block], shape: vec![1, 32], original_len: 32 };
        let dense = dequantize_q4_to_f32(&tensor);
        let matrix = Q4Matrix::new(vec![block], 1, 32);
        assert_eq!(matrix.row(0), dense);
        assert!(dense.contains(&-13.0), "{dense:?}");
        let x = noise(32, 3);
        let (sum, size) = exact(&dense, &x);
        assert!((f64::from(matrix.rows(&x, 1, 32)[0]) - sum).abs() < 1e-6 * size);
    }

    #[test]
    fn the_order_of_summation_is_the_decode_kernel_s() {
        // One block for each of 34 lanes' turns: block 32 is the first lane's second, after block 0.
        let ones = Q4Block { scale: 0x3c00, bias: 0, packed: [0x11; 16] };
        let matrix = Q4Matrix::new(vec![ones; 34], 1, 34 * 32);
        let mut x = vec![0.0f32; 34 * 32];
        // Lane 0: 1e8, then 1 in block 32, which is lost beside it. Block 1, lane 4: −1e8.
        (x[0], x[32 * 32], x[32]) = (1e8, 1.0, -1e8);
        assert_eq!(matrix.rows(&x, 1, x.len()), [0.0]);
        // In block 2, lane 8, it meets lane 0 before lane 4 does, and is lost again.
        (x[32 * 32], x[2 * 32]) = (0.0, 1.0);
        assert_eq!(matrix.rows(&x, 1, x.len()), [0.0]);
        // In block 9, of another group, it survives.
        (x[2 * 32], x[9 * 32]) = (0.0, 1.0);
        assert_eq!(matrix.rows(&x, 1, x.len()), [1.0]);
    }

    #[test]
    fn threads_change_no_bit() {
        let (matrix, _) = matrix(200, 64);
        let x = noise(64, 5);
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        let [one, four] = [1, 4].map(|n| pool(n).install(|| matrix.rows(&x, 1, 64)));
        assert_eq!(one, four);
    }
}
