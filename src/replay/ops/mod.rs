//! The formula of each kind of component, in f64, with the bound of a correct kernel's rounding error.

pub(crate) mod attention;
pub(crate) mod convolution;
pub(crate) mod delta_rule;
pub(crate) mod elementwise;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod rope;

use super::judge::{Judge, Local};
use super::step::{Replayed, Step, Stop};
use crate::model::Op;

/// Recomputes a component from the candidate's own inputs and holds its output against that.
pub(super) fn replay(step: &Step<'_>) -> Replayed<Local> {
    let mut judge = Judge::new(step.output()?);
    formula(step, &mut judge)?;
    Ok(judge.finish())
}

/// The right formula of a component.
pub(crate) fn formula(step: &Step<'_>, judged: &mut Judge<'_>) -> Replayed<()> {
    match step.component.op {
        Op::Embedding => linear::embedding(step, judged),
        Op::Linear => linear::linear(step, judged),
        Op::RmsNorm => norm::rms_norm(step, judged),
        Op::GatedRmsNorm => norm::gated_rms_norm(step, judged),
        Op::L2Norm => norm::l2_norm(step, judged),
        Op::RopeTable => rope::table(step, judged),
        Op::Rope => rope::rotate(step, judged),
        Op::SplitHeads => elementwise::split_heads(step, judged),
        Op::SigmoidGate => elementwise::sigmoid_gate(step, judged),
        Op::Sigmoid => elementwise::sigmoid(step, judged),
        Op::SiluMul => elementwise::silu_mul(step, judged),
        Op::Add => elementwise::add(step, judged),
        Op::AddScaled => elementwise::add_scaled(step, judged),
        Op::GdnDecay => elementwise::decay(step, judged),
        Op::CausalMask => attention::mask(step, judged),
        Op::KvCache => attention::cache(step, judged),
        Op::AttentionScores => attention::scores(step, judged),
        Op::Softmax => attention::softmax(step, judged),
        Op::AttentionContext => attention::context(step, judged),
        Op::CausalConvSilu => convolution::conv_silu(step, judged),
        Op::ConvState => convolution::state(step, judged),
        Op::DeltaRule => delta_rule::output(step, judged),
        Op::DeltaRuleState => delta_rule::state(step, judged),
    }
}

/// Refuses a tensor of another size than the formula needs.
pub(crate) fn sized(what: &str, values: &[f64], wanted: usize) -> Replayed<()> {
    if values.len() == wanted {
        return Ok(());
    }
    Err(Stop::Missing(format!("{what} has {} elements where {wanted} are needed", values.len())))
}
