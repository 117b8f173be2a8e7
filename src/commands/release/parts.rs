//! Parts of a release, made anywhere, and the release made of them.
//!
//! Each part is one JSON document on stdout:
//!
//! | part | document |
//! |---|---|
//! | `plan` | `{engines, prompts: [{id, category}], questions: [ID, …], worst, python, job}` |
//! | `reference` | `{prompts, questions}`, how many there are in `--dumps` now |
//! | `tokens` | `[ROW, …]`: `{engine, job, kind, id, reference, candidate, result}`, of kind `prompt` or `question` |
//! | `layers` | `{engine, job, result}`, the result the report by layer |
//! | `worst` | `[{engine, job, result}, …]`, each result what the report says of one of the worst prompts |
//!
//! The `job` is that of the plan: model, prompts and options. A part of another one is refused.
//!
//! `--parts DIR` reads `ENGINE.tokens.jsonl` (a row a line), `ENGINE.layers.json` and `ENGINE.worst.json`; where
//! a part could not be made, `ENGINE.tokens.error` or `ENGINE.layers.error` says why.

mod read;

use super::super::print_json;
use super::super::tokens::{Candidate, Measured, Session, Setup};
use super::{Planted, layers, of_engine};
use crate::cli::{Part, ReleaseArgs};
use crate::engine::torch::Python;
use crate::error::{Error, Result};
use crate::report::Outcome;
use crate::tokens::{ChoiceResult, Record};
use crate::trace::Provenance;
pub(super) use read::Parts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a candidate makes of one prompt or question, and who ran.
#[derive(Serialize, Deserialize)]
struct Row {
    engine: String,
    job: Value,
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

/// A document of one engine, and of which job it is.
#[derive(Serialize, Deserialize)]
struct Sheet<T> {
    engine: String,
    job: Value,
    result: T,
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
            let job = job(args, setup)?;
            print_json(&rows(candidate.name, &job, Session::new(setup, only)?.measure(&candidate)?))?;
        }
        Part::Layers => {
            let candidate = candidate()?;
            let mut all = layers(args, fault, super::Ui { quiet: true, json: true, ..setup.ui });
            let result = of_engine(&mut all, candidate.name)?;
            print_json(&Sheet { engine: candidate.name.to_owned(), job: job(args, setup)?, result })?;
        }
        Part::Worst => {
            let dir = args.parts.as_deref().ok_or_else(|| {
                Error::new("which prompts are the worst is not known")
                    .hint("say with --parts where the rows are")
            })?;
            let candidate = candidate()?;
            let job = job(args, setup)?;
            let measured = Parts::new(dir, setup, job.clone()).measured(candidate.name)?;
            let found = setup.worst(&measured.records, &candidate)?.into_iter();
            let sheet = |result| Sheet { engine: candidate.name.to_owned(), job: job.clone(), result };
            print_json(&found.map(sheet).collect::<Vec<_>>())?;
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
    Ok(json!({
        "engines": chosen,
        "prompts": setup.prompts.iter().map(|p| json!({"id": p.id, "category": p.category})).collect::<Vec<_>>(),
        "questions": questions,
        "worst": args.on.worst,
        "python": Python::find(args.on.python.file.as_deref()).path(),
        "job": job(args, setup)?,
    }))
}

/// What all parts of a release have in common; those of equal jobs fit together.
pub(super) fn job(args: &ReleaseArgs, setup: &Setup<'_>) -> Result<Value> {
    let prompts = setup.prompts.iter().map(|p| json!([p.id, p.category, p.token_ids]));
    let asked =
        setup.exam.asked.iter().map(|a| {
            json!([a.prompt.id, a.question.subject, a.prompt.token_ids, a.question.answer, a.letters])
        });
    Ok(json!({
        "layerdiff": env!("CARGO_PKG_VERSION"),
        "model": setup.hashes()?,
        "setting": setup.setting,
        "steps": args.steps,
        "worst": args.on.worst,
        "fault": args.fault,
        "layer": args.layer,
        "prompts": digest(prompts),
        "questions": digest(asked),
    }))
}

/// Each row carries it: the tokens themselves would be too much.
fn digest(items: impl Iterator<Item = Value>) -> String {
    format!("sha256:{:x}", Sha256::digest(items.collect::<Value>().to_string()))
}

fn rows(engine: &str, job: &Value, measured: Measured) -> Vec<Row> {
    let Measured { records, answers, reference, candidate } = measured;
    let row = |id: String, result| Row {
        engine: engine.to_owned(),
        job: job.clone(),
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
