//! From two traces to a report.

use super::again::{Revisit, again};
use super::arms::{Arms, Figures, by_token, figures};
use super::details::{Chosen, Sides, by_prompt};
use super::diagnosis::diagnoses;
use super::json::{
    Coverage, Fault, FloorReport, Growth, Outcome, PromptReport, Report, ReportProvenance, Side, State,
};
use super::points::points;
use super::prompts::{prompt_report, prompts_of, worst_prompt};
use super::ratios::ratios;
use super::replays::not_replayed;
use super::rows::{Row, rows};
use super::warnings::{hashes, warnings};
use crate::arms::Quantization;
use crate::basis::Gains;
use crate::compare::refuse_repeated_layers;
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::model::{Graph, PointFilter, layer_of};
use crate::online::Measured;
use crate::replay::Held;
use crate::trace::{SelfCheck, StatedAdapter, Status, Trace};

/// What to compare, and with what floor.
#[derive(Debug)]
pub struct Options<'a> {
    /// The architecture of both.
    pub graph: &'a Graph,
    /// Which points were asked for.
    pub points: &'a PointFilter,
    /// What errors are held against.
    pub floor: &'a Floor,
    /// The floors of the reference, by precision: they are shown. The one above is among them, or that of
    /// arm Q.
    pub floors: &'a [Floor],
    /// Arm Q, where it was run.
    pub quantized: Option<&'a Trace>,
    /// The weights that the candidate computes with, which switch replay on.
    pub held: Option<&'a Held>,
    /// Those that the reference computes with, where they are known: it is replayed where the candidate is
    /// sound and the two disagree all the same.
    pub reference_held: Option<&'a Held>,
    /// The gains of the original checkpoint, for traces of a rotated one.
    pub gains: &'a Gains,
    /// Compare although the weights differ.
    pub other_weights: bool,
    /// What was found out while the candidate ran, where its trace has no values.
    pub live: Option<Live<'a>>,
    /// The command line, for the report.
    pub command: Vec<String>,
    /// No progress bars.
    pub quiet: bool,
}

/// A candidate that was compared and replayed while it ran.
#[derive(Clone, Copy)]
pub struct Live<'a> {
    /// What was found out.
    pub measured: &'a Measured,
    /// Runs it again, for these points of these prompts.
    pub again: &'a dyn Fn(&Revisit) -> Result<Trace>,
    /// True where what is at fault is kept: all of it is then wanted, not only what is diagnosed.
    pub keeps: bool,
}

