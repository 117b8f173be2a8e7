//! Localization: at which point an error is born.
//!
//! Where a component was [replayed](crate::replay), its local error decides: beyond rounding, the error is
//! *born* there, whatever the total error is; within rounding, the component is sound, and a total error
//! that is not explained is *inherited* if a fault is upstream. If none is, and the error is beyond [`CAP`] times
//! those of its inputs, the two sides disagree though the candidate does what it should. Then the reference is
//! replayed too, where its weights are known. If its local error is beyond rounding, the error is born in the
//! reference; else the two are *disputed*: both compute what their own inputs and weights give, or the
//! reference is not known to, and such a point is not judged. Everywhere else growth decides, as follows.
//!
//! # Growth
//!
//! An error at a point may have these harmless causes:
//!
//! - *rounding*: what this precision costs anybody, which the floor arm shows, what happened upstream
//!   included; at the least √n · u for a sum of n terms, added one after the other in a precision with
//!   unit roundoff u, where the arms add pairwise and show less (Higham and Mary, *A New Approach to
//!   Probabilistic Rounding Error Analysis*, 2019), and one rounding to the dtype that is stored;
//! - *storage*: the rounding of the component's parameters to the engine's format, which the trace
//!   states, and that of parameters upstream. From an input to here the latter grows as the floor does:
//!   from `s_i` to `s_i · r / r_i`, with r the rounding on both sides. Where arm Q is the reference, the
//!   parameters are the same on both sides, and only this is left of it: an engine that rounds its
//!   activations to b bits may round one of k to the neighbouring code, which moves a product by about
//!   `4 / ((2^(b−1) − 1) √k)`, the largest of the k being four times the usual.
//!
//! The error is *explained* when it is at most [`MARGIN`] times their sum. Where a point has few values
//! the floor may by chance be far below what is usual there; then it is also explained when it is at
//! most [`MARGIN`] times an explained error of an input, amplified as the floor arm amplifies it (from
//! `f_i` to f, so by `max(1, f / f_i)`), but never beyond [`CAP`] times rounding and storage: an error
//! that creeps up from point to point must not excuse itself.
//!
//! Where more than [`LIMIT`] would be explained, an error that is not more than that is not judged.
//!
//! A point whose error is not explained, though no fault has reached its inputs, is where the error is
//! *born*; if one has, it is *inherited*, or *absorbed* when it is explained all the same. A second fault
//! that lies downstream of a first is not separated from it by growth. An error that is not finite is
//! never explained.

use crate::align::{Pair, Partner};
use crate::floor::{Floor, preset};
use crate::metrics::Metrics;
use crate::model::{Component, Graph, Op};
use crate::replay::Local;
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many times its harmless causes an error may be: the floor is one sample of rounding, and the
/// candidate is another.
///
/// Each report states the largest factor over the points that it explains. Over the 60 standard prompts
/// with four decode steps it was 13.7 for lattice f32 and 16.4 for F16, both at the decay of a decode
/// step, which has four values; in the prefill alone 3.3 and 6.9.
pub const MARGIN: f64 = 16.0;

/// No error beyond this is ever excused: where rounding and storage could explain a tenth, far too many
/// faults would fit into it. Such a point is not judged.
pub const LIMIT: f64 = 0.1;

/// How many times its harmless causes an error may be that is no larger than its inputs' errors allow.
pub const CAP: f64 = 128.0;

/// What is known about the error at a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Whether it is explained, born here, or inherited.
    pub state: State,
    /// The largest relative L2 error that is explained.
    pub explained: f64,
    /// Rounding, as a relative L2 error.
    rounding: f64,
    /// Storage, as a relative L2 error.
    storage: f64,
    /// Floor here, where it is known.
    pub floor: Option<f64>,
    /// The nearest measured points upstream, with their errors.
    pub inputs: Vec<(String, f64)>,
    /// In words, what the harmless causes are.
    pub cause: String,
    /// The local error, where the component was replayed.
    pub local: Option<Local>,
    /// That of the reference, where it was replayed because of the candidate's.
    pub reference: Option<Local>,
    /// True where the sides disagree by more than growth explains, though the candidate is sound: the
    /// reference is too, or it is not known.
    pub disputed: bool,
}

