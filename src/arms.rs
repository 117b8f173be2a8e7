//! The arms: what is run beside the candidate, so that the causes of its error can be told apart.
//!
//! | arm | what runs | error | meaning |
//! |---|---|---|---|
//! | T | the reference | | what is believed in |
//! | F | the reference's engine in another precision | F − T | the floor: what that precision costs anybody |
//! | Q | the reference's engine on the candidate's dequantized weights, its activations rounded as the candidate declares | Q − T | the price of quantization |
//! | C | the candidate | C − T | the total error |
//! | | | C − Q | what the candidate itself adds |
//!
//! The candidate is judged by what it adds. Each error is relative to the arm that is subtracted.

use crate::error::{Error, Result};
use crate::localize::Storage;
use crate::trace::{Provenance, StatedAdapter, Trace, activations};
use std::collections::BTreeMap;

/// The largest storage error of a parameter that an allowance is made for: that of BF16. What a format of
/// fewer bits does can be told apart from a fault by arm Q only.
const STATED: f64 = 4e-3;

/// Where the price of quantization comes from.
#[derive(Debug, Clone, Copy)]
pub enum Quantization<'a> {
    /// The candidate's weights are the reference's: there is no price, and Q is T.
    Exact,
    /// The sides keep at least 16 bits of each parameter and state what that costs: small enough to judge
    /// the total error by, with an allowance.
    Stated,
    /// The sides were run on different weights on purpose: the total error is all that there is.
    Other,
    /// What a side computed with is not known, since its trace has no hash of it: no price of quantization can be
    /// stated, and the total error is all that there is.
    Unknown,
    /// Arm Q.
    Arm(&'a Trace),
    /// A side is quantized and there is no arm Q: what the candidate adds itself cannot be told apart.
    Unmeasured,
}

impl<'a> Quantization<'a> {
    /// That of `candidate`, with or without an arm Q.
    pub fn of(reference: &Trace, candidate: &Trace, arm: Option<&'a Trace>) -> Result<Self> {
        let who = &candidate.manifest().provenance;
        let sides = [&reference.manifest().provenance, who];
        match arm {
            Some(arm) => {
                check_arm(&arm.manifest().provenance, &reference.manifest().provenance, who)
                    .map_err(|e| e.at(arm.path()))?;
                let [ours, theirs] = [reference, arm].map(|side| StatedAdapter::of(side.manifest()));
                ours.refuse_other(theirs).map_err(|e| e.at(arm.path()))?;
                arm.refuse_failed_self_check()?;
                Ok(Self::Arm(arm))
            }
            None if same_weights(&reference.manifest().provenance, who) => Ok(Self::Exact),
            None if sides.iter().any(|who| is_quantized(who)) => Ok(Self::Unmeasured),
            None if sides[0].activation_bits != sides[1].activation_bits => Ok(Self::Unmeasured),
            None if differ(&sides[0].hashes.weights, &sides[1].hashes.weights) => Ok(Self::Other),
            None if sides.iter().any(|who| who.hashes.weights.is_none()) => Ok(Self::Unknown),
            None if sides.iter().all(|who| who.parameter_error.is_empty()) => Ok(Self::Exact),
            None => Ok(Self::Stated),
        }
    }

    /// One word for it.
    pub fn status(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Stated => "stated",
            Self::Arm(_) => "measured",
            Self::Unmeasured | Self::Unknown | Self::Other => "unmeasured",
        }
    }

    /// What the formats may do to the candidate's error against the arm that it is judged by.
    pub fn storage(self, reference: &Trace, candidate: &Trace) -> Storage {
        let who = &candidate.manifest().provenance;
        let mut parameter_error = BTreeMap::new();
        if matches!(self, Self::Stated | Self::Unmeasured | Self::Unknown | Self::Other) {
            for side in [&reference.manifest().provenance, who] {
                for (parameter, error) in &side.parameter_error {
                    *parameter_error.entry(parameter.clone()).or_insert(0.0) += error;
                }
            }
        }
        Storage { parameter_error, activation_bits: who.activation_bits }
    }
}

/// True when both sides are one engine with one checkpoint, which it holds in one form.
fn same_weights(reference: &Provenance, candidate: &Provenance) -> bool {
    let form = |who: &Provenance| {
        (who.engine.clone(), who.engine_version.clone(), who.hashes.clone(), who.dtype.clone())
    };
    reference.hashes.weights.is_some()
        && form(reference) == form(candidate)
        && reference.quantized == candidate.quantized
        && reference.activation_bits == candidate.activation_bits
        && reference.parameter_error == candidate.parameter_error
}

/// True when both are known and are not the same.
fn differ(a: &Option<String>, b: &Option<String>) -> bool {
    a.is_some() && b.is_some() && a != b
}

fn is_quantized(who: &Provenance) -> bool {
    who.quantized || who.parameter_error.values().any(|error| *error > STATED)
}

/// Arm Q is the reference's own engine, in the same precision, on the candidate's weights.
fn check_arm(arm: &Provenance, reference: &Provenance, candidate: &Provenance) -> Result<()> {
    if (&arm.engine, &arm.dtype) != (&reference.engine, &reference.dtype) {
        return Err(Error::new("this is no arm Q: it is the reference's engine in the reference's precision")
            .expected(
                format!("{} in {}", reference.engine, reference.dtype),
                format!("{} in {}", arm.engine, arm.dtype),
            )
            .hint("make its weights with `layerdiff dequantize` and capture them with `layerdiff capture --engine torch`"));
    }
    if arm.activation_bits != candidate.activation_bits {
        return Err(Error::new("arm Q rounds its activations otherwise than the candidate")
            .expected(activations(candidate.activation_bits), activations(arm.activation_bits))
            .hint("capture it with --activation-bits as the candidate declares them"));
    }
    match (&candidate.hashes.dequantized, &arm.hashes.weights) {
        (Some(candidate), Some(arm)) if candidate != arm => {
            Err(Error::new("arm Q was captured on other weights than the candidate computes with")
                .expected(candidate, arm)
                .hint("was it made by another quantizer, another seed or another version of lattice? make it anew with `layerdiff dequantize`"))
        }
        _ => Ok(()),
    }
}
