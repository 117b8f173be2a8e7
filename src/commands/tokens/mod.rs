//! `layerdiff tokens`.

mod candidate;
mod dump;
mod leftovers;
mod link;
pub(super) mod questions;
pub(super) mod reference;

use super::run::sources::refuse_too_long;
use super::{Ui, command_line, print_result, prompts_from, standard_prompts};
use crate::bundle::Bundle;
use crate::capture::open_engine;
use crate::checkpoint::ModelDir;
use crate::cli::{TokenArgs, TokensArgs};
use crate::engine::torch::Python;
use crate::engine::{CANDIDATES, Engine, check_known};
use crate::error::{Error, Result};
use crate::faults::{Fault, FaultyEngine, named};
use crate::files::ReplacedDir;
use crate::parameters::Parameters;
use crate::prompt::{Prompt, tokenize};
use crate::report::Outcome;
use crate::tokens::{
    ChoiceResult, Choices, Origin, Profile, Record, Setting, TokenReport, WorstPrompt, profile,
    tokens_github, tokens_terminal, worst_first, write_tokens,
};
use crate::trace::{Hashes, Provenance};
use candidate::Bench;
use link::Link;
use questions::{Asked, Exam};
use reference::{Reference, Source};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(super) fn run(args: &TokensArgs, ui: Ui) -> Result<Outcome> {
    check_known(&args.engine, &CANDIDATES)?;
    let fault = args.fault.as_deref().map(named).transpose()?;
    let profile = profile(args.on.profile.as_deref(), &args.engine)?;
    let out = ReplacedDir::stage(&args.out, "report.json")?;
    let bundle = Bundle::unpack()?;
    let setup = Setup::new(&args.on, &bundle, ui)?;
    setup.say(std::slice::from_ref(&profile));
    let session = Session::new(&setup, None)?;
    let candidate =
        Candidate { name: &args.engine, path: args.path.as_deref(), fault: fault.map(|f| (f, args.layer)) };
    let report = session.judge(&candidate, &profile)?;
    out.write(|dir| write_tokens(&report, dir))?;
    out.publish()?;
    let files = [args.out.join("report.md")];
    print_result(ui, &report, || tokens_github(&report), |width| tokens_terminal(&report, width), &files)?;
    Ok(report.outcome)
}

/// Says before the run which criteria it will not measure: an hour later it would be too late.
fn say_unmeasurable(on: &TokenArgs, profiles: &[Profile], ui: Ui) {
    let questions = on.choices.as_deref() != Some("none");
    let mut said = BTreeSet::new();
    for profile in profiles {
        for lacking in profile.unmeasurable(on.tokens, questions) {
            let line = format!("profile {} will be UNMEASURED: {lacking}", profile.name);
            if said.insert(line.clone()) {
                ui.say(format_args!("note: {line}"));
            }
        }
    }
}

/// An engine, as it is asked for.
pub(super) struct Candidate<'a> {
    pub name: &'a str,
    pub path: Option<&'a str>,
    pub fault: Option<(&'static Fault, Option<usize>)>,
}

impl Candidate<'_> {
    /// Loads it.
    pub(super) fn open(&self, name: &str, model: &ModelDir, path: Option<&str>) -> Result<Box<dyn Engine>> {
        let engine = open_engine(name, model, path)?;
        match self.fault {
            Some((fault, layer)) => Ok(Box::new(FaultyEngine::new(engine, model, fault, layer)?)),
            None => Ok(engine),
        }
    }

    /// What a report calls it.
    fn label(&self) -> String {
        format!("{}{}", self.name, self.fault.map(planted).unwrap_or_default())
    }

    /// What its records are called.
    fn records(&self) -> String {
        let fault = self.fault.map(|(fault, layer)| {
            format!(".{}.{}", fault.name, layer.map_or_else(|| "all".to_owned(), |layer| layer.to_string()))
        });
        format!(
            "{}{}{}",
            self.name,
            self.path.map_or_else(String::new, |p| format!(".{p}")),
            fault.unwrap_or_default()
        )
    }
}

/// What follows the engine's name where a fault is planted.
pub(super) fn planted((fault, layer): (&Fault, Option<usize>)) -> String {
    match layer {
        Some(layer) => format!(" with {} planted in layer {layer}", fault.name),
        None => format!(" with {} planted", fault.name),
    }
}

