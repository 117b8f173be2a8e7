//! The verdict in sentences.

use super::assemble::Options;
use super::captured;
use super::diagnosis::sentence;
use super::json::{Coverage, Diagnosis, Fault, Outcome, Side, State, Verdict};
use super::rows::Row;
use super::text::{multiple, number};
use crate::align::Pair;
use crate::arms::Quantization;
use crate::localize::{Judgement, MARGIN};
use crate::metrics::Metrics;
use crate::number::count;
use crate::replay::Local;
use std::collections::{BTreeSet, HashSet};

/// Why a point's error is not explained.
pub(super) fn reason(metrics: &Metrics, judgement: &Judgement) -> String {
    match judgement.proof() {
        Some((Side::Candidate, local)) => return local_reason(local),
        Some((Side::Reference, local)) => {
            return format!(
                "the candidate gives here what its own inputs and weights give, to rounding, and the reference does not: {}",
                local_reason(local)
            );
        }
        None => {}
    }
    if metrics.non_finite.mismatches > 0 {
        let n = &metrics.non_finite;
        return format!(
            "{} of {} values are not finite on one side only (NaN: {} in the reference, {} in the candidate; infinite: {}, {})",
            n.mismatches,
            metrics.elements,
            n.reference_nan,
            n.candidate_nan,
            n.reference_inf,
            n.candidate_inf
        );
    }
    let error = format!(
        "relative L2 error {:.2e}, where at most {:.2e} is explained: {}",
        metrics.rel_l2, judgement.explained, judgement.cause
    );
    error
}

/// Why nobody is blamed for a difference that growth does not explain.
pub(super) fn dispute(judgement: &Judgement) -> String {
    let (found, settles) = if judgement.reference.is_some() {
        (
            "both sides give here what their own inputs and weights give, to rounding",
            "what they were given would settle it: the same weights, tokens and positions on both sides, and all points captured",
        )
    } else {
        (
            "the candidate gives here what its own inputs and weights give, to rounding",
            "a replay of the reference would settle it: `--model` with the weights that it ran on",
        )
    };
    format!(
        "{found}, and yet they differ by more than the {:.1e} that is explained: {}. {settles}",
        judgement.explained, judgement.cause
    )
}

/// Why a component that was replayed is at fault.
fn local_reason(local: &Local) -> String {
    let size = if local.ratio.is_finite() {
        format!("{} × what rounding can explain", multiple(local.ratio))
    } else {
        "beyond what any rounding can explain".to_owned()
    };
    let spot = local.worst.as_ref().map_or_else(String::new, |spot| {
        format!(
            "; its worst element is {:.7e} where its own inputs give {:.7e} ± {:.1e}",
            spot.captured, spot.replayed, spot.bound
        )
    });
    let usual = if local.usual > 1.0 {
        format!(
            "; the median error of its elements is {} × the largest that kernels in 32 bits have on these numbers",
            multiple(local.usual)
        )
    } else {
        String::new()
    };
    let undefined = match local.undefined {
        0 => String::new(),
        n => format!("; {n} more are not judged, for what reaches them is not finite"),
    };
    let further = match local.further {
        0 => String::new(),
        n => format!(
            "; {n} of these were replayed from queries and keys, for the probabilities of their tokens were not captured: of \
             these tokens the mask, the scores or the softmax may err instead"
        ),
    };
    format!(
        "its local error is {size} (its own relative L2 {:.2e}, {} of {} elements beyond their bound{further}{undefined}{usual}{spot})",
        local.rel_l2,
        local.beyond,
        local.elements - local.undefined
    )
}

