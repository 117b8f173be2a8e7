//! Products with a weight, and the embedding.

use super::super::number::{to_bf16, to_f16, to_int8, to_tf32};
use super::super::{Call, Fault};
use super::LIST;
use crate::error::Result;
use crate::model::Op;

const LINEAR: &[Op] = &[Op::Linear];
const EMBEDDING: &[Op] = &[Op::Embedding];
/// Weights that share a scale.
const BLOCK: usize = 32;

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("q4-nibble-order", LINEAR, "low nibble first", "high nibble first", LIST, |c| {
        // A byte holds two neighbours: reading its halves in the other order swaps them.
        let mut w = c.param(0)?;
        w.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
        product(c, c.input(0)?, &w)
    })
    .quantized(),
    Fault::new("q4-symmetric", LINEAR, "affine blocks", "absmax / 7", LIST, |c| {
        let mut w = c.original(0)?;
        w.chunks_mut(BLOCK).for_each(symmetric);
        product(c, c.input(0)?, &w)
    })
    .quiet()
    .quantized(),
    Fault::new("q4-floor", LINEAR, "round to a code", "floor to a code", LIST, |c| {
        let mut w = c.original(0)?;
        w.chunks_mut(BLOCK).for_each(floored);
        product(c, c.input(0)?, &w)
    })
    .quiet()
    .quantized(),
    Fault::new(
        "q4-bias-missing",
        LINEAR,
        "code · scale + bias",
        "code · scale",
        "Q4_1 read as Q4_0",
        |c| {
            let mut w = c.param(0)?;
            for block in w.chunks_mut(BLOCK) {
                let least = block.iter().copied().fold(f32::INFINITY, f32::min);
                block.iter_mut().for_each(|v| *v -= least);
            }
            product(c, c.input(0)?, &w)
        },
    )
    .quantized(),
    Fault::new(
        "linear-tail-dropped",
        LINEAR,
        "Σ over k",
        "Σ over k − 8",
        "kernels whose loop over lanes forgets the remainder",
        |c| {
            let width = c.input(0)?.len() / c.tokens;
            let mut x = c.input(0)?.to_vec();
            x.chunks_exact_mut(width).for_each(|row| row[width.saturating_sub(8)..].fill(0.0));
            product(c, &x, &c.param(0)?)
        },
    ),
    // TF32 and f16 keep 10 bits of mantissa, and weights in bf16 have fewer. The ranges differ, but what f16 loses
    // below 6e-5 is below the bound of a sum with anything larger in it.
    Fault::new(
        "linear-tf32",
        LINEAR,
        "f32 products",
        "TF32 products",
        "PyTorch 1.7 to 1.11 allowed TF32 in matrix products unless told otherwise",
        |c| {
            let narrow = |x: &[f32]| x.iter().map(|v| to_tf32(*v)).collect::<Vec<_>>();
            product(c, &narrow(c.input(0)?), &narrow(&c.param(0)?))
        },
    )
    .quiet()
    .called(&["linear-tf32", "inputs-f16"]),
    Fault::new(
        "linear-int8-activations",
        LINEAR,
        "x",
        "int8(x), undeclared",
        "CPU kernels that quantize what they read (llama.cpp's Q8 dot products) taken for exact",
        |c| {
            let mut x = c.input(0)?.to_vec();
            let width = x.len() / c.tokens;
            x.chunks_exact_mut(width).for_each(to_int8);
            product(c, &x, &c.param(0)?)
        },
    )
    .quiet()
    .called(&["activations-int8"]),
    Fault::new(
        "linear-f16-sum",
        LINEAR,
        "Σ in f32",
        "Σ in f16",
        "cuBLAS with half accumulation (`allow_fp16_accumulation`, reduced-precision reductions)",
        |c| {
            let w = c.param(0)?;
            sums(c, c.input(0)?, &w, |sum, p| to_f16(sum + to_f16(p)))
        },
    )
    .quiet(),
    Fault::new("linear-output-bf16", LINEAR, "y", "bf16(y), undeclared", "autocast left on", |c| {
        Ok(c.output.iter().map(|v| to_bf16(*v)).collect())
    })
    .quiet()
    .called(&["output-bf16"]),
    Fault::new(
        "embedding-scaled",
        EMBEDDING,
        "E[id]",
        "E[id] · √hidden",
        "Gemma's scale left in shared code, or forgotten there",
        |c| {
            let scale = (c.dim("hidden") as f32).sqrt();
            Ok(c.output.iter().map(|v| v * scale).collect())
        },
    ),
    Fault::new(
        "embedding-e5m4",
        EMBEDDING,
        "E[id]",
        "E[id] with 4 bits of mantissa",
        "quantized embedding undeclared",
        |c| Ok(c.output.iter().map(|v| f32::from_bits(v.to_bits() & !0x7_ffff)).collect()),
    )
    .quiet()
    .called(&["embedding-cut"]),
];

/// `x Wᵀ` with another way to add.
pub(super) fn sums(c: &Call<'_>, x: &[f32], w: &[f32], add: impl Fn(f32, f32) -> f32) -> Result<Vec<f32>> {
    let width = c.input(0)?.len() / c.tokens;
    let one = |row: &[f32], w: &[f32]| row.iter().zip(w).fold(0.0, |sum, (x, w)| add(sum, x * w));
    Ok(x.chunks_exact(width)
        .flat_map(|row| w.chunks_exact(width).map(|w| one(row, w)).collect::<Vec<_>>())
        .collect())
}

fn product(c: &Call<'_>, x: &[f32], w: &[f32]) -> Result<Vec<f32>> {
    sums(c, x, w, |sum, p| sum + p)
}

fn symmetric(block: &mut [f32]) {
    let scale = to_f16(block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 7.0);
    if scale > 0.0 {
        block.iter_mut().for_each(|v| *v = (*v / scale).round().clamp(-8.0, 7.0) * scale);
    }
}

fn floored(block: &mut [f32]) {
    let least = block.iter().copied().fold(f32::INFINITY, f32::min);
    let most = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (scale, bias) = (to_f16((most - least) / 15.0), to_f16(least));
    if scale > 0.0 {
        block.iter_mut().for_each(|v| *v = ((*v - bias) / scale).floor().clamp(0.0, 15.0) * scale + bias);
    }
}
