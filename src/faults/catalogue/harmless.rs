//! What must not be reported: other orders of operations, and differences that cancel.

use super::super::Fault;
use super::super::number::{silu, softplus};
use super::attention::{context, scale, scores, shared};
use super::convolution::convolved;
use super::delta_rule::scaled_queries;
use super::gdn::{decay, lengths};
use super::linear::sums;
use super::norm::scaled;
use super::rope::{rotated, table};
use super::softmax::probabilities;
use crate::model::Op;

const ORDER: &str = "any other kernel";

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("linear-other-order", &[Op::Linear], "Σ from the first", "Σ from the last", ORDER, |c| {
        let flip = |x: &[f32], width: usize| -> Vec<f32> {
            x.chunks_exact(width).flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>()).collect()
        };
        let width = c.input(0)?.len() / c.tokens;
        sums(c, &flip(c.input(0)?, width), &flip(&c.param(0)?, width), |sum, p| sum + p)
    })
    .harmless(),
    Fault::new(
        "norm-other-order",
        &[Op::RmsNorm, Op::GatedRmsNorm],
        "Σ from the first",
        "Σ from the last",
        ORDER,
        |c| {
            let sum = |row: &[f32]| row.iter().rev().map(|v| v * v).sum::<f32>();
            scaled(c, |row, eps| (sum(row) / row.len() as f32 + eps).sqrt().recip())
        },
    )
    .harmless(),
    Fault::new(
        "softmax-other-order",
        &[Op::Softmax],
        "p / Σ",
        "p / Σ in one pass of its own",
        ORDER,
        |c| probabilities(c, |sum, _| sum),
    )
    .harmless(),
    Fault::new(
        "q-scale-moved",
        &[Op::DeltaRule],
        "(Sᵀ q) · d^-½",
        "Sᵀ (q · d^-½)",
        "the scale is linear",
        scaled_queries,
    )
    .harmless(),
    Fault::new(
        "positions-plus-one",
        &[Op::RopeTable],
        "position t",
        "t + 1 for every token",
        "only differences of positions matter",
        |c| table(c, |t, i, half, theta| (t + 1.0) * theta.powf(-(i / half))),
    )
    .harmless(),
    Fault::new(
        "conv-other-order",
        &[Op::CausalConvSilu],
        "Σ from the oldest",
        "from the newest",
        ORDER,
        |c| convolved(c, |j, k, t| Some((k - 1 - j, t - j)), silu),
    )
    .harmless(),
    Fault::new(
        "rope-other-kernel",
        &[Op::Rope],
        "pairs (i, half + i)",
        "the same, written anew",
        ORDER,
        |c| rotated(c, |i, half, _| (i, half + i), 1.0),
    )
    .harmless(),
    Fault::new(
        "attention-other-kernel",
        &[Op::AttentionScores, Op::AttentionContext],
        "kv head = h / groups",
        "the same, written anew",
        ORDER,
        |c| {
            if c.component.op == Op::AttentionScores {
                scores(c, shared, scale(c))
            } else {
                context(c, shared)
            }
        },
    )
    .harmless(),
    Fault::new("l2-other-kernel", &[Op::L2Norm], "rsqrt(Σ + ε)", "the same, written anew", ORDER, |c| {
        let eps = c.number("eps")?;
        lengths(c, |sum, _| (sum + eps).sqrt().recip())
    })
    .harmless(),
    Fault::new("decay-other-kernel", &[Op::GdnDecay], "e^g", "the same, written anew", ORDER, |c| {
        decay(c, |a| -a.exp(), |b| b, softplus, |g| g)
    })
    .harmless(),
];
