//! Diagnosis: what a faulty component computes instead of what it should.
//!
//! A wrong formula that people have really written is tried on the candidate's own inputs, one after the
//! other, and held against what was captured with the bound of the right formula. One that reproduces the
//! output to rounding is *named*; of several that cannot be told apart, all are. Where none does, what the
//! error looks like is described instead. "None" is an answer: a name is never a guess.

mod hypotheses;
mod shape;

use crate::model::Op;
use crate::replay::{Held, Judge, Local, Place, Step, ops};
use crate::trace::Trace;
use hypotheses::Hypothesis;
use rayon::prelude::*;

/// A residual up to this many bounds still counts as reproduced, if the error itself is far larger: a wrong
/// formula may take a few operations more than the right one, whose bound is used.
pub const LIMIT: f64 = 4.0;

/// How many times smaller than the error of the right formula a residual must be: within its bound, and
/// beyond it. Where an error is hardly beyond rounding, anything near the right formula would fit.
const SMALLER: [f64; 2] = [2.0, 16.0];

/// Which share of the error a formula may leave that rounds to a few bits on its way.
pub const LEFT: f64 = 0.1;

/// Elements whose error is described; the logits of a large vocabulary are cut here.
const MOST: usize = 1 << 24;

/// A wrong formula that reproduces a component's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// A short name, for programs.
    pub id: &'static str,
    /// What was written.
    pub name: &'static str,
    /// The largest difference that is left, as a multiple of its bound.
    pub residual_ratio: f64,
    /// The share of the error that is left, in relative L2 error.
    pub left: f64,
    /// True where what is left is rounding. False for formulas that round to a few bits on their way.
    pub to_rounding: bool,
}

/// What was found out about a faulty component.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosed {
    /// Formulas that reproduce it, best first; none where no known one does.
    pub names: Vec<Named>,
    /// What the error looks like, in sentences.
    pub shape: String,
    /// All formulas that reproduce it, the worse ones too.
    fits: Vec<Named>,
}

impl Diagnosed {
    /// What would be named if formulas of these short names were unknown: what is said of a fault that is in
    /// no list.
    pub fn without(&self, ids: &[&str]) -> Vec<Named> {
        best(self.fits.iter().filter(|named| !ids.contains(&named.id)).cloned().collect())
    }
}

/// The formulas that are known for a kind of component: short name, and what was written.
pub fn known(op: Op) -> Vec<(&'static str, &'static str)> {
    hypotheses::of(op).map(|h| (h.id, h.name)).collect()
}

/// Diagnoses components of a candidate's trace, in parallel across them.
///
/// Each is given with all steps and prompts where it is faulty that shall be looked at: a formula must
/// reproduce all of them, and the first is described. None where a component cannot be replayed.
pub fn diagnose(trace: &Trace, held: &Held, components: &[Vec<Place<'_>>]) -> Vec<Option<Diagnosed>> {
    let one = |places: &Vec<Place<'_>>| {
        let steps: Vec<Step<'_>> = places.iter().filter_map(|place| held.step(trace, place)).collect();
        component(&steps)
    };
    components.par_iter().map(one).collect()
}

fn component(steps: &[Step<'_>]) -> Option<Diagnosed> {
    let first = steps.first()?;
    let output = first.output().ok()?;
    // What cannot be judged is the same for all formulas: it is looked for once in each step.
    let judges: Vec<Judge<'_>> = steps.iter().map(|step| ops::judge(step).ok()).collect::<Option<_>>()?;
    let mut seen = None;
    let mut right = Vec::new();
    for (step, judge) in steps.iter().zip(&judges) {
        let mut judge = judge.probe(f64::INFINITY);
        if seen.is_none() {
            judge = judge.keeping(MOST);
        }
        ops::formula(step, &mut judge).ok()?;
        seen.get_or_insert_with(|| judge.seen());
        right.push(judge.finish());
    }
    let all = hypotheses::of(first.component.op);
    let fits = all.filter_map(|hypothesis| attempt(steps, &judges, &right, hypothesis));
    let fits: Vec<Named> = fits.collect();
    let mut shape = shape::describe(output, first.graph.axes(first.component), first.output_rows(), &seen?);
    let usual = right.iter().map(|local| local.usual).fold(0.0, f64::max);
    if shape.is_empty() && usual > 1.0 {
        shape = format!(
            "No single value is beyond its bound; their median error is {usual:.1} times the largest that kernels have \
             on these numbers."
        );
    }
    Some(Diagnosed { names: best(fits.clone()), shape, fits })
}

/// Those that fit best, the best first.
fn best(mut names: Vec<Named>) -> Vec<Named> {
    names.sort_by(|a, b| {
        (!a.to_rounding, a.residual_ratio).partial_cmp(&(!b.to_rounding, b.residual_ratio)).unwrap()
    });
    // What fits without any allowance leaves no room for what needs one.
    if let Some(best) = names.first().map(|best| (best.to_rounding, best.residual_ratio)) {
        names.retain(|named| {
            named.to_rounding == best.0 && (best.1 > 1.0 || named.residual_ratio <= 1.0 || !best.0)
        });
    }
    names
}

/// Whether a formula reproduces a component in all steps, for which `judges` leave out what no formula can
/// say; `right` is what came of the right one.
fn attempt(
    steps: &[Step<'_>],
    judges: &[Judge<'_>],
    right: &[Local],
    hypothesis: &Hypothesis,
) -> Option<Named> {
    let mut named = Named {
        id: hypothesis.id,
        name: hypothesis.name,
        residual_ratio: 0.0,
        left: 0.0,
        to_rounding: !hypothesis.coarse,
    };
    for ((step, judge), right) in steps.iter().zip(judges).zip(right) {
        let mut judge = judge.probe(if hypothesis.coarse { f64::INFINITY } else { LIMIT });
        (hypothesis.formula)(step, &mut judge).ok()?;
        let local = judge.finish();
        // A formula whose numbers overflow would explain anything.
        if local.unbounded > right.unbounded {
            return None;
        }
        let fits = if hypothesis.coarse { mostly(&local, right) } else { reproduces(&local, right) };
        if !fits {
            return None;
        }
        named.residual_ratio = named.residual_ratio.max(local.ratio);
        named.left = named.left.max(if local.rel_l2 == 0.0 { 0.0 } else { local.rel_l2 / right.rel_l2 });
    }
    // A coarse formula without a tie in its way reproduces everything.
    named.to_rounding |= named.residual_ratio <= 1.0;
    Some(named)
}

fn reproduces(local: &Local, right: &Local) -> bool {
    let allowed = |limit: f64, smaller: f64| local.ratio <= limit && local.ratio * smaller <= right.ratio;
    allowed(1.0, SMALLER[0]) || allowed(LIMIT, SMALLER[1])
}

fn mostly(local: &Local, right: &Local) -> bool {
    // Where numbers are not finite on one side only, both errors are infinite.
    let finite = local.rel_l2.is_finite() && right.rel_l2.is_finite();
    reproduces(local, right) || (finite && local.rel_l2 <= LEFT * right.rel_l2)
}
