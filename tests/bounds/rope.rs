//! Rotation and its tables.

use crate::kernel::Kernel;
use crate::lab::{Inputs, Lab, Ratios, rounded};
use crate::numbers::rows;
use layerdiff::tensor::DType;
use proptest::prelude::*;

const COS: &str = "model.rotary_emb.cos";
const SIN: &str = "model.rotary_emb.sin";
const QUERY: &str = "model.layers.3.self_attn.q_rope";

/// Heads whose quarter is turned.
fn lab(half: usize, tokens: usize) -> Lab {
    Lab::new(&[("head_dim", 8 * half), ("num_attention_heads", 2), ("num_key_value_heads", 1)], tokens)
}

/// The table from frequencies in 32 bits.
fn table(kernel: Kernel, half: usize, first: usize, tokens: usize, sine: bool) -> Vec<f32> {
    let theta = 1e7f32;
    let frequency = |i: usize| match (kernel.fused, kernel.flush) {
        (false, false) => theta.powf(-(i as f32) / half as f32),
        (true, _) => 1.0 / theta.powf((2 * i) as f32 / (2 * half) as f32),
        (false, true) => (-(i as f32 / half as f32) * theta.ln()).exp(),
    };
    let angles = (first..first + tokens).flat_map(|t| (0..half).map(move |i| t as f32 * frequency(i)));
    angles.map(|a| if sine { a.sin() } else { a.cos() }).collect()
}

#[test]
fn a_table_stays_within_its_bound_whatever_the_number_of_pairs() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(24), |(half in 1_usize..40, tokens in 1_usize..300)| {
        for (point, sine) in [(COS, false), (SIN, true)] {
            ratios.add(&lab(half, tokens).all(point, &Inputs::new(&[]), |kernel| {
                // The exponential of a logarithm needs more digits than 32 bits have: no kernel of repute does that.
                table(Kernel { flush: false, ..kernel }, half, 0, tokens, sine)
            }));
        }
    });
    ratios.print("rope table", 0.1);
}

#[test]
fn a_position_that_is_off_by_one_is_beyond_its_bound_in_every_token() {
    for tokens in [1, 2, 300] {
        for shift in [3, 5] {
            let wrong = table(crate::kernel::KERNELS[0], 32, shift, tokens, true);
            let ratio = lab(32, tokens).ratio(SIN, &Inputs::new(&[]), wrong);
            assert!(ratio > 1e4, "{tokens} {shift}: {ratio}");
        }
    }
}

#[test]
fn a_rotation_stays_within_its_bound() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(48), |(half in 1_usize..40, tokens in 1_usize..6, x in rows(-20..20))| {
        let dim = 8 * half;
        let x = x.take(tokens * 2 * dim);
        let plain = crate::kernel::KERNELS[0];
        let (cos, sin) = (table(plain, half, 0, tokens, false), table(plain, half, 0, tokens, true));
        ratios.add(&lab(half, tokens).all(QUERY, &Inputs::new(&[&x, &cos, &sin]), |kernel| {
            let mut out = x.clone();
            for (i, head) in out.chunks_exact_mut(dim).enumerate() {
                for j in 0..half {
                    let (c, s) = (cos[i / 2 * half + j], sin[i / 2 * half + j]);
                    let (a, b) = (head[j], head[half + j]);
                    let times = |a: f32, b: f32| kernel.keep(a * b);
                    (head[j], head[half + j]) = if kernel.fused {
                        (a.mul_add(c, -times(b, s)), b.mul_add(c, times(a, s)))
                    } else {
                        (times(a, c) - times(b, s), times(b, c) + times(a, s))
                    };
                }
            }
            out.into_iter().map(|v| kernel.keep(v)).collect()
        }));
    });
    ratios.print("rope", 0.3);
}

#[test]
fn a_rotation_in_16_bits_may_store_both_products() {
    proptest!(ProptestConfig::with_cases(24), |(half in 1_usize..40, tokens in 1_usize..6, x in rows(-8..3))| {
        for dtype in [DType::F16, DType::BF16] {
            let short = |v: Vec<f32>| rounded(dtype, v);
            let store = |v: f32| rounded(dtype, vec![v])[0];
            let (dim, plain) = (8 * half, crate::kernel::KERNELS[0]);
            let x = short(x.take(tokens * 2 * dim).into_iter().map(|v| v.clamp(-1e4, 1e4)).collect());
            let [cos, sin] = [false, true].map(|sine| short(table(plain, half, 0, tokens, sine)));
            let mut lab = lab(half, tokens);
            (lab.input, lab.output) = (dtype, dtype);
            let mut out = x.clone();
            for (i, head) in out.chunks_exact_mut(dim).enumerate() {
                for j in 0..half {
                    let (c, s) = (cos[i / 2 * half + j], sin[i / 2 * half + j]);
                    let (a, b) = (head[j], head[half + j]);
                    (head[j], head[half + j]) =
                        (store(store(a * c) - store(b * s)), store(store(b * c) + store(a * s)));
                }
            }
            let ratio = lab.ratio(QUERY, &Inputs::new(&[&x, &cos, &sin]), out);
            assert!(ratio <= 1.0, "{dtype:?}: {ratio}");
        }
    });
}
