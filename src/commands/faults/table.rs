//! The score as a table for people.

use super::run::UNCHECKED;
use super::score::{Found, Row};
use super::trial::Trial;
use crate::prompt::Prompt;
use std::fmt::Write as _;

/// One line for each fault, then what is wrong in words, then the sums.
pub(super) fn text(engine: &str, prompts: &[Prompt], healthy: &Trial, rows: &[Row]) -> String {
    let mut out = format!("{engine}: ");
    for prompt in prompts {
        let (tokens, steps) = (prompt.token_ids.len(), prompt.step_token_ids.len());
        let _ = write!(out, "{} ({tokens} tokens, {steps} decode steps) ", prompt.id);
    }
    let _ = writeln!(out, "\n{UNCHECKED}\nhealthy: {} alarms\n", healthy.named.len());
    let _ = writeln!(
        out,
        "{:<25} {:<8} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "fault", "weight", "planted", "exactly", "unseen", "ratio min", "ratio max", "smallest", "diagnosis"
    );
    for row in rows {
        let _ = writeln!(out, "{}", line(row));
    }
    let bad: Vec<String> = rows.iter().filter(|row| !row.is_right()).flat_map(complaints).collect();
    if !bad.is_empty() {
        let _ = writeln!(out, "\n{}", bad.join("\n"));
    }
    let _ = write!(out, "\n{}", sums(rows));
    out
}

fn line(row: &Row) -> String {
    let ratios = row.plantings.iter().map(|p| p.ratio);
    let (least, most) = (ratios.clone().fold(f64::INFINITY, f64::min), ratios.fold(0.0, f64::max));
    let smallest = row.smallest.as_ref().map_or("–".to_owned(), |s| format!("{:.0e}", s.size));
    let diagnosis = row.diagnosis.map_or("–", |right| if right { "right" } else { "wrong" });
    format!(
        "{:<25} {:<8} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}",
        row.name,
        row.weight,
        row.plantings.len(),
        row.count(Found::Exactly) + row.count(Found::Silent),
        row.count(Found::NotVisible) + row.count(Found::Indistinguishable),
        figure(least),
        figure(most),
        smallest,
        diagnosis
    )
}

fn figure(ratio: f64) -> String {
    if ratio.is_infinite() { "∞".to_owned() } else { format!("{ratio:.1e}") }
}

/// What went wrong with a fault, a line for each planting.
fn complaints(row: &Row) -> Vec<String> {
    let mut out = Vec::new();
    for planting in &row.plantings {
        let layer = planting.layer.map_or("outside the layers".to_owned(), |l| format!("layer {l}"));
        let what = match planting.found {
            Found::Missed => format!("MISSED {}", planting.missed.join(", ")),
            Found::Wrong => format!("WRONGLY NAMED {}", planting.wrong.join(", ")),
            Found::Alarm => format!("FALSE ALARM at {}", planting.named.join(", ")),
            _ => continue,
        };
        let (ratio, change) = (figure(planting.ratio), planting.change);
        out.push(format!("{} in {layer}: {what} (ratio {ratio}, change {change:.1e})", row.name));
    }
    let drowned = row.smallest.iter().flat_map(|s| &s.named_when_drowned);
    out.extend(drowned.map(|n| format!("{} drowned: NAMED {n}", row.name)));
    out
}

fn sums(rows: &[Row]) -> String {
    let count = |found: Found| rows.iter().map(|row| row.count(found)).sum::<usize>();
    let plantings = || rows.iter().flat_map(|row| &row.plantings);
    let visible = count(Found::Exactly) + count(Found::Missed) + count(Found::Wrong);
    let layers = plantings().filter(|p| p.layer_exact && !p.named.is_empty()).count() - {
        plantings().filter(|p| p.found == Found::Alarm && p.layer_exact).count()
    };
    format!(
        "{} faults, {} plantings. Of {visible} that can be seen: component exactly {}, layer exactly {layers}, missed {}, \
         wrong component named {}.\nIndistinguishable from rounding on this input: {}; not a bit changed: {}.\n\
         Must not be reported: {} silent, {} alarms.",
        rows.iter().filter(|r| r.weight != "harmless").count(),
        plantings().count() - count(Found::Silent) - count(Found::Alarm),
        count(Found::Exactly),
        count(Found::Missed),
        count(Found::Wrong),
        count(Found::Indistinguishable),
        count(Found::NotVisible),
        count(Found::Silent),
        count(Found::Alarm),
    )
}
