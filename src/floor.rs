//! The floor: the error that the precision costs anybody.

use crate::align::{Pair, align};
use crate::basis::Gains;
use crate::compare::{compare, refuse_repeated_layers};
use crate::error::{Error, Result};
use crate::model::{Graph, PointFilter};
use crate::tensor::DType;
use crate::trace::{Hashes, Provenance, Trace, activations};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// What an error is held against.
#[derive(Debug, Clone)]
pub enum Floor {
    /// Relative L2 errors of another arm against the same reference.
    Measured(Measured),
    /// No arm was given: a customary tolerance by dtype.
    Preset,
    /// Both sides are the same operations on the same numbers: nothing may differ.
    Exact,
}

/// A measured floor.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// What was measured, in words.
    pub description: String,
    /// The arm's precision: `float64`, `bfloat16`, ….
    pub dtype: String,
    by_prompt: HashMap<(String, u32, String), f64>,
    /// The largest over the prompts, for a prompt that was not measured itself.
    by_point: HashMap<(u32, String), f64>,
}

/// Customary tolerances, used when no floor was measured.
///
/// F32: lattice's own tolerance between its serial and its batched path. F16: tract's
/// `Approximate` relative tolerance. BF16: the largest error of a layer that Fast-LLM measured for
/// Qwen2.5-0.5B (issue 525 there), rounded up.
pub fn preset(dtype: DType) -> f64 {
    match dtype {
        DType::F64 | DType::F32 | DType::U8 => 1e-5,
        DType::F16 => 5e-3,
        DType::BF16 => 3e-2,
    }
}

#[derive(Deserialize)]
struct FloorReport {
    engine: String,
    points: Vec<FloorPoint>,
    prompts: Vec<FloorPrompt>,
    provenance: FloorProvenance,
}

#[derive(Deserialize)]
struct FloorPrompt {
    id: String,
    token_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct FloorPoint {
    point: String,
    step: u32,
    prompt: String,
    #[serde(with = "crate::number::option", default)]
    rel_l2: Option<f64>,
}

#[derive(Deserialize)]
struct FloorProvenance {
    candidate: FloorSide,
    reference: FloorSide,
}

#[derive(Deserialize)]
struct FloorSide {
    engine: String,
    dtype: String,
    hashes: Hashes,
    #[serde(default)]
    activation_bits: Option<u32>,
}

/// A floor is the reference's own engine in another precision, on the same weights: anything else
/// measures something else, and a candidate as its own floor would excuse itself.
fn check_arm(arm: &FloorSide, reference: &Provenance) -> Result<()> {
    if arm.engine != reference.engine || arm.dtype == reference.dtype {
        return Err(Error::new("this is no floor: a floor is the reference's engine in another precision")
            .expected(
                format!("{} in another dtype than {}", reference.engine, reference.dtype),
                format!("{} in {}", arm.engine, arm.dtype),
            )
            .hint(if reference.engine == "torch" {
                "capture one with `layerdiff capture --engine torch --dtype float64`"
            } else {
                "leave --floor out: where PyTorch is not the reference, customary tolerances stand in"
            }));
    }
    if arm.hashes.adapter != reference.hashes.adapter {
        let words = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "no adapter".into());
        return Err(Error::new("the floor was measured with another adapter than the reference")
            .expected(words(&reference.hashes.adapter), words(&arm.hashes.adapter))
            .hint("measure the floor with this adapter: `layerdiff capture --engine torch --dtype float64 --lora DIR`"));
    }
    if arm.activation_bits != reference.activation_bits {
        return Err(Error::new("the floor rounds its activations otherwise than the reference")
            .expected(activations(reference.activation_bits), activations(arm.activation_bits))
            .hint("capture both with the same --activation-bits"));
    }
    match (&arm.hashes.weights, &reference.hashes.weights) {
        (Some(floor), Some(reference)) if floor != reference => {
            Err(Error::new("the floor was measured on another model than the reference")
                .expected(reference, floor)
                .hint("measure the floor on this model: `layerdiff capture --engine torch --dtype float64`"))
        }
        _ => Ok(()),
    }
}

/// A floor's numbers are errors against one reference: held against another they mean nothing.
fn check_measured_against(side: &FloorSide, reference: &Provenance) -> Result<()> {
    let words = |engine: &str, dtype: &str, hash: &Option<String>| {
        format!("{engine} in {dtype}, weights {}", hash.as_deref().unwrap_or("unknown"))
    };
    let (ours, theirs) = (
        words(&reference.engine, &reference.dtype, &reference.hashes.weights),
        words(&side.engine, &side.dtype, &side.hashes.weights),
    );
    if ours == theirs && side.activation_bits == reference.activation_bits {
        return Ok(());
    }
    Err(Error::new("the floor was measured against another reference")
        .expected(ours, theirs)
        .hint("compare the arm with this reference: `layerdiff compare REFERENCE ARM --out DIR`"))
}

