//! `junit.xml`: the result for a build server.
//!
//! A document has a suite for each engine. Nothing unmeasured passes: what was asked for and not measured is an
//! error, and only what was not asked for is skipped. The last case of a suite is its outcome, so that a document
//! has neither failures nor errors where, and only where, the exit code is 0.

mod layers;

use super::Outcome;
use super::text::word;
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::path::Path;

pub(crate) use layers::{of_report, of_set};

/// The file's name.
pub(crate) const JUNIT: &str = "junit.xml";

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// With what a reader may want to know.
    Pass(String),
    /// Something is wrong: in one line, and in full.
    Failure(String, String),
    /// Something could not be measured, or is of no use.
    Error(String),
    /// It was not asked for.
    Skipped(String),
}

/// One line of a build server's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    pub name: String,
    pub found: Found,
}

/// The cases of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suite {
    pub name: String,
    pub cases: Vec<Case>,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, found: Found) -> Self {
        Self { name: name.into(), found }
    }

    /// The case that says what the exit code says.
    pub(crate) fn outcome(outcome: Outcome, headline: &str) -> Self {
        let said = format!("{}: {headline}", word(outcome));
        let found = match outcome {
            Outcome::Pass => Found::Pass(said),
            Outcome::Fault => Found::Failure(said.clone(), said),
            Outcome::Invalid | Outcome::Unmeasured => Found::Error(said),
        };
        Self::new("outcome", found)
    }
}

impl Suite {
    /// An engine that could not be run.
    pub(crate) fn failed(name: impl Into<String>, outcome: Outcome, why: &str) -> Self {
        Self { name: name.into(), cases: vec![Case::outcome(outcome, why)] }
    }

    /// How many cases there are, how many are failures, errors, and skipped.
    fn counts(&self) -> [usize; 4] {
        let of = |what: fn(&Found) -> bool| self.cases.iter().filter(|case| what(&case.found)).count();
        [
            self.cases.len(),
            of(|f| matches!(f, Found::Failure(..))),
            of(|f| matches!(f, Found::Error(_))),
            of(|f| matches!(f, Found::Skipped(_))),
        ]
    }
}

/// Writes `junit.xml` into `dir`, which must exist.
pub(crate) fn write(suites: &[Suite], dir: &Path) -> Result<()> {
    let path = dir.join(JUNIT);
    std::fs::write(&path, document(suites)).map_err(|e| Error::io("write the report", &path, &e))
}

/// The document: `testsuites`, in it a `testsuite` for each suite, in that a `testcase` for each case.
fn document(suites: &[Suite]) -> String {
    let counted = |counts: [usize; 4]| {
        let names = ["tests", "failures", "errors", "skipped"];
        names.iter().zip(counts).map(|(name, n)| format!(" {name}=\"{n}\"")).collect::<Vec<_>>().concat()
    };
    let sum = suites.iter().map(Suite::counts).fold([0; 4], |a, b| std::array::from_fn(|i| a[i] + b[i]));
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"layerdiff\"{}>\n",
        counted(sum)
    );
    for suite in suites {
        let name = attribute(&suite.name);
        let _ = writeln!(out, "  <testsuite name=\"{name}\"{}>", counted(suite.counts()));
        for case in &suite.cases {
            let body = match &case.found {
                Found::Pass(said) if said.is_empty() => String::new(),
                Found::Pass(said) => format!("<system-out>{}</system-out>", text(said)),
                Found::Failure(said, all) => {
                    format!("<failure message=\"{}\">{}</failure>", attribute(said), text(all))
                }
                Found::Error(said) => format!("<error message=\"{}\"/>", attribute(said)),
                Found::Skipped(said) => format!("<skipped message=\"{}\"/>", attribute(said)),
            };
            let case = attribute(&case.name);
            let _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"{case}\">{body}</testcase>");
        }
        out.push_str("  </testsuite>\n");
    }
    out + "</testsuites>\n"
}

/// Text of an element. What XML cannot hold at all becomes the sign for that.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Text of an attribute, in which a parser would take line breaks for spaces.
fn attribute(value: &str) -> String {
    text(value).replace('\n', "&#10;").replace('\t', "&#9;")
}

#[cfg(test)]
mod tests;
