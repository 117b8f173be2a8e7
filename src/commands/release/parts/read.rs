//! What is read of the parts that others have made, and what is refused.

use super::super::super::command_line;
use super::super::super::tokens::reference::first_difference;
use super::super::super::tokens::{Candidate, Measured, Setup};
use super::{Measurement, Row, Sheet};
use crate::error::{Error, Result};
use crate::report::Report;
use crate::tokens::{Profile, Record, TokenReport, WorstPrompt};
use crate::trace::Provenance;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const AGAIN: &str = "lay out the parts anew: each prompt and each question once";
const ANEW: &str = "make the parts anew with the model, the prompts and the options of this release";

/// Parts that were made before.
pub(in crate::commands::release) struct Parts<'a> {
    dir: &'a Path,
    setup: &'a Setup<'a>,
    job: Value,
}

impl<'a> Parts<'a> {
    /// Those in `dir`; they must be of this job.
    pub fn new(dir: &'a Path, setup: &'a Setup<'a>, job: Value) -> Self {
        Self { dir, setup, job }
    }

    /// The report of an engine's tokens, or why it could not be run.
    pub fn tokens(&self, candidate: &Candidate<'_>, profile: &Profile) -> Result<Result<TokenReport>> {
        if let Some(error) = self.error(candidate.name, "tokens")? {
            return Ok(Err(error));
        }
        let measured = self.measured(candidate.name)?;
        let worst = self.worst(candidate.name, &measured.records)?;
        Ok(Ok(self.setup.report(candidate, profile, measured, worst)))
    }

    /// The report of an engine by layer, or why it could not be run.
    pub fn layers(&self, engine: &str) -> Result<Result<Report>> {
        if let Some(error) = self.error(engine, "layers")? {
            return Ok(Err(error));
        }
        let path = self.file(engine, "layers.json");
        let sheet: Sheet<Report> = read(&path)?;
        let mut report = self.open("the report by layer", engine, sheet, &path)?;
        let Provenance { engine: ran, .. } = &report.provenance.candidate;
        refuse_engine("the report by layer", engine, ran, &path)?;
        self.refuse_model("the report by layer", &report.provenance.reference, &path)?;
        report.provenance.command = command_line();
        Ok(Ok(report))
    }

    /// What was found in the worst prompts; all of them must be there.
    fn worst(&self, engine: &str, records: &[Record]) -> Result<Vec<WorstPrompt>> {
        let path = self.file(engine, "worst.json");
        let sheets: Vec<Sheet<WorstPrompt>> = read(&path)?;
        let what = "the part of the worst prompts";
        let found = sheets.into_iter().map(|sheet| self.open(what, engine, sheet, &path));
        let found = found.collect::<Result<Vec<_>>>()?;
        let expected: Vec<&str> = self.setup.worst_of(records).map(|r| r.prompt.as_str()).collect();
        let got: Vec<&str> = found.iter().map(|w| w.id.as_str()).collect();
        if expected != got {
            return Err(Error::new(format!("{what} is of others"))
                .expected(listed(&expected), listed(&got))
                .at(&path)
                .hint("make it of the rows that lie beside it"));
        }
        Ok(found)
    }

