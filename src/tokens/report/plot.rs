//! The pictures: KL divergence by position, and where the greedy runs part.

use super::TokenReport;
use crate::error::Result;
use crate::report::{draw_bars, draw_positions};
use std::path::Path;

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
    draw_positions((&title, "KL, nats", report.outcome), &curves, (dir, "kl"))?;
    let tokens = report.setting.tokens;
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
