//! A release: layers and tokens of every engine.

use super::report::{TokenReport, suite};
use crate::error::{Error, Result};
use crate::report::junit::{self, Suite};
use crate::report::{
    Outcome, Report, Room, Sections, clean, command, cut, engine, figure, first_diagnosis, fitted, folded,
    maybe, named, plain, prose, word, wrap,
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `report.json` of a release.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Release {
    /// `layerdiff-release`.
    pub format: String,
    pub version: u32,
    /// `pass` where every engine passes in both.
    pub outcome: Outcome,
    /// The fault that was planted into every engine, where one was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub planted: Option<String>,
    pub engines: Vec<EngineRelease>,
    pub layerdiff: String,
    pub command: Vec<String>,
}

/// One engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EngineRelease {
    pub engine: String,
    pub outcome: Outcome,
    pub layers: Option<LayersPart>,
    pub tokens: Option<TokensPart>,
    /// What could not be run.
    pub errors: Vec<String>,
    /// The comparison by layer itself, where it is at hand.
    #[serde(skip)]
    report: Option<Box<Report>>,
    #[serde(skip)]
    suites: Vec<Suite>,
}

/// What its layers say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LayersPart {
    pub outcome: Outcome,
    pub headline: String,
    pub coverage: crate::report::Coverage,
    pub first_fault: Option<String>,
    pub diagnosis: Option<String>,
    /// The largest that the engine adds at a point.
    #[serde(with = "crate::number::option")]
    pub engine_error: Option<f64>,
}

/// What its tokens say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokensPart {
    pub outcome: Outcome,
    pub profile: String,
    /// Criteria as `name: value, limit, pass`.
    pub criteria: Vec<super::Criterion>,
    /// Share of equal tokens among the first ten; null where fewer were generated.
    #[serde(with = "crate::number::option")]
    pub greedy_ten: Option<f64>,
    pub exact_prompts: super::Share,
    #[serde(with = "crate::number::option")]
    pub mean_kl: Option<f64>,
    pub top1: super::Share,
    pub choices: Option<super::Choices>,
}

impl EngineRelease {
    /// From both reports; what is missing is unmeasured.
    pub fn new(
        engine: &str,
        (tokens, layers): (Option<&TokenReport>, Option<&Report>),
        errors: Vec<String>,
    ) -> Self {
        let outcomes = [tokens.map(|t| t.outcome), layers.map(|l| l.outcome)];
        let outcome = Outcome::worst(outcomes.into_iter().map(|o| o.unwrap_or(Outcome::Unmeasured)));
        let failed = errors.iter().map(|error| Suite::failed(engine, Outcome::Invalid, error));
        let suites = layers.map(junit::of_report).into_iter().chain(tokens.map(suite)).chain(failed);
        Self {
            engine: engine.to_owned(),
            outcome,
            layers: layers.map(|report| LayersPart {
                outcome: report.outcome,
                headline: report.verdict.headline.clone(),
                coverage: report.coverage,
                first_fault: report.first_fault.as_ref().map(|f| f.point.clone()),
                diagnosis: first_diagnosis(report),
                engine_error: report.worst.as_ref().and_then(|w| w.engine),
            }),
            tokens: tokens.map(|report| TokensPart {
                outcome: report.outcome,
                profile: report.gate.profile.clone(),
                criteria: report.gate.criteria.clone(),
                greedy_ten: report.greedy.matches.iter().find(|m| m.first == 10).map(|m| m.share.value()),
                exact_prompts: report.greedy.exact,
                mean_kl: report.distribution.kl.map(|kl| kl.mean),
                top1: report.distribution.top1,
                choices: report.choices.clone(),
            }),
            suites: suites.collect(),
            report: layers.cloned().map(Box::new),
            errors,
        }
    }

    /// Puts back the comparison by layer of a release that was read from a file.
    pub fn restore(&mut self, report: Report) {
        self.report = Some(Box::new(report));
    }
}

impl Release {
    /// An empty one.
    pub fn new(command: Vec<String>, planted: Option<String>) -> Self {
        Self {
            format: "layerdiff-release".into(),
            version: 1,
            outcome: Outcome::Unmeasured,
            planted,
            engines: Vec::new(),
            layerdiff: env!("CARGO_PKG_VERSION").into(),
            command,
        }
    }

    /// Adds an engine.
    pub fn add(&mut self, engine: EngineRelease) {
        self.engines.push(engine);
        self.outcome = Outcome::worst(self.engines.iter().map(|e| e.outcome));
    }