impl Judgement {
    /// The side that a local error proves to err, and that error.
    pub fn proof(&self) -> Option<(Side, &Local)> {
        let beyond = |local: &&Local| !local.is_rounding();
        let candidate = self.local.as_ref().filter(beyond).map(|local| (Side::Candidate, local));
        candidate.or_else(|| self.reference.as_ref().filter(beyond).map(|local| (Side::Reference, local)))
    }

    /// The error as a multiple of its harmless causes.
    pub fn factor(&self, rel_l2: f64) -> f64 {
        if rel_l2 == 0.0 { 0.0 } else { rel_l2 / (self.rounding + self.storage) }
    }
}

/// Which side a component errs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Side {
    #[default]
    Candidate,
    Reference,
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

/// What the candidate's formats do to its numbers, beyond the rounding of its arithmetic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Storage {
    /// Relative L2 error of parameters, by name, against those that the reference ran on.
    pub parameter_error: BTreeMap<String, f64>,
    /// How many bits activations are rounded to before they are multiplied.
    pub activation_bits: Option<u32>,
}

impl Storage {
    /// The relative L2 error that the formats cause at the output of `component`, a sum of `terms`.
    fn at(&self, component: &Component, terms: usize) -> f64 {
        let parameters: f64 = component.params.iter().filter_map(|p| self.parameter_error.get(p)).sum();
        let codes = self.activation_bits.filter(|_| component.op == Op::Linear);
        let flip =
            codes.map_or(0.0, |bits| 4.0 / (f64::from((1u32 << (bits - 1)) - 1) * (terms as f64).sqrt()));
        parameters + flip
    }
}

/// What is known of a point before it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The point.
    pub pair: &'a Pair<'a>,
    /// The metrics against the arm that it is judged by; none where nothing could be compared.
    pub metrics: Option<&'a Metrics>,
    /// The local error; none where it was not replayed.
    pub local: Option<&'a Local>,
    /// That of the reference.
    pub reference: Option<&'a Local>,
}

