//! The formula of each kind of component, in f64, with the bound of a correct kernel's rounding error.

pub(crate) mod attention;
pub(crate) mod context;
pub(crate) mod convolution;
pub(crate) mod delta_rule;
pub(crate) mod elementwise;
pub(crate) mod frequency;
pub(crate) mod linear;
mod matmul;
pub(crate) mod norm;
mod reach;
pub(crate) mod rope;
mod tried;

use super::judge::{Judge, Local};
use super::step::{Replayed, Step, Stop};
use crate::model::Op;

/// Recomputes a component from the candidate's own inputs and holds its output against that.
///
/// Where an input is not finite, a fault is upstream, and engines differ in what they make of it (lattice's
/// softmax fails closed): what that reaches is not judged unless all of it agrees, and the rest is.
pub(super) fn replay(step: &Step<'_>) -> Replayed<Local> {
    let mut judge = Judge::new(step.output()?);
    formula(step, &mut judge)?;
    let unseen = judge.unseen();
    found(step, judge.finish(), unseen)
}

/// [`replay`] of several steps of one linear, whose weight is widened only once.
pub(super) fn replay_together<'a>(steps: &[Step<'a>]) -> Replayed<Vec<Replayed<Local>>> {
    let mut read: Vec<Replayed<(matmul::Rows, Judge<'a>)>> = steps.iter().map(rows).collect();
    let parts = read.iter_mut().filter_map(|part| part.as_mut().ok());
    let mut parts: Vec<_> = parts.map(|(rows, judge)| (&*rows, judge)).collect();
    if !parts.is_empty() {
        matmul::multiply(&steps[0], &mut parts)?;
    }
    let done = steps.iter().zip(read);
    Ok(done.map(|(step, part)| part.and_then(|(_, judge)| found(step, judge.finish(), None))).collect())
}

/// What a linear multiplies in a step, and what was captured of it.
fn rows<'a>(step: &Step<'a>) -> Replayed<(matmul::Rows, Judge<'a>)> {
    step.fits()?;
    let judge = Judge::new(step.output()?);
    Ok((matmul::Rows::read(step, &judge)?, judge))
}

/// What a local error says; `unseen` is why some elements have none.
fn found(step: &Step<'_>, local: Local, unseen: Option<String>) -> Replayed<Local> {
    if local.is_rounding() && local.unbounded == 0 {
        return unseen.map_or(Ok(local), |why| Err(Stop::Missing(why)));
    }
    let left_out = reach::reached(step)?;
    let Some(cause) = left_out.cause else { return bounded(local) };
    let mut judge = Judge::new(step.output()?).leaving_out(left_out.elements);
    formula(step, &mut judge)?;
    let rest = bounded(judge.finish())?;
    if !rest.is_rounding() {
        return Ok(rest);
    }
    Err(Stop::Missing(format!(
        "{} of its {} elements can be reached by what is not finite in {cause}, and what a kernel makes of that is no formula's{}",
        rest.undefined,
        rest.elements,
        if rest.undefined == rest.elements { "" } else { "; the others are within their bounds" }
    )))
}

/// Refuses a local error that is no more than rounding, but has no bound in some elements.
fn bounded(local: Local) -> Replayed<Local> {
    match local.unbounded {
        n if n > 0 && local.is_rounding() => Err(Stop::Missing(format!(
            "{n} of its {} elements are sums that may leave the range of 32 bits, and what a kernel makes of that depends on its order",
            local.elements
        ))),
        _ => Ok(local),
    }
}

/// A judge of what any formula can say of a step: of all but what a number that is not finite reaches. It
/// gives a probe to each formula.
pub(crate) fn judge<'a>(step: &Step<'a>) -> Replayed<Judge<'a>> {
    Ok(Judge::new(step.output()?).leaving_out(reach::reached(step)?.elements))
}

/// The right formula of a component.
pub(crate) fn formula(step: &Step<'_>, judged: &mut Judge<'_>) -> Replayed<()> {
    step.fits()?;
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
        Op::AttentionContext => context::context(step, judged),
        Op::CausalConvSilu => convolution::conv_silu(step, judged),
        Op::ConvState => convolution::state(step, judged),
        Op::DeltaRule => delta_rule::output(step, judged),
        Op::DeltaRuleState => delta_rule::state(step, judged),
    }
}

/// Refuses a tensor of another size than the formula needs.
pub(crate) fn sized(what: &str, elements: usize, wanted: usize) -> Replayed<()> {
    if elements == wanted {
        return Ok(());
    }
    Err(Stop::Missing(format!("{what} has {elements} elements where {wanted} are needed")))
}
