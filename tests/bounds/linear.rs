//! Products with a weight matrix: in f32, with f16 weights, with 8-bit and 4-bit codes; the embedding.

use crate::kernel::{Kernel, Library};
use crate::lab::{Inputs, Lab, Ratios, rounded};
use crate::numbers::{Kind, Rows, rows};
use layerdiff::tensor::DType;
use proptest::prelude::*;

const POINT: &str = "model.layers.0.mlp.gate_proj";
const BLOCK: usize = 32;

fn lab(k: usize, n: usize, tokens: usize, w: &[f32]) -> Lab {
    Lab::new(&[("hidden_size", k), ("intermediate_size", n)], tokens).weight(
        "model.layers.0.mlp.gate_proj.weight",
        &[n, k],
        w,
    )
}

const EVEN: Rows = Rows { kind: Kind::Even, scale: 1.0, seed: 7 };

fn product(kernel: Kernel, x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    x.chunks_exact(k).flat_map(|x| w.chunks_exact(k).map(move |w| kernel.dot(x, w))).collect()
}

#[test]
fn a_linear_in_32_bits_stays_within_its_bound() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(64), |(
        k in 1_usize..400, n in 1_usize..6, tokens in 1_usize..4, x in rows(-20..12), w in rows(-6..4), half: bool,
    )| {
        let x = x.take(tokens * k);
        let mut w = w.take(n * k);
        if half {
            w = rounded(DType::F16, w.into_iter().map(|v| v.clamp(-6e4, 6e4)).collect());
        }
        ratios.add(&lab(k, n, tokens, &w).all(POINT, &Inputs::new(&[&x]), |kernel| product(kernel, &x, &w, k)));
    });
    ratios.print("linear", 0.01);
}

/// Widths of the bundled model, and of the 0.8B model's hidden states and `down_proj`.
const WIDTHS: [usize; 3] = [128, 1024, 3584];

#[test]
fn the_usual_error_of_no_kernel_is_beyond_what_is_expected_of_it() {
    let kinds = [
        Kind::Even,
        Kind::Positive,
        Kind::Cancelling,
        Kind::Dominated,
        Kind::Wide,
        Kind::Sparse,
        Kind::Alike,
    ];
    let mut usual: Vec<(f64, String)> = Vec::new();
    for (i, k) in WIDTHS.into_iter().enumerate() {
        for (kind, of_weights) in kinds.iter().flat_map(|kind| kinds.map(|other| (*kind, other))) {
            let x = Rows { kind, scale: 1.0, seed: 31 * i as u64 }.take(3 * k);
            let w = Rows { kind: of_weights, scale: 0.05, seed: 5 }.again(i as u64);
            let w: Vec<f32> = (0..24).flat_map(|row| w.again(row).take(k)).collect();
            let locals =
                lab(k, 24, 3, &w).all(POINT, &Inputs::new(&[&x]), |kernel| product(kernel, &x, &w, k));
            usual.extend(locals.iter().map(|l| (l.usual, format!("{k} {kind:?} {of_weights:?}"))));
        }
    }
    usual.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("usual error: median {:.3}, largest {:?}", usual[usual.len() / 2].0, usual.last().unwrap());
    assert!(usual.last().unwrap().0 > 0.05, "the expectation is vacuous");
}

#[test]
fn terms_that_are_all_alike_round_alike_and_are_no_fault() {
    // Each addition loses the same part of a unit in the last place: no independence here.
    let k = 3584;
    let (x, w) = (vec![0.1f32; 3 * k], vec![0.7f32; 40 * k]);
    let serial = product(crate::kernel::KERNELS[0], &x, &w, k);
    let exact = f64::from(x[0]) * f64::from(w[0]) * k as f64;
    let likely = 10.0 * (k as f64).sqrt() * f64::from(f32::EPSILON) / 2.0 * exact;
    assert!((f64::from(serial[0]) - exact).abs() > likely, "this does not try what it says");
    lab(k, 40, 3, &w).all(POINT, &Inputs::new(&[&x]), |kernel| product(kernel, &x, &w, k));
}

#[test]
fn a_linear_that_loses_bits_of_its_input_is_beyond_its_bound_at_any_width() {
    let tf32 = |x: &[f32]| -> Vec<f32> {
        x.iter().map(|v| f32::from_bits((v.to_bits() + 0x1000) & !0x1fff)).collect()
    };
    for k in [16, 128, 1024, 3584, 8192] {
        let (x, w) = (EVEN.take(4 * k), EVEN.again(1).take(64 * k));
        let (q, plain) = (codes(&w, false), lab(k, 64, 4, &w));
        let mut coded = lab(k, 64, 4, &q.weights);
        coded.provenance.quantized = true;
        let coarse = [
            ("bf16", rounded(DType::BF16, x.clone())),
            ("f16", rounded(DType::F16, x.clone())),
            ("tf32", tf32(&x)),
        ];
        for (name, coarse) in coarse {
            for (lab, weights) in [(&plain, &w), (&coded, &q.weights)] {
                let wrong = product(crate::kernel::KERNELS[6], &coarse, weights, k);
                let ratio = lab.ratio(POINT, &Inputs::new(&[&x]), wrong);
                println!("{name} input, {k} terms, codes {}: {ratio:.1}", lab.provenance.quantized);
                assert!(ratio > 4.0, "{name} {k}: {ratio}");
            }
        }
    }
}

