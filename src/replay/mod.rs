//! Replay: each component recomputed alone, in f64, from what the candidate itself gave it.
//!
//! The first point over a threshold is often the wrong answer: errors are inherited, amplified,
//! cancelled. A component's *local error* is none of that. It is the difference between what the
//! candidate captured at the component's point and what the component's formula gives for the
//! candidate's own captured inputs and the parameters as its engine holds them. No reference run has
//! a part in it. It is held against the rounding error that a correct kernel of that precision may
//! make: beyond that, the component computes something else.

mod judge;
mod ops;
mod precision;
mod step;

pub use judge::{Local, Spot};

use crate::error::Result;
use crate::model::{Component, Graph, ModelConfig};
use crate::parameters::Parameters;
use crate::prompt::Prompt;
use crate::trace::Trace;
use rayon::prelude::*;
use step::{Step, Stop};

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

/// A component of a step of a prompt.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// The step.
    pub step: u32,
    /// The component.
    pub component: &'a Component,
}

/// Replays the components of a candidate's trace, in parallel across them.
///
/// `parameters` are those that the candidate's engine computes with, in the trace's own basis. Each
/// component is replayed by one thread: no number depends on how many there are.
pub fn replay(
    graph: &Graph,
    trace: &Trace,
    parameters: &Parameters,
    places: &[Place<'_>],
    done: impl Fn() + Sync,
) -> Result<Vec<Replay>> {
    let manifest = trace.manifest();
    let config = ModelConfig::new(manifest.config.clone())?;
    let replay = |place: &Place<'_>| {
        let step = Step {
            graph,
            config: &config,
            parameters,
            trace,
            prompt: place.prompt,
            step: place.step,
            component: place.component,
            quantized: manifest.provenance.quantized,
            activation_bits: manifest.provenance.activation_bits,
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
