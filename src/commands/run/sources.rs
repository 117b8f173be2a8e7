//! What the candidates are held against: the reference, the floors, and the arms that lie on disk.

use super::super::arm::Arm;
use super::super::compare::{check_weights, open_floors};
use super::super::{STEPS, Ui, chosen_prompts, standard_prompts};
use super::reference::Reference;
use crate::bundle::{Bundle, DEFAULT_PROMPT};
use crate::capture::{Request, capture, open_engine};
use crate::checkpoint::{AdapterDir, ModelDir};
use crate::cli::RunArgs;
use crate::engine::torch::{self, Python};
use crate::error::{Error, Result, nearest};
use crate::floor::Floor;
use crate::model::PointFilter;
use crate::prompt::{self, Prompt, select, tokenize};
use crate::split::cut;
use crate::trace::{StatedAdapter, Trace};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The precisions that PyTorch is run in beside the reference: the first is what errors are held
/// against, all are shown.
const FLOORS: [&str; 3] = ["float64", "bfloat16", "float16"];

/// A reference, with what it costs in other precisions.
pub(super) struct Against {
    /// The reference's directory.
    pub reference: PathBuf,
    /// The first is what errors are held against.
    pub floors: Vec<Floor>,
}

impl Against {
    /// A trace that an engine has just left, with the floors that were named.
    pub fn captured(reference: PathBuf, args: &RunArgs, model: &ModelDir) -> Result<Self> {
        let floors = open_floors(&args.floor, model.graph(), &Trace::open(&reference)?)?;
        Ok(Self { reference, floors })
    }
}

pub(super) struct Sources {
    /// None when each engine is held against itself.
    pub against: Option<Against>,
    /// With the tokens that the reference decoded, as far as they are known by now.
    prompts: Vec<Prompt>,
    /// True when these very prompts were asked for.
    chosen: bool,
    pub steps: usize,
    /// Where PyTorch runs, if it does.
    pub python: Option<Python>,
    /// Arms that lie on disk.
    arms: Vec<PathBuf>,
}

impl Sources {
    pub fn new(
        args: &RunArgs,
        reference: Option<Reference<'_>>,
        model: &ModelDir,
        bundle: Option<&Bundle>,
        points: &PointFilter,
        work: &Path,
        ui: Ui,
    ) -> Result<Self> {
        match reference {
            Some(Reference::Torch) => Self::live(args, model, points, work, ui),
            Some(Reference::Itself) => Self::itself(args, model),
            Some(Reference::Engine(name, path)) => Self::engine(args, model, (name, path), points, work, ui),
            Some(Reference::Stored(path)) => {
                Self::stored(args, model, (path, path), &args.floor, &args.quantized)
            }
            None if model.adapter().is_some() => Err(Error::new(
                "this model with its adapter has no reference",
            )
            .hint("the bundled reference has no adapter: add `--reference torch`, or `--reference TRACE`")),
            None => Self::bundled(args, model, bundle.expect("it is unpacked where no reference is named")),
        }
    }

    /// The bundled reference, which belongs to the bundled model.
    fn bundled(args: &RunArgs, model: &ModelDir, bundle: &Bundle) -> Result<Self> {
        if args.model.dir.is_some() && !is_bundled(model, bundle)? {
            return Err(Error::new("this model has no reference").hint(
                "the bundled reference belongs to the bundled model: add `--reference torch`, or `--reference TRACE`",
            ));
        }
        let floors = if args.floor.is_empty() { bundle.floors()? } else { args.floor.clone() };
        let arms = if args.quantized.is_empty() { bundle.arms()? } else { args.quantized.clone() };
        // Where it was unpacked to helps nobody.
        let named = Path::new("(the bundled reference)");
        Self::stored(args, model, (&bundle.reference(), named), &floors, &arms)
    }

