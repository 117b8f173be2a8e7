//! The reports of several engines on one model, in one.

use super::json::{Coverage, Fault, Outcome, Report};
use super::ratios::Ratios;
use super::{Figures, draw_engines, junit, write_all};
use crate::error::{Error, Result};
use crate::trace::{Provenance, SelfCheck};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Reports of several engines on one model. Each engine's whole report lies in a directory beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportSet {
    /// `layerdiff-report-set`.
    pub format: String,
    /// Version of these keys.
    pub version: u32,
    /// The worst result: a fault outweighs what is invalid, and that what is unmeasured.
    pub outcome: Outcome,
    /// `all`.
    pub engine: String,
    /// What they are all compared with; none when no engine could be run, or each has a reference of its own.
    pub reference: Option<Provenance>,
    /// Each engine's result, in the order of running.
    pub engines: Vec<EngineResult>,
    /// The version that wrote this.
    pub layerdiff: String,
    /// The command line.
    pub command: Vec<String>,
    #[serde(skip)]
    reports: Vec<Report>,
}

/// One engine's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EngineResult {
    pub engine: String,
    pub outcome: Outcome,
    pub headline: String,
    /// The engine's own report, below the set's directory; none when it could not be run.
    pub report: Option<String>,
    pub coverage: Option<Coverage>,
    pub self_check: Option<SelfCheck>,
    pub prompts: usize,
    /// Decode steps after the prefill.
    pub steps: u32,
    /// The four errors where the engine adds most.
    pub worst: Option<Figures>,
    /// Where quantization costs most.
    pub dearest: Option<Figures>,
    /// How near to their bounds the local errors come, for each kind of component that was replayed.
    pub ratios: Vec<Ratios>,
    pub first_fault: Option<Fault>,
    /// What the first faulty component computes instead, if it has a name.
    pub diagnosis: Option<String>,
    /// At how many other points an error is born.
    pub other_faults: usize,
}

/// What the first faulty component computes instead, if it has a name.
pub fn first_diagnosis(report: &Report) -> Option<String> {
    let first = report.first_fault.as_ref()?;
    let of_it = report.diagnosis.iter().find(|d| d.id.is_some() && d.point == first.point);
    of_it.map(|d| d.name.clone())
}

impl ReportSet {
    /// An empty one; `unmeasured` as long as it is.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            format: "layerdiff-report-set".into(),
            version: 1,
            outcome: Outcome::Unmeasured,
            engine: "all".into(),
            reference: None,
            engines: Vec::new(),
            layerdiff: env!("CARGO_PKG_VERSION").into(),
            command,
            reports: Vec::new(),
        }
    }

    /// Adds an engine's report.
    pub fn add(&mut self, report: Report) {
        self.push(EngineResult {
            engine: report.engine.clone(),
            outcome: report.outcome,
            headline: super::text::ignored_adapter(&report)
                .map_or_else(String::new, |note| format!("{note}. "))
                + &report.verdict.headline,
            report: Some(format!("{}/report.json", report.engine)),
            coverage: Some(report.coverage),
            self_check: Some(report.self_check.clone()),
            prompts: report.prompts.len(),
            steps: report.points.iter().map(|p| p.step).max().unwrap_or(0),
            worst: report.worst.clone(),
            dearest: report.dearest.clone(),
            ratios: report.ratios.clone(),
            first_fault: report.first_fault.clone(),
            diagnosis: first_diagnosis(&report),
            other_faults: super::stops::faulty_points(&report).len().saturating_sub(1),
        });
        self.reports.push(report);
        let mut references = self.reports.iter().map(|r| &r.provenance.reference);
        let first = references.next();
        self.reference = first.filter(|first| references.all(|r| r == *first)).cloned();
    }

    /// Puts back the own report of an engine of a set that was read from a file.
    pub(super) fn restore(&mut self, report: Option<Report>) {
        self.reports.extend(report);
    }

    /// Adds an engine that could not be run.
    pub fn add_error(&mut self, engine: &str, error: &str) {
        self.push(EngineResult {
            engine: engine.to_owned(),
            outcome: Outcome::Invalid,
            headline: format!("INVALID: {error}"),
            report: None,
            coverage: None,
            self_check: None,
            prompts: 0,
            steps: 0,
            worst: None,
            dearest: None,
            ratios: Vec::new(),
            first_fault: None,
            diagnosis: None,
            other_faults: 0,
        });
    }

    fn push(&mut self, result: EngineResult) {
        self.engines.push(result);
        self.outcome = Outcome::worst(self.engines.iter().map(|e| e.outcome));
    }

    /// The reports of the engines that could be run.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Writes the set's report into `dir`, which must exist, and each engine's below it.
    pub fn write_all(&self, dir: &Path) -> Result<()> {
        for report in &self.reports {
            let dir = dir.join(&report.engine);
            std::fs::create_dir(&dir).map_err(|e| Error::io("make the engine's directory", &dir, &e))?;
            write_all(report, &dir)?;
        }
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::new(format!("cannot write the report as JSON: {e}")))?;
        let (page, prose) = (super::html_set(self)?, super::markdown_set(self));
        for (name, text) in [("report.json", json + "\n"), ("report.md", prose), ("report.html", page)] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|e| Error::io("write the report", &path, &e))?;
        }
        junit::write(&junit::of_set(self), dir)?;
        draw_engines(&self.reports, self.outcome, dir).map(|_| ())
    }
}
