//! From two traces to a report.

use super::again::{Revisit, again};
use super::arms::{Arms, Figures, by_token, figures};
use super::details::{Chosen, Sides, by_prompt};
use super::diagnosis::diagnoses;
use super::json::{
    Coverage, Fault, FloorReport, Growth, Outcome, PointReport, PromptReport, Report, ReportProvenance, Side,
    State,
};
use super::prompts::{both_nan_at, prompt_report, prompts_of, worst_prompt};
use super::ratios::ratios;
use super::replays::not_replayed;
use super::rows::{Row, rows};
use crate::align::Partner;
use crate::arms::Quantization;
use crate::basis::{self, Gains};
use crate::compare::refuse_repeated_layers;
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::localize::MARGIN;
use crate::model::{Graph, Op, PointFilter, layer_of};
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

/// One row for each point and step: of several prompts that with the worst state and error.
fn points(rows: &[(&Row<'_>, Figures)]) -> Vec<PointReport> {
    let mut index = std::collections::HashMap::new();
    let mut points: Vec<PointReport> = Vec::new();
    for (row, figures) in rows {
        let point = point_report(row, figures);
        match index.get(&(point.step, point.point.clone())) {
            None => {
                index.insert((point.step, point.point.clone()), points.len());
                points.push(point);
            }
            Some(&i) => {
                let rank = |p: &PointReport| match (p.state, p.judged()) {
                    (State::Born, _) => 4,
                    (State::Explained | State::Unmeasured, Some(_)) => 2,
                    // What only one prompt lacks must not hide what the others show.
                    (_, None) => 1,
                    (_, Some(_)) => 3,
                };
                let badness = |p: &PointReport| (rank(p), p.judged().map_or(0.0, |m| m.rel_l2));
                let note = points[i].note.clone().or_else(|| point.note.clone());
                let unmeasured =
                    points[i].replay_unmeasured.clone().or_else(|| point.replay_unmeasured.clone());
                if badness(&point).partial_cmp(&badness(&points[i])) == Some(std::cmp::Ordering::Greater) {
                    points[i] = point;
                }
                points[i].note = points[i].note.take().or(note);
                points[i].replay_unmeasured = unmeasured;
            }
        }
    }
    points
}

fn point_report(row: &Row<'_>, figures: &Figures) -> PointReport {
    let judged = row.judgement.as_ref().map_or(State::Unmeasured, |j| j.state);
    let (state, shape) = match &row.pair.partner {
        Partner::Matched(..) => (judged, row.pair.shape.clone()),
        Partner::Mismatched(_) => (State::Mismatched, Vec::new()),
        Partner::Unmeasured(_) => (State::Unmeasured, Vec::new()),
    };
    let note = row.note().map(str::to_owned);
    PointReport {
        point: row.pair.point.to_owned(),
        step: row.pair.step,
        prompt: row.pair.prompt.to_owned(),
        layer: layer_of(row.pair.point),
        family: row.pair.component.map_or_else(|| "other".to_owned(), |c| c.family.clone()),
        shape,
        state,
        note,
        metrics: row.total.clone(),
        floors: figures.floor.clone(),
        quantization: figures.quantization,
        engine_error: figures.engine,
        armed: row.armed,
        engine_metrics: row.engine.clone(),
        floor: row.judgement.as_ref().and_then(|j| j.floor).or_else(|| figures.floor.get("float64").copied()),
        explained: row.judgement.as_ref().map(|j| j.explained),
        local_ratio: row.judgement.as_ref().and_then(|j| Some(j.local.as_ref()?.ratio)),
        replay_unmeasured: row.not_replayed.clone(),
    }
}

/// The hashes of both sides, by what they are of.
fn hashes<'a>(r: &'a Trace, c: &'a Trace) -> [(&'static str, &'a Option<String>, &'a Option<String>); 3] {
    let (r, c) = (&r.manifest().provenance.hashes, &c.manifest().provenance.hashes);
    [
        ("weights", &r.weights, &c.weights),
        ("tokenizers", &r.tokenizer, &c.tokenizer),
        ("configurations", &r.config, &c.config),
    ]
}

