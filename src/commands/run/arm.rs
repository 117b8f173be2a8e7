//! Arm Q: PyTorch on the weights that the candidate computes with.

use super::Job;
use crate::checkpoint::ModelDir;
use crate::engine::torch::{self, Python};
use crate::error::Result;
use crate::floor::Floor;
use crate::model::Graph;
use crate::prompt::Prompt;
use crate::trace::Trace;
use std::path::Path;

/// What an arm's floor is called beside the arm's directory.
const FLOOR: &str = "floor.json";

pub(super) struct Arm {
    pub trace: Trace,
    /// What f32 costs on these weights; that of the original weights stands in where it was not measured.
    pub floor: Option<Floor>,
}

impl Arm {
    /// An arm that lies on disk, with its floor if that lies beside it: `NAME` and `NAME.floor.json`.
    pub fn open(trace: Trace, graph: &Graph) -> Result<Self> {
        let floor = trace.path().with_extension(FLOOR);
        let floor = floor.is_file().then(|| Floor::open(&floor, graph, &trace)).transpose()?;
        Ok(Self { trace, floor })
    }

    /// Captures the arm, and its floor where that of the original weights could not stand in: rounding
    /// activations to a few bits turns the least error into a whole code.
    pub fn capture(
        python: &Python,
        weights: &ModelDir,
        prompts: &[Prompt],
        activation_bits: Option<u32>,
        job: &Job<'_>,
        work: &Path,
    ) -> Result<Self> {
        let request = torch::Request {
            model: weights,
            prompts,
            points: job.points,
            dtype: "float32",
            activation_bits,
            steps: job.sources.steps,
            quiet: job.ui.quiet,
        };
        let path = work.join("quantized");
        python.capture(&request, &path)?;
        let trace = Trace::open(&path)?;
        let floor = match activation_bits {
            None => None,
            Some(_) => {
                let path = work.join("quantized-float64");
                python.capture(&torch::Request { dtype: "float64", ..request }, &path)?;
                Some(Floor::from_trace(&Trace::open(&path)?, weights.graph(), &trace)?)
            }
        };
        Ok(Self { trace, floor })
    }
}