    /// All rows of an engine, in the order of the sets: each there once, and all of the same runs.
    pub fn measured(&self, engine: &str) -> Result<Measured> {
        let path = self.file(engine, "tokens.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read a part", &path, &e))?;
        let (mut found, mut answered, mut who) = (BTreeMap::new(), BTreeMap::new(), None);
        for line in text.lines() {
            let row: Row = serde_json::from_str(line).map_err(|e| malformed(&path, &e))?;
            let what = format!("the part of `{}`", row.id);
            refuse_engine(&what, engine, &row.engine, &path)?;
            self.refuse_job(&what, &row.job, &path)?;
            refuse_engine(&what, engine, &row.candidate.engine, &path)?;
            self.refuse_model(&what, &row.reference, &path)?;
            let sides = (row.reference, row.candidate);
            let first = who.get_or_insert_with(|| sides.clone());
            if let Some((expected, got)) = other(&first.0, &sides.0).or_else(|| other(&first.1, &sides.1)) {
                return Err(Error::new(format!("{what} was made by other hands"))
                    .expected(expected, got)
                    .at(&path)
                    .hint("run all parts on the same machines, libraries and number of threads"));
            }
            let twice = match row.result {
                Measurement::Prompt(record) => found.insert(row.id, *record).is_some(),
                Measurement::Question(answer) => answered.insert(row.id, answer).is_some(),
            };
            if twice {
                return Err(Error::new(format!("{what} is there twice")).at(&path).hint(AGAIN));
            }
        }
        let missing = |id: &str| Error::new(format!("the part of `{id}` is missing")).at(&path).hint(AGAIN);
        let strange =
            |id: &str| Error::new(format!("the part of `{id}` is of other tokens")).at(&path).hint(ANEW);
        let mut records = Vec::new();
        for prompt in &self.setup.prompts {
            let record = found.remove(&prompt.id).ok_or_else(|| missing(&prompt.id))?;
            if record.prompt != prompt.id || record.prompt_tokens != prompt.token_ids.len() {
                return Err(strange(&prompt.id));
            }
            records.push(record);
        }
        let mut answers = Vec::new();
        for asked in &self.setup.exam.asked {
            let id = &asked.prompt.id;
            let answer = answered.remove(id).ok_or_else(|| missing(id))?;
            if answer.id != *id || !asked.is_of(&answer) {
                return Err(strange(id));
            }
            answers.push(answer);
        }
        // Those of this release were taken out.
        if let Some(id) = found.keys().chain(answered.keys()).next() {
            return Err(Error::new(format!("the part of `{id}` is of another set")).at(&path).hint(AGAIN));
        }
        let (reference, candidate) =
            who.ok_or_else(|| Error::new("there are no rows").at(&path).hint(AGAIN))?;
        Ok(Measured { records, answers, reference, candidate })
    }

    /// What is in a document, if that is of this engine and job.
    fn open<T>(&self, what: &str, engine: &str, sheet: Sheet<T>, path: &Path) -> Result<T> {
        refuse_engine(what, engine, &sheet.engine, path)?;
        self.refuse_job(what, &sheet.job, path)?;
        Ok(sheet.result)
    }

    fn refuse_job(&self, what: &str, job: &Value, path: &Path) -> Result<()> {
        let difference = first_difference("", &self.job, job);
        let refusal = |(expected, got): (String, String)| {
            Error::new(format!("{what} is of another release")).expected(expected, got).at(path).hint(ANEW)
        };
        difference.map_or(Ok(()), |both| Err(refusal(both)))
    }

    /// Refuses a run of `PyTorch` on another model.
    fn refuse_model(&self, what: &str, reference: &Provenance, path: &Path) -> Result<()> {
        let (own, ran) = (json!(self.setup.hashes()?), json!(reference.hashes));
        let refusal = |(expected, got): (String, String)| {
            Error::new(format!("{what} is of another model")).expected(expected, got).at(path).hint(ANEW)
        };
        first_difference("", &own, &ran).map_or(Ok(()), |both| Err(refusal(both)))
    }

    fn error(&self, engine: &str, part: &str) -> Result<Option<Error>> {
        let path = self.file(engine, &format!("{part}.error"));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Error::new(text))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read a part", &path, &e)),
        }
    }

    fn file(&self, engine: &str, part: &str) -> PathBuf {
        self.dir.join(format!("{engine}.{part}"))
    }
}

fn refuse_engine(what: &str, engine: &str, found: &str, path: &Path) -> Result<()> {
    if found == engine {
        return Ok(());
    }
    Err(Error::new(format!("{what} is of another engine"))
        .expected(engine, found)
        .at(path)
        .hint("a part's name begins with its engine's: lay out the parts anew"))
}

/// The first key that two provenances have otherwise.
fn other(one: &Provenance, two: &Provenance) -> Option<(String, String)> {
    first_difference("", &json!(one), &json!(two))
}

fn listed(ids: &[&str]) -> String {
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read a part", path, &e))?;
    serde_json::from_str(&text).map_err(|e| malformed(path, &e))
}

fn malformed(path: &Path, error: &serde_json::Error) -> Error {
    Error::new(format!("the part is malformed: {error}")).at(path).hint(AGAIN)
}
