//! How far numbers that are not finite reach from a component's inputs into its output.

use super::context::read_behind;
use super::delta_rule::CHUNK;
use crate::model::Op;
use crate::replay::step::{Replayed, Rows, Step};
use crate::tensor::TensorView;
use std::collections::BTreeSet;

/// What of an output cannot be judged.
pub(super) struct Reached {
    /// The first input that is not finite; none where all are.
    pub cause: Option<String>,
    /// For each element of the output, whether it may have been reached; empty where all inputs are finite.
    pub elements: Vec<bool>,
}

/// Positions, counted from the prompt's first token.
type Positions = BTreeSet<usize>;

/// Which elements of a component's output what is not finite in its inputs may reach, in whatever order a
/// correct kernel works.
pub(super) fn reached(step: &Step<'_>) -> Replayed<Reached> {
    let component = step.component;
    let (past, end) = (step.past(), step.past() + step.tokens());
    let mut cause = None;
    let mut note = |point: &str, bad: Positions| {
        if !bad.is_empty() && cause.is_none() {
            cause = Some(format!("its input {point}"));
        }
        bad
    };
    let mut inputs: Vec<Positions> = Vec::new();
    for point in &component.inputs {
        // What was not captured cannot be read either, and the formula says so; the others keep their numbers.
        let found = step.at(point).map_or_else(|_| Positions::new(), |view| bad(step, point, view, end));
        inputs.push(note(point, found));
    }
    let carried = match (component.carried.first(), step.carried()) {
        (Some(point), Ok(Some(view))) => note(point, bad(step, point, view, past)),
        _ => Positions::new(),
    };
    // What was not captured of the probabilities is replayed from these.
    let behind = read_behind(step).map(|points| {
        points.map(|point| {
            let found = step.at(point).map_or_else(|_| Positions::new(), |view| bad(step, point, view, end));
            note(point, found)
        })
    });
    if cause.is_none() {
        return Ok(Reached { cause, elements: Vec::new() });
    }
    let all: Positions = inputs.iter().chain([&carried]).flatten().copied().collect();
    let output = step.output()?;
    let rows = step.output_rows();
    let axes = Axes { names: step.graph.axes(component), shape: output.shape, rows, end };
    let is_reached = |i: usize| {
        let Some(position) = axes.position(i) else { return true };
        match component.op {
            Op::AttentionScores => {
                let other = axes.index(i, "context");
                inputs[0].contains(&position) || other.is_none_or(|other| inputs[1].contains(&other))
            }
            // A kernel multiplies values that a mask hides with 0, which is NaN where they are not finite.
            Op::AttentionContext => {
                let further = behind.as_ref().is_some_and(|[q, k]| q.contains(&position) || !k.is_empty());
                inputs[0].contains(&position) || !inputs[1].is_empty() || further
            }
            Op::CausalConvSilu => {
                all.range(position.saturating_sub(step.dim("conv_tail"))..=position).next().is_some()
            }
            // A kernel that takes tokens in chunks multiplies later ones of a chunk with 0 too.
            Op::DeltaRule => {
                all.first().is_some_and(|first| position >= past + (first.max(&past) - past) / CHUNK * CHUNK)
            }
            _ => all.contains(&position),
        }
    };
    Ok(Reached { cause, elements: (0..output.len()).map(is_reached).collect() })
}

/// Where a tensor that was left at `end` is not finite.
fn bad(step: &Step<'_>, point: &str, view: TensorView<'_>, end: usize) -> Positions {
    // Masked scores are −∞ for a reason.
    let masked = step.component.op == Op::Softmax;
    let fits = |v: &f64| v.is_finite() || (masked && *v == f64::NEG_INFINITY);
    let names = step.graph.get(point).map_or(&[] as &[String], |c| step.graph.axes(c));
    let axes = Axes { names, shape: view.shape, rows: step.rows(point), end };
    let values = view.to_f64();
    let odd = values.iter().enumerate().filter(|(_, v)| !fits(v));
    // A state without tokens is read with the step's first.
    odd.map(|(i, _)| axes.position(i).unwrap_or_else(|| step.past())).collect()
}

/// The axes of a tensor, with the number of tokens seen when it was made.
struct Axes<'a> {
    names: &'a [String],
    shape: &'a [usize],
    /// The tokens on the axis of tokens.
    rows: Rows<'a>,
    end: usize,
}

impl Axes<'_> {
    /// The index of element `i` along the axis of this name.
    fn index(&self, i: usize, name: &str) -> Option<usize> {
        let axis = self.names.iter().position(|known| known == name)?;
        let size = *self.shape.get(axis)?;
        let inner: usize = self.shape[axis + 1..].iter().product();
        Some(i / inner.max(1) % size.max(1))
    }

    /// The position that element `i` belongs to: none in a tensor that no axis of tokens has.
    fn position(&self, i: usize) -> Option<usize> {
        if let Rows::Some(rows) = self.rows
            && let Some(row) = self.index(i, "tokens")
        {
            let tokens = self.names.iter().position(|name| name == "tokens").map(|axis| self.shape[axis]);
            debug_assert_eq!(tokens, Some(rows.len()));
            // Rows are of a prefill: a decode step has one token.
            return Some(rows[row]);
        }
        let before = |axis: &str, size: usize| Some((self.end + self.index(i, axis)?).saturating_sub(size));
        let size = |axis: &str| Some(self.shape[self.names.iter().position(|known| known == axis)?]);
        let of = |axis: &str| before(axis, size(axis)?);
        of("tokens").or_else(|| of("context")).or_else(|| of("conv_tail"))
    }
}
