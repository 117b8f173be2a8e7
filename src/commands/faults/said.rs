//! What the diagnosis says of what is planted.

use crate::diagnose::Diagnosed;
use crate::faults::Fault;
use serde::Serialize;

/// Whether a name is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The first name is one of the fault's.
    Right,
    /// No formula is named.
    None,
    /// The first name is another.
    Wrong,
}

/// The diagnosis of one component.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Said {
    pub point: String,
    pub verdict: Verdict,
    /// All names that are given, the best first.
    pub names: Vec<&'static str>,
    /// Names that would be given if those of the fault were unknown.
    pub left_out: Vec<&'static str>,
}

/// Judges the diagnosis of a component with a fault.
pub(super) fn said(fault: &Fault, point: &str, found: &Diagnosed) -> Said {
    let names: Vec<&str> = found.names.iter().map(|named| named.id).collect();
    let verdict = match names.first() {
        None => Verdict::None,
        Some(first) if fault.names().contains(first) => Verdict::Right,
        Some(_) => Verdict::Wrong,
    };
    let left_out = found.without(fault.names()).iter().map(|named| named.id).collect();
    Said { point: point.to_owned(), verdict, names, left_out }
}

/// That of several components together: the worst.
pub(super) fn together(said: &[Said]) -> Option<Verdict> {
    said.iter().map(|said| said.verdict).max()
}
