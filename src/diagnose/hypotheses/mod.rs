//! Wrong formulas that people have really written, for each kind of component.
//!
//! A hypothesis is the right formula with something about it changed: a constant, an input, the choice of
//! a head, an activation. So it has the bound of the right one, and no formula is written down twice.

mod any;
mod attention;
mod cache;
mod convolution;
mod decay;
mod delta_rule;
mod gates;
mod linear;
mod norm;
mod rope;

use crate::model::Op;
use crate::replay::{Judge, Replayed, SMALLEST, Step, Stop};
use half::{bf16, f16};

/// Replays a component by a formula.
type Formula = fn(&Step<'_>, &mut Judge<'_>) -> Replayed<()>;

/// A wrong formula.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hypothesis {
    /// A short name, for programs.
    pub id: &'static str,
    /// What was written, for people; it completes "The output is reproduced by: …".
    pub name: &'static str,
    /// The formula.
    pub formula: Formula,
    /// True where it rounds to a few bits on its way. A number that lies at a tie goes either way, with
    /// consequences of any size for what follows: it is never reproduced to rounding in all elements.
    pub coarse: bool,
}

const fn exact(id: &'static str, name: &'static str, formula: Formula) -> Hypothesis {
    Hypothesis { id, name, formula, coarse: false }
}

const fn coarse(id: &'static str, name: &'static str, formula: Formula) -> Hypothesis {
    Hypothesis { id, name, formula, coarse: true }
}

/// All that could be behind a wrong output of a component of this kind.
pub(super) fn of(op: Op) -> impl Iterator<Item = &'static Hypothesis> {
    let own: &[Hypothesis] = match op {
        Op::Embedding => linear::EMBEDDING,
        Op::Linear => linear::LINEAR,
        Op::RmsNorm => norm::RMS_NORM,
        Op::GatedRmsNorm => norm::GATED,
        Op::L2Norm => norm::L2_NORM,
        Op::RopeTable => rope::TABLE,
        Op::Rope => rope::ROPE,
        Op::SplitHeads => gates::SPLIT,
        Op::SigmoidGate => gates::GATE,
        Op::Sigmoid => decay::SIGMOID,
        Op::SiluMul => gates::MLP,
        Op::Add => gates::ADD,
        Op::AddScaled => gates::ADD_SCALED,
        Op::GdnDecay => decay::DECAY,
        Op::CausalMask => cache::MASK,
        Op::KvCache => cache::CACHE,
        Op::AttentionScores => attention::SCORES,
        Op::Softmax => attention::SOFTMAX,
        Op::AttentionContext => attention::CONTEXT,
        Op::CausalConvSilu => convolution::CONV,
        Op::ConvState => convolution::STATE,
        Op::DeltaRule | Op::DeltaRuleState => delta_rule::RULES,
    };
    own.iter().chain(any::ANY)
}

/// By way of 32 bits, as engines do: `bf16::from_f64` cuts its argument to 20 bits of mantissa first, and so
/// takes numbers for ties that are none.
fn to_bf16(x: f64) -> f64 {
    bf16::from_f32(x as f32).to_f64()
}

fn to_f16(x: f64) -> f64 {
    f16::from_f32(x as f32).to_f64()
}

/// The 10 bits of mantissa that a tensor core reads of a 32-bit float, halves away from 0.
fn to_tf32(x: f64) -> f64 {
    f64::from(f32::from_bits((x as f32).to_bits().wrapping_add(0x1000) & !0x1fff))
}

/// What a probe may err to be worth a second look.
const PROBE: f64 = 4.0;

/// The formula with the first of these values that reproduces the output.
fn first_of<T: Clone>(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    values: impl IntoIterator<Item = T>,
    formula: impl Fn(&Step<'_>, &mut Judge<'_>, T) -> Replayed<()>,
) -> Replayed<()> {
    for value in values {
        let mut probe = judge.probe(PROBE);
        if formula(step, &mut probe, value.clone()).is_ok() && probe.finish().ratio <= PROBE {
            return formula(step, judge, value);
        }
    }
    Err(Stop::Missing("it has none of the usual values".into()))
}

/// A value that is rounded when it is stored. What lies within the bound of a tie may be rounded to either
/// side; anything else has only one way to go.
fn stored(round: fn(f64) -> f64, value: f64, bound: f64) -> (f64, f64) {
    let stored = round(value);
    let (low, high) = (round(value - bound), round(value + bound));
    (stored, (stored - low).max(high - stored) + SMALLEST)
}

/// Each row of `width` moves down to the next; the first stays.
fn one_row_late(values: &mut [f64], width: usize) {
    if values.len() > width {
        values.copy_within(..values.len() - width, width);
    }
}
