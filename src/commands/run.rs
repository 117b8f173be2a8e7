//! `layerdiff run`: the whole job.

use super::compare::check_weights;
use super::{STEPS, Ui, chosen_prompts, command_line, publish, standard_prompts};
use crate::bundle::{Bundle, DEFAULT_PROMPT};
use crate::capture::{Request, capture};
use crate::checkpoint::{AdapterDir, ModelDir};
use crate::cli::RunArgs;
use crate::engine::torch::Python;
use crate::engine::{CANDIDATES, check_known};
use crate::error::{Error, Result};
use crate::files::ReplacedDir;
use crate::floor::Floor;
use crate::model::PointFilter;
use crate::prompt::{Prompt, select, tokenize};
use crate::report::{Options, Outcome, assemble};
use crate::trace::{StatedAdapter, Trace};
use std::path::{Path, PathBuf};

pub(super) fn run(args: &RunArgs, ui: Ui) -> Result<Outcome> {
    check_known(&args.engine, &CANDIDATES)?;
    let points = PointFilter::new(&args.input.points)?;
    let out = ReplacedDir::stage(&args.out, "report.json")?;
    let bundle = Bundle::unpack()?;
    let model = ModelDir::open(&args.model.clone().unwrap_or_else(|| bundle.model()))?
        .adapted(args.input.lora.as_deref())?;
    let work = tempfile::tempdir()
        .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
    crate::files::remove_on_interrupt(work.path());
    let sources = match args.reference.as_deref() {
        Some(word) if word.eq_ignore_ascii_case("torch") => live(args, &model, &points, work.path(), ui)?,
        Some(path) => stored(args, &model, Path::new(path), args.floor.clone())?,
        None if model.adapter().is_some() => {
            return Err(Error::new("this model with its adapter has no reference").hint(
                "the bundled reference has no adapter: add `--reference torch`, or `--reference TRACE`",
            ));
        }
        None if args.model.is_some() && !is_bundled(&model, &bundle)? => {
            return Err(Error::new("this model has no reference").hint(
                "the bundled reference belongs to the bundled model: add `--reference torch`, or `--reference TRACE`",
            ));
        }
        None => {
            stored(args, &model, &bundle.reference(), args.floor.clone().or_else(|| Some(bundle.floor())))?
        }
    };
    let candidate = work.path().join("candidate");
    let request = Request {
        engine: &args.engine,
        path: args.path.as_deref(),
        model: &model,
        prompts: &sources.prompts,
        steps: sources.steps,
        points: &points,
        quiet: ui.quiet,
    };
    capture(&request, &candidate)?;
    let candidate = Trace::open(&candidate)?;
    let floor = match &sources.floor {
        Some(path) => Floor::open(path, model.graph(), &sources.reference)?,
        None => Floor::Preset,
    };
    let gains = model.gains()?;
    let options = Options {
        graph: model.graph(),
        gains: &gains,
        points: &points,
        floor: &floor,
        other_weights: false,
        command: command_line(),
        quiet: ui.quiet,
    };
    let report = assemble(&sources.reference, &candidate, &options)?;
    publish(&report, Some(out), Some(&args.out), ui)
}

/// True for a copy of the bundled model, wherever it lies.
fn is_bundled(model: &ModelDir, bundle: &Bundle) -> Result<bool> {
    Ok(model.hashes()?.weights == ModelDir::open(&bundle.model())?.hashes()?.weights)
}

/// What the candidate is held against.
struct Sources {
    reference: Trace,
    floor: Option<PathBuf>,
    /// With the tokens that the reference decoded.
    prompts: Vec<Prompt>,
    steps: usize,
}

/// A reference that lies on disk; without a choice, its prompts are run.
fn stored(args: &RunArgs, model: &ModelDir, reference: &Path, floor: Option<PathBuf>) -> Result<Sources> {
    let reference = Trace::open(reference)?;
    check_weights(model, &reference)?;
    let hashes = model.hashes()?;
    let ours = StatedAdapter::new(model.adapter().map(AdapterDir::description), &hashes);
    StatedAdapter::of(reference.manifest()).refuse_other(ours).map_err(|e| e.at(reference.path()))?;
    let known = &reference.manifest().prompts;
    let prompts = match (&args.input.prompts, args.input.prompt.as_slice()) {
        (None, ids) => {
            let chosen = select(known.clone(), ids).map_err(|e| e.at(reference.path()))?;
            tokenized(chosen, model).map_err(|e| e.at(reference.path()))?
        }
        (Some(_), _) => tokenized(chosen_prompts(&args.input)?.unwrap_or_default(), model)?,
    };
    let decoded =
        prompts.iter().filter_map(|p| known.iter().find(|k| k.id == p.id)).map(|k| k.step_token_ids.len());
    let stored = decoded.min().unwrap_or(0);
    let steps = args.input.steps.unwrap_or(stored);
    if steps > stored {
        return Err(Error::new("the reference did not decode that far")
            .expected(format!("at most {stored} steps"), steps)
            .at(reference.path())
            .hint("capture it with more --steps, or use `--reference torch`"));
    }
    let prompts = with_reference_steps(prompts, &reference);
    let reference = reference.restricted_to(&prompts, steps);
    Ok(Sources { reference, floor, prompts, steps })
}

/// `PyTorch`, captured now; its 64-bit arm too, as the floor, unless another is named.
fn live(args: &RunArgs, model: &ModelDir, points: &PointFilter, work: &Path, ui: Ui) -> Result<Sources> {
    let chosen = match chosen_prompts(&args.input)? {
        Some(prompts) => prompts,
        None => select(standard_prompts()?, &[DEFAULT_PROMPT.to_owned()])?,
    };
    let prompts = tokenized(chosen, model)?;
    let python = Python::find(args.input.python.as_deref());
    let reference = work.join("reference");
    let steps = args.input.steps.unwrap_or(STEPS);
    python.capture(model, &prompts, points, "float32", steps, &reference, ui.quiet)?;
    let reference = Trace::open(&reference)?;
    let prompts = with_reference_steps(prompts, &reference);
    let floor = match &args.floor {
        Some(path) => path.clone(),
        None => {
            let arm = work.join("floor");
            python.capture(model, &prompts, points, "float64", steps, &arm, ui.quiet)?;
            arm
        }
    };
    Ok(Sources { reference, floor: Some(floor), prompts, steps })
}

/// The prompts with the tokens that the reference decoded.
fn with_reference_steps(mut prompts: Vec<Prompt>, reference: &Trace) -> Vec<Prompt> {
    for prompt in &mut prompts {
        if let Some(known) = reference.manifest().prompts.iter().find(|k| k.id == prompt.id) {
            prompt.step_token_ids.clone_from(&known.step_token_ids);
        }
    }
    prompts
}

fn tokenized(mut prompts: Vec<Prompt>, model: &ModelDir) -> Result<Vec<Prompt>> {
    tokenize(&mut prompts, model.path(), model.graph().dim("vocab"))?;
    Ok(prompts)
}
