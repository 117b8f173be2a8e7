//! Scores, softmax and context, in one pass or in blocks.

use crate::kernel::{KERNELS, Kernel};
use crate::lab::{Inputs, Lab, Ratios, rounded};
use crate::numbers::{Kind, Rows, rows};
use layerdiff::tensor::DType;
use proptest::prelude::*;
use std::sync::Mutex;

const SCORES: &str = "model.layers.3.self_attn.scores";
const PROBS: &str = "model.layers.3.self_attn.probs";
const CONTEXT: &str = "model.layers.3.self_attn.context";
const CACHE: &str = "model.layers.3.self_attn.k_cache";
const HEADS: usize = 2;

fn lab(dim: usize, tokens: usize) -> Lab {
    Lab::new(&[("head_dim", dim), ("num_attention_heads", HEADS), ("num_key_value_heads", 1)], tokens)
}

fn mask(tokens: usize) -> Vec<f32> {
    (0..tokens * tokens).map(|i| f32::from(u8::from(i % tokens <= i / tokens))).collect()
}

/// Scores and values as a mask leaves them.
fn masked(scores: Vec<f32>, tokens: usize) -> Vec<f32> {
    let sees = |i: usize| i % tokens <= i / tokens % tokens;
    scores.into_iter().enumerate().map(|(i, s)| if sees(i) { s } else { f32::NEG_INFINITY }).collect()
}

#[test]
fn scores_stay_within_their_bound() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(48), |(half in 1_usize..20, tokens in 1_usize..8, q in rows(-12..8), k in rows(-12..8))| {
        let dim = 8 * half;
        let (q, k) = (q.take(tokens * HEADS * dim), k.take(tokens * dim));
        let scale = (dim as f32).powf(-0.5);
        let allowed = mask(tokens);
        ratios.add(&lab(dim, tokens).all(SCORES, &Inputs::new(&[&q, &k, &allowed]), |kernel| {
            let mut out = Vec::new();
            for h in 0..HEADS {
                for t in 0..tokens {
                    let row = &q[(t * HEADS + h) * dim..][..dim];
                    let first: Vec<f32> = row.iter().map(|q| q * scale).collect();
                    for u in 0..tokens {
                        let key = &k[u * dim..(u + 1) * dim];
                        // The scale before the product, or after it.
                        out.push(if kernel.fused { kernel.dot(&first, key) } else { kernel.dot(row, key) * scale });
                    }
                }
            }
            masked(out, tokens)
        }));
    });
    ratios.print("scores", 0.05);
}

/// Probabilities of a row, in one pass or as an online softmax in blocks finds them.
fn softmax(kernel: Kernel, row: &[f32], block: usize) -> Vec<f32> {
    let row: Vec<f32> = row.to_vec();
    if block == 0 {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = row.iter().map(|s| kernel.exp(s - max)).collect();
        let sum = kernel.sum(&weights);
        return if kernel.fused {
            let inverse = 1.0 / sum;
            weights.iter().map(|w| kernel.keep(w * inverse)).collect()
        } else {
            weights.iter().map(|w| kernel.keep(w / sum)).collect()
        };
    }
    let (mut max, mut sum, mut weights) = (f32::NEG_INFINITY, 0.0f32, Vec::<f32>::new());
    for part in row.chunks(block) {
        let next = part.iter().copied().fold(max, f32::max);
        if next == f32::NEG_INFINITY {
            weights.extend(part.iter().map(|_| 0.0));
            continue;
        }
        let factor = if max == f32::NEG_INFINITY { 0.0 } else { kernel.exp(max - next) };
        weights.iter_mut().for_each(|w| *w = kernel.keep(*w * factor));
        sum = kernel.keep(sum * factor);
        let new: Vec<f32> = part.iter().map(|s| kernel.exp(s - next)).collect();
        sum += kernel.sum(&new);
        weights.extend(new);
        max = next;
    }
    weights.iter().map(|w| kernel.keep(w / sum)).collect()
}

