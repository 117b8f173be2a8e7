//! `layerdiff run`: the whole job.

mod itself;
mod reference;
pub(super) mod sources;
mod watch;

use super::arm::Arm;
use super::{Ui, command_line, publish};
use crate::bundle::Bundle;
use crate::capture::{Request, dequantized, open_engine};
use crate::checkpoint::ModelDir;
use crate::cli::{Keep, RunArgs};
use crate::engine::{CANDIDATES, Engine, check_known, reads_blocks, torch};
use crate::error::{Error, Result};
use crate::files::ReplacedDir;
use crate::model::{PointFilter, Scores};
use crate::replay::Held;
use crate::report::{Outcome, Report, ReportSet};
use crate::split::Feed;
use reference::Reference;
use sources::Sources;
use std::path::Path;
use watch::Run;

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
    each(args, reference, &open_engine, Some(out.path()), ui, |engine, report| {
        match report.map_err(|e| e.moved(out.path(), &args.out)) {
            report if args.engine != ALL => only = Some(report?),
            Ok(report) => set.add(report),
            Err(error) => set.add_error(engine, &error.to_string()),
        }
        Ok(())
    })?;
    let outcome = match only {
        Some(report) => publish(&report, Some(out), Some(&args.out), ui),
        None => super::publish_set(&set, out, &args.out, ui),
    }?;
    let kept = args.out.join(watch::CANDIDATE);
    if args.keep != Keep::None && kept.is_dir() {
        ui.say(format_args!("the candidate's trace: {}", kept.display()));
    }
    Ok(outcome)
}

/// Judges the engines that were asked for as `run` does, without writing a report.
pub(super) fn judge(args: &RunArgs, open: Open<'_>, ui: Ui) -> Result<Vec<(String, Result<Report>)>> {
    let reference = args.reference.as_deref().map(Reference::parse).transpose()?;
    let mut found = Vec::new();
    each(args, reference, open, None, ui, |engine, report| {
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
    out: Option<&Path>,
    ui: Ui,
    mut take: impl FnMut(&str, Result<Report>) -> Result<()>,
) -> Result<()> {
    let points = PointFilter::new(&args.input.points)?.keeping(Scores::parse(&args.input.scores)?);
    let lora = args.input.lora.as_deref();
    // Who names both a model and a reference needs nothing of it.
    let bundle = (args.model.dir.is_none() || reference.is_none()).then(Bundle::unpack).transpose()?;
    let dir = args.model.dir.clone().or_else(|| bundle.as_ref().map(Bundle::model)).expect("one of the two");
    let model = ModelDir::open(&dir)?.adapted(lora)?;
    if !model.graph().components().iter().any(|c| points.accepts(&c.point)) {
        return Err(points.chooses_nothing());
    }
    let work = tempfile::tempdir()
        .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
    crate::files::remove_on_interrupt(work.path());
    let sources = Sources::new(args, reference, &model, bundle.as_ref(), &points, work.path(), ui)?;
    let (model, points, sources, work) = (&model, &points, &sources, work.path());
    let job = Job { args, model, points, sources, work, open, out, ui };
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
    /// Where the report is being written, and traces beside it.
    out: Option<&'a Path>,
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
        let open = || (self.open)(name, own, args.path.as_deref());
        let mut engine = open()?;
        let Some(against) = &sources.against else {
            return self.judge_by_itself(name, engine.as_mut(), own, work);
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
        if let (Some(python), Some(weights), None) = (&sources.python, &weights, &arm) {
            // PyTorch needs the memory.
            drop(engine);
            let (dtype, steps, quiet) = ("float32", sources.steps, ui.quiet);
            let model = weights;
            let request =
                torch::Request { model, prompts: &prompts, points, dtype, activation_bits, steps, quiet };
            arm = Some(Arm::capture(python, &request, work)?);
            engine = open()?;
        }
        let request = Request {
            model: own,
            prompts: &prompts,
            steps: sources.steps,
            points,
            dequantized: weights.as_ref(),
            quiet: ui.quiet,
        };
        let run = Run { name, feed: Feed::Plain, request, work };
        self.watch(&run, engine.as_mut(), against, arm, Some(&held))
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
