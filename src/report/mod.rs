//! The report: `report.json` and what renders it.

mod again;
mod arms;
mod assemble;
mod captured;
mod details;
mod diagnosis;
mod escape;
mod html;
mod json;
pub(crate) mod junit;
mod markdown;
mod plot;
mod points;
mod prompts;
mod ratios;
mod read;
mod replays;
mod rows;
#[cfg(test)]
mod sample;
mod set;
mod stops;
mod terminal;
mod text;
mod verdict;
mod warnings;
mod write;

pub use again::Revisit;
pub use arms::{Arm, Arms, Figures, TokenError};
pub use assemble::{Live, Options, assemble};
pub use details::{HeadErrors, PointByValue, PromptError, PromptErrors};
pub(crate) use escape::{code, plain, prose};
pub use html::{html, html_set};
pub use json::{
    Coverage, Diagnosis, Fault, FloorReport, Growth, Outcome, PointReport, PromptReport, Report,
    ReportProvenance, Side, State, Verdict,
};
pub(crate) use markdown::{Room, Sections, command, cut, engine, fitted, folded, named, strong};
pub use markdown::{github, github_set, markdown, markdown_set};
pub use plot::{Measure, PictureKind, Wanted, draw_all, draw_bars, draw_engines, draw_positions};
pub(crate) use plot::{Scene, picture, picture_of_engines, png, svg};
pub use ratios::Ratios;
pub use read::Document;
pub use replays::NotReplayed;
pub use set::{EngineResult, ReportSet, first_diagnosis};
pub use terminal::{terminal, terminal_set};
pub(crate) use text::{check_status, clean, figure, maybe, number, self_check, word, wrap};
pub use write::write_all;
