//! How near to their bounds the local errors come, for each kind of component.

use super::markdown::named;
use super::rows::Row;
use super::text::multiple;
use crate::model::Op;
use serde::{Deserialize, Serialize};

/// The ratios of local error to bound of one kind of component, over all prompts and steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Ratios {
    pub op: Op,
    /// How many points were judged, each step and prompt counted.
    pub points: u64,
    /// The middle ratio; of an even number the lower one of both in the middle.
    #[serde(with = "crate::number")]
    pub median: f64,
    #[serde(with = "crate::number")]
    pub max: f64,
    /// Where the ratio is largest: the first such place in order of execution.
    pub point: String,
    pub step: u32,
    pub prompt: String,
}

/// Those of all kinds that were replayed, the largest ratio first.
pub(super) fn ratios(rows: &[Row<'_>]) -> Vec<Ratios> {
    let mut kinds: Vec<(Op, Vec<f64>, &Row<'_>)> = Vec::new();
    for row in rows {
        let Some(op) = row.pair.component.map(|c| c.op) else { continue };
        let Some(ratio) = local(row) else { continue };
        match kinds.iter_mut().find(|(known, ..)| *known == op) {
            Some((_, all, largest)) => {
                all.push(ratio);
                if local(largest).is_some_and(|most| ratio > most) {
                    *largest = row;
                }
            }
            None => kinds.push((op, vec![ratio], row)),
        }
    }
    let mut out: Vec<Ratios> =
        kinds.into_iter().map(|(op, all, largest)| of_kind(op, all, largest)).collect();
    // Stable: kinds of one size stay in order of execution.
    out.sort_by(|a, b| b.max.total_cmp(&a.max));
    out
}

fn local(row: &Row<'_>) -> Option<f64> {
    Some(row.judgement.as_ref()?.local.as_ref()?.ratio)
}

fn of_kind(op: Op, mut all: Vec<f64>, largest: &Row<'_>) -> Ratios {
    all.sort_by(f64::total_cmp);
    Ratios {
        op,
        points: all.len() as u64,
        median: all[(all.len() - 1) / 2],
        max: *all.last().expect("each kind has a row"),
        point: largest.pair.point.to_owned(),
        step: largest.pair.step,
        prompt: largest.pair.prompt.to_owned(),
    }
}

/// Lines of the table beside its rows.
pub(super) const HEAD: usize = 5;

/// A table of the kinds that come nearest to their bounds, of at most `most` rows.
pub(super) fn table(ratios: &[Ratios], most: usize) -> Vec<String> {
    if ratios.is_empty() {
        return Vec::new();
    }
    let points: u64 = ratios.iter().map(|r| r.points).sum();
    let left_out = match ratios.len().saturating_sub(most) {
        0 => String::new(),
        n => format!("; {n} kinds with smaller ones are in report.json"),
    };
    let mut lines = vec![
        String::new(),
        format!("**Local error ÷ bound** of {points} replayed points{left_out}"),
        String::new(),
        "| kind | points | median | largest | where | step | prompt |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(ratios.iter().take(most).map(|r| {
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            name(r.op),
            r.points,
            shown(r.median),
            shown(r.max),
            named(&r.point),
            r.step,
            named(&r.prompt)
        )
    }));
    lines
}

/// The largest ratio of each kind for each of several engines, with its name; the kind that comes nearest to its
/// bound first.
pub(super) fn by_engine(engines: &[(String, &[Ratios])]) -> Vec<String> {
    let mut kinds: Vec<(Op, f64)> = Vec::new();
    for ratios in engines.iter().flat_map(|(_, all)| *all) {
        match kinds.iter_mut().find(|(op, _)| *op == ratios.op) {
            Some((_, most)) => *most = most.max(ratios.max),
            None => kinds.push((ratios.op, ratios.max)),
        }
    }
    if kinds.is_empty() {
        return Vec::new();
    }
    kinds.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let names: Vec<&str> = engines.iter().map(|(name, _)| name.as_str()).collect();
    let mut lines = vec![
        "**Largest local error ÷ bound** of each kind of component; above 1 it is a fault, – was not replayed"
            .to_owned(),
        String::new(),
        format!("| kind | {} |", names.join(" | ")),
        format!("|---|{}", "---|".repeat(names.len())),
    ];
    lines.extend(kinds.iter().map(|(op, _)| {
        let of = |(_, all): &(String, &[Ratios])| {
            let found = all.iter().find(|ratios| ratios.op == *op);
            found.map_or_else(|| "–".to_owned(), |ratios| shown(ratios.max))
        };
        format!("| {} | {} |", name(*op), engines.iter().map(of).collect::<Vec<_>>().join(" | "))
    }));
    lines.push(String::new());
    lines
}

/// A ratio with two decimals, where that says enough.
fn shown(ratio: f64) -> String {
    if (0.01..10.0).contains(&ratio) { format!("{ratio:.2}") } else { multiple(ratio) }
}

/// The kind's name as descriptions have it.
fn name(op: Op) -> String {
    let name = serde_json::to_value(op).expect("a word");
    name.as_str().unwrap_or_default().replace('_', " ")
}
