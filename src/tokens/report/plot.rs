//! The pictures: KL divergence by position, and where the greedy runs part.

use super::TokenReport;
use crate::error::Result;
use crate::report::{draw_bars, draw_positions};
use crate::tokens::gate::{Criterion, Metric};
use std::path::Path;

/// The gate's limits of the KL divergence, over the positions that count.
pub(super) fn limits(report: &TokenReport) -> Vec<(String, Vec<f64>)> {
    let line = |criterion: &Criterion| {
        let of = &criterion.of;
        let figure = match of.metric {
            Metric::MeanKl => "mean",
            Metric::P99Kl => "99 of 100",
            Metric::MaxKl => "largest",
            _ => return None,
        };
        let (word, at) = of.at_most.map(|at| ("at most", at)).or(of.at_least.map(|at| ("at least", at)))?;
        let tokens = report.setting.tokens;
        // Of so many positions of all prompts together, and not of each.
        let which = of.first.map_or_else(|| "all".to_owned(), |first| format!("the first {first}"));
        Some((format!("gate: {figure} of {which} {word} {at}"), vec![at; of.first.unwrap_or(tokens)]))
    };
    report.gate.criteria.iter().filter_map(line).collect()
}

pub(super) fn draw(report: &TokenReport, dir: &Path) -> Result<()> {
    let against = format!("{} against {}", report.engine, report.reference.engine);
    let of = |figure: &dyn Fn(&super::Summary) -> f64| report.by_position.iter().map(figure).collect();
    let curves = [
        ("mean", of(&|s| s.mean)),
        ("median", of(&|s| s.median)),
        ("95 of 100 prompts", of(&|s| s.p95)),
        ("largest", of(&|s| s.max)),
    ];
    let title = format!("KL divergence by position: {against}");
    let tokens = report.setting.tokens;
    let limits = limits(report);
    let lines: Vec<_> = limits.iter().map(|(name, values)| (name.as_str(), values.clone())).collect();
    draw_positions((&title, "KL, nats", report.outcome), (&curves, &lines), (dir, "kl"))?;
    let mut bars: Vec<(String, usize)> = report
        .greedy
        .histogram
        .iter()
        .map(|bin| match bin.to - bin.from {
            1 => (bin.from.to_string(), bin.prompts),
            _ => (format!("{}–{}", bin.from, bin.to - 1), bin.prompts),
        })
        .collect();
    bars.push(("never".to_owned(), report.greedy.exact.of));
    let title = format!("First divergence: {against}, {tokens} greedy tokens");
    draw_bars(
        (&title, "prompts", "position of the first other token", report.outcome),
        &bars,
        (dir, "divergence"),
    )?;
    Ok(())
}
