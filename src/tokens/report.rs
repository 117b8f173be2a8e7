//! The report of token metrics: a struct that is `report.json`, and the figures in it.

mod junit;
mod markdown;
mod plot;
#[cfg(test)]
mod tests;

use super::choice::Choices;
use super::gate::Gate;
use super::greedy::Greedy;
use super::position::{Position, Setting};
use super::statistics::{Share, Summary};
use crate::error::{Error, Result};
use crate::report::{Outcome, Report, first_diagnosis};
use crate::trace::{Evidence, Provenance, SelfCheck};
pub(crate) use junit::suite;
pub use markdown::{tokens_github, tokens_markdown, tokens_terminal};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is known of one prompt: everything that a report is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Record {
    pub prompt: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    pub greedy: Greedy,
    /// After the reference's tokens, one for each.
    pub positions: Vec<Position>,
    /// Tokens of both sides, drawn at the setting's temperature with the same random numbers.
    pub sampled: [Vec<u32>; 2],
    /// KL divergence of PyTorch in f64 from the reference at each position; empty where that was not run.
    pub floor: Vec<f64>,
    /// What the self-check of the candidate's run compared.
    pub self_check: Vec<Evidence>,
}

/// `report.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenReport {
    /// `layerdiff-token-report`.
    pub format: String,
    pub version: u32,
    /// `pass` or `fault` by the gate; `unmeasured` where it could not be measured.
    pub outcome: Outcome,
    pub headline: String,
    pub engine: String,
    pub setting: Setting,
    pub gate: Gate,
    pub greedy: GreedySummary,
    pub distribution: DistributionSummary,
    pub sampling: Sampling,
    pub choices: Option<Choices>,
    pub self_check: SelfCheck,
    /// The prompts whose token metrics are worst, first those that part early.
    pub worst: Vec<WorstPrompt>,
    pub prompts: Vec<PromptSummary>,
    pub reference: Provenance,
    pub candidate: Provenance,
    pub layerdiff: String,
    pub command: Vec<String>,
    #[serde(skip)]
    pub(super) by_position: Vec<Summary>,
}

/// The greedy runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GreedySummary {
    /// Equal tokens of the first n, each in its place.
    pub matches: Vec<MatchRate>,
    /// Prompts of which all tokens are equal.
    pub exact: Share,
    /// How many prompts part at positions from..to; `to` is the next one's `from`.
    pub histogram: Vec<Bin>,
    /// Divergences at which the reference itself might have gone either way; null where the floor is unknown.
    pub ties: Option<usize>,
}

/// Equal tokens among the first `first` of every prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MatchRate {
    pub first: usize,
    pub share: Share,
}

/// A bin of the histogram of first divergences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Bin {
    pub from: usize,
    pub to: usize,
    pub prompts: usize,
}

/// The distributions after the reference's tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DistributionSummary {
    /// In nats.
    pub kl: Option<Summary>,
    /// What PyTorch in f64 gives instead of the candidate.
    pub kl_floor: Option<Summary>,
    pub total_variation: Option<Summary>,
    pub top1: Share,
    /// Share of the five likeliest that are the same.
    #[serde(with = "crate::number")]
    pub top5: f64,
    /// Probability of the reference's token, candidate less reference.
    pub delta_p: Option<Summary>,
    /// Of the reference's tokens, in the reference.
    #[serde(with = "crate::number")]
    pub perplexity_reference: f64,
    #[serde(with = "crate::number")]
    pub perplexity_candidate: f64,
    pub tempered_kl: Option<Summary>,
    pub tempered_total_variation: Option<Summary>,
}

/// Sampling with the same random numbers on both sides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Sampling {
    /// Equal draws after the reference's tokens.
    pub agreement: Share,
    /// What the total variations allow: the mean of 1 − 2 TV / (1 + TV), and of 1 − TV.
    #[serde(with = "crate::number::list")]
    pub expected: [f64; 2],
    /// Tokens of free runs before the first other one: mean over the prompts.
    #[serde(with = "crate::number")]
    pub mean_common_run: f64,
    /// Free runs that are equal throughout.
    pub equal_runs: Share,
}

/// One line for each prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PromptSummary {
    pub id: String,
    pub tokens: usize,
    /// Where the greedy runs part; null where they do not.
    pub divergence: Option<usize>,
    #[serde(with = "crate::number")]
    pub mean_kl: f64,
    #[serde(with = "crate::number")]
    pub max_kl: f64,
}

/// One of the worst prompts, with both texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WorstPrompt {
    pub id: String,
    /// How the prompt ends.
    pub prompt: String,
    /// What both sides have in common, and how each goes on.
    pub common: String,
    pub reference: String,
    pub candidate: String,
    pub greedy: Greedy,
    /// The likeliest tokens at the divergence as texts: reference, candidate.
    pub top: [Vec<(String, f64)>; 2],
    /// The layers at that very token; none where they were not looked at.
    pub layers: Option<LayerLink>,
}

