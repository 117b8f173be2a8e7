//! Numbers and foreign text in renderings for people.

use super::{Arm, Coverage, EngineResult, Outcome, Report, ReportSet};
use crate::error::steers;
use crate::number::count;
use crate::trace::{SelfCheck, Status};
use console::measure_text_width as columns;

/// `1.2e-6`; `0`, `inf` and `NaN` as such.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") }
}

/// A figure with a limit: enough digits to see on which side of it it is.
pub(crate) fn figure(value: f64) -> String {
    let plain = value == 0.0 || (1e-3..1e4).contains(&value.abs());
    if plain { format!("{value:.4}") } else { number(value) }
}

/// A number, or a dash for one that there is not.
pub(crate) fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

/// A multiple: plain as long as that is short.
pub(super) fn multiple(value: f64) -> String {
    match value {
        v if !v.is_finite() => v.to_string(),
        v if (0.1..10.0).contains(&v) => format!("{v:.1}"),
        v if (10.0..10_000.0).contains(&v) => format!("{v:.0}"),
        v => number(v),
    }
}

/// The outcome as a word.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "PASS",
        Outcome::Fault => "FAULT",
        Outcome::Invalid => "INVALID",
        Outcome::Unmeasured => "UNMEASURED",
    }
}

/// The text on one line, without signs that steer a terminal or turn the direction of writing.
/// Names come from files that anyone may have written.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// The text in at most `room` columns; of a longer one the end, which tells more of a point's name.
pub(super) fn tail(text: &str, room: usize) -> String {
    let (mut start, mut used) = (text.len(), 0);
    for (at, c) in text.char_indices().rev() {
        used += columns(c.encode_utf8(&mut [0; 4]));
        if used > room {
            break;
        }
        start = at;
        // The sign for what is left out takes a column, unless nothing is.
        if used == room && at > 0 {
            let width = c.encode_utf8(&mut [0; 4]).len();
            start = at + width;
            break;
        }
    }
    match start {
        0 => text.to_owned(),
        start => format!("…{}", text[start..].trim_start_matches('.')),
    }
}

/// The text in lines of at most `room` columns, broken at spaces where there are some.
pub(crate) fn wrap(text: &str, room: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && columns(&line) + 1 + columns(word) > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            if columns(&line) + columns(c.encode_utf8(&mut [0; 4])) > room {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Who is compared with whom.
pub(super) fn sides(report: &Report) -> String {
    let reference = &report.provenance.reference.engine;
    if runs(report).is_some() {
        format!("{} against itself", report.engine)
    } else {
        format!("{} against {reference}", report.engine)
    }
}

/// How two runs of one engine differ.
pub(super) fn runs(report: &Report) -> Option<String> {
    let (r, c) = (&report.provenance.reference, &report.provenance.candidate);
    let two = r.engine == c.engine && r.path != c.path;
    two.then(|| format!("{}; against {}", c.path, r.path))
}

/// The headline without the outcome, which stands before it anyway.
pub(super) fn short_headline(report: &Report) -> &str {
    let headline = report.verdict.headline.as_str();
    headline.strip_prefix(word(report.outcome)).map_or(headline, |rest| rest.trim_start_matches([':', ' ']))
}

/// The note of a side that ran without the adapter that it was given.
pub(super) fn ignored_adapter(report: &Report) -> Option<&str> {
    let origin = &report.provenance;
    origin.candidate.ignored_adapter().or_else(|| origin.reference.ignored_adapter())
}

/// The warnings, but for what is said first.
pub(super) fn warnings(report: &Report) -> Vec<&str> {
    let first = ignored_adapter(report);
    let said = |warning: &&str| first.is_none_or(|note| !warning.ends_with(note));
    report.warnings.iter().map(String::as_str).filter(said).collect()
}

/// How much was compared, in words.
pub(super) fn coverage(coverage: Coverage) -> String {
    let Coverage { expected, matched, mismatched, unmeasured } = coverage;
    format!(
        "{matched} of {expected} points compared, {mismatched} mismatched, {unmeasured} {}",
        if unmeasured == 0 { "unmeasured" } else { "UNMEASURED" }
    )
}

/// The self-check's status in words.
pub(crate) fn check_status(check: &SelfCheck) -> &'static str {
    match check.status {
        // Tokens are chosen by the largest logit, which says less than the bits do.
        Status::BitEqual if check.evidence.iter().all(|e| e.what.contains("tokens")) => "tokens equal",
        // What is bit-equal is another engine, with which this one was compared.
        Status::BitEqual if check.evidence.iter().any(|e| e.rel_l2.is_some()) => "cross-checked",
        Status::BitEqual => "bit-equal",
        Status::Different => "DIFFERENT",
        Status::Unmeasured => "UNMEASURED",
    }
}

/// The self-check's status and what it rests on.
pub(crate) fn self_check(check: &SelfCheck) -> String {
    let status = check_status(check);
    let evidence: Vec<String> = check
        .evidence
        .iter()
        .map(|e| match e.rel_l2 {
            None => {
                format!("{} against `{}`: {} of {} differ", e.what, e.entry_point, e.mismatches, e.elements)
            }
            Some(largest) => format!(
                "cross-check, not bit for bit: {} against {}: {} numbers, rel L2 at most {}",
                e.what,
                e.entry_point,
                e.elements,
                number(largest)
            ),
        })
        .collect();
    if evidence.is_empty() { status.to_owned() } else { format!("{status} ({})", evidence.join("; ")) }
}

/// The four errors at the point where the candidate adds most, or why there are none.
pub(super) fn arms(report: &Report) -> String {
    let arms = &report.arms;
    let worst = report.worst.as_ref();
    let known = |arm: &Arm, error: Option<f64>| match (arm.status.as_str(), error) {
        ("unmeasured", _) | (_, None) => format!("UNMEASURED ({})", arm.description),
        (_, Some(error)) => number(error),
    };
    let floors = arms.floor.iter().filter_map(|arm| arm.dtype.as_deref());
    let floors = floors.map(|dtype| {
        let error = worst.and_then(|w| w.floor.get(dtype).copied());
        format!("{} in {dtype}", error.map_or_else(|| "UNMEASURED".to_owned(), number))
    });
    let floors: Vec<String> = floors.collect();
    let engine = known(&arms.engine, worst.and_then(|w| w.engine));
    let price = known(&arms.quantization, worst.and_then(|w| w.quantization));
    let quantization = match arms.quantization.status.as_str() {
        // What the format does to the parameters is part of what is explained: an arm would add nothing.
        "stated" => format!("quantization Q−T and engine C−Q not needed: {}", arms.quantization.description),
        "exact" => format!("quantization Q−T 0 (the same weights); engine C−Q {engine}"),
        "unmeasured" if arms.quantization == arms.engine => {
            format!("quantization Q−T and engine C−Q {price}")
        }
        _ => format!("quantization Q−T {price}; engine C−Q {engine}"),
    };
    // The point is that of the largest C − Q where that is known, whatever C − T is elsewhere.
    let why = match worst.and_then(|w| w.engine) {
        Some(_) if arms.quantization.status == "measured" => "where the engine adds most",
        _ => "where the error is largest",
    };
    format!(
        "{}total C−T {}; floor F−T {}; {quantization}",
        worst.map_or_else(String::new, |w| format!("at {}, {why}: ", tail(&w.point, 80))),
        known(&arms.total, worst.and_then(|w| w.total)),
        if floors.is_empty() { "UNMEASURED".to_owned() } else { floors.join(", ") },
    )
}

/// What the ratios of a report's faults are multiples of.
pub(super) fn ratios_of(report: &Report) -> &'static str {
    if report.verdict.rests_on == "replay" { "rounding" } else { "explained" }
}