#[test]
fn what_is_stored_in_16_bits_may_be_rounded_once() {
    proptest!(ProptestConfig::with_cases(24), |(k in 1_usize..200, x in rows(-12..2), w in rows(-3..2))| {
        for dtype in [DType::F16, DType::BF16] {
            let largest = |v: Vec<f32>| rounded(dtype, v.into_iter().map(|v| v.clamp(-1e3, 1e3)).collect());
            let (x, w) = (largest(x.take(k)), w.take(3 * k));
            let mut lab = lab(k, 3, 1, &w);
            (lab.input, lab.output) = (dtype, dtype);
            lab.all(POINT, &Inputs::new(&[&x]), |kernel| rounded(dtype, product(kernel, &x, &w, k)));
        }
    });
}

/// Weights as codes of 4 bits with a scale and a bias for each block, and what they stand for.
struct Codes {
    codes: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    weights: Vec<f32>,
}

fn codes(w: &[f32], symmetric: bool) -> Codes {
    let mut all = Codes { codes: Vec::new(), scale: Vec::new(), bias: Vec::new(), weights: Vec::new() };
    for block in w.chunks(BLOCK) {
        let (low, high) = block.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let (scale, bias) = if symmetric {
            let scale = low.abs().max(high.abs()) / 7.0;
            (scale, -8.0 * scale)
        } else {
            ((high - low) / 15.0, low)
        };
        let [scale, bias] = rounded(DType::F16, vec![scale, bias])[..] else { unreachable!() };
        let code = |v: &f32| if scale == 0.0 { 0.0 } else { ((v - bias) / scale).round().clamp(0.0, 15.0) };
        let codes: Vec<f32> = block.iter().map(code).collect();
        all.weights.extend(codes.iter().map(|q| q * scale + bias));
        all.codes.extend(codes);
        all.scale.push(scale);
        all.bias.push(bias);
    }
    all
}

#[test]
fn a_kernel_on_4_bit_codes_stays_within_its_bound() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(64), |(
        blocks in 1_usize..12, n in 1_usize..4, x in rows(-6..4), w in rows(-2..2), symmetric: bool, inline: bool,
    )| {
        let k = blocks * BLOCK;
        let (x, w) = (x.take(k), w.take(n * k));
        let q = codes(&w.iter().map(|v| v.clamp(-3e4, 3e4)).collect::<Vec<_>>(), symmetric);
        let mut lab = lab(k, n, 1, &q.weights);
        lab.provenance.quantized = true;
        let compute = |kernel: Kernel| -> Vec<f32> {
            if inline {
                // Decoded where it is multiplied, fused or not.
                let decode = |i: usize| {
                    let (s, b) = (q.scale[i / BLOCK], q.bias[i / BLOCK]);
                    if kernel.fused { q.codes[i].mul_add(s, b) } else { q.codes[i] * s + b }
                };
                let w: Vec<f32> = (0..n * k).map(decode).collect();
                return product(kernel, &x, &w, k);
            }
            // Σ of each block in codes, then times its scale, plus the bias times the block's Σ x.
            let output = |j: usize| {
                let (mut parts, mut ones) = (Vec::new(), Vec::new());
                for b in 0..blocks {
                    let at = (j * blocks + b, b * BLOCK..(b + 1) * BLOCK);
                    let codes = &q.codes[at.0 * BLOCK..(at.0 + 1) * BLOCK];
                    let x = &x[at.1];
                    parts.push(kernel.dot(x, codes) * q.scale[at.0]);
                    ones.push(kernel.sum(x) * q.bias[at.0]);
                }
                if kernel.library == Library::Up {
                    kernel.sum(&parts) + kernel.sum(&ones)
                } else {
                    let both: Vec<f32> = parts.iter().zip(&ones).map(|(a, b)| a + b).collect();
                    kernel.sum(&both)
                }
            };
            (0..n).map(output).collect()
        };
        ratios.add(&lab.all(POINT, &Inputs::new(&[&x]), compute));
    });
    ratios.print("linear, 4-bit codes", 0.001);
}

#[test]
fn another_4_bit_rounding_is_beyond_the_bound_even_over_many_terms() {
    // The width of the 0.8B model's down_proj.
    let k = 3584;
    let even = Rows { kind: Kind::Even, scale: 1.0, seed: 3 };
    let (x, w) = (even.take(4 * k), even.again(1).take(64 * k));
    let (right, other) = (codes(&w, false), codes(&w, true));
    let mut lab = lab(k, 64, 4, &right.weights);
    lab.provenance.quantized = true;
    let wrong = product(crate::kernel::KERNELS[6], &x, &other.weights, k);
    let ratio = lab.ratio(POINT, &Inputs::new(&[&x]), wrong);
    println!("symmetric for affine 4-bit codes, {k} terms: {ratio:.1}");
    assert!(ratio > 2.0, "{ratio}");
}

