//! Norms over rows.

use crate::kernel::{KERNELS, Kernel};
use crate::lab::{Inputs, Lab, Ratios, rounded};
use crate::numbers::{Kind, Rows, rows};
use layerdiff::tensor::DType;
use proptest::prelude::*;

const RMS: &str = "model.layers.0.post_attention_layernorm";
const GATED: &str = "model.layers.0.linear_attn.norm";
const QUERY: &str = "model.layers.0.linear_attn.q_l2norm";

fn rms(width: usize, tokens: usize, w: &[f32]) -> Lab {
    Lab::new(&[("hidden_size", width)], tokens).weight(&format!("{RMS}.weight"), &[width], w)
}

fn normed(kernel: Kernel, x: &[f32], w: &[f32]) -> Vec<f32> {
    let rows = x.chunks_exact(w.len());
    rows.flat_map(|row| {
        let mean = if kernel.fused {
            kernel.dot(row, row) * (1.0 / row.len() as f32)
        } else {
            kernel.dot(row, row) / row.len() as f32
        };
        let inverse = kernel.rsqrt(mean + 1e-6);
        let one = |(x, w): (&f32, &f32)| {
            kernel.keep(if kernel.fused { x * ((1.0 + w) * inverse) } else { (x * inverse) * (1.0 + w) })
        };
        row.iter().zip(w).map(one).collect::<Vec<f32>>()
    })
    .collect()
}

#[test]
fn a_norm_stays_within_its_bound() {
    let ratios = Ratios::new();
    // Few rows come near the bound: of 64 drawings all stay below a tenth of it now and then.
    proptest!(ProptestConfig::with_cases(160), |(
        width in 1_usize..300, tokens in 1_usize..4, x in rows(-20..10), w in rows(-3..3), near_minus_one: bool,
    )| {
        let (x, mut w) = (x.take(tokens * width), w.take(width));
        if near_minus_one {
            // 1 + w cancels.
            w.iter_mut().for_each(|w| *w = -1.0 + *w * 1e-5);
        }
        let lab = rms(width, tokens, &w);
        ratios.add(&lab.all(RMS, &Inputs::new(&[&x]), |kernel| normed(kernel, &x, &w)));
    });
    ratios.print("rms norm", 0.1);
}

#[test]
fn a_norm_in_16_bits_may_store_what_it_multiplies_with_its_gain() {
    proptest!(ProptestConfig::with_cases(24), |(
        width in 1_usize..300, tokens in 1_usize..4, x in rows(-5..4), w in rows(-3..1),
    )| {
        for dtype in [DType::F16, DType::BF16] {
            let x = rounded(dtype, x.take(tokens * width).into_iter().map(|v| v.clamp(-1e4, 1e4)).collect());
            let w = rounded(dtype, w.take(width).into_iter().map(|w| w.clamp(-10.0, 10.0)).collect());
            let mut lab = rms(width, tokens, &w);
            (lab.input, lab.output) = (dtype, dtype);
            let plain = rounded(dtype, normed(KERNELS[0], &x, &vec![0.0; width]));
            let gained = plain.iter().enumerate().map(|(i, v)| v * (1.0 + w[i % width])).collect();
            let ratio = lab.ratio(RMS, &Inputs::new(&[&x]), rounded(dtype, gained));
            assert!(ratio <= 1.0, "{dtype:?}: {ratio}");
        }
    });
}

#[test]
fn a_norm_with_its_gain_in_bf16_is_beyond_its_bound() {
    let even = Rows { kind: Kind::Even, scale: 1.0, seed: 5 };
    for width in [64, 256, 1024, 4096] {
        let (x, w) = (even.take(2 * width), even.again(1).take(width));
        let coarse: Vec<f32> =
            rounded(DType::BF16, w.iter().map(|w| 1.0 + w).collect()).iter().map(|w| w - 1.0).collect();
        let ratio = rms(width, 2, &w).ratio(RMS, &Inputs::new(&[&x]), normed(KERNELS[0], &x, &coarse));
        println!("gain in bf16, {width} wide: {ratio:.0}");
        assert!(ratio > 10.0, "{width}: {ratio}");
    }
}

