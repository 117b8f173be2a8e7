//! What takes the tensors of a run, as they come.

use super::TraceWriter;
use crate::error::Result;
use crate::prompt::Prompt;
use crate::tensor::DType;

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

    /// Takes the next tensor, of this shape and of these rows where it has not all, as little-endian bytes; see
    /// [`Entry`](super::Entry) for what is said of it.
    fn push(
        &mut self,
        step: u32,
        point: &str,
        dtype: DType,
        form: (&[usize], Option<Vec<usize>>),
        bytes: Vec<u8>,
        basis: &str,
        derived: bool,
    ) -> Result<()>;
}

impl Sink for TraceWriter {
    fn start_prompt(&mut self, prompt: &Prompt) -> Result<()> {
        TraceWriter::start_prompt(self, prompt);
        Ok(())
    }

    fn leave_out(&mut self, step: u32, point: &str) {
        TraceWriter::leave_out(self, step, point);
    }

    fn push(
        &mut self,
        step: u32,
        point: &str,
        dtype: DType,
        form: (&[usize], Option<Vec<usize>>),
        bytes: Vec<u8>,
        basis: &str,
        derived: bool,
    ) -> Result<()> {
        self.push_rows(step, point, dtype, form, bytes, basis, derived)
    }
}
