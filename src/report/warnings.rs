//! What a reader should know beside the verdict: what differs between the sides, and what was not measured.

use super::prompts::both_nan_at;
use super::rows::Row;
use crate::align::Partner;
use crate::arms::Quantization;
use crate::basis;
use crate::floor::Floor;
use crate::localize::MARGIN;
use crate::model::Op;
use crate::trace::{SelfCheck, StatedAdapter, Status, Trace};

/// The hashes of both sides, by what they are of.
pub(super) fn hashes<'a>(
    r: &'a Trace,
    c: &'a Trace,
) -> [(&'static str, &'a Option<String>, &'a Option<String>); 3] {
    let (r, c) = (&r.manifest().provenance.hashes, &c.manifest().provenance.hashes);
    [
        ("weights", &r.weights, &c.weights),
        ("tokenizers", &r.tokenizer, &c.tokenizer),
        ("configurations", &r.config, &c.config),
    ]
}

/// What a reader should know beside the verdict.
pub(super) fn warnings(
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