#[test]
fn a_gated_norm_stays_within_its_bound() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(64), |(
        width in 1_usize..200, x in rows(-15..8), z in rows(-6..3), w in rows(-3..3),
    )| {
        let heads = 2;
        let lab = Lab::new(
            &[("linear_value_head_dim", width), ("linear_num_value_heads", heads), ("linear_num_key_heads", 1)],
            2,
        ).weight(&format!("{GATED}.weight"), &[width], &w.take(width));
        let n = 2 * heads * width;
        let (x, z, w) = (x.take(n), z.take(n), w.take(width));
        ratios.add(&lab.all(GATED, &Inputs::new(&[&x, &z]), |kernel| {
            let rows = x.chunks_exact(width).zip(z.chunks_exact(width));
            rows.flat_map(|(row, z)| {
                let inverse = kernel.rsqrt(kernel.dot(row, row) / width as f32 + 1e-6);
                let one = |i: usize| {
                    let gate = kernel.silu(z[i]);
                    if kernel.fused { w[i] * (row[i] * inverse) * gate } else { row[i] * inverse * (w[i] * gate) }
                };
                (0..width).map(|i| kernel.keep(one(i))).collect::<Vec<f32>>()
            }).collect()
        }));
    });
    ratios.print("gated norm", 0.1);
}

#[test]
fn an_l2_norm_stays_within_its_bound_and_one_without_epsilon_does_not() {
    let ratios = Ratios::new();
    let sizes =
        |dim| [("linear_key_head_dim", dim), ("linear_num_key_heads", 2), ("linear_num_value_heads", 2)];
    let lengths = |x: &[f32], lab: &Lab, inverse: &dyn Fn(&[f32]) -> f32| -> Vec<f32> {
        let (dim, width) = (lab.dim("key_dim"), lab.dim("conv_dim"));
        let heads = x.chunks_exact(width).flat_map(|row| row[..2 * dim].chunks_exact(dim));
        heads
            .flat_map(|head| {
                let inverse = inverse(head);
                head.iter().map(|x| x * inverse).collect::<Vec<f32>>()
            })
            .collect()
    };
    proptest!(ProptestConfig::with_cases(64), |(dim in 1_usize..200, x in rows(-15..8))| {
        let lab = Lab::new(&sizes(dim), 2);
        let x = x.take(2 * lab.dim("conv_dim"));
        ratios.add(&lab.all(QUERY, &Inputs::new(&[&x]), |kernel| {
            lengths(&x, &lab, &|head| kernel.rsqrt(kernel.dot(head, head) + 1e-6))
        }));
    });
    ratios.print("l2 norm", 0.1);
    let lab = Lab::new(&sizes(128), 2);
    let x = Rows { kind: Kind::Even, scale: 0.1, seed: 5 }.take(2 * lab.dim("conv_dim"));
    let wrong = lengths(&x, &lab, &|head| KERNELS[0].dot(head, head).sqrt().recip());
    let ratio = lab.ratio(QUERY, &Inputs::new(&[&x]), wrong);
    println!("l2 norm without epsilon on rows of size 0.1: {ratio:.3}");
    // ε is 1e-6 of a sum of 0.4: 1.2e-6 of the output, less than 128 terms may be rounded by.
    assert!(ratio < 1.0, "{ratio}");
    let small: Vec<f32> = x.iter().map(|x| x * 0.1).collect();
    let wrong = lengths(&small, &lab, &|head| KERNELS[0].dot(head, head).sqrt().recip());
    assert!(lab.ratio(QUERY, &Inputs::new(&[&small]), wrong) > 10.0);
}