    /// Writes report.json, report.md and junit.xml into `dir`, which must exist and holds the engines' own reports.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::new(format!("cannot write the report as JSON: {e}")))?;
        for (name, text) in [("report.json", json + "\n"), ("report.md", self.markdown())] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|e| Error::io("write the report", &path, &e))?;
        }
        let suites: Vec<Suite> = self.engines.iter().flat_map(|e| e.suites.iter().cloned()).collect();
        junit::write(&suites, dir)
    }

    fn passed(&self) -> String {
        let n = self.engines.iter().filter(|e| e.outcome == Outcome::Pass).count();
        let planted = self.planted.as_ref().map_or_else(String::new, |said| format!(", {said}"));
        format!("{n} of {} engines pass{planted}", self.engines.len())
    }

    /// The page.
    pub fn markdown(&self) -> String {
        self.sections(None).concat().join("\n") + "\n"
    }

    /// The page for GitHub's comments and summaries, in fewer than 65,000 bytes.
    pub fn github(&self) -> String {
        fitted(|room| self.sections(Some(room)))
    }

    /// The page in its parts; of limited size where there is a `room`, and then without links to files.
    fn sections(&self, room: Option<Room>) -> Sections {
        let chars = room.map_or(usize::MAX, |room| room.chars);
        let mut head = vec![
            format!("# {}: release, {}", word(self.outcome), plain(&cut(&self.passed(), chars))),
            String::new(),
            "| engine | | layers | engine adds | tokens, gate | greedy, first 10 | mean KL, nats | same likeliest token | prompts equal | questions right, reference and candidate |".to_owned(),
            "|---|---|---|---|---|---|---|---|---|---|".to_owned(),
        ];
        head.extend(self.engines.iter().map(row));
        let mut sections = vec![head];
        for e in &self.engines {
            sections.push(said(e, room.is_none(), chars));
            let report = e.report.as_deref();
            sections.extend(room.zip(report).map(|(room, report)| engine(report, room)));
        }
        let origin = command(&self.layerdiff, &self.command, chars);
        sections.push(match room {
            None => vec![String::new(), origin.trim_start_matches("- ").to_owned()],
            Some(_) => folded("Provenance", false, vec![origin]),
        });
        sections
    }

    /// What the terminal shows, in lines of at most `width` columns.
    pub fn terminal(&self, width: usize) -> String {
        let width = width.clamp(60, 110);
        let mut lines = vec![format!("{}  release: {}", word(self.outcome), self.passed()), String::new()];
        lines.push(format!(
            "{:<17} {:<11} {:<11} {:>9} {:>9}",
            "engine", "layers", "tokens", "greedy10", "mean KL"
        ));
        for e in &self.engines {
            lines.push(format!(
                "{:<17} {:<11} {:<11} {:>9} {:>9}",
                clean(&e.engine),
                e.layers.as_ref().map_or("UNMEASURED", |p| word(p.outcome)),
                e.tokens.as_ref().map_or("UNMEASURED", |p| word(p.outcome)),
                maybe_plain(greedy(e)),
                maybe(e.tokens.as_ref().and_then(|t| t.mean_kl))
            ));
            for error in &e.errors {
                lines.extend(wrap(&clean(error), width));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// What is said of an engine, with links to its own reports where `links` lie beside the page.
fn said(engine: &EngineRelease, links: bool, chars: usize) -> Vec<String> {
    let name = plain(&cut(&engine.engine, chars));
    let link = |part: &str| {
        if links { format!(" ([report]({}/{part}/report.md))", engine.engine) } else { String::new() }
    };
    let mut lines = vec![String::new(), format!("**{name}**"), String::new()];
    if let Some(part) = &engine.layers {
        lines.push(format!("- layers: {}{}", prose(&cut(&part.headline, chars)), link("layers")));
        let diagnosis = part.diagnosis.iter();
        lines.extend(diagnosis.map(|name| format!("- diagnosis: {}", prose(&cut(name, chars)))));
    }
    if let Some(part) = &engine.tokens {
        let all = part.criteria.iter().map(|c| {
            let verdict = match c.pass {
                Some(true) => "pass",
                Some(false) => "FAIL",
                None => "UNMEASURED",
            };
            let (name, limit) = (plain(&cut(&c.name, chars)), plain(&cut(&c.limit, chars)));
            format!("{name} {}, {limit}: {verdict}", maybe_plain(c.value))
        });
        let all: Vec<String> = all.collect();
        lines.push(format!("- gate {}: {}{}", named(&part.profile), all.join("; "), link("tokens")));
    }
    lines.extend(engine.errors.iter().map(|e| format!("- could not be run: {}", plain(&cut(e, chars)))));
    lines
}

fn maybe_plain(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), figure)
}

fn greedy(engine: &EngineRelease) -> Option<f64> {
    engine.tokens.as_ref().and_then(|t| t.greedy_ten)
}

fn row(engine: &EngineRelease) -> String {
    let layers = engine.layers.as_ref();
    let tokens = engine.tokens.as_ref();
    let share = |s: super::Share| format!("{:.2} %", 100.0 * s.value());
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        plain(&cut(&engine.engine, 60)),
        word(engine.outcome),
        layers.map_or("UNMEASURED", |p| word(p.outcome)),
        maybe(layers.and_then(|p| p.engine_error)),
        tokens.map_or("UNMEASURED", |p| word(p.outcome)),
        maybe_plain(greedy(engine)),
        maybe(tokens.and_then(|p| p.mean_kl)),
        tokens.map_or_else(|| "–".to_owned(), |p| share(p.top1)),
        tokens.map_or_else(|| "–".to_owned(), |p| share(p.exact_prompts)),
        tokens.and_then(|p| p.choices.as_ref()).map_or_else(
            || "–".to_owned(),
            |c| format!("{}, {} of {}", c.reference.of, c.candidate.of, c.candidate.count)
        )
    )
}