/// What the judgements rest on.
fn rests_on(rows: &[Row<'_>]) -> &'static str {
    let judged = || rows.iter().filter_map(|row| row.judgement.as_ref());
    match (judged().any(|j| j.local.is_some()), judged().all(|j| j.local.is_some())) {
        (true, true) => "replay",
        (true, false) => "replay, and growth where a component was not replayed",
        _ => "growth",
    }
}

/// The verdict over all prompts.
pub(super) fn verdict(
    outcome: Outcome,
    faults: &[Fault],
    diagnosis: &[Diagnosis],
    rows: &[Row<'_>],
    coverage: &Coverage,
    quantization: Quantization<'_>,
    options: &Options<'_>,
) -> Verdict {
    let part = captured::part(rows, options);
    let (headline, mut reasoning) = match (outcome, faults.first()) {
        (Outcome::Fault, Some(first)) => (
            fault_headline(first, faults, proof(first, rows)),
            fault_reasoning(first, faults, diagnosis, rows, options),
        ),
        (Outcome::Invalid, _) => {
            ("INVALID: nothing can be said about the candidate; see the warnings".to_owned(), Vec::new())
        }
        (Outcome::Unmeasured, _) if matches!(quantization, Quantization::Unmeasured) => (
            "UNMEASURED: the total error is known, but not what the engine adds to the price of quantization"
                .to_owned(),
            without_arm(rows),
        ),
        (Outcome::Unmeasured, _) => (
            format!(
                "UNMEASURED: {} of {} points could not be compared",
                coverage.expected - coverage.matched,
                coverage.expected
            ),
            unmeasured(rows),
        ),
        _ if rests_on(rows) == "replay" => {
            let which = part.as_ref().map_or("no component".to_owned(), |part| format!("none of {part}"));
            (format!("PASS: {which} errs beyond rounding"), healthy(rows))
        }
        _ => match &part {
            Some(part) => (
                format!("PASS: none of {part} errs beyond what is explained; the others were not captured"),
                healthy(rows),
            ),
            None => ("PASS: no point errs beyond what is explained".to_owned(), healthy(rows)),
        },
    };
    reasoning.extend(part.map(|part| format!("Only what the candidate captured was asked for: {part}.")));
    reasoning.extend(prices(rows));
    Verdict { headline, reasoning, rests_on: rests_on(rows).into() }
}

/// The largest figure of the faults at the point of `first`, over prompts and steps; NaN is the largest.
pub(super) fn largest_at(first: &Fault, faults: &[Fault], of: impl Fn(&Fault) -> f64) -> f64 {
    let there = faults.iter().filter(|f| f.point == first.point && f.side == first.side);
    there.map(&of).fold(of(first), |a, b| if b.total_cmp(&a).is_gt() { b } else { a })
}

fn fault_headline(first: &Fault, faults: &[Fault], proved: Option<Side>) -> String {
    let place = match first.layer {
        Some(layer) => format!("{} (layer {layer})", first.point),
        None => first.point.clone(),
    };
    let error = number(largest_at(first, faults, |f| f.rel_l2));
    let ratio = multiple(largest_at(first, faults, |f| f.ratio));
    let what = match proved {
        Some(Side::Candidate) => format!("{place} computes something else than its inputs and weights give"),
        Some(Side::Reference) => {
            format!(
                "{place} computes something else than its inputs and weights give, and the candidate's does not"
            )
        }
        None => format!("{place} is the first point that differs by more than is explained"),
    };
    let whose = if proved == Some(Side::Reference) { " of the reference: its" } else { ":" };
    let than = if proved.is_some() { "rounding" } else { "what is explained" };
    format!(
        "FAULT{whose} {what} (over prompts and steps, largest relative L2 error {error}, largest ratio {ratio} × {than})"
    )
}

fn fault_reasoning(
    first: &Fault,
    faults: &[Fault],
    diagnosis: &[Diagnosis],
    rows: &[Row<'_>],
    options: &Options<'_>,
) -> Vec<String> {
    let same_step = |row: &&Row<'_>| row.pair.prompt == first.prompt && row.pair.step == first.step;
    let mut sentences = vec![format!(
        "{} in prompt {}, step {}, where it shows first: {}.",
        first.point, first.prompt, first.step, first.reason
    )];
    if diagnosis.first().is_some_and(|d| d.point == first.point) {
        sentences.extend(sentence(diagnosis));
    }
    let judged = rows
        .iter()
        .filter(same_step)
        .find(|row| row.pair.point == first.point)
        .and_then(|row| row.judgement.as_ref());
    if judged.is_some_and(|j| j.proof().is_none()) {
        sentences.extend(captured::stretch(first, rows, options.graph));
    }
    match judged.map(|j| j.inputs.as_slice()) {
        Some([]) | None => sentences.push("Nothing upstream of it was compared.".into()),
        Some(inputs) => {
            let list: Vec<String> =
                inputs.iter().map(|(point, error)| format!("{point} {error:.1e}")).collect();
            sentences
                .push(format!("The nearest compared points upstream are explained: {}.", list.join(", ")));
        }
    }
    if let Some(at) = rows
        .iter()
        .filter(same_step)
        .find(|r| r.pair.point == first.point)
        .and_then(|r| r.judged()?.max_abs_at.as_ref())
    {
        sentences.push(format!(
            "Its worst element in prompt {} is {:?}: {:.7e} in the reference, {:.7e} in the candidate.",
            first.prompt, at.index, at.reference, at.candidate
        ));
    }
    let inherited = rows
        .iter()
        .filter(same_step)
        .filter(|r| r.judgement.as_ref().is_some_and(|j| j.state == State::Inherited))
        .count();
    if inherited > 0 {
        sentences.push(format!(
            "{} of this step inherit{} the error.",
            count(inherited, "later point"),
            if inherited == 1 { "s" } else { "" }
        ));
    }
    let again: HashSet<&str> = faults
        .iter()
        .filter(|f| f.point == first.point && f.prompt != first.prompt)
        .map(|f| f.prompt.as_str())
        .collect();
    if !again.is_empty() {
        sentences.push(format!("The same point differs in {}.", count(again.len(), "other prompt")));
    }
    let others: BTreeSet<&str> =
        faults.iter().filter(|f| f.point != first.point).map(|f| f.point.as_str()).collect();
    if !others.is_empty() {
        let list: Vec<&str> = others.iter().take(3).copied().collect();
        let more = if others.len() > list.len() { ", …" } else { "" };
        sentences.push(format!(
            "An error is born at {} too: {}{more}.",
            count(others.len(), "other point"),
            list.join(", ")
        ));
    }
    let rests = match judged.and_then(Judgement::proof) {
        Some((Side::Candidate, _)) => {
            "This rests on its own captured inputs and the candidate's weights, recomputed in 64 bits: no reference and no threshold has a part in it."
        }
        Some((Side::Reference, _)) => {
            "This rests on each side's own captured inputs and weights, recomputed in 64 bits; what follows from the reference's error says nothing about the candidate."
        }
        None => {
            "This rests on the growth of the total error alone: the computation that ends at this point, or one upstream of it that was not captured, is the first to differ."
        }
    };
    sentences.push(rests.into());
    sentences
}

fn unmeasured(rows: &[Row<'_>]) -> Vec<String> {
    let missing: Vec<_> = rows.iter().filter_map(|r| Some((&r.pair, r.note()?))).collect();
    let sentence = |(pair, note): &(&Pair<'_>, &str)| {
        format!("{} (prompt {}, step {}): {note}.", pair.point, pair.prompt, pair.step)
    };
    let mut sentences: Vec<String> = without_prompts(rows).into_iter().collect();
    sentences.extend(missing.iter().take(5).map(sentence));
    if missing.len() > 5 {
        sentences.push(format!("{} more are in report.json.", missing.len() - 5));
    }
    sentences
}

/// That there are prompts of which nothing was compared, beside others.
fn without_prompts(rows: &[Row<'_>]) -> Option<String> {
    let all: BTreeSet<&str> = rows.iter().map(|row| row.pair.prompt).collect();
    let compared: BTreeSet<&str> =
        rows.iter().filter(|row| row.total.is_some()).map(|row| row.pair.prompt).collect();
    let without: Vec<&str> = all.difference(&compared).copied().collect();
    let first = without.first().filter(|_| !compared.is_empty())?;
    let more = if without.len() > 1 { format!(" and {} more", without.len() - 1) } else { String::new() };
    Some(format!(
        "Nothing was compared of prompt {first}{more}: if a side lacks it, `--prompt` chooses others."
    ))
}

/// The largest error of the kind that `of` takes from a row, with its place.
fn largest<'a, 'b>(rows: &'a [Row<'b>], of: impl Fn(&'a Row<'b>) -> Option<&'a Metrics>) -> Option<String> {
    let errors = rows.iter().filter_map(|row| Some((row, of(row)?.rel_l2)));
    let (row, error) = errors.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some(format!("{error:.2e}, at {} (prompt {})", row.pair.point, row.pair.prompt))
}

/// What quantization costs beside what the engine adds, where arm Q was run.
fn prices(rows: &[Row<'_>]) -> Option<String> {
    let price = largest(rows, |r| r.quantization.as_ref())?;
    let total = largest(rows, |r| r.total.as_ref())?;
    Some(format!(
        "These are errors against arm Q. The price of quantization is up to {price}; the total error up to {total}."
    ))
}

/// The side that replay proves to err.
fn proof(fault: &Fault, rows: &[Row<'_>]) -> Option<Side> {
    let here = |r: &&Row<'_>| {
        r.pair.prompt == fault.prompt && r.pair.step == fault.step && r.pair.point == fault.point
    };
    Some(rows.iter().find(here)?.judgement.as_ref()?.proof()?.0)
}

/// The largest local ratio, with its row.
fn largest_ratio<'a, 'b>(rows: &'a [Row<'b>]) -> Option<(f64, &'a Row<'b>)> {
    let ratios = rows.iter().filter_map(|row| Some((row.judgement.as_ref()?.local.as_ref()?.ratio, row)));
    ratios.max_by(|(a, _), (b, _)| a.total_cmp(b))
}

fn without_arm(rows: &[Row<'_>]) -> Vec<String> {
    let total = largest(rows, |r| r.total.as_ref());
    let total =
        total.map(|total| format!("The largest total relative L2 error over prompts and steps is {total}."));
    let hint = "Arm Q, PyTorch on the candidate's dequantized weights, would tell them apart: `run --reference torch` captures it, and --quantized names one.";
    total.into_iter().chain([hint.to_owned()]).collect()
}

fn healthy(rows: &[Row<'_>]) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(worst) = largest(rows, |r| r.judged()) {
        sentences.push(format!("The largest relative L2 error over prompts and steps is {worst}."));
    }
    if let Some((ratio, row)) = largest_ratio(rows) {
        let replayed =
            rows.iter().filter(|r| r.judgement.as_ref().is_some_and(|j| j.local.is_some())).count();
        sentences.push(format!(
            "Replayed in 64 bits from their own inputs, {} err{} by at most {} of what rounding can explain, the most at {} (prompt {}, step {}).",
            count(replayed, "point"),
            if replayed == 1 { "s" } else { "" },
            multiple(ratio),
            row.pair.point,
            row.pair.prompt,
            row.pair.step
        ));
        return sentences;
    }
    let factor = |row: &&Row<'_>| match (row.judged(), &row.judgement) {
        (Some(m), Some(j)) => j.factor(m.rel_l2),
        _ => f64::NEG_INFINITY,
    };
    if let Some(closest) =
        rows.iter().max_by(|a, b| factor(a).total_cmp(&factor(b))).filter(|r| factor(r).is_finite())
    {
        sentences.push(format!(
            "The largest multiple of rounding and storage is {:.1}, at {} (prompt {}); from {MARGIN} on it would need another excuse.",
            factor(&closest),
            closest.pair.point,
            closest.pair.prompt
        ));
    }
    sentences
}