/// Judges one prompt: what is known of its points, in the order of execution, step after step.
pub fn localize(
    graph: &Graph,
    floor: &Floor,
    storage: &Storage,
    prompt: &[Evidence<'_>],
) -> Vec<Option<Judgement>> {
    let mut judged = Judged::new();
    let mut out = Vec::with_capacity(prompt.len());
    for Evidence { pair, metrics, local, reference } in prompt {
        let judgement = metrics.map(|metrics| {
            let inputs = match pair.component {
                Some(component) => measured_inputs(graph, component, pair.step, &judged),
                None => faults_before(pair, &judged),
            };
            let own = own_causes(graph, floor, storage, pair);
            let judgement = judge(pair, metrics, [*local, *reference], own, &inputs, &judged);
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

/// True for a point that a fault has reached, though it may be too small to see there: it can grow again.
fn faulty_state(judgement: &Judgement) -> bool {
    judgement.disputed || matches!(judgement.state, State::Born | State::Inherited | State::Absorbed)
}

/// The faulty points of the same step: any of them may be upstream of a point that the architecture
/// does not know.
fn faults_before<'a>(pair: &Pair<'_>, judged: &Judged<'a>) -> Vec<Key<'a>> {
    let same =
        judged.iter().filter(|((step, _), (_, judgement))| *step == pair.step && faulty_state(judgement));
    let mut keys: Vec<Key<'a>> = same.map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys
}

/// √n · u for the longest sum of the component, and one rounding to the coarser of both dtypes.
///
/// Kernels that store 16 bits accumulate in 32.
fn least_rounding(graph: &Graph, pair: &Pair<'_>) -> f64 {
    let stored = dtypes(pair).into_iter().map(DType::unit_roundoff).fold(0.0, f64::max);
    let accumulated = stored.min(DType::F32.unit_roundoff());
    let terms = pair.component.map_or(1, |c| graph.summands(c, pair.tokens, pair.context));
    let sum = accumulated * (terms as f64).sqrt();
    if stored > accumulated { sum + stored } else { sum }
}

/// Rounding and storage of a point, as far as they do not depend on points upstream.
struct Own {
    exact: bool,
    floor: Option<f64>,
    rounding: f64,
    storage: f64,
    cause: String,
}

fn own_causes(graph: &Graph, floor: &Floor, storage: &Storage, pair: &Pair<'_>) -> Own {
    let least = least_rounding(graph, pair);
    let here = floor.at(pair.prompt, pair.step, pair.point);
    let tolerance = || dtypes(pair).into_iter().map(preset).fold(0.0, f64::max) / MARGIN;
    let base = here.unwrap_or_else(tolerance);
    let rounding = base.max(least);
    let cause = match here {
        _ if least > base => format!("{rounding:.1e}, rounding in the longest sum"),
        Some(_) => format!("{rounding:.1e}, the floor here"),
        None => format!("{rounding:.1e}, so that the customary tolerance results"),
    };
    let terms = |c| graph.summands(c, pair.tokens, pair.context);
    let storage = pair.component.map_or(0.0, |c| storage.at(c, terms(c)));
    let exact = matches!(floor, Floor::Exact);
    let cause = if exact { "0, since both must agree bit for bit".to_owned() } else { cause };
    Own { exact, floor: here, rounding, storage, cause }
}

fn judge(
    pair: &Pair<'_>,
    metrics: &Metrics,
    [local, reference]: [Option<&Local>; 2],
    own: Own,
    inputs: &[Key<'_>],
    judged: &Judged<'_>,
) -> Judgement {
    let mut faulty = false;
    let mut errors = Vec::new();
    let mut inherited_storage = 0.0f64;
    let mut inherited = (0.0f64, String::new());
    for key in inputs {
        let (error, judgement) = &judged[key];
        let input =
            if key.0 == pair.step { key.1.to_owned() } else { format!("{} of step {}", key.1, key.0) };
        errors.push((input.clone(), *error));
        if faulty_state(judgement) {
            faulty = true;
        } else {
            let amplified = error * (own.rounding / judgement.rounding).max(1.0);
            if amplified > inherited.0 {
                inherited = (amplified, input);
            }
        }
        inherited_storage = inherited_storage.max(judgement.storage / judgement.rounding);
    }
    let storage = own.storage + own.rounding * inherited_storage;
    // Two runs that must agree bit for bit have no excuse.
    let causes = if own.exact { 0.0 } else { own.rounding + storage };
    let from_inputs = (MARGIN * inherited.0).min(CAP * causes);
    let explained = from_inputs.max(MARGIN * causes);
    let harmless = metrics.rel_l2.is_finite() && metrics.rel_l2 <= explained;
    // Two runs that must agree bit for bit are not excused by rounding.
    let local = local.filter(|_| !own.exact);
    let state = match (harmless, faulty) {
        _ if local.is_some_and(|local| !local.is_rounding()) => State::Born,
        // A sound component may amplify what its inputs bring, further than growth can know.
        (_, false)
            if local.is_some() && metrics.rel_l2 <= CAP * inherited.0.max(causes).max(explained / CAP) =>
        {
            State::Explained
        }
        (true, false) if explained > LIMIT && metrics.rel_l2 > 0.0 => State::Unmeasured,
        (true, false) => State::Explained,
        // What so much would explain cannot be called gone.
        (true, true) if explained <= LIMIT || metrics.rel_l2 == 0.0 => State::Absorbed,
        (_, true) => State::Inherited,
        // The candidate does what it should: where the reference is not proved to err, nobody is blamed.
        (false, false) if local.is_some() && reference.is_none_or(Local::is_rounding) => State::Unmeasured,
        (false, false) => State::Born,
    };
    let disputed = state == State::Unmeasured && !harmless;
    let cause = if from_inputs > MARGIN * causes {
        format!(
            "{MARGIN} × ({:.1e}, the error of {} as the floor amplifies it, capped)",
            inherited.0, inherited.1
        )
    } else if storage > 0.0 {
        format!("{MARGIN} × ({}, plus {storage:.1e}, the storage format up to here)", own.cause)
    } else {
        format!("{MARGIN} × ({})", own.cause)
    };
    Judgement {
        state,
        explained,
        rounding: own.rounding,
        storage,
        floor: own.floor,
        inputs: errors,
        cause,
        local: local.cloned(),
        reference: reference.filter(|_| local.is_some_and(Local::is_rounding)).cloned(),
        disputed,
    }
}
