//! The score as a document.

use super::pairs::Pair;
use super::places::Below;
use super::run::{Score, UNCHECKED};
use super::said::{Said, Verdict, together};
use super::score::{Found, Planting, Row};
use super::table::{complaints, figure, place, prompts, share, smallest, sums};
use crate::faults::Weight;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// All engines: first the sums, then of each the faults, what cannot be seen, and what has no name.
pub(super) fn report(scores: &[Score]) -> String {
    let mut out = "# Planted faults\n\nMade by `layerdiff faults run`; `layerdiff faults list` says what each fault is. \
                   A ratio is the local error as a multiple of what rounding can explain, from the smallest to the \
                   largest of the places that a fault is planted in; `smallest` is the smallest share of a fault \
                   that is still found; `unjudged` are the plantings that could not be judged where they are changed. `prefill` and `decode` are the places (component, step and prompt) that are named, \
                   of those that the fault changes by more than a relative L2 error of 1e-5. `named` are those that the diagnosis calls by the right name.\n"
        .to_owned();
    let _ = writeln!(out, "\n{}.", Weight::LEGEND);
    for score in scores {
        let _ = write!(out, "\n## {}, {}\n\n{}; {UNCHECKED}.\n\n", score.engine, score.path, prompts(score));
        let _ = writeln!(out, "{}", bullets(&sums(score)));
        out += &faults(score);
        out += &section("What went wrong", &complaints(score));
        out += &section("Below the bound, or not a bit changed, on this input", &listed(score, unseen));
        out +=
            &section("Below the bound in some of the places that are visibly changed", &listed(score, below));
        out += &section("Located, but not called by one name", &listed(score, unnamed));
        out += &pairs(&score.pairs);
    }
    out
}

fn bullets(text: &str) -> String {
    list(&text.lines().map(str::to_owned).collect::<Vec<_>>())
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n") + "\n"
}

fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("\n### {title}\n\n{}", list(lines))
}

fn faults(score: &Score) -> String {
    let mut out = "| fault | weight | planted | exactly | unjudged | prefill | decode | ratio | smallest | named | none | wrong |\n\
                   |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in &score.rows {
        let [prefill, decode] = row.places().map(share);
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.weight,
            row.plantings.len(),
            row.count(Found::Exactly) + row.count(Found::Silent),
            row.count(Found::Unjudged),
            prefill,
            decode,
            row.ratios().map_or("–".to_owned(), span),
            smallest(row),
            row.said(Verdict::Right),
            row.said(Verdict::None),
            row.said(Verdict::Wrong)
        );
    }
    out
}

fn span((least, most): (f64, f64)) -> String {
    let (least, most) = (figure(least), figure(most));
    if least == most { least } else { format!("{least} – {most}") }
}

/// Lines on the plantings of each fault of which there is something to say.
fn listed(score: &Score, say: fn(&Planting) -> Option<String>) -> Vec<String> {
    let of_row = |row: &Row| {
        let mut said: Vec<(String, Vec<String>)> = Vec::new();
        for planting in &row.plantings {
            let Some(what) = say(planting) else { continue };
            match said.iter_mut().find(|(known, _)| *known == what) {
                Some((_, places)) => places.push(place(planting.layer)),
                None => said.push((what, vec![place(planting.layer)])),
            }
        }
        let line = |(what, places): (String, Vec<String>)| {
            format!("`{}` in {}: {what}", row.name, places.join(", "))
        };
        said.into_iter().map(line).collect::<Vec<_>>()
    };
    score.rows.iter().flat_map(of_row).collect()
}

fn unseen(planting: &Planting) -> Option<String> {
    match planting.found {
        Found::NotVisible => Some("not a bit changed".to_owned()),
        Found::Indistinguishable => {
            Some(format!("ratio {}, change {:.1e}", figure(planting.ratio), planting.change))
        }
        _ => None,
    }
}

fn below(planting: &Planting) -> Option<String> {
    let layer = planting.layer.map_or_else(String::new, |layer| format!("model.layers.{layer}."));
    let one = |below: Below| {
        let name = below.point.strip_prefix(&layer).unwrap_or(&below.point);
        let places = if below.places == 1 { "place" } else { "places" };
        format!(
            "{} {places} of `{name}` (ratio up to {}, change up to {:.1e})",
            below.places,
            figure(below.ratio),
            below.change
        )
    };
    let all: Vec<String> = planting.places.below_by_component().into_iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn unnamed(planting: &Planting) -> Option<String> {
    let odd = |said: &&Said| said.verdict != Verdict::Right || said.names.len() > 1;
    let said: Vec<_> = planting.diagnosis.iter().filter(odd).collect();
    if said.is_empty() {
        return None;
    }
    if said.iter().all(|said| said.verdict == Verdict::None) {
        return Some("none of the known formulas".to_owned());
    }
    let names: BTreeSet<String> =
        said.iter().map(|said| format!("`{}`", said.names.join("` or `"))).collect();
    Some(names.into_iter().collect::<Vec<_>>().join(", "))
}

fn pairs(pairs: &[Pair]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let mut out =
        "\n### Pairs\n\n| faults | in | one feeds the other | found | named |\n|---|---|---|---|---|\n"
            .to_owned();
    for pair in pairs {
        let [a, b] = &pair.plantings;
        let both = |f: fn(&Planting) -> String| {
            let (a, b) = (f(a), f(b));
            if a == b { a } else { format!("{a}; {b}") }
        };
        let _ = writeln!(
            out,
            "| `{}`, `{}` | {} | {} | {} | {} |",
            pair.faults[0],
            pair.faults[1],
            both(|p| place(p.layer)),
            if pair.feeding { "yes" } else { "no" },
            both(found),
            both(|p| match together(&p.diagnosis) {
                Some(Verdict::Right) => "right".to_owned(),
                Some(Verdict::Wrong) => "wrong".to_owned(),
                Some(Verdict::None) => "none".to_owned(),
                None => "–".to_owned(),
            })
        );
    }
    out
}

fn found(planting: &Planting) -> String {
    match planting.found {
        Found::Exactly => "exactly".to_owned(),
        Found::Indistinguishable => format!("below the bound ({})", figure(planting.ratio)),
        Found::NotVisible => "not a bit changed".to_owned(),
        Found::Missed => "missed".to_owned(),
        Found::Unjudged => "could not be judged".to_owned(),
        _ => "wrong".to_owned(),
    }
}
