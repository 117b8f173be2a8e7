//! The report: `report.json` and what renders it.

mod assemble;
mod escape;
mod json;
mod markdown;
mod plot;
#[cfg(test)]
mod sample;
mod stops;
mod terminal;
mod text;
mod verdict;
mod write;

pub use assemble::{Options, assemble};
pub use json::{
    Coverage, Diagnosis, Fault, FloorReport, Growth, Outcome, PointReport, PromptReport, Report,
    ReportProvenance, State, Verdict,
};
pub use markdown::markdown;
pub use plot::draw_all;
pub use terminal::terminal;
pub use write::write_all;

use crate::align::Pair;
use crate::localize::Judgement;
use crate::metrics::Metrics;

/// One pair with all that was found out about it.
struct Row<'a> {
    pair: Pair<'a>,
    metrics: Option<Metrics>,
    judgement: Option<Judgement>,
}
