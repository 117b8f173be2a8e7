//! `report.md` of several engines.

use super::super::escape::{code, plain, prose};
use super::super::ratios;
use super::super::text::{about_faults, check_status as status, compared_with, maybe, ran, share, word};
use super::super::{EngineResult, Figures, ReportSet};
use super::provenance::provenance_set;

/// Renders the report of several engines.
pub fn markdown_set(set: &ReportSet) -> String {
    let mut lines = vec![format!("# {}: {}", word(set.outcome), share(set)), String::new()];
    lines.extend(
        compared_with(set)
            .into_iter()
            .flat_map(|with| [format!("Compared with {}.", plain(&with)), String::new()]),
    );
    lines.extend([
        "| engine | outcome | points compared | self-check | worst point | total C−T | floor F−T | quantization Q−T | engine C−Q |".to_owned(),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ]);
    lines.extend(set.engines.iter().map(row));
    lines.extend([
        String::new(),
        "Relative L2 errors at the point where the engine adds most. T: the reference; F: the same in the precision named; Q: the same on the engine's dequantized weights; C: the engine. – is UNMEASURED.".to_owned(),
        String::new(),
        "![What each engine adds](engines.svg)".to_owned(),
        String::new(),
    ]);
    let replayed: Vec<_> =
        set.engines.iter().map(|engine| (plain(&engine.engine), engine.ratios.as_slice())).collect();
    lines.extend(ratios::by_engine(&replayed));
    for engine in &set.engines {
        lines.push(format!("- **{}** ({}): {}", plain(&engine.engine), ran(engine), prose(&engine.headline)));
        if let Some(about) = about_faults(engine) {
            lines.push(format!("  {}.", prose(&about)));
        }
        if let Some(dearest) = &engine.dearest {
            lines.push(format!(
                "  Quantization costs most at {}: {}.",
                code(&dearest.point),
                maybe(dearest.quantization)
            ));
        }
        let check = engine.self_check.iter().flat_map(|check| &check.evidence);
        lines.extend(check.map(|e| match e.rel_l2 {
            None => format!(
                "  - {} against {}: {} of {} differ",
                prose(&e.what),
                code(&e.entry_point),
                e.mismatches,
                e.elements
            ),
            Some(largest) => format!(
                "  - cross-check: {} against {}: {} numbers, rel L2 at most {}",
                prose(&e.what),
                prose(&e.entry_point),
                e.elements,
                maybe(Some(largest))
            ),
        }));
    }
    lines.extend(provenance_set(set));
    lines.join("\n") + "\n"
}

fn row(engine: &EngineResult) -> String {
    let name = match &engine.report {
        Some(report) => format!("[{}]({})", plain(&engine.engine), report.replace(".json", ".md")),
        None => plain(&engine.engine),
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
        worst.map_or_else(|| "–".to_owned(), |w| code(&w.point)),
        number(&|w| w.total),
        if floors.is_empty() { "–".to_owned() } else { floors.join(", ") },
        number(&|w| w.quantization),
        number(&|w| w.engine)
    )
}