/// What the layers say of one token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LayerLink {
    pub outcome: Outcome,
    pub headline: String,
    pub rests_on: String,
    /// Where it starts: the first faulty component, if there is one.
    pub first_fault: Option<String>,
    /// What that component computes instead, if it has a name.
    pub diagnosis: Option<String>,
    /// The output of each layer: name, total error, price of quantization, what the engine adds.
    pub curve: Vec<LayerError>,
}

/// The relative L2 errors of one layer's output at the token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LayerError {
    pub point: String,
    #[serde(with = "crate::number::option")]
    pub total: Option<f64>,
    #[serde(with = "crate::number::option")]
    pub quantization: Option<f64>,
    #[serde(with = "crate::number::option")]
    pub engine: Option<f64>,
}

impl LayerLink {
    /// Where the layers could not be looked at.
    pub fn failed(error: &Error) -> Self {
        Self {
            outcome: Outcome::Invalid,
            headline: format!("INVALID: {error}"),
            rests_on: "nothing".to_owned(),
            first_fault: None,
            diagnosis: None,
            curve: Vec::new(),
        }
    }

    /// From a report of this token alone: its last step.
    pub fn new(report: &Report) -> Self {
        let step = report.points.iter().map(|p| p.step).max().unwrap_or(0);
        let output = |name: &str| {
            name.strip_prefix("model.layers.").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
                || !name.contains(".layers.")
        };
        let at_step = report.points.iter().filter(|p| p.step == step && output(&p.point));
        let curve = at_step.map(|p| LayerError {
            point: p.point.clone(),
            total: p.metrics.as_ref().map(|m| m.rel_l2),
            quantization: p.quantization,
            engine: p.engine_error,
        });
        Self {
            outcome: report.outcome,
            headline: report.verdict.headline.clone(),
            rests_on: report.verdict.rests_on.clone(),
            first_fault: report.first_fault.as_ref().map(|f| f.point.clone()),
            diagnosis: first_diagnosis(report),
            curve: curve.collect(),
        }
    }
}

/// How many tokens the match rate is given for.
const FIRST: [usize; 3] = [1, 10, 50];

/// Edges of the histogram's bins.
const EDGES: [usize; 9] = [0, 1, 2, 5, 10, 20, 50, 100, 200];

/// Who ran, with what.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Origin {
    pub engine: String,
    pub reference: Provenance,
    pub candidate: Provenance,
    pub command: Vec<String>,
}

impl TokenReport {
    /// Adds up the records.
    pub fn new(
        origin: Origin,
        setting: Setting,
        records: &[Record],
        choices: Option<Choices>,
        gate: Gate,
        worst: Vec<WorstPrompt>,
    ) -> Self {
        let outcome = match gate.passes() {
            Some(true) => Outcome::Pass,
            Some(false) => Outcome::Fault,
            None => Outcome::Unmeasured,
        };
        let failed: Vec<&str> =
            gate.criteria.iter().filter(|c| c.pass == Some(false)).map(|c| c.name.as_str()).collect();
        let headline = match outcome {
            Outcome::Pass => format!("all criteria of profile {} are met", gate.profile),
            Outcome::Fault => format!("profile {} is not met: {}", gate.profile, failed.join("; ")),
            _ => {
                let missing = gate.criteria.iter().filter(|c| c.pass.is_none()).map(|c| c.name.as_str());
                let missing: Vec<&str> = missing.collect();
                format!("not measured, with {} tokens a prompt: {}", setting.tokens, missing.join("; "))
            }
        };
        Self {
            format: "layerdiff-token-report".into(),
            version: 1,
            outcome,
            headline,
            engine: origin.engine,
            setting,
            gate,
            greedy: greedy(records, setting.tokens),
            distribution: distribution(records),
            sampling: sampling(records),
            choices,
            self_check: SelfCheck::over(records.iter().flat_map(|r| r.self_check.iter().cloned())),
            worst,
            prompts: records.iter().map(PromptSummary::new).collect(),
            reference: origin.reference,
            candidate: origin.candidate,
            layerdiff: env!("CARGO_PKG_VERSION").into(),
            command: origin.command,
            by_position: by_position(records, setting.tokens),
        }
    }
}

/// The records in the order of what is worst: those that part, the earliest first, then by their divergence.
pub fn worst_first(records: &[Record]) -> Vec<&Record> {
    let mut order: Vec<&Record> = records.iter().collect();
    let parts = |r: &Record| r.greedy.divergence.as_ref().map_or(usize::MAX, |d| d.position);
    let kl = |r: &Record| PromptSummary::new(r).mean_kl;
    order.sort_by(|a, b| parts(a).cmp(&parts(b)).then(kl(b).total_cmp(&kl(a))).then(a.prompt.cmp(&b.prompt)));
    order
}

