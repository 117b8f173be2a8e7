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
pub(crate) use step::{Replayed, Step, Stop};

use crate::error::Result;
use crate::model::{Graph, ModelConfig};
use crate::parameters::Parameters;
use crate::prompt::Prompt;
use crate::trace::Trace;
use rayon::prelude::*;
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

/// Replays points of a candidate's trace, in parallel across them.
///
/// `held` are the weights that the candidate's engine computes with, in the trace's own basis. Each
/// component is replayed by one thread: no number depends on how many there are.
pub fn replay(
    trace: &Trace,
    held: &Held,
    places: &[Place<'_>],
    done: impl Fn() + Sync,
) -> Result<Vec<Replay>> {
    let replay = |place: &Place<'_>| {
        let Some(step) = held.step(trace, place) else {
            return Ok(Replay::Unmeasured("the architecture does not know this point".into()));
        };
        let replayed = ops::replay(&step);
        done();
        match replayed {
            Ok(local) => Ok(Replay::Done(local)),
            Err(Stop::Missing(why)) => Ok(Replay::Unmeasured(why)),
            Err(Stop::Bad(error)) => Err(error.at(trace.path())),
        }
    };
    places.par_iter().map(replay).collect()
}
