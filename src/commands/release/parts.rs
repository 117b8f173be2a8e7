//! Parts of a release, made anywhere, and the release made of them.
//!
//! Each part is one JSON document on stdout:
//!
//! | part | document |
//! |---|---|
//! | `plan` | `{engines, prompts: [{id, category}], questions: [ID, …], worst, job}`; parts of equal `job`s fit together |
//! | `reference` | `{prompts, questions}`, how many there are in `--dumps` now |
//! | `tokens` | `[ROW, …]`: `{engine, kind, id, reference, candidate, result}`, of kind `prompt` or `question` |
//! | `layers` | the report by layer |
//! | `worst` | what the report says of the worst prompts |
//!
//! `--parts DIR` reads `ENGINE.tokens.jsonl` (a row a line), `ENGINE.layers.json` and `ENGINE.worst.json`; where
//! a part could not be made, `ENGINE.tokens.error` or `ENGINE.layers.error` says why.

use super::super::tokens::{Candidate, Measured, Session, Setup};
use super::super::{command_line, print_json};
use super::{Planted, layers, of_engine};
use crate::cli::{Part, ReleaseArgs};
use crate::error::{Error, Result};
use crate::report::{Outcome, Report};
use crate::tokens::{ChoiceResult, Profile, Record, TokenReport, WorstPrompt};
use crate::trace::Provenance;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const AGAIN: &str = "lay out the parts anew: each prompt and each question once";

/// What a candidate makes of one prompt or question, and who ran.
#[derive(Serialize, Deserialize)]
struct Row {
    engine: String,
    id: String,
    reference: Provenance,
    candidate: Provenance,
    #[serde(flatten)]
    result: Measurement,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", content = "result", rename_all = "snake_case")]
enum Measurement {
    Prompt(Box<Record>),
    Question(ChoiceResult),
}

/// Makes a part of the engines that were chosen and prints it.
pub(super) fn make(
    part: Part,
    args: &ReleaseArgs,
    setup: &Setup<'_>,
    chosen: &[&str],
    fault: Planted,
) -> Result<Outcome> {
    let known = |id: &&String| {
        setup.prompts.iter().any(|p| p.id == **id) || setup.exam.asked.iter().any(|a| a.prompt.id == **id)
    };
    if let Some(id) = args.only.iter().find(|id| !known(id)) {
        return Err(Error::new(format!("there is neither a prompt nor a question `{id}`"))
            .hint("`--part plan` lists them"));
    }
    let only = (!args.only.is_empty()).then_some(args.only.as_slice());
    let candidate = || match chosen {
        [name] => Ok(Candidate { name, path: None, fault }),
        _ => Err(Error::new("this part is of one engine").hint("name it with --engine")),
    };
    match part {
        Part::Plan => print_json(&plan(args, setup, chosen)?)?,
        Part::Reference => {
            if args.on.dumps.is_none() {
                return Err(
                    Error::new("PyTorch's side is wanted by others").hint("say with --dumps where it goes")
                );
            }
            let session = Session::new(setup, only)?;
            let (prompts, questions) = session.counts();
            print_json(&json!({"prompts": prompts, "questions": questions}))?;
        }
        Part::Tokens => {
            let candidate = candidate()?;
            print_json(&rows(candidate.name, Session::new(setup, only)?.measure(&candidate)?))?;
        }
        Part::Layers => {
            let candidate = candidate()?;
            let mut all = layers(args, fault, super::Ui { quiet: true, json: true, ..setup.ui });
            print_json(&of_engine(&mut all, candidate.name)?)?;
        }
        Part::Worst => {
            let dir = args.parts.as_deref().ok_or_else(|| {
                Error::new("which prompts are the worst is not known")
                    .hint("say with --parts where the rows are")
            })?;
            let candidate = candidate()?;
            let measured = Parts::new(dir, setup).measured(candidate.name)?;
            print_json(&setup.worst(&measured.records, &candidate)?)?;
        }
    }
    Ok(Outcome::Pass)
}

fn plan(args: &ReleaseArgs, setup: &Setup<'_>, chosen: &[&str]) -> Result<Value> {
    let questions: Vec<&str> = setup.exam.asked.iter().map(|a| a.prompt.id.as_str()).collect();
    if let Some(both) = setup.prompts.iter().find(|p| questions.contains(&p.id.as_str())) {
        return Err(Error::new(format!("prompt `{}` is called as a question is", both.id))
            .hint("give it another id: parts are named by them"));
    }
    let asked = setup.exam.asked.iter().map(|a| json!([a.prompt.token_ids, a.question.answer, a.letters]));
    let tokens = setup.prompts.iter().map(|p| json!([p.id, p.token_ids]));
    Ok(json!({
        "engines": chosen,
        "prompts": setup.prompts.iter().map(|p| json!({"id": p.id, "category": p.category})).collect::<Vec<_>>(),
        "questions": questions,
        "worst": args.on.worst,
        "job": {
            "layerdiff": env!("CARGO_PKG_VERSION"),
            "model": setup.hashes()?,
            "setting": setup.setting,
            "steps": args.steps,
            "worst": args.on.worst,
            "fault": args.fault,
            "layer": args.layer,
            "prompts": tokens.collect::<Vec<_>>(),
            "questions": asked.collect::<Vec<_>>(),
        },
    }))
}

fn rows(engine: &str, measured: Measured) -> Vec<Row> {
    let Measured { records, answers, reference, candidate } = measured;
    let row = |id: String, result| Row {
        engine: engine.to_owned(),
        id,
        reference: reference.clone(),
        candidate: candidate.clone(),
        result,
    };
    let records = records.into_iter().map(|r| row(r.prompt.clone(), Measurement::Prompt(Box::new(r))));
    let answers: Vec<Row> =
        answers.into_iter().map(|a| row(a.id.clone(), Measurement::Question(a))).collect();
    records.chain(answers).collect()
}

/// Parts that were made before.
pub(super) struct Parts<'a> {
    dir: &'a Path,
    setup: &'a Setup<'a>,
}

