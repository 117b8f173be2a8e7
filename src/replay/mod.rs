//! Replay: each component recomputed alone, in f64, from what the candidate itself gave it.
//!
//! The first point over a threshold is often the wrong answer: errors are inherited, amplified,
//! cancelled. A component's *local error* is none of that. It is the difference between what the
//! candidate captured at the component's point and what the component's formula gives for the
//! candidate's own captured inputs and the parameters as its engine holds them. No reference run has
//! a part in it. It is held against the rounding error that a correct kernel of that precision may
//! make: beyond that, the component computes something else.

mod edits;
mod judge;
pub(crate) mod ops;
mod precision;
mod step;

pub(crate) use edits::Edits;
pub(crate) use judge::{Judge, Seen};
pub use judge::{Local, Spot};
pub(crate) use precision::SMALLEST;
pub(crate) use step::{Replayed, Rows, Step, Stop};

use crate::error::Result;
use crate::model::{Component, Graph, ModelConfig, Op};
use crate::parameters::Parameters;
use crate::prompt::Prompt;
use crate::trace::Trace;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// What came of the replay of one component.
#[derive(Debug, Clone, PartialEq)]
pub enum Replay {
    /// Its local error.
    Done(Local),
    /// Why it could not be replayed.
    Unmeasured(String),
}

impl Replay {
    /// The local error, if there is one.
    pub fn local(&self) -> Option<&Local> {
        match self {
            Self::Done(local) => Some(local),
            Self::Unmeasured(_) => None,
        }
    }
}

/// The weights that a candidate computes with, and the components that they belong to.
#[derive(Debug)]
pub struct Held {
    graph: Graph,
    config: ModelConfig,
    parameters: Parameters,
    source: Option<Parameters>,
}

impl Held {
    /// A checkpoint in the candidate's own basis: that of the model, or what its engine made of it.
    pub fn open(dir: &Path, graph: Graph, config: ModelConfig) -> Result<Self> {
        let parameters = Parameters::open(dir, graph.description())?;
        Ok(Self { graph, config, parameters, source: None })
    }

    /// The checkpoint that the weights were quantized from, in the same basis: no replay needs it, but a
    /// diagnosis learns from it what a wrong quantizer would have made.
    pub fn made_from(mut self, source: &Path) -> Result<Self> {
        self.source = Some(Parameters::open(source, self.graph.description())?);
        Ok(self)
    }

    /// A component's inputs in a trace; none where the architecture does not know the point.
    pub(crate) fn step<'a>(&'a self, trace: &'a Trace, place: &Place<'a>) -> Option<Step<'a>> {
        let who = &trace.manifest().provenance;
        Some(Step {
            graph: &self.graph,
            config: &self.config,
            parameters: &self.parameters,
            source: self.source.as_ref(),
            trace,
            prompt: place.prompt,
            step: place.step,
            component: self.graph.get(place.point)?,
            quantized: who.quantized,
            activation_bits: who.activation_bits,
            edits: &edits::NONE,
        })
    }
}

/// A component of a step of a prompt.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// The step.
    pub step: u32,
    /// The component's point.
    pub point: &'a str,
}

/// What a component's replay may read of the same step beside its inputs: a context of whose probabilities only some
/// rows were captured, that which makes them.
pub fn reads_further<'a>(graph: &'a Graph, component: &'a Component) -> impl Iterator<Item = &'a str> {
    let first = |component: &'a Component| component.inputs.first().and_then(|point| graph.get(point));
    let probs = Some(component).filter(|c| c.op == Op::AttentionContext).and_then(first);
    let scores = probs.and_then(first);
    [probs, scores].into_iter().flatten().flat_map(|c| c.inputs.iter().map(String::as_str))
}

/// What a component's replay reads of the prefill beside its inputs and what is carried: from where positions
/// are counted is seen in all tables together.
pub fn reads_of_prefill<'a>(graph: &'a Graph, component: &Component) -> impl Iterator<Item = &'a str> {
    let is_table = component.op == Op::RopeTable;
    let tables = graph.components().iter().filter(move |c| is_table && c.op == Op::RopeTable);
    tables.map(|c| c.point.as_str())
}

/// Most tokens whose products are held in memory at a time.
const TOKENS: usize = 512;

/// Replays points of a candidate's trace, in parallel across them.
///
/// `held` are the weights that the candidate's engine computes with, in the trace's own basis. Each
/// component is replayed by one thread, and a linear in all of its steps together, for its weight to be read
/// only once: no number depends on how many threads there are.
pub fn replay(
    trace: &Trace,
    held: &Held,
    places: &[Place<'_>],
    done: impl Fn() + Sync,
) -> Result<Vec<Replay>> {
    let result = |replayed: Replayed<Local>| match replayed {
        Ok(local) => Ok(Replay::Done(local)),
        Err(Stop::Missing(why)) => Ok(Replay::Unmeasured(why)),
        Err(Stop::Bad(error)) => Err(error.at(trace.path())),
    };
    let replay = |group: &Vec<usize>| -> Result<Vec<Replay>> {
        let steps: Vec<Step<'_>> = group.iter().filter_map(|i| held.step(trace, &places[*i])).collect();
        let replays = match steps.as_slice() {
            [] => vec![Replay::Unmeasured("the architecture does not know this point".into())],
            [step] => vec![result(ops::replay(step))?],
            steps => match ops::replay_together(steps) {
                Ok(all) => all.into_iter().map(result).collect::<Result<_>>()?,
                Err(stop) => return result(Err(stop)).map(|replay| vec![replay; group.len()]),
            },
        };
        group.iter().for_each(|_| done());
        Ok(replays)
    };
    let groups = together(held, places);
    let found: Vec<Vec<Replay>> = groups.par_iter().map(replay).collect::<Result<_>>()?;
    let mut in_order: Vec<(usize, Replay)> =
        groups.into_iter().flatten().zip(found.into_iter().flatten()).collect();
    in_order.sort_by_key(|(i, _)| *i);
    Ok(in_order.into_iter().map(|(_, replay)| replay).collect())
}

/// Which places are replayed together: the steps of a linear, of as many tokens as are held at a time.
fn together(held: &Held, places: &[Place<'_>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut open: HashMap<&str, (usize, usize)> = HashMap::new();
    for (i, place) in places.iter().enumerate() {
        let tokens = if place.step == 0 { place.prompt.token_ids.len() } else { 1 };
        let linear = held.graph.get(place.point).is_some_and(|c| c.op == Op::Linear);
        match open.get_mut(place.point).filter(|(_, held)| held + tokens <= TOKENS) {
            Some((group, held)) if linear => {
                groups[*group].push(i);
                *held += tokens;
            }
            _ => {
                open.insert(place.point, (groups.len(), tokens));
                groups.push(vec![i]);
            }
        }
    }
    groups
}