#[test]
fn a_softmax_stays_within_its_bound_in_one_pass_and_in_blocks() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(64), |(
        tokens in 1_usize..80, s in rows(-3..5), block in 0_usize..20, rising: bool,
    )| {
        let mut s = s.take(HEADS * tokens * tokens);
        if rising {
            // The largest so far changes in every block.
            s.iter_mut().enumerate().for_each(|(i, s)| *s = *s * 1e-3 + (i % tokens) as f32 * 0.3);
        }
        let s = masked(s, tokens);
        ratios.add(&lab(8, tokens).all(PROBS, &Inputs::new(&[&s]), |kernel| {
            s.chunks_exact(tokens).flat_map(|row| softmax(kernel, row, block)).collect()
        }));
    });
    ratios.print("softmax", 0.1);
}

/// Holds the kernels' context of these scores and values against its bound: with stored probabilities where `block`
/// is 0, else with those of a softmax in blocks.
fn judge_context(ratios: &Ratios, tokens: usize, s: Rows, v: Rows, block: usize, rising: bool) {
    let (dim, plain) = (8, KERNELS[0]);
    let mut s = s.take(HEADS * tokens * tokens);
    if rising {
        s.iter_mut().enumerate().for_each(|(i, s)| *s = *s * 1e-3 + (i % tokens) as f32 * 0.3);
    }
    let s = masked(s, tokens);
    let v = v.take(tokens * dim);
    let p: Vec<f32> = s.chunks_exact(tokens).flat_map(|row| softmax(plain, row, 0)).collect();
    ratios.add(&lab(dim, tokens).all(CONTEXT, &Inputs::new(&[&p, &v]), |kernel| {
        let mut out = Vec::new();
        for t in 0..tokens {
            for h in 0..HEADS {
                let at = (h * tokens + t) * tokens..(h * tokens + t + 1) * tokens;
                let p = if block == 0 { p[at].to_vec() } else { softmax(kernel, &s[at], block) };
                for i in 0..dim {
                    let column: Vec<f32> = (0..tokens).map(|u| v[u * dim + i]).collect();
                    out.push(kernel.dot(&p, &column));
                }
            }
        }
        out
    }));
}

#[test]
fn a_context_stays_within_its_bound_though_its_probabilities_were_never_stored() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(64), |(
        tokens in 1_usize..60, s in rows(-3..2), v in rows(-12..12), block in 0_usize..20, rising: bool,
    )| {
        judge_context(&ratios, tokens, s, v, block, rising);
    });
    ratios.print("context", 0.02);
}

#[test]
fn each_term_of_a_context_may_be_too_small_for_a_kernel() {
    let s = Rows { kind: Kind::Wide, scale: 0.01, seed: 10_351_197_811_354_727_092 };
    let v = Rows { kind: Kind::Sparse, scale: 0.001, seed: 3_098_600_597_439_571_570 };
    judge_context(&Ratios::new(), 43, s, v, 0, false);
}

#[test]
fn a_context_of_16_bits_may_round_the_probabilities_to_them() {
    proptest!(ProptestConfig::with_cases(24), |(tokens in 1_usize..40, s in rows(-3..2), v in rows(-6..3))| {
        for dtype in [DType::F16, DType::BF16] {
            // PyTorch's eager attention: a softmax in 32 bits, p rounded, and the product in 16.
            let dim = 8;
            let s = masked(s.take(HEADS * tokens * tokens), tokens);
            let p: Vec<f32> = s.chunks_exact(tokens).flat_map(|row| softmax(KERNELS[0], row, 0)).collect();
            let v = rounded(dtype, v.take(tokens * dim).into_iter().map(|v| v.clamp(-6e4, 6e4)).collect());
            let coarse = rounded(dtype, p.clone());
            let mut lab = lab(dim, tokens);
            lab.output = dtype;
            lab.all(CONTEXT, &Inputs::new(&[&p, &v]), |kernel| {
                let mut out = Vec::new();
                for t in 0..tokens {
                    for h in 0..HEADS {
                        let row = &coarse[(h * tokens + t) * tokens..][..tokens];
                        for i in 0..dim {
                            let column: Vec<f32> = (0..tokens).map(|u| v[u * dim + i]).collect();
                            out.push(kernel.dot(row, &column));
                        }
                    }
                }
                rounded(dtype, out)
            });
        }
    });
}

/// Rounded to what is stored.
type Store = fn(Vec<f32>) -> Vec<f32>;

