//! What came of each prompt.

use super::json::{Coverage, Outcome, PromptReport, State};
use super::rows::Row;
use crate::align::Partner;
use crate::prompt::Prompt;
use crate::trace::Trace;

/// The prompts of both traces, the reference's first.
pub(super) fn prompts_of<'a>(reference: &'a Trace, candidate: &'a Trace) -> impl Iterator<Item = &'a Prompt> {
    let known = &reference.manifest().prompts;
    let extra = candidate.manifest().prompts.iter().filter(|p| known.iter().all(|k| k.id != p.id));
    known.iter().chain(extra)
}

/// What came of one prompt.
pub(super) fn prompt_report(prompt: &Prompt, rows: &[Row<'_>]) -> PromptReport {
    let mut coverage = Coverage::default();
    let mut worst: Option<(&str, f64)> = None;
    let mut first_fault = None;
    let mut both_nan = false;
    for row in rows.iter().filter(|row| row.pair.prompt == prompt.id) {
        coverage.expected += 1;
        match row.pair.partner {
            Partner::Matched(..) if row.unjudged.is_some() => coverage.unmeasured += 1,
            Partner::Matched(..) => coverage.matched += 1,
            Partner::Mismatched(_) => coverage.mismatched += 1,
            Partner::Unmeasured(_) => coverage.unmeasured += 1,
        }
        both_nan |= both_nan_at(row);
        if let Some(metrics) = row.judged()
            && worst.is_none_or(|(_, error)| metrics.rel_l2 > error)
        {
            worst = Some((row.pair.point, metrics.rel_l2));
        }
        if first_fault.is_none() && row.judgement.as_ref().is_some_and(|j| j.state == State::Born) {
            first_fault = Some(row.pair.point.to_owned());
        }
    }
    let outcome = match (&first_fault, both_nan) {
        (Some(_), _) => Outcome::Fault,
        (None, true) => Outcome::Invalid,
        (None, false) if coverage.matched < coverage.expected => Outcome::Unmeasured,
        (None, false) => Outcome::Pass,
    };
    PromptReport {
        id: prompt.id.clone(),
        category: prompt.category.clone(),
        text: prompt.text.as_deref().map(|text| start(text, TEXT)),
        tokens: prompt.token_ids.len(),
        token_ids: prompt.token_ids.clone(),
        step_token_ids: prompt.step_token_ids.clone(),
        token_texts: Vec::new(),
        outcome,
        coverage,
        worst_point: worst.map(|(point, _)| point.to_owned()),
        worst_rel_l2: worst.map(|(_, error)| error),
        first_fault,
    }
}

/// Signs of a prompt's text that a report keeps.
const TEXT: usize = 2000;

/// The first signs of a text, with a mark where there were more.
fn start(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The prompt with the largest error.
pub(super) fn worst_prompt(prompts: &[PromptReport]) -> String {
    let error = |p: &&PromptReport| p.worst_rel_l2.unwrap_or(f64::NEG_INFINITY);
    prompts.iter().max_by(|a, b| error(a).total_cmp(&error(b))).map_or_else(String::new, |p| p.id.clone())
}

/// NaN on both sides, of which nothing can be said.
pub(super) fn both_nan_at(row: &Row<'_>) -> bool {
    [&row.total, &row.quantization, &row.engine].into_iter().flatten().any(|m| m.non_finite.both_nan > 0)
}
