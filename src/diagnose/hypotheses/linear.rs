//! Products with a weight matrix, and the embedding.

use super::{Hypothesis, exact, first_of, to_f16, to_tf32};
use crate::replay::ops::linear::{embedding, embedding_by, linear};
use crate::replay::{Edits, Judge, Replayed, Step, Stop};

/// A weight of more elements than this is not copied.
const LARGEST: usize = 1 << 24;

/// Weights in a block of a 4-bit format.
const BLOCK: usize = 32;

/// Pairs of linears that are taken for each other.
const SIBLINGS: [(&str, &str); 6] = [
    ("k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("in_proj_a", "in_proj_b"),
    ("q_proj", "o_proj"),
    ("in_proj_z", "out_proj"),
    ("lm_head", "model.embed_tokens"),
];

pub(super) const LINEAR: &[Hypothesis] = &[
    exact("weight-transposed", "the weight is read as if it were stored transposed", |s, j| {
        if s.parameter(0)?.len() > LARGEST {
            return Err(Stop::Missing("the weight is too large".into()));
        }
        let edits = Edits::of_parameter(s, 0, |shape, w| {
            let (old, n, k) = (w.clone(), shape[0], w.len() / shape[0]);
            w.iter_mut().enumerate().for_each(|(i, w)| *w = old[i % k * n + i / k]);
        })?;
        linear(&s.edited(&edits), j)
    }),
    exact("q4-nibble-order", "the two weights of each byte exchanged: the high nibble first", |s, j| {
        permuted(s, j, |i| i ^ 1)
    }),
    exact(
        "q4-nibble-halves",
        "low nibbles first, then high ones: the order of another 4-bit format",
        |s, j| {
            permuted(s, j, |i| {
                let (block, i) = (i / BLOCK * BLOCK, i % BLOCK);
                block + i % 2 * (BLOCK / 2) + i / 2
            })
        },
    ),
    exact("q4-nibble-pairs", "nibbles taken in pairs where they lie in halves", |s, j| {
        permuted(s, j, |i| {
            let (block, i) = (i / BLOCK * BLOCK, i % BLOCK);
            block + i % (BLOCK / 2) * 2 + i / (BLOCK / 2)
        })
    }),
    exact("weight-of-another-layer", "the weight of another layer", |s, j| {
        let Some(layer) = s.component.layer else {
            return Err(Stop::Missing("it belongs to no layer".into()));
        };
        let name = &s.component.params[0];
        let others = (0..s.graph.layer_types().len()).filter(|other| *other != layer);
        let named = |other| name.replace(&format!("layers.{layer}."), &format!("layers.{other}."));
        first_of(s, j, others.map(named), other)
    }),
    exact("weight-of-a-sibling", "the weight of another linear of the layer", |s, j| {
        let name = &s.component.params[0];
        let others = SIBLINGS.iter().flat_map(|(a, b)| {
            let swap = |from: &str, to: &str| name.contains(from).then(|| name.replace(from, to));
            [swap(a, b), swap(b, a)]
        });
        first_of(s, j, others.flatten(), other)
    }),
    exact("activations-int8", "the inputs rounded to 8 bits", |s, j| {
        linear(&Step { activation_bits: Some(8), ..*s }, j)
    }),
    exact("activations-exact", "the inputs not rounded to the bits that are declared", |s, j| {
        linear(&Step { activation_bits: None, ..*s }, j)
    }),
    exact("linear-tail-dropped", "the last inputs are not read: a remainder of 4, 8, 16 or 32", |s, j| {
        let width = s.input(0)?.len() / s.tokens().max(1);
        first_of(s, j, [4, 8, 16, 32], |s, j, tail| {
            let edits = Edits::of_input(s, 0, |x| {
                x.chunks_exact_mut(width).for_each(|row| row[width.saturating_sub(tail)..].fill(0.0));
            })?;
            linear(&s.edited(&edits), j)
        })
    }),
    exact("linear-tf32", "inputs and weight rounded to TF32", tf32),
    exact("linear-f16-sum", "summed in f16, from the first input to the last", f16_sum),
    exact(
        "q4-bias-missing",
        "the bias of each block of 32 weights left out: codes times scale",
        without_bias,
    ),
    exact("q4-symmetric", "weights quantized to multiples of a 7th of the largest of each block", |s, j| {
        quantized(s, j, symmetric)
    }),
    exact("q4-floor", "weights quantized to the code below instead of the nearest", |s, j| {
        quantized(s, j, floored)
    }),
    exact("linear-late", "the input of the token before", |s, j| {
        let width = s.input(0)?.len() / s.tokens().max(1);
        let edits = Edits::of_input(s, 0, |x| super::one_row_late(x, width))?;
        linear(&s.edited(&edits), j)
    }),
];

pub(super) const EMBEDDING: &[Hypothesis] = &[
    exact("embedding-plus-one", "the row after the token's", |s, j| embedding_by(s, j, |id, n| (id + 1) % n)),
    exact("embedding-minus-one", "the row before the token's", |s, j| {
        embedding_by(s, j, |id, n| (id + n - 1) % n)
    }),
    exact("embedding-row-zero", "the row of token 0 for all", |s, j| embedding_by(s, j, |_, _| 0)),
    exact("embedding-cut", "the mantissa of the row cut to 2, 3, 4, 5 or 6 bits", |s, j| {
        first_of(s, j, [2, 3, 4, 5, 6], |s, j, bits| {
            j.then(move |_, y, bound| (f64::from(cut(y as f32, bits)), bound));
            embedding(s, j)
        })
    }),
    exact("embedding-scaled", "multiplied by √hidden", |s, j| {
        let scale = (s.dim("hidden") as f64).sqrt();
        let unit = 2.0 * s.precision()?.unit;
        j.then(move |_, y, bound| (y * scale, (bound + unit * y.abs()) * scale));
        embedding(s, j)
    }),
];

/// The product with the inputs in another order, which is that with the weight's columns in another order.
fn permuted(step: &Step<'_>, judge: &mut Judge<'_>, from: fn(usize) -> usize) -> Replayed<()> {
    let width = step.parameter(0)?.shape.last().copied().unwrap_or(0);
    if width == 0 || !width.is_multiple_of(BLOCK) {
        return Err(Stop::Missing("its rows are no blocks".into()));
    }
    let edits = Edits::of_input(step, 0, |x| {
        for row in x.chunks_exact_mut(width) {
            let old = row.to_vec();
            row.iter_mut().enumerate().for_each(|(i, x)| *x = old[from(i)]);
        }
    })?;
    linear(&step.edited(&edits), judge)
}

/// The product with the weight of this name.
fn other(step: &Step<'_>, judge: &mut Judge<'_>, name: String) -> Replayed<()> {
    linear(&step.edited(&Edits::of_name(0, name)), judge)
}

/// Inputs and weights keep the 10 bits of mantissa that a tensor core reads.
fn tf32(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let weights = weight(step, |w| w.iter_mut().for_each(|w| *w = to_tf32(*w)))?;
    let edits = weights.and_input(step, 0, |x| x.iter_mut().for_each(|x| *x = to_tf32(*x)))?;
    linear(&step.edited(&edits), judge)
}

/// The smallest weight of each block of 32 is the bias of its codes.
fn without_bias(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let edits = weight(step, |w| {
        for block in w.chunks_mut(BLOCK) {
            let least = block.iter().copied().fold(f64::INFINITY, f64::min);
            block.iter_mut().for_each(|w| *w -= least);
        }
    })?;
    linear(&step.edited(&edits), judge)
}

/// A number with so many bits of mantissa, cut, not rounded.
fn cut(x: f32, bits: u32) -> f32 {
    f32::from_bits(x.to_bits() & (u32::MAX << (23 - bits)))
}

/// The product with what another quantizer makes of each block of the weight that there was before.
fn quantized(step: &Step<'_>, judge: &mut Judge<'_>, quantize: fn(&mut [f32])) -> Replayed<()> {
    let source = step.original(0)?;
    let edits = weight(step, |w| {
        let mut all: Vec<f32> = source.to_f64().into_iter().map(|v| v as f32).collect();
        all.chunks_mut(BLOCK).for_each(quantize);
        w.iter_mut().zip(all).for_each(|(w, v)| *w = f64::from(v));
    })?;
    linear(&step.edited(&edits), judge)
}

/// In 32 bits, as quantizers compute.
fn symmetric(block: &mut [f32]) {
    let scale = short(block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 7.0);
    if scale > 0.0 {
        block.iter_mut().for_each(|v| *v = (*v / scale).round().clamp(-8.0, 7.0) * scale);
    }
}

fn floored(block: &mut [f32]) {
    let least = block.iter().copied().fold(f32::INFINITY, f32::min);
    let most = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (scale, bias) = (short((most - least) / 15.0), short(least));
    if scale > 0.0 {
        block.iter_mut().for_each(|v| *v = ((*v - bias) / scale).floor().clamp(0.0, 15.0) * scale + bias);
    }
}

/// Scales and biases are kept in f16.
fn short(x: f32) -> f32 {
    to_f16(f64::from(x)) as f32
}

/// The weight, changed.
fn weight(step: &Step<'_>, change: impl FnOnce(&mut Vec<f64>)) -> Replayed<Edits> {
    if step.parameter(0)?.len() > LARGEST {
        return Err(Stop::Missing("the weight is too large".into()));
    }
    Edits::of_parameter(step, 0, |_, w| change(w))
}

/// Product and sum rounded to f16 after each input, the first input first: another order rounds otherwise,
/// and is not reproduced.
fn f16_sum(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (x, view) = (step.input(0)?.to_f64(), step.parameter(0)?);
    let [n, k] = *view.shape else { return Err(Stop::Missing("its weight is no matrix".into())) };
    if view.len() > LARGEST {
        return Err(Stop::Missing("the weight is too large".into()));
    }
    let w = view.to_f64();
    // As the kernel has it: the product in 32 bits.
    let add = |sum: f64, (x, w): (&f64, &f64)| to_f16(sum + to_f16(f64::from(*x as f32 * *w as f32)));
    for (t, x) in x.chunks_exact(k).enumerate() {
        let out: Vec<f64> = w.chunks_exact(k).map(|w| x.iter().zip(w).fold(0.0, add)).collect();
        judge.check_exact(t * n, &out);
        if judge.is_hopeless() {
            break;
        }
    }
    Ok(())
}
