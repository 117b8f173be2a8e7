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
    /// Names that would be given if those of the fault, and those akin to it, were unknown.
    pub left_out: Vec<&'static str>,
}

/// Judges the diagnosis of a component with a fault.
pub(super) fn said(fault: &Fault, point: &str, found: &Diagnosed) -> Said {
    let names: Vec<&str> = found.names.iter().map(|named| named.id).collect();
    let unknown = [fault.names(), fault.akin].concat();
    let left_out = found.without(&unknown).iter().map(|named| named.id).collect();
    Said { point: point.to_owned(), verdict: verdict(fault, &names), names, left_out }
}

fn verdict(fault: &Fault, names: &[&str]) -> Verdict {
    match names.first() {
        None => Verdict::None,
        Some(first) if fault.names().contains(first) => Verdict::Right,
        Some(_) => Verdict::Wrong,
    }
}

/// That of several components together: the worst.
pub(super) fn together(said: &[Said]) -> Option<Verdict> {
    said.iter().map(|said| said.verdict).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::named;

    #[test]
    fn the_first_name_decides() {
        let fault = named("norm-eps-outside").unwrap();
        assert_eq!(verdict(fault, &["gated-norm-eps-outside", "norm-sum"]), Verdict::Right);
        assert_eq!(verdict(fault, &["norm-sum", "norm-eps-outside"]), Verdict::Wrong);
        assert_eq!(verdict(fault, &[]), Verdict::None);
    }

    #[test]
    fn the_worst_of_several_components_is_that_of_the_fault() {
        let said = |verdict| Said { point: String::new(), verdict, names: Vec::new(), left_out: Vec::new() };
        assert_eq!(together(&[said(Verdict::Right), said(Verdict::None)]), Some(Verdict::None));
        assert_eq!(together(&[said(Verdict::Wrong), said(Verdict::Right)]), Some(Verdict::Wrong));
        assert_eq!(together(&[]), None);
    }
}