/// How many of a set's engines have its outcome: `1 of 6 engines`.
pub(super) fn share(set: &ReportSet) -> String {
    let n = set.engines.iter().filter(|e| e.outcome == set.outcome).count();
    format!("{n} of {} engines", set.engines.len())
}

/// What the engines are compared with: `torch 2.15.0 in float32`; none when there is no one reference.
pub(super) fn compared_with(set: &ReportSet) -> Option<String> {
    let reference = set.reference.as_ref()?;
    Some(format!("{} {} in {}", reference.engine, reference.engine_version, reference.dtype))
}

/// What an engine was run on: `2 prompts, 4 steps`.
pub(super) fn ran(engine: &EngineResult) -> String {
    match engine.prompts {
        0 => "not run".to_owned(),
        prompts => format!("{}, {}", count(prompts, "prompt"), count(engine.steps as usize, "decode step")),
    }
}

/// What is known of an engine's faults beside the headline: what the first computes, and how many more there are.
pub(super) fn about_faults(engine: &EngineResult) -> Option<String> {
    let more = match engine.other_faults {
        0 => None,
        1 => Some("an error is born at one more point".to_owned()),
        n => Some(format!("an error is born at {n} more points")),
    };
    let parts: Vec<String> = engine.diagnosis.iter().cloned().chain(more).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// How many prompts had which outcome, worst first: `3 fault, 9 pass`.
pub(super) fn outcomes(report: &Report) -> String {
    let all = [Outcome::Fault, Outcome::Invalid, Outcome::Unmeasured, Outcome::Pass];
    let counts = all.map(|o| (report.prompts.iter().filter(|p| p.outcome == o).count(), o));
    let parts = counts.iter().filter(|(n, _)| *n > 0);
    parts.map(|(n, o)| format!("{n} {}", word(*o).to_lowercase())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_lose_what_is_not_finite() {
        let shown = [0.0, 1.234e-6, 1.0, f64::INFINITY, f64::NAN].map(number);
        assert_eq!(shown, ["0", "1.2e-6", "1.0e0", "inf", "NaN"]);
        assert_eq!(
            [0.01, 1.26, 312.4, 1e7, f64::INFINITY].map(multiple),
            ["1.0e-2", "1.3", "312", "1.0e7", "inf"]
        );
    }

    #[test]
    fn a_name_from_a_file_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{202e}d"), "a [31mb c d");
    }

    #[test]
    fn lines_are_never_longer_than_their_room() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(tail("linear_attn.in_proj_qkv", 12), "…in_proj_qkv");
        assert_eq!(tail("short", 12), "short");
    }
}
