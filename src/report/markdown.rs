//! `report.md`: the report on one page, ready for an issue; and the same for GitHub's comments and summaries.

mod fit;
mod github;
mod provenance;
mod set;

use super::escape::{code, plain, prose};
use super::stops::{self, Stop, kinds, stops};
use super::text::{
    arms, coverage, ignored_adapter, maybe, multiple, number, outcomes, ratios_of, runs, self_check,
    short_headline, sides, tail, warnings, word,
};
use super::{PromptReport, Report, State};
use super::{ratios, replays};
use crate::number::count;
pub(crate) use fit::{Room, Sections, fitted, folded};
pub(crate) use github::engine;
pub use github::{github, github_set};
pub(crate) use provenance::command;
use provenance::provenance;
pub use set::markdown_set;
use std::cmp::Ordering;

/// The page has fewer lines than this, whatever the report.
const LINES: usize = 60;
const FAULTS: usize = 10;
const PROMPTS: usize = 5;
const WARNINGS: usize = 3;
const RATIOS: usize = 5;
/// Signs of a paragraph that people still read.
const CHARS: usize = 1500;
/// Rows that the table by layer has at the least, where there is room at all.
const LAYERS: usize = 8;

/// Renders the report.
pub fn markdown(report: &Report) -> String {
    let mut head = head(report, CHARS);
    head.extend(facts(report, CHARS));
    head.extend([String::new(), format!("![Error by layer](overview.svg){}", curves(report))]);
    let mut tail = prompts(report, PROMPTS);
    tail.extend(warned(report, WARNINGS, CHARS));
    // A crowded page keeps some room for the layers.
    tail.extend(faults(report, if report.prompts.len() > 1 { FAULTS - 3 } else { FAULTS }, CHARS));
    let origin = provenance(report, CHARS);
    // The ratios take what a few layers leave.
    let used = 1 + head.len() + tail.len() + origin.len() + LAYERS + 6;
    let most = LINES.saturating_sub(used + ratios::HEAD).min(RATIOS);
    if most > 0 {
        tail.extend(ratios::table(&report.ratios, most));
    }
    tail.extend(origin);
    // Heading, header and the lines between take six lines of the table's share.
    let room = LINES.saturating_sub(1 + head.len() + tail.len() + 6);
    head.extend(layers(report, room.max(1)));
    head.extend(tail);
    head.join("\n") + "\n"
}

/// The verdict, and why.
fn head(report: &Report, chars: usize) -> Vec<String> {
    let mut head =
        vec![format!("# {}: {}", word(report.outcome), plain(&cut(&sides(report), chars))), String::new()];
    let note = ignored_adapter(report);
    for said in note.into_iter().chain([short_headline(report)]) {
        head.extend([strong(&cut(said, chars)), String::new()]);
    }
    if !report.verdict.reasoning.is_empty() {
        head.extend([prose(&cut(&report.verdict.reasoning.join(" "), chars)), String::new()]);
    }
    head
}

/// A sentence that stands out. Stars around nothing would draw a line.
pub(crate) fn strong(text: &str) -> String {
    let text = prose(text.trim());
    if text.is_empty() { text } else { format!("**{text}**") }
}

fn facts(report: &Report, chars: usize) -> Vec<String> {
    let said = |text: &str| prose(&cut(text, chars));
    let rests = match report.verdict.rests_on.as_str() {
        "" => Vec::new(),
        rests_on => vec![format!("- **Rests on:** {}", plain(&cut(rests_on, chars)))],
    };
    let mut facts = vec![
        format!("- **Coverage:** {}", plain(&coverage(report.coverage))),
        format!("- **Self-check:** {}", said(&self_check(&report.self_check))),
        format!("- **Floor:** {}", said(&format!("{}: {}", report.floor.kind, report.floor.description))),
        format!("- **Arms:** {}", said(&arms(report))),
    ];
    facts.extend(runs(report).map(|runs| format!("- **Runs:** {}", plain(&cut(&runs, chars)))));
    facts.extend(rests);
    facts.extend(
        replays::line(&report.replay_unmeasured).map(|line| format!("- **Replay:** {}", said(&line))),
    );
    facts.extend(diagnosis(report, chars));
    facts
}

