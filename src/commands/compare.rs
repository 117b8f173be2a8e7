//! `layerdiff compare`.

use super::arm::Arm;
use super::{Ui, command_line, publish};
use crate::basis::{Gains, ORIGINAL};
use crate::checkpoint::ModelDir;
use crate::cli::CompareArgs;
use crate::error::{Error, Result};
use crate::files::ReplacedDir;
use crate::floor::Floor;
use crate::model::{Description, Graph, ModelConfig, PointFilter};
use crate::prompt::{select, token_texts};
use crate::replay::Held;
use crate::report::{Options, Outcome, assemble};
use crate::trace::Trace;
use std::path::PathBuf;

pub(super) fn run(args: &CompareArgs, ui: Ui) -> Result<Outcome> {
    let mut points = PointFilter::new(&args.points)?;
    let out = args.out.as_deref().map(|out| ReplacedDir::stage(out, "report.json")).transpose()?;
    let mut reference = Trace::open(&args.reference)?;
    let mut candidate = Trace::open(&args.candidate)?;
    if !args.prompt.ids.is_empty() {
        // Both must have them: what one lacks cannot be asked for.
        let chosen = |trace: &Trace| {
            select(trace.manifest().prompts.clone(), &args.prompt.ids).map_err(|e| e.at(trace.path()))
        };
        chosen(&candidate)?;
        let chosen = chosen(&reference)?;
        let only = |trace: Trace| trace.restricted_to(&chosen, usize::MAX);
        (reference, candidate) = (only(reference), only(candidate));
    }
    if args.only_captured {
        (points, reference) = only_captured(points, reference, &candidate);
    }
    let graph = graph_of(&reference)?;
    let mut gains = Gains::default();
    let mut quantized = false;
    if let Some(dir) = &args.model {
        let model = ModelDir::open(dir)?;
        gains = model.gains()?;
        check_weights(&model, &reference)?;
        // Quantized or rotated weights are other weights by nature.
        quantized = candidate.manifest().provenance.quantized
            || candidate.entries().iter().any(|e| e.basis != ORIGINAL);
        if !quantized {
            check_weights(&model, &candidate)?;
        }
    }
    let held = held(args, &candidate)?;
    let reference_held = match &args.model {
        Some(dir) => as_it_is(&ModelDir::open(dir)?, &reference)?,
        None => None,
    };
    let floors = open_floors(&args.floor, &graph, &reference)?;
    let arm = match &args.quantized {
        Some(path) => Some(Arm::open(Trace::open(path)?, &graph)?),
        None => None,
    };
    let arm_floor = arm.as_ref().and_then(|arm| arm.floor.as_ref());
    let options = Options {
        graph: &graph,
        points: &points,
        floor: arm_floor.unwrap_or_else(|| floors.first().expect("at least one")),
        floors: &floors,
        quantized: arm.as_ref().map(|arm| &arm.trace),
        gains: &gains,
        held: held.as_ref(),
        reference_held: reference_held.as_ref(),
        other_weights: args.other_weights || quantized,
        live: None,
        command: command_line(),
        quiet: ui.quiet,
    };
    let mut report = assemble(&reference, &candidate, &options)?;
    if let Some(text) = args.model.as_deref().and_then(token_texts) {
        report.name_tokens(text);
    }
    let outcome = publish(&report, out, args.out.as_deref(), ui)?;
    let there: std::collections::BTreeSet<&str> =
        candidate.entries().iter().map(|e| e.point.as_str()).collect();
    let lacks = report.points.iter().any(|p| !there.contains(p.point.as_str()));
    if outcome == Outcome::Unmeasured && lacks && !args.only_captured {
        ui.say(
            "hint: the candidate lacks points: `--only-captured` compares those that it has, `--points GLOB` some",
        );
    }
    if report.verdict.rests_on != "replay" {
        let known = candidate.manifest().provenance.hashes.weights.is_some();
        how_to_replay(args, known).into_iter().for_each(|hint| ui.say(format_args!("hint: {hint}")));
    }
    Ok(outcome)
}

