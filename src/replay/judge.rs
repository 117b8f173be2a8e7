//! Holding captured values against replayed ones and their bounds.

use crate::tensor::TensorView;
use serde::{Deserialize, Serialize};

/// The local error of a component: what it computed against what its own inputs and parameters give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Local {
    /// The largest error of an element, as a multiple of the rounding error that a correct kernel may
    /// make there; infinite where an element must be exact and is not, or is finite on one side only.
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// `√Σd² / √Σr²` of the captured values against the replayed ones; infinite where an element is
    /// finite on one side only.
    #[serde(with = "crate::number")]
    pub rel_l2: f64,
    /// Number of elements that were replayed.
    pub elements: u64,
    /// How many of them are beyond their bound.
    pub beyond: u64,
    /// Where the ratio is largest.
    pub worst: Option<Spot>,
}

/// An element with what was expected there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Spot {
    /// In the flattened tensor.
    pub index: usize,
    #[serde(with = "crate::number")]
    pub captured: f64,
    #[serde(with = "crate::number")]
    pub replayed: f64,
    #[serde(with = "crate::number")]
    pub bound: f64,
}

impl Local {
    /// True when rounding explains every element.
    pub fn is_rounding(&self) -> bool {
        self.ratio <= 1.0
    }
}

/// Collects the local error of one captured tensor.
pub(super) struct Judge<'a> {
    captured: TensorView<'a>,
    differences: f64,
    norm: f64,
    mismatch: bool,
    local: Local,
}

impl<'a> Judge<'a> {
    pub fn new(captured: TensorView<'a>) -> Self {
        let local = Local { ratio: 0.0, rel_l2: 0.0, elements: 0, beyond: 0, worst: None };
        Self { captured, differences: 0.0, norm: 0.0, mismatch: false, local }
    }

    /// Number of elements to check.
    pub fn len(&self) -> usize {
        self.captured.len()
    }

    /// Holds the elements from `start` on against `replayed`, with the bounds of their errors.
    pub fn check(&mut self, start: usize, replayed: &[f64], bounds: &[f64]) {
        debug_assert_eq!(replayed.len(), bounds.len());
        let mut captured = vec![0.0; replayed.len()];
        self.captured.read_into(start, &mut captured);
        for (i, ((&c, &r), &bound)) in captured.iter().zip(replayed).zip(bounds).enumerate() {
            self.element(start + i, c, r, bound);
        }
    }

    /// As [`Judge::check`], for values that must be equal.
    pub fn check_exact(&mut self, start: usize, replayed: &[f64]) {
        self.check(start, replayed, &vec![0.0; replayed.len()]);
    }

    fn element(&mut self, index: usize, captured: f64, replayed: f64, bound: f64) {
        self.local.elements += 1;
        let same = captured == replayed || (captured.is_nan() && replayed.is_nan());
        let difference = captured - replayed;
        // Where a sum leaves the range of 32 bits, a correct kernel may give anything.
        if bound == f64::INFINITY {
            return;
        }
        if difference.is_finite() {
            self.differences += difference * difference;
            self.norm += replayed * replayed;
        } else if !same {
            self.mismatch = true;
        }
        if same {
            return;
        }
        // A bound that is not a number explains nothing.
        let ratio = difference.abs() / bound;
        let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
        self.local.beyond += u64::from(ratio > 1.0);
        if self.local.worst.is_none() || ratio > self.local.ratio {
            self.local.ratio = ratio;
            self.local.worst = Some(Spot { index, captured, replayed, bound });
        }
    }

    pub fn finish(mut self) -> Local {
        self.local.rel_l2 = if self.mismatch {
            f64::INFINITY
        } else if self.differences == 0.0 {
            0.0
        } else {
            (self.differences / self.norm).sqrt()
        };
        self.local
    }
}