    /// A reference that lies on disk, and what errors call it; without a choice, its prompts are run.
    fn stored(
        args: &RunArgs,
        model: &ModelDir,
        (path, named): (&Path, &Path),
        floors: &[PathBuf],
        arms: &[PathBuf],
    ) -> Result<Self> {
        let reference = Trace::open(path)?;
        check_weights(model, &reference)?;
        let hashes = model.hashes()?;
        let ours = StatedAdapter::new(model.adapter().map(AdapterDir::description), &hashes);
        StatedAdapter::of(reference.manifest()).refuse_other(ours).map_err(|e| e.at(named))?;
        let known = &reference.manifest().prompts;
        let prompts = match (&args.input.prompts, args.input.prompt.ids.as_slice()) {
            (None, ids) => {
                refuse_missing(ids, known, named)?;
                let chosen = select(known.clone(), ids).map_err(|e| e.at(named))?;
                tokenized(chosen, model).map_err(|e| e.at(named))?
            }
            (Some(_), _) => {
                let chosen = chosen_prompts(&args.input)?.unwrap_or_default();
                refuse_missing(chosen.iter().map(|p| &p.id), known, named)?;
                tokenized(chosen, model)?
            }
        };
        let of_both = prompts.iter().filter_map(|p| known.iter().find(|k| k.id == p.id));
        let stored = of_both.map(|k| k.step_token_ids.len()).min().unwrap_or(0);
        let steps = args.input.steps.unwrap_or(stored);
        if steps > stored {
            return Err(Error::new("the reference did not decode that far")
                .expected(format!("at most {stored} steps"), steps)
                .at(named)
                .hint("capture it with more --steps, or use `--reference torch`"));
        }
        let prompts = with_reference_steps(prompts, &reference);
        let reference = reference.restricted_to(&prompts, steps);
        Ok(Self {
            against: Some(Against {
                floors: open_floors(floors, model.graph(), &reference)?,
                reference: path.to_owned(),
            }),
            prompts,
            chosen: args.input.prompts.is_some() || !args.input.prompt.ids.is_empty(),
            steps,
            python: None,
            arms: arms.to_vec(),
        })
    }

    /// `PyTorch`, captured now; in other precisions too, as the floors, unless others are named.
    fn live(args: &RunArgs, model: &ModelDir, points: &PointFilter, work: &Path, ui: Ui) -> Result<Self> {
        let prompts = wanted(args, model)?;
        if model.is_quantized() {
            return Err(Error::new("PyTorch cannot run a quantized directory")
                .at(model.path())
                .hint("name the original as --model, and this directory with --weights"));
        }
        let python = Python::find(args.input.python.file.as_deref());
        let steps = args.input.steps.unwrap_or(STEPS);
        refuse_too_long(&prompts, steps, "--steps", model)?;
        let run = |dtype: &str, prompts: &[Prompt], out: &Path| {
            let quiet = ui.quiet;
            let request =
                torch::Request { model, prompts, points, dtype, activation_bits: None, steps, quiet };
            python.capture(&request, out)
        };
        let path = work.join("reference");
        run("float32", &prompts, &path)?;
        let reference = Trace::open(&path)?;
        let prompts = with_reference_steps(prompts, &reference);
        let floors = if args.floor.is_empty() {
            let measure = |dtype| {
                let arm = work.join(dtype);
                run(dtype, &prompts, &arm)?;
                let floor = Floor::from_trace(&Trace::open(&arm)?, model.graph(), &reference);
                // Its numbers are all that is needed, and it may be large.
                std::fs::remove_dir_all(&arm).map_err(|e| Error::io("remove a temporary trace", &arm, &e))?;
                floor
            };
            FLOORS.into_iter().map(measure).collect::<Result<_>>()?
        } else {
            open_floors(&args.floor, model.graph(), &reference)?
        };
        Ok(Self {
            against: Some(Against { reference: path, floors }),
            prompts,
            chosen: true,
            steps,
            python: Some(python),
            arms: args.quantized.clone(),
        })
    }

    /// Another engine, or another path of the same one, captured now.
    fn engine(
        args: &RunArgs,
        model: &ModelDir,
        (name, path): (&str, &str),
        points: &PointFilter,
        work: &Path,
        ui: Ui,
    ) -> Result<Self> {
        let prompts = wanted(args, model)?;
        let steps = args.input.steps.unwrap_or(STEPS);
        let out = work.join("reference");
        let request = Request { model, prompts: &prompts, steps, points, dequantized: None, quiet: ui.quiet };
        capture(open_engine(name, model, Some(path))?.as_mut(), &request, &out)?;
        let prompts = with_reference_steps(prompts, &Trace::open(&out)?);
        let against = Some(Against::captured(out, args, model)?);
        let arms = args.quantized.clone();
        Ok(Self { against, prompts, chosen: true, steps, python: None, arms })
    }