fn warnings(
    reference: &Trace,
    candidate: &Trace,
    floor: &Floor,
    quantization: Quantization<'_>,
    check: &SelfCheck,
    rows: &[Row<'_>],
) -> Vec<String> {
    let (r, c) = (reference.manifest(), candidate.manifest());
    let mut warnings = Vec::new();
    for (what, left, right) in hashes(reference, candidate) {
        match (left, right) {
            (Some(left), Some(right)) if left != right => {
                warnings.push(format!("the two sides ran on different {what} (by SHA-256)"));
            }
            (Some(_), Some(_)) => {}
            _ => warnings
                .push(format!("whether both sides ran on the same {what} is unmeasured: a hash is missing")),
        }
    }
    if StatedAdapter::of(r).refuse_other(StatedAdapter::of(c)).is_err() {
        warnings.push("the two sides ran with different adapters".into());
    }
    warnings.extend(brought_back(rows));
    warnings.extend(super::captured::some_rows(rows));
    if let Quantization::Arm(arm) = quantization
        && (c.provenance.hashes.dequantized.is_none() || arm.manifest().provenance.hashes.weights.is_none())
    {
        warnings
            .push("whether arm Q carries the candidate's weights is unmeasured: a hash is missing".into());
    }
    if check.status == Status::Unmeasured {
        warnings.push(
            "whether the capture disturbed the candidate is unmeasured: its trace has no self-check".into(),
        );
    }
    let sides = [("reference", r), ("candidate", c)];
    for (side, manifest) in sides {
        warnings.extend(manifest.provenance.notes.iter().map(|note| format!("{side}: {note}")));
        if manifest.self_check.as_ref().is_some_and(|c| c.status == Status::Different) {
            warnings.push(format!("the {side}'s self-check failed: its capture disturbed it"));
        }
    }
    let infinite = |row: &&Row<'_>| {
        let masked = row.pair.component.is_some_and(|c| c.op == Op::AttentionScores);
        let both = row.total.as_ref().map(|m| m.non_finite.reference_inf.min(m.non_finite.candidate_inf));
        !masked && both.is_some_and(|n| n > 0)
    };
    if let Some(row) = rows.iter().find(infinite) {
        warnings.push(format!("both sides are infinite at {} (prompt {})", row.pair.point, row.pair.prompt));
    }
    if let Some(row) = rows.iter().find(|row| both_nan_at(row)) {
        warnings.push(format!(
            "both sides have NaN at {} (prompt {}): nothing can be said about it",
            row.pair.point, row.pair.prompt
        ));
    }
    match floor {
        Floor::Exact => {}
        Floor::Preset => {
            let judged = || rows.iter().filter_map(|row| row.judgement.as_ref());
            let proved = judged().filter(|judgement| judgement.local.is_some()).count();
            let what = match judged().count() - proved {
                0 => None,
                _ if proved == 0 => Some("the verdict rests"),
                _ => Some("where a component was not replayed the verdict rests"),
            };
            warnings.extend(what.map(|what| {
                format!("no floor was measured; {what} on customary tolerances and a margin of {MARGIN}")
            }));
        }
        Floor::Measured(_) => {
            let other = c.prompts.iter().filter(|p| !floor.knows_prompt(&p.id)).count();
            if other > 0 {
                warnings.push(format!("the floor was not measured for {other} of the prompts: there, that of other prompts stands in"));
            }
            let without = |row: &&Row<'_>| row.judgement.as_ref().is_some_and(|j| j.floor.is_none());
            let without = rows.iter().filter(without).count();
            if without > 0 {
                warnings.push(format!("the floor was not measured at {without} of the points that were judged: there, customary tolerances stand in"));
            }
        }
    }
    warnings
}

/// Says which basis was left, and whether the seed could be checked.
fn brought_back(rows: &[Row<'_>]) -> Option<String> {
    let rotated = |row: &&Row<'_>| match row.pair.partner {
        Partner::Matched(r, c) => r.basis != c.basis,
        _ => false,
    };
    let name = rows.iter().filter(rotated).find_map(|row| match row.pair.partner {
        Partner::Matched(r, c) => [r, c].into_iter().find(|e| e.basis != basis::ORIGINAL).map(|e| &e.basis),
        _ => None,
    })?;
    let checked =
        rows.iter().filter(rotated).any(|row| row.pair.component.is_some_and(|c| c.op == Op::Embedding));
    Some(format!(
        "{} tensors are in the rotated basis {name} and were brought back to the original one before comparing{}",
        rows.iter().filter(rotated).count(),
        if checked {
            "; the embedding confirms the seed"
        } else {
            "; the seed is UNMEASURED: the embedding is not among them"
        }
    ))
}
