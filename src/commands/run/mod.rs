//! `layerdiff run`: the whole job.

mod itself;
mod reference;
pub(super) mod sources;

use super::arm::Arm;
use super::compare::as_it_is;
use super::{Ui, command_line, publish};
use crate::bundle::Bundle;
use crate::capture::{Request, capture, dequantized, open_engine};
use crate::checkpoint::ModelDir;
use crate::cli::RunArgs;
use crate::engine::{CANDIDATES, Engine, check_known, reads_blocks, torch};
use crate::error::{Error, Result};
use crate::files::ReplacedDir;
use crate::model::{PointFilter, Scores};
use crate::prompt::{Prompt, token_texts};
use crate::replay::Held;
use crate::report::{Options, Outcome, Report, ReportSet, assemble};
use crate::trace::Trace;
use reference::Reference;
use sources::{Against, Sources};
use std::path::Path;

/// The word for every engine that can be judged.
const ALL: &str = "all";

/// Opens an engine by its name, on one of its paths.
type Open<'a> = &'a dyn Fn(&str, &ModelDir, Option<&str>) -> Result<Box<dyn Engine>>;

pub(super) fn run(args: &RunArgs, ui: Ui) -> Result<Outcome> {
    let known: Vec<&str> = CANDIDATES.into_iter().chain([ALL]).collect();
    check_known(&args.engine, &known)?;
    if args.engine == ALL && args.path.is_some() {
        return Err(
            Error::new("the engines have different paths").hint("name one engine, or leave --path out")
        );
    }
    let reference = args.reference.as_deref().map(Reference::parse).transpose()?;
    reference.map_or(Ok(()), |reference| reference.check(args))?;
    if args.engine == ALL && args.weights.is_some() {
        return Err(
            Error::new("the engines take different weights").hint("name the engine that these belong to")
        );
    }
    let out = ReplacedDir::stage(&args.out, "report.json")?;
    let mut set = ReportSet::new(command_line());
    let mut only = None;
    each(args, reference, &open_engine, ui, |engine, report| match report {
        report if args.engine != ALL => {
            only = Some(report?);
            Ok(())
        }
        Ok(report) => {
            set.add(report);
            Ok(())
        }
        Err(error) => {
            set.add_error(engine, &error.to_string());
            Ok(())
        }
    })?;
    match only {
        Some(report) => publish(&report, Some(out), Some(&args.out), ui),
        None => super::publish_set(&set, out, &args.out, ui),
    }
}

/// Judges the engines that were asked for as `run` does, without writing a report.
pub(super) fn judge(args: &RunArgs, open: Open<'_>, ui: Ui) -> Result<Vec<(String, Result<Report>)>> {
    let reference = args.reference.as_deref().map(Reference::parse).transpose()?;
    let mut found = Vec::new();
    each(args, reference, open, ui, |engine, report| {
        found.push((engine.to_owned(), report));
        Ok(())
    })?;
    Ok(found)
}

/// Hands the result of each engine that was asked for to `take`.
fn each(
    args: &RunArgs,
    reference: Option<Reference<'_>>,
    open: Open<'_>,
    ui: Ui,
    mut take: impl FnMut(&str, Result<Report>) -> Result<()>,
) -> Result<()> {
    let points = PointFilter::new(&args.input.points)?.keeping(Scores::parse(&args.input.scores)?);
    let bundle = Bundle::unpack()?;
    let lora = args.input.lora.as_deref();
    let model = ModelDir::open(&args.model.dir.clone().unwrap_or_else(|| bundle.model()))?.adapted(lora)?;
    if !model.graph().components().iter().any(|c| points.accepts(&c.point)) {
        return Err(points.chooses_nothing());
    }
    let work = tempfile::tempdir()
        .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
    crate::files::remove_on_interrupt(work.path());
    let sources = Sources::new(args, reference, &model, &bundle, &points, work.path(), ui)?;
    let job = Job { args, model: &model, points: &points, sources: &sources, work: work.path(), open, ui };
    if args.engine != ALL {
        return take(&args.engine, job.judge(&args.engine));
    }
    // The reference's own run says nothing about the candidate that it equals.
    let equals = |engine: &&str| reference.is_some_and(|reference| reference.is_candidate(engine, None));
    for engine in CANDIDATES.into_iter().filter(|engine| !equals(engine)) {
        take(engine, job.judge(engine))?;
    }
    Ok(())
}

/// Everything that the engines have in common.
struct Job<'a> {
    args: &'a RunArgs,
    model: &'a ModelDir,
    points: &'a PointFilter,
    sources: &'a Sources,
    work: &'a Path,
    open: Open<'a>,
    ui: Ui,
}

