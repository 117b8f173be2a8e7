//! A tensor of the trace, as the manifest lists it.

use crate::error::{Error, Result};
use crate::prompt::Prompt;
use crate::tensor::DType;
use serde::{Deserialize, Serialize};

/// A tensor in the trace. The [format](super) says what each field means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Entry {
    pub order: u64,
    pub prompt: String,
    pub step: u32,
    pub point: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub basis: String,
    pub derived: bool,
    pub shard: usize,
    /// Of which query tokens rows were captured, as positions in the step, ascending; none where all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<usize>>,
}

/// What is said of a tensor when it comes, before it has a place in a trace; see [`Entry`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Incoming<'a> {
    pub step: u32,
    pub point: &'a str,
    pub dtype: DType,
    pub shape: &'a [usize],
    pub rows: Option<Vec<usize>>,
    pub basis: &'a str,
    pub derived: bool,
}

impl Entry {
    /// The tensor's name in its shard.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.prompt, self.step, self.point)
    }

    /// The point with its place, for errors.
    pub(super) fn named(&self) -> String {
        format!("`{}` (step {}, prompt `{}`)", self.point, self.step, self.prompt)
    }

    /// Checks which rows are there, for a step of this prompt.
    pub(super) fn validate_rows(&self, prompt: &Prompt) -> Result<()> {
        let Some(rows) = &self.rows else { return Ok(()) };
        let tokens = if self.step == 0 { prompt.token_ids.len() } else { 1 };
        if rows.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::new("the rows that were captured are not in order, or one is listed twice")
                .expected("positions in the step, ascending", shown(rows)));
        }
        if let Some(outside) = rows.last().filter(|last| **last >= tokens) {
            return Err(Error::new("a row was captured of a token that the step does not have")
                .expected(format!("positions below {tokens}"), outside));
        }
        if rows.is_empty() || rows.len() == tokens {
            return Err(Error::new("the entry lists no part of the rows")
                .expected("some of the rows; an entry with all of them does not list any", rows.len()));
        }
        if !self.shape.contains(&rows.len()) {
            return Err(Error::new("the shape has another number of rows than are listed")
                .expected(format!("a size of {}", rows.len()), format!("{:?}", self.shape)));
        }
        Ok(())
    }

    /// Bytes of the tensor's values; none when the product does not fit.
    pub fn byte_len(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.size(), |bytes, &n| bytes.checked_mul(n))
    }
}

/// The first of some positions.
fn shown(rows: &[usize]) -> String {
    let list: Vec<String> = rows.iter().take(8).map(usize::to_string).collect();
    format!("{}{}", list.join(", "), if rows.len() > list.len() { ", …" } else { "" })
}