/// A whole attention of one kernel: scores, probabilities, and context.
fn attention(
    kernel: Kernel,
    [q, k, v]: [&[f32]; 3],
    (dim, tokens, block): (usize, usize, usize),
    store: Store,
) -> [Vec<f32>; 3] {
    let scale = (dim as f32).powf(-0.5);
    let (mut scores, mut context) = (Vec::new(), vec![0.0; tokens * HEADS * dim]);
    for h in 0..HEADS {
        for t in 0..tokens {
            let query = &q[(t * HEADS + h) * dim..][..dim];
            scores.extend((0..tokens).map(|u| kernel.dot(query, &k[u * dim..][..dim]) * scale));
        }
    }
    let scores = masked(store(scores), tokens);
    let probs: Vec<f32> = scores.chunks_exact(tokens).flat_map(|row| softmax(kernel, row, block)).collect();
    let probs = store(probs);
    for h in 0..HEADS {
        for t in 0..tokens {
            let p = &probs[(h * tokens + t) * tokens..][..tokens];
            for i in 0..dim {
                let column: Vec<f32> = (0..tokens).map(|u| v[u * dim + i]).collect();
                context[(t * HEADS + h) * dim + i] = kernel.dot(p, &column);
            }
        }
    }
    [scores, probs, store(context)]
}

const QUERIES: &str = "model.layers.3.self_attn.q_rope";
const MASK: &str = "model.layers.3.self_attn.attention_mask";

/// The ratio of a context of which only these rows of scores and probabilities are in the trace; none where scores
/// are so large that their rounding alone decides the probabilities.
fn behind(lab: &Lab, [q, k, v]: [&[f32]; 3], [scores, probs, context]: &[Vec<f32>; 3]) -> Option<f64> {
    let allowed = mask(lab.tokens);
    let mut given = Inputs::new(&[probs, v]);
    given.others = vec![(QUERIES, q), (CACHE, k), (MASK, &allowed), (SCORES, scores)];
    lab.bounded_ratio(CONTEXT, &given, context.clone())
}

#[test]
fn a_context_of_which_no_probabilities_were_captured_stays_within_its_bound() {
    let ratios = Mutex::new(Vec::new());
    proptest!(ProptestConfig::with_cases(12), |(
        half in 1_usize..9, tokens in 4_usize..40, block in 0_usize..12,
        q in rows(-6..3), k in rows(-6..3), v in rows(-12..12),
    )| {
        let dim = 8 * half;
        let (q, k, v) = (q.take(tokens * HEADS * dim), k.take(tokens * dim), v.take(tokens * dim));
        let mut lab = lab(dim, tokens);
        lab.rows = Some(vec![0, tokens - 1]);
        for kernel in KERNELS {
            let made = attention(kernel, [&q, &k, &v], (dim, tokens, block), |x| x);
            let ratio = behind(&lab, [&q, &k, &v], &made);
            prop_assert!(ratio.is_none_or(|ratio| ratio <= 1.0), "{kernel:?} {ratio:?}");
            ratios.lock().unwrap().push(ratio);
        }
    });
    let all = ratios.into_inner().unwrap();
    let mut ratios: Vec<f64> = all.iter().filter_map(|ratio| *ratio).collect();
    assert!(2 * ratios.len() > all.len(), "most have a bound: {} of {}", ratios.len(), all.len());
    ratios.sort_by(f64::total_cmp);
    let largest = ratios[ratios.len() - 1];
    println!("context behind               median {:.3}  largest {largest:.3}", ratios[ratios.len() / 2]);
    assert!(
        (0.01..0.7).contains(&largest),
        "correct kernels have room, and the bound says something: {largest}"
    );
}

#[test]
fn a_context_of_16_bits_of_which_no_probabilities_were_captured_stays_within_its_bound() {
    proptest!(ProptestConfig::with_cases(8), |(tokens in 4_usize..24, q in rows(-4..2), k in rows(-4..2), v in rows(-6..3))| {
        let dim = 16;
        let lists: [(DType, Store); 2] =
            [(DType::F16, |x| rounded(DType::F16, x)), (DType::BF16, |x| rounded(DType::BF16, x))];
        for (dtype, store) in lists {
            let given = [q.take(tokens * HEADS * dim), k.take(tokens * dim), v.take(tokens * dim)];
            let [q, k, v] = given.map(|x| store(x.into_iter().map(|v| v.clamp(-1e2, 1e2)).collect()));
            let mut lab = lab(dim, tokens);
            (lab.rows, lab.input, lab.output) = (Some(vec![0, tokens - 1]), dtype, dtype);
            let made = attention(KERNELS[0], [&q, &k, &v], (dim, tokens, 0), store);
            let ratio = behind(&lab, [&q, &k, &v], &made);
            prop_assert!(ratio.is_none_or(|ratio| ratio <= 1.0), "{dtype} {ratio:?}");
        }
    });
}