#[test]
fn a_kernel_on_8_bit_activations_is_replayed_as_one() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(48), |(blocks in 1_usize..12, n in 1_usize..4, x in rows(-6..4), w in rows(-2..2))| {
        let k = blocks * BLOCK;
        let (x, w) = (x.take(k), w.take(n * k));
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for block in w.chunks(BLOCK) {
            let scale = block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
            codes.extend(block.iter().map(|v| if scale == 0.0 { 0.0 } else { (v / scale).round() }));
            scales.push(scale);
        }
        let weights: Vec<f32> = codes.iter().enumerate().map(|(i, q)| q * scales[i / BLOCK]).collect();
        let mut lab = lab(k, n, 1, &weights);
        lab.provenance.quantized = true;
        lab.provenance.activation_bits = Some(8);
        let limit = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        let inverse = 1.0 / limit;
        let code = |v: &f32| (v * inverse).round().clamp(-127.0, 127.0);
        let acts: Vec<f32> = x.iter().map(|v| if limit == 0.0 { 0.0 } else { code(v) }).collect();
        let compute = |kernel: Kernel| -> Vec<f32> {
            let output = |j: usize| {
                let part = |b: usize| {
                    let at = j * blocks + b;
                    // Whole numbers below 2²⁴ are exact in any order.
                    let whole = kernel.dot(&acts[b * BLOCK..(b + 1) * BLOCK], &codes[at * BLOCK..(at + 1) * BLOCK]);
                    if kernel.fused { whole * (scales[at] * limit) } else { whole * scales[at] * limit }
                };
                kernel.sum(&(0..blocks).map(part).collect::<Vec<_>>())
            };
            (0..n).map(output).collect()
        };
        ratios.add(&lab.all(POINT, &Inputs::new(&[&x]), compute));
    });
    ratios.print("linear, 8-bit activations", 0.001);
}

#[test]
fn an_embedding_is_its_row_and_nothing_else() {
    let (vocab, width) = (8, 16);
    let w = Rows { kind: Kind::Even, scale: 0.1, seed: 1 }.take(vocab * width);
    let lab = Lab::new(&[("hidden_size", width), ("vocab_size", vocab)], 3).weight(
        "model.embed_tokens.weight",
        &[vocab, width],
        &w,
    );
    let rows = w[..3 * width].to_vec();
    assert_eq!(lab.ratio("model.embed_tokens", &Inputs::new(&[]), rows.clone()), 0.0);
    let mut nudged = rows.clone();
    nudged[5] = nudged[5].next_up();
    assert_eq!(lab.ratio("model.embed_tokens", &Inputs::new(&[]), nudged), f64::INFINITY);
    // Codes are decoded with a product and a sum, fused or not, and codes fill their range.
    let (mut ratios, q) = (Vec::new(), codes(&w, true));
    let mut lab = Lab::new(&[("hidden_size", width), ("vocab_size", vocab)], 3).weight(
        "model.embed_tokens.weight",
        &[vocab, width],
        &q.weights,
    );
    lab.provenance.quantized = true;
    let fused: Vec<f32> =
        (0..3 * width).map(|i| q.codes[i].mul_add(q.scale[i / BLOCK], q.bias[i / BLOCK])).collect();
    ratios.push(lab.ratio("model.embed_tokens", &Inputs::new(&[]), fused));
    assert!(ratios.iter().all(|r| *r <= 1.0), "{ratios:?}");
}

#[test]
fn a_row_that_is_unlike_the_others_speaks_for_none_of_them() {
    // Where every sum that is tried lay in one row, a large weight there that meets small inputs would make
    // all other rows look bad; and a row of zeros would make the check blind.
    let (k, n) = (256, 64);
    for tokens in [32, 64, 128] {
        let mut x = EVEN.take(tokens * k);
        x.iter_mut().step_by(k).for_each(|x| *x *= 1e-6);
        for odd in [0, n / 2] {
            let mut w = EVEN.again(1).take(n * k);
            w[odd * k] = 1e4;
            lab(k, n, tokens, &w).all(POINT, &Inputs::new(&[&x]), |kernel| product(kernel, &x, &w, k));
            w[odd * k..(odd + 1) * k].fill(0.0);
            let coarse = product(crate::kernel::KERNELS[0], &rounded(DType::F16, x.clone()), &w, k);
            let ratio = lab(k, n, tokens, &w).ratio(POINT, &Inputs::new(&[&x]), coarse);
            assert!(ratio > 4.0, "{tokens} tokens: {ratio}");
        }
    }
}