impl Floor {
    /// Reads a floor: a trace of another arm, which is compared with the reference, or the
    /// `report.json` of such a comparison.
    pub fn open(path: &Path, graph: &Graph, reference: &Trace) -> Result<Self> {
        if path.is_dir() {
            return Self::from_trace(&Trace::open(path)?, graph, reference);
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the floor", path, &e))?;
        Self::from_report(&text, reference).map_err(|e| e.at(path))
    }

    /// Takes the numbers of a finished comparison of `reference`, or of another capture of the same
    /// model on the same tokens.
    pub fn from_report(text: &str, reference: &Trace) -> Result<Self> {
        let report: FloorReport = serde_json::from_str(text).map_err(|e| {
            Error::new(format!("malformed floor: {e}"))
                .hint("a floor is a trace, or a report.json of `layerdiff compare REFERENCE ARM`")
        })?;
        let mut floor = Measured {
            description: format!(
                "{} in {} against the reference",
                report.engine, report.provenance.candidate.dtype
            ),
            dtype: report.provenance.candidate.dtype.clone(),
            ..Measured::default()
        };
        let ours = &reference.manifest().provenance;
        check_arm(&report.provenance.candidate, ours)?;
        check_measured_against(&report.provenance.reference, ours)?;
        let ids = |id: &str| reference.manifest().prompts.iter().find(|p| p.id == id).map(|p| &p.token_ids);
        let other = |p: &&FloorPrompt| ids(&p.id).is_some_and(|ids| *ids != p.token_ids);
        let other: Vec<String> = report.prompts.iter().filter(other).map(|p| p.id.clone()).collect();
        for point in report.points.into_iter().filter(|p| !other.contains(&p.prompt)) {
            if let Some(error) = point.rel_l2 {
                floor.insert(point.prompt, point.step, point.point, error);
            }
        }
        Ok(Self::Measured(floor))
    }

    /// Compares an arm with the reference.
    pub fn from_trace(arm: &Trace, graph: &Graph, reference: &Trace) -> Result<Self> {
        arm.refuse_failed_self_check()?;
        refuse_repeated_layers(graph, arm)?;
        let who = &arm.manifest().provenance;
        let side = FloorSide {
            engine: who.engine.clone(),
            dtype: who.dtype.clone(),
            hashes: who.hashes.clone(),
            activation_bits: who.activation_bits,
        };
        check_arm(&side, &reference.manifest().provenance).map_err(|e| e.at(arm.path()))?;
        // An arm runs on the original checkpoint, where no gain is folded away.
        let gains = Gains::default();
        let pairs: Vec<Pair<'_>> = align(graph, reference, arm, &PointFilter::default(), &gains)?;
        let metrics = compare(graph, reference, arm, &pairs, &gains, || ());
        let mut floor = Measured {
            description: format!("{} in {} against the reference", who.engine, who.dtype),
            dtype: who.dtype.clone(),
            ..Measured::default()
        };
        for (pair, metrics) in pairs.iter().zip(metrics) {
            if let Some(metrics) = metrics {
                floor.insert(pair.prompt.to_owned(), pair.step, pair.point.to_owned(), metrics.rel_l2);
            }
        }
        Ok(Self::Measured(floor))
    }

    /// The floor's relative L2 error at a point; none when it was not measured.
    ///
    /// A decode step has one token, whose few values may by chance hardly err at all: its floor is at
    /// least that of the prefill at the same point, which is a mean over many tokens.
    pub fn at(&self, prompt: &str, step: u32, point: &str) -> Option<f64> {
        // An arm that overflowed says nothing about rounding, and must not excuse everything.
        let finite = |step: u32| self.error(prompt, step, point).filter(|error| error.is_finite());
        let here = finite(step)?;
        Some(finite(0).map_or(here, |prefill| here.max(prefill)))
    }

    /// The arm's precision; none when no arm was measured.
    pub fn dtype(&self) -> Option<&str> {
        match self {
            Self::Measured(floor) => Some(&floor.dtype),
            Self::Preset | Self::Exact => None,
        }
    }

    /// How much the arm's precision rounds: its unit roundoff, infinite for one that is not known.
    pub fn coarseness(&self) -> f64 {
        let known = match self.dtype() {
            Some("float64") => DType::F64,
            Some("float32") => DType::F32,
            Some("float16") => DType::F16,
            Some("bfloat16") => DType::BF16,
            _ => return f64::INFINITY,
        };
        known.unit_roundoff()
    }

    /// The arm's own error at a point: of this very prompt, or the largest of others.
    pub fn error(&self, prompt: &str, step: u32, point: &str) -> Option<f64> {
        let Self::Measured(floor) = self else { return None };
        let exact = floor.by_prompt.get(&(prompt.to_owned(), step, point.to_owned()));
        exact.or_else(|| floor.by_point.get(&(step, point.to_owned()))).copied()
    }

    /// True when this very prompt was measured.
    pub fn knows_prompt(&self, prompt: &str) -> bool {
        match self {
            Self::Measured(floor) => floor.by_prompt.keys().any(|(p, ..)| p == prompt),
            Self::Preset | Self::Exact => false,
        }
    }

    /// `measured`, `preset` or `exact`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Preset => "preset",
            Self::Exact => "exact",
        }
    }

    /// What it is, in words.
    pub fn description(&self) -> String {
        match self {
            Self::Measured(floor) => floor.description.clone(),
            Self::Exact => "none: both sides must agree bit for bit".into(),
            Self::Preset => {
                "no floor arm was given: customary tolerances (F32 1e-5, F16 5e-3, BF16 3e-2)".into()
            }
        }
    }
}

impl Measured {
    fn insert(&mut self, prompt: String, step: u32, point: String, error: f64) {
        let largest = self.by_point.entry((step, point.clone())).or_insert(error);
        *largest = largest.max(error);
        self.by_prompt.insert((prompt, step, point), error);
    }
}
