//! Arm Q: PyTorch on the weights that the candidate computes with.

use crate::engine::torch::{self, Python};
use crate::error::Result;
use crate::floor::Floor;
use crate::model::Graph;
use crate::trace::Trace;
use std::path::Path;

/// What an arm's floor is called beside the arm's directory.
const FLOOR: &str = "floor.json";

pub(in crate::commands) struct Arm {
    pub trace: Trace,
    /// What f32 costs on these weights; that of the original weights stands in where it was not measured.
    pub floor: Option<Floor>,
}

impl Arm {
    /// An arm that lies on disk, with its floor if that lies beside it: `NAME` and `NAME.floor.json`.
    pub fn open(trace: Trace, graph: &Graph) -> Result<Self> {
        // Not `with_extension`: a name may have dots in it.
        let name = trace.path().file_name().unwrap_or_default().to_string_lossy();
        let floor = trace.path().with_file_name(format!("{name}.{FLOOR}"));
        let floor = floor.is_file().then(|| Floor::open(&floor, graph, &trace)).transpose()?;
        Ok(Self { trace, floor })
    }

    /// True when the arm was run on the prompt with this id.
    pub fn has(&self, id: &str) -> bool {
        self.trace.manifest().prompts.iter().any(|p| p.id == id)
    }

    /// Captures the arm, and its floor where that of the original weights could not stand in: rounding
    /// activations to a few bits turns the least error into a whole code.
    ///
    /// `request` is of the arm's weights.
    pub fn capture(python: &Python, request: &torch::Request<'_>, work: &Path) -> Result<Self> {
        let path = work.join("quantized");
        python.capture(request, &path)?;
        let trace = Trace::open(&path)?;
        if request.activation_bits.is_none() {
            return Ok(Self { trace, floor: None });
        }
        let path = work.join("quantized-float64");
        python.capture(&torch::Request { dtype: "float64", ..*request }, &path)?;
        let floor = Floor::from_trace(&Trace::open(&path)?, request.model.graph(), &trace)?;
        Ok(Self { trace, floor: Some(floor) })
    }
}