    /// Each engine is its own reference, captured when it is loaded: one token less in the prefill, and one
    /// step more.
    fn itself(args: &RunArgs, model: &ModelDir) -> Result<Self> {
        let prompts = wanted(args, model)?.iter().map(cut).collect::<Result<_>>()?;
        let steps = args.input.steps.unwrap_or(STEPS) + 1;
        Ok(Self { against: None, prompts, chosen: true, steps, python: None, arms: Vec::new() })
    }

    /// The arm that was run on these weights, if one of those on disk was.
    pub fn stored_arm(&self, weights: &ModelDir, activation_bits: Option<u32>) -> Result<Option<Arm>> {
        let hashes = weights.hashes()?;
        for path in &self.arms {
            let trace = Trace::open(path)?;
            let who = &trace.manifest().provenance;
            let same = who.hashes.weights == hashes.weights && who.hashes.adapter == hashes.adapter;
            if same && who.activation_bits == activation_bits {
                return Arm::open(trace, weights.graph()).map(Some);
            }
        }
        Ok(None)
    }

    /// The prompts of a run that is held against `arm` too: without a choice, those that it has.
    pub fn prompts_for(&self, arm: Option<&Arm>) -> Vec<Prompt> {
        let wanted = |p: &&Prompt| self.chosen || arm.is_none_or(|arm| arm.has(&p.id));
        self.prompts.iter().filter(wanted).cloned().collect()
    }
}

/// Refuses prompts that a stored reference lacks, before any engine has run.
fn refuse_missing<'a>(
    wanted: impl IntoIterator<Item = &'a String>,
    known: &[Prompt],
    reference: &Path,
) -> Result<()> {
    let wanted: Vec<&String> = wanted.into_iter().collect();
    let missing: Vec<&str> =
        wanted.iter().filter(|id| !known.iter().any(|k| k.id == ***id)).map(|id| id.as_str()).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let some = |ids: &mut dyn Iterator<Item = &str>, of: usize| {
        let more = if of > 3 { format!(", … ({of})") } else { String::new() };
        ids.take(3).collect::<Vec<_>>().join(", ") + &more
    };
    let what = match missing.len() {
        1 => format!("the reference lacks prompt `{first}`"),
        n => format!("the reference lacks {n} of the {} prompts", wanted.len()),
    };
    let near = nearest(first, known.iter().map(|k| k.id.as_str()));
    let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    Err(Error::new(what)
        .expected(
            some(&mut known.iter().map(|k| k.id.as_str()), known.len()),
            some(&mut missing.iter().copied(), missing.len()),
        )
        .at(reference)
        .hint(format!("{near}`--reference torch` captures PyTorch on any prompt")))
}

/// Refuses prompts that no engine has positions for, before any of them has run; `option` is what `steps` is
/// from.
pub(in crate::commands) fn refuse_too_long(
    prompts: &[Prompt],
    steps: usize,
    option: &str,
    model: &ModelDir,
) -> Result<()> {
    let section = &model.graph().description().config_section;
    let Some(most) = model.config().get(section, "max_position_embeddings").and_then(Value::as_u64) else {
        return Ok(());
    };
    let lengths = prompts.iter().map(|p| (p, p.token_ids.len() + steps));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let included = match option {
        "--tokens" => "generated ones",
        "--shots" => "examples",
        _ => "decode steps",
    };
    prompt::refuse_too_long(lengths, ("model", most), (included, option))
}

/// True for a copy of the bundled model, wherever it lies.
fn is_bundled(model: &ModelDir, bundle: &Bundle) -> Result<bool> {
    Ok(model.hashes()?.weights == ModelDir::open(&bundle.model())?.hashes()?.weights)
}

/// The prompts that were asked for, or the default one.
fn wanted(args: &RunArgs, model: &ModelDir) -> Result<Vec<Prompt>> {
    let chosen = match chosen_prompts(&args.input)? {
        Some(prompts) => prompts,
        None => select(standard_prompts()?, &[DEFAULT_PROMPT.to_owned()])?,
    };
    tokenized(chosen, model)
}

/// The prompts with the tokens that the reference decoded.
pub(super) fn with_reference_steps(mut prompts: Vec<Prompt>, reference: &Trace) -> Vec<Prompt> {
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
