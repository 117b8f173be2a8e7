//! The cases of a comparison by layer: one for each layer and each point before and after them.

use super::super::stops::{Faulty, Kind, Stop, faulty_points, kinds, stops};
use super::super::text::{check_status, multiple, number, ratios_of, self_check, short_headline, sides};
use super::super::{Diagnosis, Report, ReportSet, State};
use super::{Case, Found, Suite};
use crate::trace::Status;

/// The suite of one engine.
pub(crate) fn of_report(report: &Report) -> Suite {
    let (faulty, kinds) = (faulty_points(report), kinds(report));
    let mut cases = vec![checked(report)];
    for stop in stops(report) {
        let here: Vec<&Faulty<'_>> =
            faulty.iter().filter(|f| stop.points.iter().any(|p| p.point == f.worst.point)).collect();
        cases.push(Case::new(name(&stop, &kinds), found(&stop, &here, report)));
    }
    cases.push(Case::outcome(report.outcome, short_headline(report)));
    Suite { name: sides(report), cases }
}

/// A suite for each of several engines.
pub(crate) fn of_set(set: &ReportSet) -> Vec<Suite> {
    let of = |name: &str| set.reports().iter().find(|report| report.engine == name);
    let suite = |engine: &super::super::EngineResult| match of(&engine.engine) {
        Some(report) => of_report(report),
        None => Suite::failed(&engine.engine, engine.outcome, &engine.headline),
    };
    set.engines.iter().map(suite).collect()
}

fn name(stop: &Stop<'_>, kinds: &[Kind]) -> String {
    match (stop.layer, stop.kind) {
        (Some(layer), Some(kind)) => format!("layer {layer}, {}", kinds[kind].name),
        (Some(layer), None) => format!("layer {layer}"),
        (None, _) => stop.label.clone(),
    }
}

fn found(stop: &Stop<'_>, faulty: &[&Faulty<'_>], report: &Report) -> Found {
    if let Some(first) = faulty.first() {
        let lines: Vec<String> = faulty.iter().map(|f| described(f, &report.diagnosis)).collect();
        let more = match faulty.len() - 1 {
            0 => String::new(),
            n => format!(", and at {n} more"),
        };
        let said = format!(
            "an error is born at {}{more}: {} × {}",
            first.worst.point,
            multiple(first.worst.ratio),
            ratios_of(report)
        );
        return Found::Failure(said, lines.join("\n"));
    }
    if stop.points.is_empty() {
        return Found::Skipped("not asked for".to_owned());
    }
    let missing = stop.points.iter().find_map(|p| Some((&p.point, p.note.as_ref()?)));
    match (missing, stop.worst()) {
        (Some((point, note)), _) => Found::Error(format!(
            "UNMEASURED: {} of {} points, such as {point}: {note}",
            stop.unmeasured(),
            stop.points.len()
        )),
        (None, None) => Found::Error("UNMEASURED: no point was compared".to_owned()),
        (None, Some(worst)) => Found::Pass(format!(
            "largest relative L2 error {} at {}{}",
            super::super::stops::error(worst).map_or_else(String::new, number),
            worst.point,
            if worst.state == State::Inherited { ", inherited from upstream" } else { "" }
        )),
    }
}

/// The fault in full, with what the component computes instead.
fn described(faulty: &Faulty<'_>, diagnosis: &[Diagnosis]) -> String {
    let f = faulty.worst;
    let mut said = format!(
        "{} ({:?}): ratio {}, largest relative L2 error {}, prompt {}, step {}, {} prompts and steps: {}",
        f.point,
        f.side,
        multiple(f.ratio),
        number(faulty.rel_l2),
        f.prompt,
        f.step,
        faulty.often,
        f.reason
    );
    for diagnosis in diagnosis.iter().filter(|d| d.point == f.point) {
        let text = if diagnosis.is_named() { &diagnosis.name } else { &diagnosis.description };
        said.extend(["\n  diagnosis: ", text]);
    }
    said
}

fn checked(report: &Report) -> Case {
    let check = &report.self_check;
    let found = match check.status {
        Status::BitEqual => Found::Pass(self_check(check)),
        Status::Different => Found::Error(self_check(check)),
        // The report passes without one, and says so; the case does not.
        Status::Unmeasured => Found::Skipped(check_status(check).to_owned()),
    };
    Case::new("self-check", found)
}
