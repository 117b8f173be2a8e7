//! Capturing an engine's run of some prompts into a trace.

use crate::checkpoint::{AdapterDir, ModelDir};
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::hook::CaptureHook;
use crate::model::PointFilter;
use crate::number::count;
use crate::progress;
use crate::prompt::{Prompt, refuse_too_long};
use crate::split::Feed;
use crate::trace::{
    ADAPTER_NOT_APPLIED, Evidence, Provenance, SelfCheck, Sink, Status, TraceWriter, WriteOptions,
};
use std::path::Path;

/// Bytes of tensors that are kept before a shard is written.
const SHARD_BYTES: usize = 8 << 20;

/// What to capture.
#[derive(Debug)]
pub struct Request<'a> {
    /// The model.
    pub model: &'a ModelDir,
    /// The prompts, with token ids.
    pub prompts: &'a [Prompt],
    /// How many decode steps: on the prompts' own step tokens, then greedily.
    pub steps: usize,
    /// Which points.
    pub points: &'a PointFilter,
    /// The weights that the engine computes with, where they were written down.
    pub dequantized: Option<&'a ModelDir>,
    /// No progress bars.
    pub quiet: bool,
}

/// Loads a model into the engine called `name`; `path` chooses one of its numeric paths.
pub fn open_engine(name: &str, model: &ModelDir, path: Option<&str>) -> Result<Box<dyn Engine>> {
    let _stage = progress::stage(format_args!("loading {} into {name}", model.path().display()));
    engine::open(name, model.path(), model.base_graph(), path)
        .map_err(|e| e.hint("is the checkpoint complete? download it again, or try it with --engine torch"))
}

/// Writes the weights that `engine` computes with to `out`; none when they are those of `source`, or when
/// they cannot be had because `source` is itself rotated and its original is not known.
pub fn dequantized(engine: &dyn Engine, source: &ModelDir, out: &Path) -> Result<Option<ModelDir>> {
    if source.is_quantized() && engine.rotation().is_some() {
        return Ok(None);
    }
    // The adapter is no part of what an engine quantizes.
    let adapter = source.adapter().map(AdapterDir::path);
    let _stage = progress::stage("writing the weights that the engine computes with");
    engine.write_dequantized(source, out)?.then(|| ModelDir::open(out)?.adapted(adapter)).transpose()
}

/// Runs the prompts and writes the trace; fails, and writes nothing, unless the instrumented
/// engine is bit-identical to the real one on every prompt.
pub fn capture(engine: &mut dyn Engine, request: &Request<'_>, out: &Path) -> Result<()> {
    capture_fed(Feed::Plain, engine, request, out)
}

/// The same, with the tokens given to the engine in another way.
pub fn capture_fed(feed: Feed, engine: &mut dyn Engine, request: &Request<'_>, out: &Path) -> Result<()> {
    // The target is tried first: a bad one must not cost a run.
    drop(crate::files::staging_dir(out)?);
    let (writer, check) = watch(feed, engine, request, |options| TraceWriter::create(out, options))?;
    writer.finish(Some(check))
}

