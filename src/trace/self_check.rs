//! Whether a capture disturbed the engine: what was compared, and what follows from it.

use serde::{Deserialize, Serialize};

/// Whether the capture disturbed the engine, and how that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// The outcome over all evidence.
    pub status: Status,
    /// What was compared.
    pub evidence: Vec<Evidence>,
}

/// Outcome of a self-check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All evidence agrees bit for bit.
    BitEqual,
    /// Some evidence does not: the trace says nothing about the real engine.
    Different,
    /// Nothing was compared.
    Unmeasured,
}

/// One comparison of the instrumented engine with the un-instrumented one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was compared, in words.
    pub what: String,
    /// The engine's own entry point that gave the other side.
    pub entry_point: String,
    /// How many numbers were compared.
    pub elements: u64,
    /// How many of them differ in any bit; in a cross-check, how many are in tensors that differ by
    /// more than the order of summation explains.
    pub mismatches: u64,
    /// Only in a cross-check with other kernels, which is not bit-equal by nature: the largest relative
    /// L2 difference of a tensor. It can spoil a self-check; bit-equality rests on the other evidence.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::number::option")]
    pub rel_l2: Option<f64>,
}

impl SelfCheck {
    /// That of several runs: evidence of the same kind is added up.
    pub fn over(found: impl IntoIterator<Item = Evidence>) -> Self {
        let mut all: Vec<Evidence> = Vec::new();
        for new in found {
            match all.iter_mut().find(|e| e.what == new.what && e.entry_point == new.entry_point) {
                Some(old) => {
                    old.elements += new.elements;
                    old.mismatches += new.mismatches;
                    // A NaN is larger than anything.
                    old.rel_l2 = match (old.rel_l2, new.rel_l2) {
                        (Some(a), Some(b)) if a.is_nan() || a >= b => Some(a),
                        (a, b) => b.or(a),
                    };
                }
                None => all.push(new),
            }
        }
        Self::new(all)
    }

    /// The status that follows from the evidence: all of it must have been measured. A cross-check can
    /// spoil it, also by a distance that is no number, but adds nothing to it.
    pub fn new(evidence: Vec<Evidence>) -> Self {
        let spoilt =
            |e: &Evidence| e.mismatches > 0 || e.rel_l2.is_some_and(|d| !(0.0..=f64::MAX).contains(&d));
        let bits: Vec<&Evidence> = evidence.iter().filter(|e| e.rel_l2.is_none()).collect();
        let status = if evidence.iter().any(spoilt) {
            Status::Different
        } else if !bits.is_empty() && bits.iter().all(|e| e.elements > 0) {
            Status::BitEqual
        } else {
            Status::Unmeasured
        };
        Self { status, evidence }
    }
}