#[test]
fn a_mistake_of_a_few_units_is_seen_where_no_probabilities_were_captured() {
    let (dim, tokens) = (16, 24);
    let even = Rows { kind: Kind::Even, scale: 1.0, seed: 3 };
    let [q, k, v] = [tokens * HEADS, tokens, tokens].map(|n| even.again(n as u64).take(n * dim));
    let mut lab = lab(dim, tokens);
    lab.rows = Some(vec![0, tokens - 1]);
    let right = attention(KERNELS[0], [&q, &k, &v], (dim, tokens, 0), |x| x);
    assert!(behind(&lab, [&q, &k, &v], &right).unwrap() < 0.2);
    // A head of one token that is off by 2^-12 of its values.
    let mut wrong = right.clone();
    let at = 11 * HEADS * dim;
    wrong[2][at..at + dim].iter_mut().for_each(|y| *y *= 1.0 + 2048.0 * f32::EPSILON);
    let ratio = behind(&lab, [&q, &k, &v], &wrong).unwrap();
    assert!(ratio > 2.0, "{ratio}");
    // One of its scores that is off by 1e-3.
    let mut scores = right[0].clone();
    scores[11 * tokens + 5] += 1e-3;
    let p: Vec<f32> = softmax(KERNELS[0], &scores[11 * tokens..][..tokens], 0);
    let mut drifted = right.clone();
    for i in 0..dim {
        let column: Vec<f32> = (0..tokens).map(|u| v[u * dim + i]).collect();
        drifted[2][at + i] = KERNELS[0].dot(&p, &column);
    }
    let ratio = behind(&lab, [&q, &k, &v], &drifted).unwrap();
    assert!(ratio > 2.0, "{ratio}");
}

#[test]
fn coarser_attention_is_beyond_its_bound() {
    let tokens = 40;
    let even = Rows { kind: Kind::Even, scale: 2.0, seed: 9 };
    let s = masked(even.take(HEADS * tokens * tokens), tokens);
    let p: Vec<f32> = s.chunks_exact(tokens).flat_map(|row| softmax(KERNELS[0], row, 0)).collect();
    let coarse = rounded(DType::BF16, p.clone());
    assert!(lab(8, tokens).ratio(PROBS, &Inputs::new(&[&s]), coarse.clone()) > 10.0);
    let v = even.again(1).take(tokens * 8);
    let mut out = Vec::new();
    for t in 0..tokens {
        for h in 0..HEADS {
            let row = &coarse[(h * tokens + t) * tokens..][..tokens];
            out.extend((0..8).map(|i| (0..tokens).map(|u| row[u] * v[u * 8 + i]).sum::<f32>()));
        }
    }
    assert!(lab(8, tokens).ratio(CONTEXT, &Inputs::new(&[&p, &v]), out) > 2.0);
}

#[test]
fn a_cache_in_f16_is_rounding_where_its_type_says_so_and_a_fault_in_f32() {
    proptest!(ProptestConfig::with_cases(24), |(k in rows(-9..3))| {
        let (dim, tokens) = (8, 3);
        let k: Vec<f32> = k.take(tokens * dim).iter().map(|v| v.clamp(-6e4, 6e4)).collect();
        let mut lab = lab(dim, tokens);
        let given = Inputs::new(&[&k]);
        let coarse = rounded(DType::F16, k.clone());
        let loud = lab.ratio(CACHE, &given, coarse.clone());
        prop_assert!(loud > 1.0 || coarse == k, "{loud}");
        lab.output = DType::F16;
        let ratio = lab.ratio(CACHE, &given, coarse);
        prop_assert!(ratio <= 1.0, "{ratio}");
    });
}
