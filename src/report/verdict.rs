//! The verdict in sentences.

use super::Row;
use super::json::{Coverage, Fault, Outcome, State, Verdict};
use crate::align::Pair;
use crate::localize::{Judgement, MARGIN};
use crate::metrics::Metrics;

/// Why a point's error is not explained.
pub(super) fn reason(metrics: &Metrics, judgement: &Judgement) -> String {
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
    format!(
        "relative L2 error {:.2e}; at most {:.2e} is explained, {MARGIN} × {}",
        metrics.rel_l2, judgement.explained, judgement.cause
    )
}

/// The verdict over all prompts.
pub(super) fn verdict(outcome: Outcome, faults: &[Fault], rows: &[Row<'_>], coverage: &Coverage) -> Verdict {
    let (headline, reasoning) = match (outcome, faults.first()) {
        (Outcome::Fault, Some(first)) => (fault_headline(first), fault_reasoning(first, faults, rows)),
        (Outcome::Invalid, _) => {
            ("INVALID: nothing can be said about the candidate; see the warnings".to_owned(), Vec::new())
        }
        (Outcome::Unmeasured, _) => (
            format!(
                "UNMEASURED: {} of {} points could not be compared",
                coverage.expected - coverage.matched,
                coverage.expected
            ),
            unmeasured(rows),
        ),
        _ => ("PASS: no point errs beyond what the floor explains".to_owned(), healthy(rows)),
    };
    Verdict { headline, reasoning, rests_on: "growth".into() }
}

fn fault_headline(first: &Fault) -> String {
    let place = match first.layer {
        Some(layer) => format!("{} (layer {layer})", first.point),
        None => first.point.clone(),
    };
    format!("FAULT: {place}: the error starts to grow here")
}

fn fault_reasoning(first: &Fault, faults: &[Fault], rows: &[Row<'_>]) -> Vec<String> {
    let same_step = |row: &&Row<'_>| row.pair.prompt == first.prompt && row.pair.step == first.step;
    let mut sentences = vec![format!("{}: {}.", first.point, first.reason)];
    let judged = rows
        .iter()
        .filter(same_step)
        .find(|row| row.pair.point == first.point)
        .and_then(|row| row.judgement.as_ref());
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
        .and_then(|r| r.metrics.as_ref()?.max_abs_at.as_ref())
    {
        sentences.push(format!(
            "Its worst element is {:?}: {:e} in the reference, {:e} in the candidate.",
            at.index, at.reference, at.candidate
        ));
    }
    let inherited = rows
        .iter()
        .filter(same_step)
        .filter(|r| r.judgement.as_ref().is_some_and(|j| j.state == State::Inherited))
        .count();
    sentences.push(format!("{inherited} later points inherit the error."));
    let elsewhere = faults.iter().filter(|f| f.point != first.point || f.prompt != first.prompt).count();
    if elsewhere > 0 {
        sentences.push(format!("{elsewhere} more places where an error is born, over all prompts and steps, are listed as faults."));
    }
    sentences.push(
        "This rests on the growth of the total error alone: the computation that ends at this point, or one upstream of it that was not captured, is the first to differ."
            .into(),
    );
    sentences
}

fn unmeasured(rows: &[Row<'_>]) -> Vec<String> {
    let missing: Vec<_> = rows.iter().filter_map(|r| Some((&r.pair, r.pair.note()?))).collect();
    let sentence = |(pair, note): &(&Pair<'_>, &str)| {
        format!("{} (prompt {}, step {}): {note}.", pair.point, pair.prompt, pair.step)
    };
    let mut sentences: Vec<String> = missing.iter().take(5).map(sentence).collect();
    if missing.len() > 5 {
        sentences.push(format!("{} more are in report.json.", missing.len() - 5));
    }
    sentences
}

fn healthy(rows: &[Row<'_>]) -> Vec<String> {
    let mut sentences = Vec::new();
    let error = |row: &&Row<'_>| row.metrics.as_ref().map_or(f64::NEG_INFINITY, |m| m.rel_l2);
    if let Some(worst) = rows.iter().max_by(|a, b| error(a).total_cmp(&error(b))) {
        sentences.push(format!(
            "The largest relative L2 error is {:.2e}, at {} (prompt {}).",
            error(&worst),
            worst.pair.point,
            worst.pair.prompt
        ));
    }
    let share = |row: &&Row<'_>| match (&row.metrics, &row.judgement) {
        (Some(m), Some(j)) if j.explained > 0.0 => m.rel_l2 / j.explained,
        _ => f64::NEG_INFINITY,
    };
    if let Some(closest) =
        rows.iter().max_by(|a, b| share(a).total_cmp(&share(b))).filter(|r| share(r).is_finite())
    {
        sentences.push(format!(
            "The closest to its limit is {} (prompt {}): {:.0} % of the error that is explained there.",
            closest.pair.point,
            closest.pair.prompt,
            100.0 * share(&closest)
        ));
    }
    sentences
}