/// What has to be named so that a candidate, whose weights the trace tells or not, can be replayed.
fn how_to_replay(args: &CompareArgs, known: bool) -> Option<&'static str> {
    match (&args.weights, &args.model) {
        (None, None) if known => {
            Some("with `--model DIR`, the model of both traces, each component is proved alone, by replay")
        }
        // A model says what the reference computes with, and nothing about a trace without a hash, such as one of
        // imported dumps.
        (None, _) if !known => Some(
            "the candidate was not replayed, since its weights are unknown: `--weights DIR` says what it computes with",
        ),
        _ => None,
    }
}

/// Asks for no other points, prompts and steps than the candidate has. A point that it has in one step and
/// lacks in another stays unmeasured there.
fn only_captured(points: PointFilter, reference: Trace, candidate: &Trace) -> (PointFilter, Trace) {
    let there = candidate.entries().iter().map(|e| e.point.clone()).collect();
    let steps = candidate.entries().iter().map(|e| e.step as usize).max().unwrap_or(0);
    let prompts = candidate.manifest().prompts.clone();
    (points.among(there), reference.restricted_to(&prompts, steps))
}

/// The weights that the candidate computes with, where they are known: those that were named, or the
/// model's if it ran on them as they are.
fn held(args: &CompareArgs, candidate: &Trace) -> Result<Option<Held>> {
    let who = &candidate.manifest().provenance;
    if let Some(dir) = &args.weights {
        let model = ModelDir::open(dir)?;
        let known = [&who.hashes.weights, &who.hashes.dequantized];
        let ours = model.hashes()?.weights;
        if known.iter().all(|hash| hash.is_some() && **hash != ours) {
            return Err(Error::new("the candidate does not compute with these weights")
                .expected(
                    known.map(|h| h.as_deref().unwrap_or("unknown")).join(" or "),
                    ours.unwrap_or_default(),
                )
                .at(dir)
                .hint("make them with `layerdiff dequantize`"));
        }
        return open(&model).map(Some);
    }
    let Some(dir) = &args.model else { return Ok(None) };
    as_it_is(&ModelDir::open(dir)?, candidate)
}

fn open(model: &ModelDir) -> Result<Held> {
    Held::open(model.path(), model.graph().clone(), model.config().clone())
}

/// A model's weights, if the trace states that its engine computed with them as they are.
pub(super) fn as_it_is(model: &ModelDir, trace: &Trace) -> Result<Option<Held>> {
    let who = &trace.manifest().provenance;
    let exact = !who.quantized && who.parameter_error.is_empty();
    let known = who.hashes.weights.is_some();
    if exact && known && model.hashes()?.weights == who.hashes.weights {
        open(model).map(Some)
    } else {
        Ok(None)
    }
}

/// The floors at these places; the preset one where there are none.
pub(super) fn open_floors(paths: &[PathBuf], graph: &Graph, reference: &Trace) -> Result<Vec<Floor>> {
    match paths {
        [] => Ok(vec![Floor::Preset]),
        paths => {
            let open = |path: &PathBuf| Floor::open(path, graph, reference);
            let mut floors = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
            // Errors are held against the finest: a coarser one would excuse more.
            floors.sort_by(|a, b| a.coarseness().total_cmp(&b.coarseness()));
            Ok(floors)
        }
    }
}

/// The components of the model that a trace is of.
pub(super) fn graph_of(trace: &Trace) -> Result<Graph> {
    let manifest = trace.manifest();
    let graph = || {
        let plain = Graph::new(
            Description::named(&manifest.architecture)?,
            &ModelConfig::new(manifest.config.clone())?,
        )?;
        manifest.adapter.iter().try_fold(plain, |graph, adapter| graph.adapted(adapter))
    };
    graph().map_err(|e| {
        e.at(trace.path().join(crate::trace::MANIFEST))
            .hint("does the trace's `config` belong to its `architecture`?")
    })
}

/// Refuses a trace of other weights than the model's, where the trace says what they were.
pub(super) fn check_weights(model: &ModelDir, trace: &Trace) -> Result<()> {
    let ours = model.hashes()?;
    let theirs = &trace.manifest().provenance.hashes;
    let pairs = [("weights", ours.weights, &theirs.weights), ("configuration", ours.config, &theirs.config)];
    for (what, ours, theirs) in pairs {
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours != *theirs
        {
            return Err(Error::new(format!("the trace was captured on another model: its {what} differ"))
                .expected(ours, theirs)
                .at(trace.path())
                .hint("capture the trace anew on this model, for example with `--reference torch`"));
        }
    }
    Ok(())
}
