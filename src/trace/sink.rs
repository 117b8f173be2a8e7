//! What takes the tensors of a run, as they come.

use super::{Incoming, TraceWriter};
use crate::error::Result;
use crate::prompt::Prompt;

/// Takes a run's tensors in the order of execution, prompt after prompt.
pub trait Sink {
    /// Announces the prompt that the tensors belong to from now on.
    fn start_prompt(&mut self, prompt: &Prompt) -> Result<()>;

    /// Says that the current prompt has no more tensors.
    fn end_prompt(&mut self) -> Result<()> {
        Ok(())
    }

    /// Says that this run cannot show `point` in `step`.
    fn leave_out(&mut self, step: u32, point: &str);

    /// Takes the next tensor, as little-endian bytes.
    fn push(&mut self, tensor: Incoming<'_>, bytes: Vec<u8>) -> Result<()>;
}

impl Sink for TraceWriter {
    fn start_prompt(&mut self, prompt: &Prompt) -> Result<()> {
        TraceWriter::start_prompt(self, prompt);
        Ok(())
    }

    fn leave_out(&mut self, step: u32, point: &str) {
        TraceWriter::leave_out(self, step, point);
    }

    fn push(&mut self, tensor: Incoming<'_>, bytes: Vec<u8>) -> Result<()> {
        self.take(tensor, bytes)
    }
}