/// What was asked for, before anything is run.
pub(super) struct Setup<'a> {
    args: &'a TokenArgs,
    model: ModelDir,
    /// Without step tokens: those are the reference's.
    pub prompts: Vec<Prompt>,
    pub exam: Exam,
    pub setting: Setting,
    pub ui: Ui,
}

/// What a candidate's run gives.
pub(super) struct Measured {
    pub records: Vec<Record>,
    pub answers: Vec<ChoiceResult>,
    pub reference: Provenance,
    pub candidate: Provenance,
}

impl<'a> Setup<'a> {
    /// Checks it.
    pub fn new(args: &'a TokenArgs, bundle: &Bundle, ui: Ui) -> Result<Self> {
        let setting = setting(args)?;
        let model = ModelDir::open(&args.model.dir.clone().unwrap_or_else(|| bundle.model()))?;
        if model.is_quantized() {
            return Err(Error::new("PyTorch cannot run a quantized directory")
                .at(model.path())
                .hint("name the original as --model: the engine quantizes it itself"));
        }
        let mut prompts = match prompts_from(args.prompts.as_deref(), &args.prompt.ids)? {
            Some(prompts) => prompts,
            None => standard_prompts()?,
        };
        if prompts.is_empty() {
            return Err(Error::new("the set of prompts is empty"));
        }
        // They are the reference's own, of another length.
        prompts.iter_mut().for_each(|p| p.step_token_ids.clear());
        tokenize(&mut prompts, model.path(), model.graph().dim("vocab"))?;
        let exam = Exam::new(args, &model)?;
        refuse_too_long(&prompts, setting.tokens, "--tokens", &model)?;
        refuse_too_long(&exam.prompts(), 0, "--shots", &model)?;
        Ok(Self { args, model, prompts, exam, setting, ui })
    }

    /// Says before the run what it will not measure, and how questions are asked; `profiles` are those that the
    /// engines will be held to.
    pub fn say(&self, profiles: &[Profile]) {
        say_unmeasurable(self.args, profiles, self.ui);
        self.exam.note.iter().for_each(|note| self.ui.say(format_args!("note: {note}")));
    }

    /// Refuses prompts that have no room for so many decode steps.
    pub fn refuse_steps(&self, steps: usize) -> Result<()> {
        refuse_too_long(&self.prompts, steps, "--steps", &self.model)
    }

    /// Hashes of the model.
    pub fn hashes(&self) -> Result<Hashes> {
        self.model.hashes()
    }

    /// Looks into the worst prompts of a candidate by layer.
    pub fn worst(&self, records: &[Record], candidate: &Candidate<'_>) -> Result<Vec<WorstPrompt>> {
        let mut prompts = self.prompts.clone();
        for prompt in &mut prompts {
            if let Some(record) = records.iter().find(|r| r.prompt == prompt.id) {
                prompt.step_token_ids.clone_from(&record.greedy.reference);
            }
        }
        let link = Link {
            model: &self.model,
            prompts: &prompts,
            python: self.args.python.file.as_deref(),
            ui: self.ui,
        };
        self.worst_of(records).map(|record| link.look(record, candidate)).collect()
    }

    /// The prompts into which is looked by layer.
    pub fn worst_of<'r>(&self, records: &'r [Record]) -> impl Iterator<Item = &'r Record> + use<'r> {
        let parted = worst_first(records).into_iter().filter(|r| r.greedy.divergence.is_some());
        parted.take(self.args.worst)
    }

    /// The report of a candidate.
    pub fn report(
        &self,
        candidate: &Candidate<'_>,
        profile: &Profile,
        measured: Measured,
        worst: Vec<WorstPrompt>,
    ) -> TokenReport {
        let Measured { records, answers, reference, candidate: provenance } = measured;
        let exam = &self.exam;
        let choices = (!answers.is_empty())
            .then(|| Choices { note: exam.note.clone(), ..Choices::new(&exam.source, exam.shots, &answers) });
        let origin =
            Origin { engine: candidate.label(), reference, candidate: provenance, command: command_line() };
        let gate = profile.judge(&records, choices.as_ref());
        TokenReport::new(origin, self.setting, &records, choices, gate, worst)
    }
}