/// Runs the prompts and shows every tensor to the sink that `open` makes; fails unless the instrumented engine
/// is bit-identical to the real one on every prompt. Returns the sink, and what proves that.
pub fn watch<S: Sink>(
    feed: Feed,
    engine: &mut dyn Engine,
    request: &Request<'_>,
    open: impl FnOnce(WriteOptions) -> Result<S>,
) -> Result<(S, SelfCheck)> {
    let graph = request.model.graph();
    let lengths = request.prompts.iter().map(|p| (p, p.token_ids.len() + request.steps));
    refuse_too_long(lengths, ("engine", engine.max_tokens()), ("decode steps", "--steps"))?;
    // A checkpoint may be rotated without being quantized.
    let rotation = engine.rotation().map_or_else(|| request.model.rotation(), |seed| Ok(Some(seed)))?;
    let left_out: Vec<&str> = feed.left_out(graph).filter(|point| request.points.accepts(point)).collect();
    let provenance = provenance(feed, engine, request, left_out.len())?;
    let name = provenance.engine.clone();
    let _stage = progress::stage(format_args!(
        "capturing {name}, {}: {}, {}",
        provenance.path,
        count(request.prompts.len(), "prompt"),
        count(request.steps, "step")
    ));
    let mut sink = open(write_options(request.model, provenance))?;
    left_out.iter().for_each(|point| sink.leave_out(0, point));
    let mut evidence: Vec<Evidence> = Vec::new();
    let bar = progress::bar("capturing", request.prompts.len() as u64, request.quiet);
    for prompt in request.prompts {
        bar.set_message(prompt.id.clone());
        let prompt = with_steps(prompt, request.steps, engine)?;
        sink.start_prompt(&prompt)?;
        let mut hook = CaptureHook::new(&mut sink, request.points).of(graph, rotation);
        let found = feed.run(engine, graph, &prompt, &mut hook)?;
        sink.end_prompt()?;
        evidence.extend(found);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let check = SelfCheck::over(evidence);
    require_identical(&name, &check)?;
    Ok((sink, check))
}

/// Who computes, on what; puts the adapter on the engine. `left_out` is the number of states that the trace
/// cannot have.
fn provenance(
    feed: Feed,
    engine: &mut dyn Engine,
    request: &Request<'_>,
    left_out: usize,
) -> Result<Provenance> {
    let mut provenance = engine.provenance();
    provenance.hashes = request.model.hashes()?;
    if let Some(adapter) = request.model.adapter()
        && !engine.adapt(adapter)?
    {
        let note = format!("{} has no adapter hook: {ADAPTER_NOT_APPLIED}", provenance.engine);
        provenance.notes.push(note);
    }
    if let Some(weights) = request.dequantized {
        provenance.hashes.dequantized = weights.hashes()?.weights;
    }
    if let Some(given) = feed.describe(request.prompts, request.steps) {
        provenance.path = format!("{}, {given}", provenance.path);
    }
    if feed == Feed::Joined && left_out > 0 {
        provenance.notes.push(format!(
            "{} at the end of step 0 {} unmeasured by nature, and left out of both sides: a prefill with \
             one token more leaves only those after it",
            count(left_out, "state"),
            if left_out == 1 { "is" } else { "are" }
        ));
    }
    Ok(provenance)
}

/// What a trace of this model says before its first tensor.
pub(crate) fn write_options(model: &ModelDir, provenance: Provenance) -> WriteOptions {
    WriteOptions {
        architecture: model.graph().description().name.clone(),
        config: model.config().as_json().clone(),
        provenance,
        adapter: model.adapter().map(|a| a.description().clone()),
        shard_bytes: SHARD_BYTES,
    }
}

/// The prompt with exactly `steps` tokens to decode; those that it lacks are the engine's own.
fn with_steps(prompt: &Prompt, steps: usize, engine: &dyn Engine) -> Result<Prompt> {
    let mut prompt = prompt.clone();
    prompt.step_token_ids.truncate(steps);
    let known = prompt.step_token_ids.len();
    if known < steps {
        let all = [prompt.token_ids.as_slice(), &prompt.step_token_ids].concat();
        prompt.step_token_ids.extend(engine.greedy(&all, steps - known)?);
    }
    Ok(prompt)
}

/// Refuses a run whose instrumented pass was not bit for bit that of the engine called `engine`.
pub(crate) fn require_identical(engine: &str, check: &SelfCheck) -> Result<()> {
    match check.status {
        Status::Different => Err(not_identical(engine, check)),
        _ => Ok(()),
    }
}

fn not_identical(engine: &str, check: &SelfCheck) -> Error {
    let worst = check.evidence.iter().max_by_key(|e| e.mismatches).expect("different evidence is there");
    Error::new(format!("self-check failed: the instrumented {engine} is not bit-identical to the engine"))
        .expected(
            format!("{} as {} gives them", worst.what, worst.entry_point),
            format!("{} of {} numbers differ", worst.mismatches, worst.elements),
        )
        .hint("nothing was written, since nothing could be said about the real engine; please report this with your CPU's features")
}
