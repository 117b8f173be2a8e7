//! What pictures need beyond each point's figures, of bounded size: errors by head, by the size of the value, and
//! by prompt.

use super::assemble::Options;
use super::json::{PointReport, PromptReport, State};
use super::rows::Row;
use crate::align::{Partner, common_rows};
use crate::basis::{Gains, Restored};
use crate::compare::{head_axis, metrics_of, sides};
use crate::elements::Picked;
use crate::metrics::{self, ErrorsByValue, Metrics};
use crate::model::Graph;
use crate::online::{Key, Measured};
use crate::trace::Trace;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The errors of each head of a point, in the prompt and step with the largest error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HeadErrors {
    pub point: String,
    pub step: u32,
    pub prompt: String,
    /// The axis that counts them: `heads`, `kv_heads`, ….
    pub axis: String,
    /// Relative L2 error of each head's elements, that the candidate is judged by.
    #[serde(with = "crate::number::list")]
    pub rel_l2: Vec<f64>,
}

/// How large a point's errors are at values of which size, in the prompt and step with the largest error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PointByValue {
    pub point: String,
    pub step: u32,
    pub prompt: String,
    #[serde(flatten)]
    pub counts: ErrorsByValue,
}

/// The errors of one prompt at all points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptErrors {
    /// The prompt.
    pub prompt: String,
    /// At the report's `points`, in their order.
    pub points: Vec<PromptError>,
}

/// The errors of one prompt at one point and step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptError {
    /// Relative L2 error that the candidate is judged by; null where it was not compared.
    #[serde(with = "crate::number::option", default)]
    pub rel_l2: Option<f64>,
    /// That of the total error, C − T, by token; null for one that was not compared.
    #[serde(with = "crate::number::options", default)]
    pub per_token: Vec<Option<f64>>,
    /// That of C − Q, by token, where arm Q was run.
    #[serde(with = "crate::number::options", default, skip_serializing_if = "Vec::is_empty")]
    pub engine_per_token: Vec<Option<f64>>,
}

/// The traces that errors are between.
pub(super) struct Sides<'a> {
    pub reference: &'a Trace,
    pub candidate: &'a Trace,
    graph: &'a Graph,
    gains: &'a Gains,
    quantized: Option<&'a Trace>,
    /// What was found out while the candidate ran.
    measured: Option<&'a Measured>,
}

/// The rows whose errors are shown in detail.
pub(super) struct Chosen<'r, 'a> {
    /// The worst of each point that has heads.
    pub heads: Vec<&'r Row<'a>>,
    /// The worst of each component, and of each point where a fault is born.
    pub by_value: Vec<&'r Row<'a>>,
}

impl<'r, 'a> Chosen<'r, 'a> {
    pub fn of(graph: &Graph, rows: &'r [Row<'a>]) -> Self {
        let with_heads = |row: &Row<'_>| row.pair.component.is_some_and(|c| head_axis(graph, c).is_some());
        let heads = worst_by(rows, |row| with_heads(row).then(|| row.pair.point.to_owned()));
        let name = |row: &Row<'_>| row.pair.component.map_or(row.pair.point, |c| c.name()).to_owned();
        let mut by_value = worst_by(rows, |row| Some(name(row)));
        let born = worst_by(rows, |row| is_born(row).then(|| row.pair.point.to_owned()));
        for row in born.into_iter().take(FAULTS) {
            if !by_value.iter().any(|known| std::ptr::eq(*known, row)) {
                by_value.push(row);
            }
        }
        Self { heads, by_value }
    }
}

impl<'a> Sides<'a> {
    pub fn new(reference: &'a Trace, candidate: &'a Trace, options: &Options<'a>) -> Self {
        let Options { graph, gains, quantized, live, .. } = *options;
        Self { reference, candidate, graph, gains, quantized, measured: live.map(|live| live.measured) }
    }

    /// Both sides of a row that the candidate is judged by, in the original basis; none where they were not
    /// compared.
    fn of(&self, row: &Row<'_>) -> Option<[Picked<Restored<'_>>; 2]> {
        self.with_rows(row).map(|(sides, _)| sides)
    }

