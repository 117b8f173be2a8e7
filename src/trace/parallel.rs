//! A model that several processes ran, each on a share of it.

use super::Entry;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a run was split over processes. The trace holds whole tensors all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parallel {
    /// How many processes.
    pub processes: usize,
    /// What they talked through: `gloo`, `nccl`, ….
    pub backend: String,
    /// The points of which each process had a share; it had all of the others.
    pub split: BTreeMap<String, Split>,
}

/// How one point's tensor was put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Along which axis.
    pub axis: usize,
    /// How much of that axis each process had, in their order.
    pub shares: Vec<usize>,
}

impl Parallel {
    /// Refuses shares that do not make up the tensors.
    pub(super) fn validate(&self, tensors: &[Entry]) -> Result<()> {
        if self.processes == 0 {
            return Err(Error::new("the trace states an impossible number of processes")
                .expected("at least 1", self.processes));
        }
        for (point, split) in &self.split {
            let bad = |expected: String| {
                Error::new(format!("the trace states impossible shares of `{point}`"))
                    .expected(expected, format!("{:?} along axis {}", split.shares, split.axis))
            };
            if split.shares.len() != self.processes {
                return Err(bad(format!("{} shares", self.processes)));
            }
            let whole = split.shares.iter().try_fold(0_usize, |sum, n| sum.checked_add(*n));
            let mut all = tensors.iter().filter(|entry| entry.point == *point).peekable();
            if all.peek().is_none() {
                return Err(bad("a point of the trace".to_owned()));
            }
            if let Some(entry) = all.find(|entry| entry.shape.get(split.axis).copied() != whole) {
                return Err(bad(format!("shares of a tensor of shape {:?}", entry.shape)));
            }
        }
        Ok(())
    }
}