impl<'a> Parts<'a> {
    pub fn new(dir: &'a Path, setup: &'a Setup<'a>) -> Self {
        Self { dir, setup }
    }

    /// The report of an engine's tokens, or why it could not be run.
    pub fn tokens(&self, candidate: &Candidate<'_>, profile: &Profile) -> Result<Result<TokenReport>> {
        if let Some(error) = self.error(candidate.name, "tokens")? {
            return Ok(Err(error));
        }
        let measured = self.measured(candidate.name)?;
        let worst: Vec<WorstPrompt> = read(&self.file(candidate.name, "worst.json"))?;
        Ok(Ok(self.setup.report(candidate, profile, measured, worst)))
    }

    /// The report of an engine by layer, or why it could not be run.
    pub fn layers(&self, engine: &str) -> Result<Result<Report>> {
        if let Some(error) = self.error(engine, "layers")? {
            return Ok(Err(error));
        }
        let mut report: Report = read(&self.file(engine, "layers.json"))?;
        report.provenance.command = command_line();
        Ok(Ok(report))
    }

    /// All rows of an engine, in the order of the sets: each there once, and all of the same runs.
    fn measured(&self, engine: &str) -> Result<Measured> {
        let path = self.file(engine, "tokens.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read a part", &path, &e))?;
        let (mut found, mut answered, mut who) = (BTreeMap::new(), BTreeMap::new(), None);
        for line in text.lines() {
            let row: Row = serde_json::from_str(line).map_err(|e| malformed(&path, &e))?;
            let sides = (row.reference, row.candidate);
            let first = who.get_or_insert_with(|| sides.clone());
            if let Some((expected, got)) = other(&first.0, &sides.0).or_else(|| other(&first.1, &sides.1)) {
                return Err(Error::new(format!("the part of `{}` was made by other hands", row.id))
                    .expected(expected, got)
                    .at(&path)
                    .hint("run all parts on the same machines, libraries and number of threads"));
            }
            let twice = match row.result {
                Measurement::Prompt(record) => found.insert(row.id.clone(), *record).is_some(),
                Measurement::Question(answer) => answered.insert(row.id.clone(), answer).is_some(),
            };
            if twice || row.engine != engine {
                return Err(Error::new(format!("`{}` of {} is there twice", row.id, row.engine))
                    .at(&path)
                    .hint(AGAIN));
            }
        }
        let missing = |id: &str| Error::new(format!("the part of `{id}` is missing")).at(&path).hint(AGAIN);
        let take = |p: &crate::prompt::Prompt| found.remove(&p.id).ok_or_else(|| missing(&p.id));
        let records = self.setup.prompts.iter().map(take).collect::<Result<Vec<_>>>()?;
        let asked = self.setup.exam.asked.iter().map(|a| &a.prompt.id);
        let answers = asked.map(|id| answered.remove(id).ok_or_else(|| missing(id)));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        // Those of this release were taken out.
        if let Some(id) = found.keys().chain(answered.keys()).next() {
            return Err(Error::new(format!("the part of `{id}` is of another set")).at(&path).hint(AGAIN));
        }
        let (reference, candidate) =
            who.ok_or_else(|| Error::new("there are no rows").at(&path).hint(AGAIN))?;
        Ok(Measured { records, answers, reference, candidate })
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

/// The first key that two provenances have otherwise.
fn other(one: &Provenance, two: &Provenance) -> Option<(String, String)> {
    let [one, two] = [one, two].map(|p| serde_json::to_value(p).unwrap_or_default());
    let differs = |key: &&String| one[key.as_str()] != two[key.as_str()];
    let key = one.as_object()?.keys().chain(two.as_object()?.keys()).find(differs)?;
    Some((format!("{key} {}", one[key.as_str()]), format!("{key} {}", two[key.as_str()])))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read a part", path, &e))?;
    serde_json::from_str(&text).map_err(|e| malformed(path, &e))
}

fn malformed(path: &Path, error: &serde_json::Error) -> Error {
    Error::new(format!("the part is malformed: {error}")).at(path).hint(AGAIN)
}