/// What all engines have in common: PyTorch's side.
pub(super) struct Session<'a> {
    setup: &'a Setup<'a>,
    parameters: Parameters,
    asked: Vec<&'a Asked>,
    reference: Reference,
    /// Whether the candidates leave traces too.
    keep: bool,
    /// Where the dumps lie that are not kept.
    _work: Option<TempDir>,
}

impl<'a> Session<'a> {
    /// Runs PyTorch, on those of the prompts and questions whose ids are in `only`; on all without.
    pub fn new(setup: &'a Setup<'a>, only: Option<&[String]>) -> Result<Self> {
        let Setup { args, model, setting, ui, .. } = setup;
        let wanted = |id: &String| only.is_none_or(|ids| ids.contains(id));
        let prompts: Vec<Prompt> = setup.prompts.iter().filter(|p| wanted(&p.id)).cloned().collect();
        let asked: Vec<&Asked> = setup.exam.asked.iter().filter(|a| wanted(&a.prompt.id)).collect();
        let questions: Vec<Prompt> = asked.iter().map(|asked| asked.prompt.clone()).collect();
        let parameters = Parameters::open(model.path(), model.graph().description())?;
        let python = Python::find(args.python.file.as_deref());
        let (work, dir) = dumps(args.dumps.as_deref())?;
        let source = Source { python: &python, model, setting: *setting, quiet: ui.quiet };
        // By all prompts: what is kept, and so a logit's last bit, must not depend on how they are shared out.
        let positions = setup.prompts.iter().map(|p| p.token_ids.len() + setting.tokens).sum();
        let reference = source.generate(&prompts, &questions, positions, &dir)?;
        reference.check(&questions, model.graph(), &parameters)?;
        let keep = args.dumps.is_some() && only.is_none();
        Ok(Self { setup, parameters, asked, reference, keep, _work: work })
    }

    /// How many prompts and questions it has.
    pub fn counts(&self) -> (usize, usize) {
        (self.reference.prompts.len(), self.asked.len())
    }

    /// Runs a candidate.
    pub fn measure(&self, candidate: &Candidate<'_>) -> Result<Measured> {
        let setup = self.setup;
        let mut engine = candidate.open(candidate.name, &setup.model, candidate.path)?;
        let bench = Bench {
            model: &setup.model,
            parameters: &self.parameters,
            reference: &self.reference,
            setting: setup.setting,
            keep: self.keep,
            quiet: setup.ui.quiet,
        };
        let (records, answers, provenance) = bench.run(engine.as_mut(), &candidate.records(), &self.asked)?;
        let reference = self.reference.provenance(self.asked.first().map(|asked| &asked.prompt))?;
        Ok(Measured { records, answers, reference, candidate: provenance })
    }

    /// Runs a candidate, and looks into its worst prompts.
    pub fn judge(&self, candidate: &Candidate<'_>, profile: &Profile) -> Result<TokenReport> {
        let measured = self.measure(candidate)?;
        let worst = self.setup.worst(&measured.records, candidate)?;
        Ok(self.setup.report(candidate, profile, measured, worst))
    }
}

fn setting(args: &TokenArgs) -> Result<Setting> {
    if args.tokens == 0 {
        return Err(Error::new("no token is to be generated").hint("give --tokens a number from 1 on"));
    }
    if !(args.temperature.is_finite() && args.temperature > 0.0) {
        return Err(Error::new("cannot sample at this temperature")
            .expected("a positive number", args.temperature)
            .hint("the greedy figures need no temperature: leave --temperature out"));
    }
    Ok(Setting { tokens: args.tokens, temperature: args.temperature, seed: args.seed })
}

/// The directory of dumps that was named, or a temporary one.
fn dumps(named: Option<&Path>) -> Result<(Option<TempDir>, PathBuf)> {
    if let Some(named) = named {
        return Ok((None, named.to_path_buf()));
    }
    let dir = tempfile::tempdir()
        .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
    crate::files::remove_on_interrupt(dir.path());
    let path = dir.path().to_path_buf();
    Ok((Some(dir), path))
}
