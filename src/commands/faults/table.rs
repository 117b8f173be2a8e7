//! The score as a table for people.

use super::named::{self, reasons};
use super::pairs::Pair;
use super::places::{Count, counted};
use super::run::{Score, UNCHECKED};
use super::said::{Verdict, together};
use super::score::{Found, Planting, Row};
use crate::faults::Weight;
use crate::number::count;
use std::fmt::Write as _;

/// One line for each fault, then what is wrong in words, then the sums.
pub(super) fn text(score: &Score) -> String {
    let mut out = format!("{}, {}: {}", score.engine, score.path, prompts(score));
    let _ = writeln!(out, "\n{UNCHECKED}\nhealthy: {}\n", count(score.healthy.named.len(), "alarm"));
    let _ = writeln!(
        out,
        "{:<25} {:<8} {:>7} {:>7} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7}",
        "fault",
        "weight",
        "planted",
        "exactly",
        "unseen",
        "unjudged",
        "prefill",
        "decode",
        "ratio min",
        "ratio max",
        "smallest",
        "named",
        "none",
        "wrong"
    );
    for row in &score.rows {
        let _ = writeln!(out, "{}", line(row));
        named::lines(row).iter().for_each(|said| {
            let _ = writeln!(out, "  {said}");
        });
    }
    let complaints = complaints(score);
    if !complaints.is_empty() {
        let _ = writeln!(out, "\n{}", complaints.join("\n"));
    }
    let _ = write!(out, "\n{LEGEND}\n{}\n\n{}", Weight::LEGEND, sums(score));
    out
}

const LEGEND: &str = "exactly: every component that was changed is named, and no other; unseen: the change drowns in \
                      rounding; unjudged: it could not be judged where it is changed\nratio: local error, × what rounding can explain; smallest: least share of the fault \
                      that is still found\nnamed, none, wrong: plantings called by the right name, by none, by a \
                      wrong one";