    /// The same, with the rows that are all that both have.
    #[allow(clippy::type_complexity)]
    fn with_rows(&self, row: &Row<'_>) -> Option<([Picked<Restored<'_>>; 2], Option<Vec<usize>>)> {
        row.judged()?;
        let pair = &row.pair;
        let Partner::Matched(..) = pair.partner else { return None };
        let base = if row.armed { self.quantized? } else { self.reference };
        let r = base.find(pair.prompt, pair.step, pair.point)?;
        let c = self.candidate.find(pair.prompt, pair.step, pair.point)?;
        // Arm Q may have other rows than the reference.
        let rows = common_rows(r, c);
        let both =
            sides(self.graph, pair.component, rows.as_deref(), (base, r), (self.candidate, c), self.gains)?;
        Some((both, rows))
    }

    /// The metrics of a row that the candidate is judged by, from the values that are there.
    pub(super) fn metrics(&self, row: &Row<'_>) -> Option<Metrics> {
        let (both, rows) = self.with_rows(row)?;
        Some(metrics_of(self.graph, row.pair.component, rows.as_deref(), both))
    }

    /// What was found out about a row while the candidate ran.
    fn live(&self, row: &Row<'_>) -> Option<(&Measured, Key)> {
        Some((self.measured?, row.key()))
    }

    /// The errors by head of each point that has heads.
    pub(super) fn heads(&self, chosen: &Chosen<'_, '_>) -> Vec<HeadErrors> {
        let graph = self.graph;
        let heads = chosen.heads.par_iter().filter_map(|row| {
            let component = row.pair.component?;
            let axis = head_axis(graph, component)?;
            let counted =
                self.live(row).and_then(|(measured, key)| measured.heads(&key).map(<[f64]>::to_vec));
            let rel_l2 = match counted {
                Some(counted) => counted,
                None => self.of(row).map(|[r, c]| metrics::rel_l2_along(r, c, axis))?,
            };
            Some(HeadErrors {
                point: row.pair.point.to_owned(),
                step: row.pair.step,
                prompt: row.pair.prompt.to_owned(),
                axis: graph.axes(component)[axis].clone(),
                rel_l2,
            })
        });
        heads.collect()
    }

    /// The errors by value of the worst point of each component, and of each point where a fault is born.
    pub(super) fn by_value(&self, chosen: &Chosen<'_, '_>) -> Vec<PointByValue> {
        let all = chosen.by_value.par_iter().filter_map(|row| {
            let counted = self.live(row).and_then(|(measured, key)| measured.by_value(&key).cloned());
            let counts = match counted {
                Some(counted) => counted,
                None => self.of(row).map(|[r, c]| ErrorsByValue::of(r, c))?,
            };
            Some(PointByValue {
                point: row.pair.point.to_owned(),
                step: row.pair.step,
                prompt: row.pair.prompt.to_owned(),
                counts,
            })
        });
        all.collect()
    }
}

/// Points where a fault is born whose errors are counted by value, beside the worst of each component.
const FAULTS: usize = 20;

fn is_born(row: &Row<'_>) -> bool {
    row.judgement.as_ref().is_some_and(|j| j.state == State::Born)
}

/// Of the rows of each key the worst, in the order in which the keys first appear: where a fault is born rather
/// than where one is inherited, then by error. NaN is the largest.
fn worst_by<'r, 'a>(rows: &'r [Row<'a>], key: impl Fn(&Row<'a>) -> Option<String>) -> Vec<&'r Row<'a>> {
    let badness = |row: &Row<'_>| {
        let error = row.judged().map_or(-1.0, |m| m.rel_l2);
        (is_born(row), if error.is_nan() { f64::INFINITY } else { error })
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut worst: Vec<&Row<'a>> = Vec::new();
    for row in rows.iter().filter(|row| row.judged().is_some()) {
        let Some(key) = key(row) else { continue };
        match places.get(&key) {
            None => {
                places.insert(key, worst.len());
                worst.push(row);
            }
            Some(&at) if badness(row) > badness(worst[at]) => worst[at] = row,
            Some(_) => {}
        }
    }
    worst
}

/// Prompts whose errors at all points are kept.
const PROMPTS: usize = 8;
/// Numbers that are kept of all of them together: the page must stay small.
const NUMBERS: usize = 40_000;

/// The errors by prompt of the worst prompts; none where there is only one, which `points` is of.
pub(super) fn by_prompt(
    rows: &[Row<'_>],
    points: &[PointReport],
    prompts: &[PromptReport],
) -> Vec<PromptErrors> {
    if prompts.len() < 2 {
        return Vec::new();
    }
    let error =
        |p: &PromptReport| p.worst_rel_l2.map_or(-1.0, |e| if e.is_nan() { f64::INFINITY } else { e });
    let mut order: Vec<&PromptReport> = prompts.iter().collect();
    let bad = |p: &PromptReport| p.outcome.exit_code() != 0;
    order.sort_by(|a, b| bad(b).cmp(&bad(a)).then(error(b).total_cmp(&error(a))));
    let places: HashMap<(u32, &str), usize> =
        points.iter().enumerate().map(|(i, p)| ((p.step, p.point.as_str()), i)).collect();
    let (mut kept, mut numbers) = (Vec::new(), 0);
    for prompt in order.into_iter().take(PROMPTS) {
        let mut errors = vec![PromptError::default(); points.len()];
        for row in rows.iter().filter(|row| row.pair.prompt == prompt.id) {
            let Some(&at) = places.get(&(row.pair.step, row.pair.point)) else { continue };
            let list = |m: &metrics::Metrics| m.per_token.iter().map(|v| v.map(short)).collect::<Vec<_>>();
            errors[at] = PromptError {
                rel_l2: row.judged().map(|m| short(m.rel_l2)),
                per_token: row.total.as_ref().map(list).unwrap_or_default(),
                engine_per_token: row.engine.as_ref().filter(|_| row.armed).map(list).unwrap_or_default(),
            };
        }
        numbers += errors.iter().map(|e| 1 + e.per_token.len() + e.engine_per_token.len()).sum::<usize>();
        if numbers > NUMBERS && !kept.is_empty() {
            break;
        }
        kept.push(PromptErrors { prompt: prompt.id.clone(), points: errors });
    }
    kept
}

/// A number with four digits, which is enough for a picture.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
