//! `report.json`: the report itself. Markdown and plots only render it.

use super::arms::{Arms, Figures, TokenError};
use super::details::{HeadErrors, PointByValue, PromptErrors};
use super::ratios::Ratios;
use super::replays::NotReplayed;
pub use crate::localize::{Side, State};
use crate::metrics::Metrics;
use crate::trace::{Provenance, SelfCheck};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All that was asked for was compared, and nothing errs beyond what the floor explains.
    Pass,
    /// A component errs.
    Fault,
    /// The input was unusable, or the self-check failed.
    Invalid,
    /// Nothing, or less than was asked for, could be compared.
    Unmeasured,
}

impl Outcome {
    /// The worst: a fault outweighs what is invalid, and that what is unmeasured; of nothing, unmeasured.
    pub fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        let rank = |outcome: &Self| match outcome {
            Self::Pass => 0,
            Self::Unmeasured => 1,
            Self::Invalid => 2,
            Self::Fault => 3,
        };
        all.into_iter().max_by_key(rank).unwrap_or(Self::Unmeasured)
    }

    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fault => 1,
            Self::Invalid | Self::Unmeasured => 2,
        }
    }
}

/// A comparison of a candidate with a reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// `layerdiff-report`.
    pub format: String,
    /// Version of these keys.
    pub version: u32,
    /// The result in one word.
    pub outcome: Outcome,
    /// The result in sentences.
    pub verdict: Verdict,
    /// The candidate's engine.
    pub engine: String,
    /// The prompt with the first fault, else the one with the largest error.
    pub prompt_id: String,
    /// Each prompt's result, in the order of the set.
    pub prompts: Vec<PromptReport>,
    /// Name of the architecture description.
    pub architecture: String,
    /// The type of each layer.
    pub layer_types: Vec<String>,
    /// How much of what was asked for was compared, over all prompts and steps.
    pub coverage: Coverage,
    /// Whether the capture disturbed the candidate.
    pub self_check: SelfCheck,
    /// The first fault in order of execution.
    pub first_fault: Option<Fault>,
    /// All faults, in order of execution.
    pub faults: Vec<Fault>,
    /// What the faulty components compute instead, in the order of the faults; of one component all formulas
    /// that cannot be told apart.
    pub diagnosis: Vec<Diagnosis>,
    /// How near to their bounds the local errors come, for each kind of component that was replayed.
    #[serde(default)]
    pub ratios: Vec<Ratios>,
    /// Why components could not be replayed, the most frequent reason first.
    #[serde(default)]
    pub replay_unmeasured: Vec<NotReplayed>,
    /// Where the total error starts to grow beyond what the floor explains.
    pub growth: Growth,
    /// What the floor is.
    pub floor: FloorReport,
    /// Which arms were run.
    pub arms: Arms,
    /// The point with the largest error that the candidate adds; with the largest total error where only
    /// that is known.
    pub worst: Option<Figures>,
    /// The point where quantization costs most; none where it was not measured, or costs nothing.
    pub dearest: Option<Figures>,
    /// The errors of the logits over the positions of `prompt_id`.
    pub by_token: Vec<TokenError>,
    /// Each point and step; of several prompts the one with the largest error.
    pub points: Vec<PointReport>,
    /// The errors by head of each point that has heads.
    #[serde(default)]
    pub heads: Vec<HeadErrors>,
    /// The errors by the size of the value, of the worst point of each component.
    #[serde(default)]
    pub by_value: Vec<PointByValue>,
    /// The errors at all points of some prompts, the worst first; empty where there is only one.
    #[serde(default)]
    pub by_prompt: Vec<PromptErrors>,
    /// What a reader should know before trusting the result.
    pub warnings: Vec<String>,
    /// Where everything came from.
    pub provenance: ReportProvenance,
}

impl Report {
    /// Says what the tokens of the prompts stand for, the first of each, as far as `text` knows.
    pub fn name_tokens(&mut self, text: impl Fn(u32) -> Option<String>) {
        for prompt in &mut self.prompts {
            let ids = prompt.token_ids.iter().chain(&prompt.step_token_ids).take(NAMED_TOKENS);
            prompt.token_texts = ids.map(|id| text(*id).unwrap_or_default()).collect();
        }
    }
}

/// Tokens of a prompt whose texts a report keeps.
const NAMED_TOKENS: usize = 1000;

/// The result for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// One sentence.
    pub headline: String,
    /// Why, one step a sentence.
    pub reasoning: Vec<String>,
    /// What it rests on: `growth` of the total error, or `replay`.
    pub rests_on: String,
}

/// One prompt's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PromptReport {
    pub id: String,
    pub category: Option<String>,
    /// The start of its text, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub tokens: usize,
    pub token_ids: Vec<u32>,
    /// The token that each decode step was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_token_ids: Vec<u32>,
    /// What each token stands for, then each of the decode steps, as far as the model's tokenizer is at hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_texts: Vec<String>,
    pub outcome: Outcome,
    pub coverage: Coverage,
    /// The point with the largest relative error, and that error.
    pub worst_point: Option<String>,
    #[serde(with = "crate::number::option", default)]
    pub worst_rel_l2: Option<f64>,
    pub first_fault: Option<String>,
}

