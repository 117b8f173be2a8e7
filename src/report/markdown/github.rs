//! The report as GitHub shows it in a comment or in a step's summary: no picture lies beside it there, so that the
//! curve is text, and the size is limited.

use super::super::escape::html_text;
use super::super::stops;
use super::super::terminal::{WIDEST, curve};
use super::super::text::{tail, word};
use super::super::{Outcome, Report, ReportSet};
use super::provenance::{provenance, provenance_set};
use super::set::{Links, bounds, engines, overview};
use super::{Room, Sections, facts, faults, fitted, folded, head, layers, named, prompts, ratios, warned};

/// Columns of the curve: a comment is no wider.
const WIDTH: usize = 88;

/// Renders the report in fewer than 65,000 bytes.
pub fn github(report: &Report) -> String {
    fitted(|room| {
        let mut sections = vec![head(report, room.chars), faulty(report, room), fenced(report)];
        sections.push([vec![String::new()], facts(report, room.chars)].concat());
        sections.push(warned(report, room.rows, room.chars));
        sections.push(folded("By layer", false, layers(report, room.rows)));
        sections.push(folded("Prompts", false, prompts(report, room.rows)));
        sections.push(folded("Local errors", false, ratios::table(&report.ratios, room.rows)));
        sections.push(provenance(report, room.chars));
        sections
    })
}

/// Renders the report of several engines in fewer than 65,000 bytes.
pub fn github_set(set: &ReportSet) -> String {
    fitted(|room| {
        let mut sections: Sections = vec![overview(set, Links::None, room.chars)];
        sections.push([vec![String::new()], engines(set, room.chars)].concat());
        // Those with a fault first: what is cut is cut from the end.
        let rank = |report: &&Report| report.outcome != Outcome::Fault;
        let mut reports: Vec<&Report> = set.reports().iter().collect();
        reports.sort_by_key(rank);
        sections.extend(reports.into_iter().take(room.rows).map(|report| engine(report, room)));
        sections.push(folded("Local errors", false, bounds(set, room.chars)));
        sections.push(provenance_set(set, room.chars));
        sections
    })
}

/// One engine of several: folded, but open where it has a fault.
pub(crate) fn engine(report: &Report, room: Room) -> Vec<String> {
    let summary = format!(
        "<code>{}</code>: {}, error by layer",
        html_text(&tail(&report.engine, 60)),
        word(report.outcome)
    );
    let lines = [faulty(report, room), fenced(report)].concat();
    folded(&summary, report.outcome == Outcome::Fault, lines)
}

/// The faults, and the names of those that have no row.
fn faulty(report: &Report, room: Room) -> Vec<String> {
    let mut lines = faults(report, room.faults, room.chars);
    let points = stops::faulty_points(report);
    let rest = points.len().saturating_sub(room.faults);
    if rest > 0 {
        let named: Vec<String> =
            points.iter().skip(room.faults).take(room.names).map(|p| named(&p.worst.point)).collect();
        let more = match rest - named.len() {
            0 => String::new(),
            n => format!(" … {n} more, in report.json"),
        };
        lines.extend([String::new(), format!("Born also at {}.{more}", named.join(", "))]);
    }
    lines
}

/// The terminal's bars as a block of text, in a fence that nothing in it can close.
fn fenced(report: &Report) -> Vec<String> {
    let lines = curve(report, WIDTH.min(WIDEST));
    let longest = lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(3.max(longest + 1));
    let mut block = vec![String::new(), format!("{fence}text")];
    block.extend(lines);
    block.push(fence);
    block
}

#[cfg(test)]
mod tests;