/// What the first faulty component computes instead, or what its error looks like.
fn diagnosis(report: &Report, chars: usize) -> Option<String> {
    let first = report.diagnosis.first()?;
    let more = match report.diagnosis.len() - 1 {
        0 => String::new(),
        n => format!("; {n} more in report.json"),
    };
    let (name, point) = (plain(&cut(&first.name, chars)), named(&first.point));
    Some(if first.is_named() {
        let left = multiple(first.residual_ratio);
        format!("- **Diagnosis:** {name} at {point} (what remains is {left} of its bound{more})")
    } else {
        format!("- **Diagnosis:** {name} at {point}: {}{more}", prose(&cut(&first.description, chars)))
    })
}

/// The table by layer, of at most `room` rows: faults first, then the largest errors.
fn layers(report: &Report, room: usize) -> Vec<String> {
    let (stops, kinds) = (stops(report), kinds(report));
    let mut order: Vec<&Stop> = stops.iter().collect();
    let error = |s: &Stop| s.worst().and_then(stops::error).unwrap_or(-1.0);
    order.sort_by(|a, b| match b.born().count().min(1).cmp(&a.born().count().min(1)) {
        Ordering::Equal if a.born().next().is_some() => Ordering::Equal,
        Ordering::Equal => error(b).total_cmp(&error(a)),
        other => other,
    });
    let shown = &order[..room.min(order.len())];
    let left_out = match order.len() - shown.len() {
        0 => String::new(),
        n => format!(" ({n} of {} places left out: smaller errors or later faults)", order.len()),
    };
    let mut lines = vec![
        String::new(),
        format!("**By layer**, the largest over prompts and steps{left_out}"),
        String::new(),
    ];
    let quantized = matches!(report.arms.quantization.status.as_str(), "measured" | "unmeasured");
    let numbers: &[&str] = if quantized {
        &["total C−T", "floor", "quantization Q−T", "engine C−Q"]
    } else {
        &["rel L2", "floor", "max abs"]
    };
    lines.push(format!("| layer | type | worst point | {} | state |", numbers.join(" | ")));
    lines.push(format!("|---|---|---|{}---|", "---|".repeat(numbers.len())));
    for stop in stops.iter().filter(|s| shown.iter().any(|o| std::ptr::eq(*o, *s))) {
        let kind = stop.kind.map_or_else(|| "–".to_owned(), |k| plain(&kinds[k].name));
        let worst = stop.shown();
        let metrics = worst.and_then(|p| p.metrics.as_ref());
        let floor = worst.and_then(|p| p.floor);
        let numbers = if quantized {
            let (price, engine) = (worst.and_then(|p| p.quantization), worst.and_then(|p| p.engine_error));
            vec![metrics.map(|m| m.rel_l2), floor, price, engine]
        } else {
            vec![worst.and_then(stops::error), floor, metrics.map(|m| m.max_abs)]
        };
        lines.push(format!(
            "| {} | {kind} | {} | {} | {} |",
            plain(&tail(&stop.label, NAME)),
            worst.map_or_else(|| "–".to_owned(), |p| named(stops::local(p))),
            numbers.into_iter().map(maybe).collect::<Vec<_>>().join(" | "),
            state(stop)
        ));
    }
    lines
}

/// What became of a layer: a fault that is born in it, else the state of its worst point.
fn state(stop: &Stop) -> String {
    let mut born: Vec<&str> = Vec::new();
    for point in stop.born().map(stops::local) {
        if !born.contains(&point) {
            born.push(point);
        }
    }
    let state = match (born.first(), stop.worst()) {
        (Some(first), _) => match born.len() - 1 {
            0 => format!("**born** at {}", named(first)),
            n => format!("**born** at {} and {n} more", named(first)),
        },
        (None, Some(worst)) => match worst.state {
            State::Explained => "explained".to_owned(),
            State::Born => "**born**".to_owned(),
            State::Inherited => "inherited".to_owned(),
            State::Absorbed => "absorbed".to_owned(),
            State::Mismatched => "mismatched".to_owned(),
            State::Unmeasured => "compared, not judged".to_owned(),
        },
        (None, None) if stop.points.is_empty() => "not asked for".to_owned(),
        (None, None) => "UNMEASURED".to_owned(),
    };
    match stop.unmeasured() {
        0 => state,
        n => format!("{state}; {n} of {} points not compared", stop.points.len()),
    }
}

