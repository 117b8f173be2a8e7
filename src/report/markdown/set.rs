//! `report.md` of several engines.

use super::super::escape::{code, plain, prose};
use super::super::ratios;
use super::super::text::{about_faults, check_status as status, compared_with, maybe, ran, share, word};
use super::super::{EngineResult, Figures, ReportSet};
use super::provenance::provenance_set;
use super::{CHARS, cut, named};

/// Whether files lie beside the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Files,
    None,
}

/// Renders the report of several engines.
pub fn markdown_set(set: &ReportSet) -> String {
    let mut lines = overview(set, Links::Files, CHARS);
    lines.extend([String::new(), "![What each engine adds](engines.svg)".to_owned()]);
    lines.push(String::new());
    lines.extend(bounds(set, CHARS));
    lines.extend(engines(set, CHARS));
    lines.extend(provenance_set(set, CHARS));
    lines.join("\n") + "\n"
}

/// The outcome and a table with a row for each engine.
pub(super) fn overview(set: &ReportSet, links: Links, chars: usize) -> Vec<String> {
    let mut lines = vec![format!("# {}: {}", word(set.outcome), share(set)), String::new()];
    lines.extend(
        compared_with(set)
            .into_iter()
            .flat_map(|with| [format!("Compared with {}.", plain(&cut(&with, chars))), String::new()]),
    );
    lines.extend([
        "| engine | outcome | points compared | self-check | worst point | total C−T | floor F−T | quantization Q−T | engine C−Q |".to_owned(),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ]);
    lines.extend(set.engines.iter().map(|engine| row(engine, links)));
    lines.extend([
        String::new(),
        "Relative L2 errors at the point where the engine adds most (the largest total where that is not known). T: the reference; F: the same in the precision named; Q: the same on the engine's dequantized weights; C: the engine. – is UNMEASURED or not needed: an engine's own report says which.".to_owned(),
    ]);
    lines
}

/// How near to their bounds the engines come.
pub(super) fn bounds(set: &ReportSet, chars: usize) -> Vec<String> {
    let name = |engine: &EngineResult| plain(&cut(&engine.engine, chars));
    let replayed: Vec<_> =
        set.engines.iter().map(|engine| (name(engine), engine.ratios.as_slice())).collect();
    ratios::by_engine(&replayed)
}

/// What is said of each engine.
pub(super) fn engines(set: &ReportSet, chars: usize) -> Vec<String> {
    let name = |engine: &EngineResult| plain(&cut(&engine.engine, chars));
    let mut lines = Vec::new();
    for engine in &set.engines {
        let headline = prose(&cut(&engine.headline, chars));
        lines.push(format!("- **{}** ({}): {headline}", name(engine), ran(engine)));
        if let Some(about) = about_faults(engine) {
            lines.push(format!("  {}.", prose(&cut(&about, chars))));
        }
        if let Some(dearest) = &engine.dearest {
            lines.push(format!(
                "  Quantization costs most at {}: {}.",
                named(&dearest.point),
                maybe(dearest.quantization)
            ));
        }
        let check = engine.self_check.iter().flat_map(|check| &check.evidence);
        lines.extend(check.map(|e| {
            let (what, entry) = (prose(&cut(&e.what, chars)), cut(&e.entry_point, chars));
            match e.rel_l2 {
                None => {
                    format!("  - {what} against {}: {} of {} differ", code(&entry), e.mismatches, e.elements)
                }
                Some(largest) => format!(
                    "  - cross-check: {what} against {}: {} numbers, rel L2 at most {}",
                    prose(&entry),
                    e.elements,
                    maybe(Some(largest))
                ),
            }
        }));
    }
    lines
}

fn row(engine: &EngineResult, links: Links) -> String {
    let name = plain(&cut(&engine.engine, CHARS));
    let name = match engine.report.as_ref().filter(|_| links == Links::Files) {
        Some(report) => format!("[{name}]({})", report.replace(".json", ".md")),
        None => name,
    };
    let coverage =
        engine.coverage.map_or_else(|| "–".to_owned(), |c| format!("{} of {}", c.matched, c.expected));
    let check = engine.self_check.as_ref().map_or("UNMEASURED", status);
    let worst = engine.worst.as_ref();
    let number = |of: &dyn Fn(&Figures) -> Option<f64>| maybe(worst.and_then(of));
    let floors: Vec<String> = worst
        .iter()
        .flat_map(|w| &w.floor)
        .map(|(dtype, error)| format!("{} {}", maybe(Some(*error)), plain(dtype)))
        .collect();
    format!(
        "| {name} | {} | {coverage} | {check} | {} | {} | {} | {} | {} |",
        word(engine.outcome),
        worst.map_or_else(|| "–".to_owned(), |w| named(&w.point)),
        number(&|w| w.total),
        if floors.is_empty() { "–".to_owned() } else { floors.join(", ") },
        number(&|w| w.quantization),
        number(&|w| w.engine)
    )
}
