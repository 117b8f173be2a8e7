//! Localization by growth: where the total error becomes larger than anything explains.
//!
//! An error at a point may have these harmless causes:
//!
//! - the rounding that this precision costs anybody, which the floor arm shows;
//! - the order of summation: n terms added one after the other in a precision with unit roundoff u
//!   err by about √n · u (Higham and Mary, *A New Approach to Probabilistic Rounding Error
//!   Analysis*, 2019), where the arms add pairwise and show less;
//! - the rounding of the component's parameters to the storage format, which the trace states;
//! - the harmless errors of its inputs, amplified. How much a component amplifies is seen from the
//!   floor arm too: it went from `f_i` at input i to `f` here, so that an error `e_i` may become
//!   `e_i · max(1, f / f_i)`.
//!
//! The error is *explained* when it is at most [`MARGIN`] times the largest of these. A point whose
//! error is not explained, though those of all its inputs are, is where the error is *born*; with
//! an unexplained input it is *inherited*. A second fault that lies downstream of a first is not
//! separated from it by growth.

use crate::align::{Pair, Partner};
use crate::floor::{Floor, preset};
use crate::metrics::Metrics;
use crate::model::{Component, Graph};
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many times the largest harmless cause an error may be: the floor is one sample of rounding,
/// and the candidate is another.
///
/// The largest factor measured on a healthy engine is 3.0: lattice F16 and f32, serial and batched,
/// 60 prompts, 183 points each.
pub const MARGIN: f64 = 8.0;

/// What is known about the error at a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Whether it is explained, born here, or inherited.
    pub state: State,
    /// The largest relative L2 error that is explained.
    pub explained: f64,
    /// Floor here, where it is known.
    pub floor: Option<f64>,
    /// The nearest measured points upstream, with their errors.
    pub inputs: Vec<(String, f64)>,
    /// In words, what the largest harmless cause is.
    pub cause: String,
}

/// Whether a point's error is a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The floor, or an explained error of the inputs, accounts for it.
    Explained,
    /// It starts here.
    Born,
    /// It comes from a fault upstream.
    Inherited,
    /// An input is faulty, and yet the output's error is explained.
    Absorbed,
    /// Both sides have it in incompatible form.
    Mismatched,
    /// A side lacks it.
    Unmeasured,
}

/// A point of a step.
type Key<'a> = (u32, &'a str);

/// What was found out so far: error and judgement.
type Judged<'a> = HashMap<Key<'a>, (f64, Judgement)>;

/// Judges one prompt: its `pairs` and their metrics, in the order of execution, step after step.
///
/// `parameter_error` is the candidate's, by parameter name.
pub fn localize(
    graph: &Graph,
    floor: &Floor,
    parameter_error: &BTreeMap<String, f64>,
    prompt: &[(&Pair<'_>, Option<&Metrics>)],
) -> Vec<Option<Judgement>> {
    let mut judged = Judged::new();
    let mut out = Vec::with_capacity(prompt.len());
    for (pair, metrics) in prompt {
        let judgement = metrics.map(|metrics| {
            let inputs =
                pair.component.map_or_else(Vec::new, |c| measured_inputs(graph, c, pair.step, &judged));
            let rounding = rounding(graph, pair);
            let judgement = judge(pair, metrics, floor, parameter_error, rounding, &inputs, &judged);
            judged.insert((pair.step, pair.point), (metrics.rel_l2, judgement.clone()));
            judgement
        });
        out.push(judgement);
    }
    out
}

/// The nearest points upstream that were judged, those of the step before included.
fn measured_inputs<'a>(
    graph: &'a Graph,
    component: &'a Component,
    step: u32,
    judged: &Judged<'_>,
) -> Vec<Key<'a>> {
    let sources = |component: &'a Component, step: u32| {
        let earlier = step
            .checked_sub(1)
            .into_iter()
            .flat_map(|before| component.carried.iter().map(move |p| (before, p)));
        let sources: Vec<_> = component.inputs.iter().map(move |p| (step, p)).chain(earlier).collect();
        sources.into_iter().rev().map(|(step, point)| (step, point.as_str()))
    };
    let mut found = Vec::new();
    let mut open: Vec<Key<'a>> = sources(component, step).collect();
    let mut visited = HashSet::new();
    while let Some(key) = open.pop() {
        if !visited.insert(key) {
            continue;
        }
        if judged.contains_key(&key) {
            found.push(key);
        } else if let Some(component) = graph.get(key.1) {
            open.extend(sources(component, key.0));
        }
    }
    found
}

/// The dtypes of both sides.
fn dtypes(pair: &Pair<'_>) -> [DType; 2] {
    match pair.partner {
        Partner::Matched(r, c) => [r.dtype, c.dtype],
        _ => [DType::F32; 2],
    }
}

/// √n · u for the longest sum of the component, in the coarser precision of both sides.
fn rounding(graph: &Graph, pair: &Pair<'_>) -> f64 {
    let unit = dtypes(pair).into_iter().map(DType::unit_roundoff).fold(0.0, f64::max);
    let terms = pair.component.map_or(1, |c| graph.summands(c, pair.tokens, pair.context));
    unit * (terms as f64).sqrt()
}

fn judge(
    pair: &Pair<'_>,
    metrics: &Metrics,
    floor: &Floor,
    parameter_error: &BTreeMap<String, f64>,
    rounding: f64,
    inputs: &[Key<'_>],
    judged: &Judged<'_>,
) -> Judgement {
    let here = floor.at(pair.prompt, pair.step, pair.point);
    let base = here.unwrap_or_else(|| dtypes(pair).into_iter().map(preset).fold(0.0, f64::max) / MARGIN);
    let storage: f64 =
        pair.component.iter().flat_map(|c| &c.params).filter_map(|p| parameter_error.get(p)).sum();
    let mut largest = base.max(rounding) + storage;
    let mut cause = match here {
        Some(_) if storage > 0.0 => {
            format!("the floor here and its parameters' storage format, {largest:.1e}")
        }
        Some(_) if base >= rounding => format!("the floor here, {largest:.1e}"),
        Some(_) => format!("rounding in the longest sum, {largest:.1e}"),
        None => format!("the customary tolerance, {:.1e}", largest * MARGIN),
    };
    let mut faulty = false;
    let mut errors = Vec::new();
    for key in inputs {
        let (error, judgement) = &judged[key];
        let input =
            if key.0 == pair.step { key.1.to_owned() } else { format!("{} of step {}", key.1, key.0) };
        errors.push((input.clone(), *error));
        if matches!(judgement.state, State::Born | State::Inherited) {
            faulty = true;
            continue;
        }
        let amplification = match (here, judgement.floor) {
            (Some(out), Some(input)) if input > 0.0 => (out / input).max(1.0),
            _ => 1.0,
        };
        if error * amplification > largest {
            largest = error * amplification;
            cause = format!("the error of {input} as the floor arm amplifies it, {largest:.1e}");
        }
    }
    let explained = MARGIN * largest;
    let state = match (metrics.rel_l2 <= explained, faulty) {
        (true, false) => State::Explained,
        (true, true) => State::Absorbed,
        (false, true) => State::Inherited,
        (false, false) => State::Born,
    };
    Judgement { state, explained, floor: here, inputs: errors, cause }
}