impl PromptSummary {
    fn new(record: &Record) -> Self {
        let kl = Summary::of(&record.positions.iter().map(|p| p.kl).collect::<Vec<_>>());
        Self {
            id: record.prompt.clone(),
            tokens: record.prompt_tokens,
            divergence: record.greedy.divergence.as_ref().map(|d| d.position),
            mean_kl: kl.map_or(f64::NAN, |s| s.mean),
            max_kl: kl.map_or(f64::NAN, |s| s.max),
        }
    }
}

fn greedy(records: &[Record], tokens: usize) -> GreedySummary {
    let mut firsts: Vec<usize> = FIRST.into_iter().filter(|n| *n < tokens).collect();
    firsts.push(tokens);
    let rate = |first: usize| {
        let all = records.iter().map(|r| r.greedy.reference.len().min(first)).sum();
        let same = records.iter().map(|r| r.greedy.matches(first)).sum();
        MatchRate { first, share: Share::new(same, all) }
    };
    let divergences = || records.iter().filter_map(|r| r.greedy.divergence.as_ref());
    let edges: Vec<usize> = EDGES.into_iter().filter(|e| *e < tokens).chain([tokens]).collect();
    let bins = edges.windows(2).map(|edge| Bin {
        from: edge[0],
        to: edge[1],
        prompts: divergences().filter(|d| (edge[0]..edge[1]).contains(&d.position)).count(),
    });
    let known: Option<Vec<bool>> = divergences().map(super::Divergence::is_tie).collect();
    GreedySummary {
        matches: firsts.into_iter().map(rate).collect(),
        exact: Share::new(records.len() - divergences().count(), records.len()),
        histogram: bins.collect(),
        ties: known.map(|ties| ties.into_iter().filter(|tie| *tie).count()),
    }
}

fn distribution(records: &[Record]) -> DistributionSummary {
    let all: Vec<&Position> = records.iter().flat_map(|r| &r.positions).collect();
    let summary = |of: &dyn Fn(&Position) -> f64| Summary::of(&all.iter().map(|p| of(p)).collect::<Vec<_>>());
    let mean = |of: &dyn Fn(&Position) -> f64| summary(of).map_or(f64::NAN, |s| s.mean);
    let floor: Vec<f64> = records.iter().flat_map(|r| r.floor.iter().copied()).collect();
    DistributionSummary {
        kl: summary(&|p| p.kl),
        kl_floor: Summary::of(&floor),
        total_variation: summary(&|p| p.tv),
        top1: Share::new(all.iter().filter(|p| p.top1).count(), all.len()),
        top5: mean(&|p| p.top5 as f64 / super::position::TOP as f64),
        delta_p: summary(&|p| p.candidate.exp() - p.reference.exp()),
        perplexity_reference: (-mean(&|p| p.reference)).exp(),
        perplexity_candidate: (-mean(&|p| p.candidate)).exp(),
        tempered_kl: summary(&|p| p.tempered_kl),
        tempered_total_variation: summary(&|p| p.tempered_tv),
    }
}

fn sampling(records: &[Record]) -> Sampling {
    let all: Vec<&Position> = records.iter().flat_map(|r| &r.positions).collect();
    let mean =
        |of: &dyn Fn(f64) -> f64| all.iter().map(|p| of(p.tempered_tv)).sum::<f64>() / all.len() as f64;
    let common = |r: &Record| {
        let [a, b] = &r.sampled;
        super::greedy::first_difference(a, b).unwrap_or(a.len())
    };
    let runs = records.len();
    Sampling {
        agreement: Share::new(all.iter().filter(|p| p.drawn).count(), all.len()),
        expected: [mean(&|tv| 1.0 - 2.0 * tv / (1.0 + tv)), mean(&|tv| 1.0 - tv)],
        mean_common_run: records.iter().map(|r| common(r) as f64).sum::<f64>() / runs as f64,
        equal_runs: Share::new(records.iter().filter(|r| r.sampled[0] == r.sampled[1]).count(), runs),
    }
}

fn by_position(records: &[Record], tokens: usize) -> Vec<Summary> {
    let at = |i: usize| records.iter().filter_map(|r| r.positions.get(i)).map(|p| p.kl).collect::<Vec<_>>();
    (0..tokens).filter_map(|i| Summary::of(&at(i))).collect()
}

/// Writes report.json, report.md, the pictures and junit.xml into `dir`, which must exist.
pub fn write_tokens(report: &TokenReport, dir: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(report)
        .map_err(|e| Error::new(format!("cannot write the report as JSON: {e}")))?;
    for (name, text) in [("report.json", json + "\n"), ("report.md", tokens_markdown(report))] {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io("write the report", &path, &e))?;
    }
    crate::report::junit::write(&[suite(report)], dir)?;
    plot::draw(report, dir)
}