impl std::fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// Compares `candidate` with `reference` and writes down the verdict.
pub fn assemble(reference: &Trace, candidate: &Trace, options: &Options<'_>) -> Result<Report> {
    let graph = options.graph;
    if let [("weights", Some(r), Some(c)), ..] = hashes(reference, candidate)
        && r != c
        && !options.other_weights
    {
        return Err(Error::new("the two traces are of different weights, so that no difference is an error")
            .expected(r, c)
            .at(candidate.path())
            .hint("capture both on one checkpoint; to compare two checkpoints on purpose: `compare --other-weights`"));
    }
    if !options.other_weights {
        let [r, c] = [reference, candidate].map(|side| StatedAdapter::of(side.manifest()));
        r.refuse_other(c).map_err(|e| e.at(candidate.path()))?;
    }
    refuse_repeated_layers(graph, reference)?;
    // Of a running candidate that was done while it ran.
    if options.live.is_none() {
        refuse_repeated_layers(graph, candidate)?;
    }
    let quantization = Quantization::of(reference, candidate, options.quantized)?;
    let rows = rows(reference, candidate, quantization, options)?;
    let prompts: Vec<PromptReport> =
        prompts_of(reference, candidate).map(|prompt| prompt_report(prompt, &rows)).collect();
    let mut found: Vec<(usize, Fault)> = rows.iter().filter_map(|row| fault(row, graph)).collect();
    found.sort_by(|(a, x), (b, y)| (x.step, a).cmp(&(y.step, b)).then(y.ratio.total_cmp(&x.ratio)));
    let faults: Vec<Fault> = found.into_iter().map(|(_, fault)| fault).collect();
    let coverage = prompts.iter().fold(Coverage::default(), |sum, p| sum.plus(p.coverage));
    assert_eq!(coverage.expected, coverage.matched + coverage.mismatched + coverage.unmeasured);
    let self_check = candidate.manifest().self_check.clone().unwrap_or_else(|| SelfCheck::new(Vec::new()));
    let warnings = warnings(reference, candidate, options.floor, quantization, &self_check, &rows);
    let outcome = outcome(&prompts, [reference, candidate]);
    let floors: Vec<&Floor> = options.floors.iter().collect();
    let quantized = candidate.manifest().provenance.quantized;
    let all = rows.iter().map(|row| (row, figures(row, quantization, quantized, &floors)));
    let all: Vec<(&Row<'_>, Figures)> = all.collect();
    let worst = largest(&all, |f| f.engine.or(f.total));
    let dearest = largest(&all, |f| f.quantization.filter(|price| *price != 0.0));
    let details = Chosen::of(graph, &rows);
    let again =
        options.live.map(|live| again(live, reference, candidate, &faults, &details, options)).transpose()?;
    let values = again.as_ref().map_or(candidate, |again| again.as_ref().unwrap_or(candidate));
    let diagnosis = diagnoses(values, &faults, options);
    let verdict =
        super::verdict::verdict(outcome, &faults, &diagnosis, &rows, &coverage, quantization, options);
    let points = points(&all);
    let sides = Sides::new(reference, values, options);
    let first = faults.first();
    let prompt_id = first.map_or_else(|| worst_prompt(&prompts), |f| f.prompt.clone());
    Ok(Report {
        format: "layerdiff-report".into(),
        version: 1,
        outcome,
        verdict,
        engine: candidate.manifest().provenance.engine.clone(),
        arms: Arms::new(reference, candidate, quantization, &floors),
        worst,
        dearest,
        by_token: by_token(graph, &rows, quantization, &prompt_id),
        prompt_id,
        architecture: graph.description().name.clone(),
        layer_types: graph.layer_types().to_vec(),
        coverage,
        growth: Growth {
            first_layer: first.and_then(|f| f.layer),
            first_point: first.map(|f| f.point.clone()),
            step: first.map(|f| f.step),
            prompt: first.map(|f| f.prompt.clone()),
            largest_factor: largest_factor(&rows),
        },
        first_fault: first.cloned(),
        faults,
        diagnosis,
        ratios: ratios(&rows),
        replay_unmeasured: not_replayed(&rows),
        floor: FloorReport {
            kind: options.floor.kind().into(),
            description: if options.floors.iter().any(|f| std::ptr::eq(f, options.floor)) {
                options.floor.description()
            } else {
                options.floor.description().replace("the reference", "arm Q, on its weights")
            },
        },
        heads: sides.heads(&details),
        by_value: sides.by_value(&details),
        by_prompt: by_prompt(&rows, &points, &prompts),
        points,
        self_check,
        prompts,
        warnings,
        provenance: ReportProvenance {
            layerdiff: env!("CARGO_PKG_VERSION").into(),
            command: options.command.clone(),
            reference: reference.manifest().provenance.clone(),
            candidate: candidate.manifest().provenance.clone(),
        },
    })
}

/// A failed self-check of either side spoils everything; a fault outweighs what could not be measured.
fn outcome(prompts: &[PromptReport], sides: [&Trace; 2]) -> Outcome {
    let any = |wanted| prompts.iter().any(|p| p.outcome == wanted);
    let checks = sides.into_iter().filter_map(|side| side.manifest().self_check.as_ref());
    if checks.into_iter().any(|check| check.status == Status::Different) {
        Outcome::Invalid
    } else if any(Outcome::Fault) {
        Outcome::Fault
    } else if any(Outcome::Invalid) {
        Outcome::Invalid
    } else if any(Outcome::Unmeasured) {
        Outcome::Unmeasured
    } else {
        Outcome::Pass
    }
}

/// The largest factor over the points whose error is explained.
fn largest_factor(rows: &[Row<'_>]) -> Option<f64> {
    let factors = rows.iter().filter_map(|row| {
        let (metrics, judgement) = (row.judged()?, row.judgement.as_ref()?);
        (judgement.state == State::Explained).then(|| judgement.factor(metrics.rel_l2))
    });
    factors.max_by(f64::total_cmp)
}

/// The fault that is born at a row, with its place in the architecture's order of execution.
fn fault(row: &Row<'_>, graph: &Graph) -> Option<(usize, Fault)> {
    let (metrics, judgement) = (row.judged()?, row.judgement.as_ref()?);
    if judgement.state != State::Born {
        return None;
    }
    let point = row.pair.point;
    // What the architecture does not know cannot be placed in its order, and never takes the headline
    // from what it knows.
    let order = graph.components().iter().position(|c| c.point == point).unwrap_or(usize::MAX);
    let proof = judgement.proof();
    let fault = Fault {
        point: point.to_owned(),
        side: proof.map_or(Side::Candidate, |(side, _)| side),
        layer: layer_of(point),
        component: graph.get(point).map_or_else(|| point.to_owned(), |c| c.name().to_owned()),
        step: row.pair.step,
        prompt: row.pair.prompt.to_owned(),
        ratio: proof.map_or(metrics.rel_l2 / judgement.explained, |(_, local)| local.ratio),
        rel_l2: metrics.rel_l2,
        reason: super::verdict::reason(metrics, judgement),
    };
    Some((order, fault))
}

/// Where the error that `of` takes is largest; NaN is larger than anything.
fn largest(all: &[(&Row<'_>, Figures)], of: impl Fn(&Figures) -> Option<f64>) -> Option<Figures> {
    let known = all.iter().filter_map(|(_, figures)| Some((figures, of(figures)?)));
    let size = |error: f64| if error.is_nan() { f64::INFINITY } else { error };
    known.max_by(|(_, a), (_, b)| size(*a).total_cmp(&size(*b))).map(|(figures, _)| figures.clone())
}