/// The prompts with their lengths.
pub(super) fn prompts(score: &Score) -> String {
    let one = |p: &crate::prompt::Prompt| {
        format!(
            "{} ({}, {})",
            p.id,
            count(p.token_ids.len(), "token"),
            count(p.step_token_ids.len(), "decode step")
        )
    };
    score.prompts.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn line(row: &Row) -> String {
    let [least, most] =
        row.ratios().map_or(["–", "–"].map(str::to_owned), |(least, most)| [figure(least), figure(most)]);
    let [prefill, decode] = row.places().map(share);
    format!(
        "{:<25} {:<8} {:>7} {:>7} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7}",
        row.name,
        row.weight,
        row.plantings.len(),
        row.count(Found::Exactly) + row.count(Found::Silent),
        row.count(Found::NotVisible) + row.count(Found::Indistinguishable),
        row.count(Found::Unjudged),
        prefill,
        decode,
        least,
        most,
        smallest(row),
        row.said(Verdict::Right),
        row.said(Verdict::None),
        row.said(Verdict::Wrong)
    )
}

pub(super) fn smallest(row: &Row) -> String {
    row.smallest.as_ref().map_or("–".to_owned(), |s| format!("{:.0e}", s.size))
}

/// Named places of those that are visible.
pub(super) fn share(count: Count) -> String {
    format!("{}/{}", count.named, count.visible)
}

pub(super) fn figure(ratio: f64) -> String {
    if ratio.is_infinite() { "∞".to_owned() } else { format!("{ratio:.1e}") }
}

pub(super) fn place(layer: Option<usize>) -> String {
    layer.map_or("outside the layers".to_owned(), |layer| format!("layer {layer}"))
}

/// What went wrong, a line for each planting.
pub(super) fn complaints(score: &Score) -> Vec<String> {
    let mut out = Vec::new();
    for row in &score.rows {
        out.extend(row.plantings.iter().flat_map(|planting| of_planting(row.name, planting)));
        let drowned = row.smallest.iter().flat_map(|s| &s.named_when_drowned);
        out.extend(drowned.map(|n| format!("{} drowned: NAMED {n}", row.name)));
    }
    for pair in &score.pairs {
        for (name, planting) in pair.faults.iter().zip(&pair.plantings) {
            let other = pair.faults.iter().find(|other| *other != name).unwrap_or(name);
            let beside = |complaint: String| format!("{complaint}, beside {other}");
            out.extend(of_planting(name, planting).into_iter().map(beside));
        }
    }
    out
}

pub(super) fn of_planting(name: &str, planting: &Planting) -> Vec<String> {
    let mut out = Vec::new();
    let found = match planting.found {
        Found::Missed => Some(format!("MISSED {}", planting.missed.join(", "))),
        Found::Wrong => Some(format!("WRONGLY NAMED {}", planting.wrong.join(", "))),
        Found::Alarm => Some(format!("FALSE ALARM at {}", planting.named.join(", "))),
        _ => None,
    };
    if planting.found == Found::Unjudged {
        out.push(format!("COULD NOT BE JUDGED: {}", reasons(planting)));
    }
    let (ratio, change) = (figure(planting.ratio), planting.change);
    out.extend(found.map(|what| format!("{what} (ratio {ratio}, change {change:.1e})")));
    for said in &planting.diagnosis {
        if said.verdict == Verdict::Wrong {
            out.push(format!("{} is CALLED {}", said.point, said.names.join(" or ")));
        }
        if !said.left_out.is_empty() {
            let names = said.left_out.join(" or ");
            out.push(format!("{} WOULD BE CALLED {names} if the right name were unknown", said.point));
        }
    }
    out.into_iter().map(|what| format!("{name} in {}: {what}", place(planting.layer))).collect()
}

/// The sums, in sentences.
pub(super) fn sums(score: &Score) -> String {
    let of = |found: Found| score.count(found);
    let plantings = || score.rows.iter().flat_map(|row| &row.plantings);
    let visible = of(Found::Exactly) + of(Found::Missed) + of(Found::Wrong);
    let harmless = of(Found::Silent) + of(Found::Alarm);
    let layers = plantings().filter(|p| p.layer_exact && !p.named.is_empty() && p.found != Found::Alarm);
    let said = |verdict: Verdict| score.rows.iter().map(|row| row.said(verdict)).sum::<usize>();
    let mut out = format!(
        "{}, {}. Of {visible} that can be seen: component exactly {}, layer exactly {}, missed {}, \
         wrong component named {}.\nIndistinguishable from rounding on this input: {}; not a bit changed: {}; could not be judged: {}.\n\
         Must not be reported: {} silent, {}.\n\
         Of {} that are located: called by the right name {}, by none {}, by a wrong one {}; by a wrong one if the \
         right were unknown {}.",
        count(score.rows.iter().filter(|r| r.weight != "harmless").count(), "fault"),
        count(plantings().count() - harmless, "planting"),
        of(Found::Exactly),
        layers.count(),
        of(Found::Missed),
        of(Found::Wrong),
        of(Found::Indistinguishable),
        of(Found::NotVisible),
        of(Found::Unjudged),
        of(Found::Silent),
        count(of(Found::Alarm), "alarm"),
        plantings().filter(|p| p.is_located()).count(),
        said(Verdict::Right),
        said(Verdict::None),
        said(Verdict::Wrong),
        score.rows.iter().map(Row::left_out).sum::<usize>(),
    );
    let places = counted(plantings().map(|p| &p.places));
    let _ = write!(out, "\nPlaces that are visibly changed: {}.", of_places(places));
    if !score.pairs.is_empty() {
        let _ = write!(out, "\n{}", of_pairs(&score.pairs));
    }
    out
}

/// Prefill and decode steps in words.
fn of_places(counts: [Count; 2]) -> String {
    let one = |(what, c): (&str, Count)| {
        let mut out = format!("{what} {}, named {}, below the bound {}", c.visible, c.named, c.below);
        for (n, what) in [(c.missed, "missed"), (c.unjudged, "and not judged")] {
            if n > 0 {
                let _ = write!(out, ", {what} {n}");
            }
        }
        out
    };
    ["in the prefill", "in decode steps"].into_iter().zip(counts).map(one).collect::<Vec<_>>().join("; ")
}

fn of_pairs(pairs: &[Pair]) -> String {
    let all = || pairs.iter().flat_map(|pair| &pair.plantings);
    let said = |verdict: Verdict| all().filter(|p| together(&p.diagnosis) == Some(verdict)).count();
    format!(
        "{}, {} of them in one layer where one feeds the other: both found and nothing else {}. Of their {}: \
         called by the right name {}, by none {}, by a wrong one {}. Places of theirs that are visibly changed: {}.",
        count(pairs.len(), "pair"),
        pairs.iter().filter(|pair| pair.feeding).count(),
        pairs.iter().filter(|pair| pair.is_found()).count(),
        count(all().count(), "fault"),
        said(Verdict::Right),
        said(Verdict::None),
        said(Verdict::Wrong),
        of_places(counted(all().map(|p| &p.places)))
    )
}