/// Counts of points. `expected = matched + mismatched + unmeasured`, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Points that the architecture has, as far as they were asked for.
    pub expected: u64,
    /// Points that were compared.
    pub matched: u64,
    /// Points that both sides have in incompatible form: another shape or kind of dtype.
    pub mismatched: u64,
    /// Points that a side lacks.
    pub unmeasured: u64,
}

impl Coverage {
    /// The sum of two counts.
    pub fn plus(self, other: Self) -> Self {
        Self {
            expected: self.expected + other.expected,
            matched: self.matched + other.matched,
            mismatched: self.mismatched + other.mismatched,
            unmeasured: self.unmeasured + other.unmeasured,
        }
    }
}

/// A component that errs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Fault {
    pub point: String,
    /// The side that errs. The reference does where replay proves it, and the candidate sound.
    #[serde(default)]
    pub side: Side,
    pub layer: Option<usize>,
    /// The point's name within its layer: `self_attn.k_rope`.
    pub component: String,
    pub step: u32,
    pub prompt: String,
    /// The error, as a multiple of the largest that is explained.
    #[serde(with = "crate::number")]
    pub ratio: f64,
    #[serde(with = "crate::number")]
    pub rel_l2: f64,
    /// Why this is a fault.
    pub reason: String,
}

/// What a faulty component computes instead, or what its error looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The component's point.
    pub point: String,
    /// The formula that reproduces its output, in words; `none` where no known one does.
    pub name: String,
    /// The formula's short name; null where there is none.
    #[serde(default)]
    pub id: Option<String>,
    /// What is left of the error, as a multiple of its bound.
    #[serde(with = "crate::number")]
    pub residual_ratio: f64,
    /// The share of the error that is left, in relative L2 error.
    #[serde(with = "crate::number")]
    pub left: f64,
    /// True where what is left is rounding.
    pub to_rounding: bool,
    /// What the error looks like.
    pub description: String,
}

impl Diagnosis {
    /// True where a known formula reproduces the output.
    pub fn is_named(&self) -> bool {
        self.id.is_some()
    }
}

/// Where the total error starts to grow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Growth {
    pub first_layer: Option<usize>,
    pub first_point: Option<String>,
    pub step: Option<u32>,
    pub prompt: Option<String>,
    /// Of all explained points, the largest multiple of its harmless causes that an error is.
    #[serde(with = "crate::number::option", default)]
    pub largest_factor: Option<f64>,
}

/// What the total error is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorReport {
    /// `measured`, or `preset` when no floor arm was given.
    pub kind: String,
    /// In words, with the source.
    pub description: String,
}

/// One point of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointReport {
    /// The point's name.
    pub point: String,
    /// 0 is the prefill.
    pub step: u32,
    /// The prompt whose numbers these are.
    pub prompt: String,
    /// The layer's number.
    pub layer: Option<usize>,
    /// The curve it belongs to.
    pub family: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is compared and what became of it.
    pub state: State,
    /// Why it is mismatched or unmeasured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// The metrics of the total error, C − T; absent when it was not compared.
    #[serde(flatten)]
    pub metrics: Option<Metrics>,
    /// Relative L2 error of each floor arm, F − T, by its precision.
    #[serde(with = "crate::number::map", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub floors: BTreeMap<String, f64>,
    /// Relative L2 error of arm Q, Q − T; null when it was not measured.
    #[serde(with = "crate::number::option", default)]
    pub quantization: Option<f64>,
    /// Relative L2 error that the candidate adds, C − Q; null when it was not measured.
    #[serde(with = "crate::number::option", default)]
    pub engine_error: Option<f64>,
    /// True where the candidate is judged against arm Q.
    #[serde(default)]
    pub armed: bool,
    /// All metrics of C − Q, where arm Q was run; else Q is T.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine_metrics: Option<Metrics>,
    /// What the error is held against here: the floor arm's relative L2 error, in a decode step at the least
    /// that in the prefill.
    #[serde(with = "crate::number::option", default)]
    pub floor: Option<f64>,
    /// The largest relative L2 error that is explained here.
    #[serde(with = "crate::number::option", default)]
    pub explained: Option<f64>,
    /// Local error by replay as a multiple of its bound; null when it was not replayed.
    #[serde(with = "crate::number::option", default)]
    pub local_ratio: Option<f64>,
    /// Why it could not be replayed, in one of the prompts at the least.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replay_unmeasured: Option<String>,
}

impl PointReport {
    /// The metrics that the candidate is judged by: against arm Q where that was run.
    pub fn judged(&self) -> Option<&Metrics> {
        if self.armed { self.engine_metrics.as_ref() } else { self.metrics.as_ref() }
    }
}

/// Origin of both sides and of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReportProvenance {
    pub layerdiff: String,
    pub command: Vec<String>,
    pub reference: Provenance,
    pub candidate: Provenance,
}
