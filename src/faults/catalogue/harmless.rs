//! What must not be reported: other orders of operations, and differences that cancel.

use super::super::Fault;
use super::delta_rule::scaled_queries;
use super::linear::sums;
use super::norm::scaled;
use super::rope::table;
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
];