fn prompts(report: &Report, most: usize) -> Vec<String> {
    if report.prompts.len() < 2 {
        return Vec::new();
    }
    let mut order: Vec<&PromptReport> = report.prompts.iter().collect();
    // NaN is the worst error, no error at all the least.
    let error =
        |p: &PromptReport| p.worst_rel_l2.map_or(-1.0, |e| if e.is_nan() { f64::INFINITY } else { e });
    let badness = |p: &PromptReport| p.outcome.exit_code() != 0;
    order.sort_by(|a, b| badness(b).cmp(&badness(a)).then(error(b).total_cmp(&error(a))));
    let left_out = match order.len().saturating_sub(most) {
        0 => String::new(),
        n => format!("; the {most} worst, {n} left out"),
    };
    let mut lines = vec![
        String::new(),
        format!("**{} prompts:** {}{left_out}", order.len(), outcomes(report)),
        String::new(),
        "| prompt | tokens | outcome | worst point | largest rel L2 |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(order.iter().take(most).map(|p| {
        format!(
            "| {} | {} | {} | {} | {} |",
            named(&p.id),
            p.tokens,
            word(p.outcome).to_lowercase(),
            named(p.worst_point.as_deref().unwrap_or("")),
            maybe(p.worst_rel_l2)
        )
    }));
    lines
}

fn warned(report: &Report, most: usize, chars: usize) -> Vec<String> {
    let warnings = warnings(report);
    if warnings.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    lines.extend(warnings.iter().take(most).map(|w| format!("- **Warning:** {}", prose(&cut(w, chars)))));
    if warnings.len() > most {
        lines.push(format!("- {} in report.json", count(warnings.len() - most, "more warning")));
    }
    lines
}

/// Links to the pictures of the families, in the order in which they first appear.
fn curves(report: &Report) -> String {
    let mut families: Vec<&str> = Vec::new();
    for point in &report.points {
        if !families.contains(&point.family.as_str()) {
            families.push(&point.family);
        }
    }
    let named = |family: &&&str| family.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let links = families.iter().filter(named).map(|family| format!("[{family}](curve-{family}.svg)"));
    let tokens = if report.by_token.is_empty() { "" } else { " By position: [logits](tokens.svg)." };
    format!("{tokens} By family: {}.", links.collect::<Vec<_>>().join(", "))
}

/// The table of the points where a fault is born, of at most `most` rows.
fn faults(report: &Report, most: usize, chars: usize) -> Vec<String> {
    if report.faults.is_empty() {
        return Vec::new();
    }
    let points = stops::faulty_points(report);
    let left_out = match points.len().saturating_sub(most) {
        0 => String::new(),
        n => format!(", the first {most} of {}; {n} left out", most + n),
    };
    let mut lines = vec![
        String::new(),
        format!("**Faults**{left_out}"),
        String::new(),
        format!(
            "| point | largest rel L2 | largest ratio, × {} | which is at | prompts and steps | why |",
            ratios_of(report)
        ),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(points.iter().take(most).map(|point| {
        let f = point.worst;
        format!(
            "| {} | {} | {} | {}, step {} | {} | {} |",
            named(&f.point),
            number(point.rel_l2),
            multiple(f.ratio),
            named(&f.prompt),
            f.step,
            point.often,
            prose(&cut(&f.reason, chars))
        )
    }));
    lines
}

/// A name as code; of one that is longer than any should be, the end.
pub(crate) fn named(name: &str) -> String {
    code(&tail(name, NAME))
}

/// Columns of a name.
const NAME: usize = 120;

/// The text, cut to `most` signs; before anything is escaped, so that nothing is torn apart.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => {
            let end = text[..end].rfind(' ').unwrap_or(end);
            format!("{} … (cut; all of it is in report.json)", &text[..end])
        }
    }
}

#[cfg(test)]
mod tests;