impl Job<'_> {
    /// Runs one engine and compares it with the reference.
    fn judge(&self, name: &str) -> Result<Report> {
        let Self { args, model, points, sources, ui, .. } = *self;
        // Its traces go when it has been judged: those of all engines together would fill a disk.
        let work = tempfile::tempdir_in(self.work)
            .map_err(|e| Error::io("create a temporary directory", self.work, &e))?;
        let work = work.path();
        let lora = args.input.lora.as_deref();
        let own = args.weights.as_deref().map(|dir| ModelDir::open(dir)?.adapted(lora)).transpose()?;
        let own = own.as_ref().unwrap_or(model);
        if args.weights.is_some() && reads_blocks(name) && !own.is_quantized() {
            return Err(Error::new("--weights names a checkpoint that is not quantized")
                .expected("a directory of Q4 weights", "one of floats")
                .at(own.path())
                .hint("make one with `layerdiff quantize`, or leave --weights out: the engine then quantizes the model itself"));
        }
        if let Some(what) = own.graph().differs_in(model.graph()) {
            return Err(Error::new(format!("these weights are of another model: its {what} differ"))
                .at(own.path())
                .hint("name the model that they were made of with --model"));
        }
        let mut engine = (self.open)(name, own, args.path.as_deref())?;
        let Some(against) = &sources.against else {
            return self.judge_by_itself(engine.as_mut(), own, work);
        };
        let weights = dequantized(engine.as_ref(), model, &work.join("dequantized"))?;
        let held = held(engine.as_ref(), own, weights.as_ref(), work)?;
        let activation_bits = engine.activation_bits();
        let mut arm = match &weights {
            Some(weights) => sources.stored_arm(weights, activation_bits)?,
            None => None,
        };
        let prompts = sources.prompts_for(arm.as_ref());
        if arm.is_none() && args.engine != ALL && !args.quantized.is_empty() {
            return Err(no_such_arm(name, weights.as_ref(), args));
        }
        let covers = |arm: &Arm| prompts.iter().any(|p| arm.has(&p.id));
        if arm.as_ref().is_some_and(|arm| !covers(arm)) {
            arm = None;
        }
        let request = Request {
            model: own,
            prompts: &prompts,
            steps: sources.steps,
            points,
            dequantized: weights.as_ref(),
            quiet: ui.quiet,
        };
        let candidate = work.join("candidate");
        capture(engine.as_mut(), &request, &candidate)?;
        // PyTorch needs the memory.
        drop(engine);
        if let (Some(python), Some(weights), None) = (&sources.python, &weights, &arm) {
            let (dtype, steps, quiet) = ("float32", sources.steps, ui.quiet);
            let model = weights;
            let request =
                torch::Request { model, prompts: &prompts, points, dtype, activation_bits, steps, quiet };
            arm = Some(Arm::capture(python, &request, work)?);
        }
        self.compare(against, &Trace::open(&candidate)?, &prompts, arm, Some(&held))
    }

    fn compare(
        &self,
        against: &Against,
        candidate: &Trace,
        prompts: &[Prompt],
        arm: Option<Arm>,
        held: Option<&Held>,
    ) -> Result<Report> {
        let sources = self.sources;
        let reference = Trace::open(&against.reference)?.restricted_to(prompts, sources.steps);
        let (arm, arm_floor) = match arm {
            Some(Arm { trace, floor }) => (Some(trace.restricted_to(prompts, sources.steps)), floor),
            None => (None, None),
        };
        let gains = self.model.gains()?;
        let reference_held = match held {
            Some(_) => as_it_is(self.model, &reference)?,
            None => None,
        };
        let options = Options {
            graph: self.model.graph(),
            gains: &gains,
            held,
            reference_held: reference_held.as_ref(),
            points: self.points,
            floor: arm_floor.as_ref().unwrap_or_else(|| against.floors.first().expect("at least one")),
            floors: &against.floors,
            quantized: arm.as_ref(),
            other_weights: self.args.weights.is_some(),
            command: command_line(),
            quiet: self.ui.quiet,
        };
        let mut report = assemble(&reference, candidate, &options)?;
        if let Some(text) = token_texts(self.model.path()) {
            report.name_tokens(text);
        }
        Ok(report)
    }
}

/// None of the arms that were named was run on the weights that the engine computes with.
fn no_such_arm(engine: &str, weights: Option<&ModelDir>, args: &RunArgs) -> Error {
    let list: Vec<String> = args.quantized.iter().map(|path| path.display().to_string()).collect();
    let error = Error::new(format!("no trace that --quantized names is arm Q of {engine}"));
    let wanted = match weights.map(ModelDir::hashes) {
        None => return error.expected("none, since its weights are exact", list.join(", ")),
        Some(hashes) => hashes.ok().and_then(|hashes| hashes.weights).unwrap_or_default(),
    };
    error.expected(format!("PyTorch on weights {wanted}"), list.join(", ")).hint(
        "make its weights with `layerdiff dequantize`, and capture them with `layerdiff capture --engine torch`",
    )
}

/// The weights that `engine` computes with, in the basis in which it does.
fn held(engine: &dyn Engine, own: &ModelDir, dequantized: Option<&ModelDir>, work: &Path) -> Result<Held> {
    let rotated = work.join("held");
    let rotated = match engine.rotation() {
        Some(_) => engine.write_held(own, &rotated)?.then(|| ModelDir::open(&rotated)).transpose()?,
        None => None,
    };
    let dir = rotated.as_ref().or(dequantized).unwrap_or(own);
    let held = Held::open(dir.path(), dir.graph().clone(), dir.config().clone())?;
    let is_source = rotated.is_none() && dequantized.is_some() && !own.is_quantized();
    if is_source { held.made_from(own.path()) } else { Ok(held) }
}
