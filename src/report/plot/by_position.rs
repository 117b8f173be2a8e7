//! Points × tokens of one prompt.

use super::components::shortened;
use super::figure::title;
use super::heatmap::{Cell, Heatmap, Row};
use super::positions;
use super::ramp::Ramp;
use super::scene::Scene;
use crate::error::{Error, Result};
use crate::report::stops;
use crate::report::{PointReport, Report, State};

/// More columns than these share one with their neighbours.
const COLUMNS: usize = 96;

/// The errors of a point by position, some unknown.
struct ByPosition<'a> {
    point: &'a str,
    born: bool,
    errors: Vec<Option<f64>>,
}

/// The errors of the layers' outputs and of the points where a fault is born by position, or of all that the report
/// holds where points were `chosen`. One point is a curve, several are a heatmap.
pub(super) fn scene(report: &Report, chosen: bool, dark: bool) -> Result<Scene> {
    let shown = |p: &&PointReport| {
        let output = p.layer.is_none() || stops::local(p) == "layer output";
        chosen || output || p.state == State::Born || report.faults.iter().any(|f| f.point == p.point)
    };
    let prefill = report.prompts.first().map_or(0, |p| p.tokens);
    let mut points: Vec<ByPosition<'_>> = Vec::new();
    for point in report.points.iter().filter(shown) {
        let errors = point.judged().map(|m| m.per_token.as_slice()).unwrap_or_default();
        if errors.is_empty() {
            continue;
        }
        let known = points.iter().position(|known| known.point == point.point).unwrap_or(points.len());
        if known == points.len() {
            points.push(ByPosition { point: &point.point, born: false, errors: Vec::new() });
        }
        let start = if point.step == 0 { 0 } else { prefill + point.step as usize - 1 };
        let row = &mut points[known];
        row.born |= point.state == State::Born;
        row.errors.resize(row.errors.len().max(start + errors.len()), None);
        row.errors.iter_mut().skip(start).zip(errors).for_each(|(old, new)| *old = *new);
    }
    match points.as_slice() {
        [] => Err(Error::new("no point that was chosen has errors by token")
            .hint("masks, states and caches have no axis of tokens: choose others with --point")),
        [one] if one.errors.iter().all(Option::is_some) => Ok(curve(report, one)),
        several => Ok(table(report, several, dark)),
    }
}

fn short(point: &str) -> &str {
    point.strip_prefix("model.").unwrap_or(point)
}

fn curve(report: &Report, one: &ByPosition<'_>) -> Scene {
    let title = title(report, &format!("Error of {} by token", short(one.point)));
    let values = one.errors.iter().copied().flatten().collect();
    let axes = ("rel. L2 error of each token", "position, the prompt's tokens and then the decoded ones");
    positions::curves(&title, axes, report.outcome, (&[(short(one.point), values)], &[]))
}

fn table(report: &Report, points: &[ByPosition<'_>], dark: bool) -> Scene {
    let count = points.iter().map(|p| p.errors.len()).max().unwrap_or(0);
    let group = count.div_ceil(COLUMNS).max(1);
    let cell = |p: &ByPosition<'_>, i: usize| {
        let here = p.errors.iter().skip(i * group).take(group).flatten();
        let size = |v: &f64| if v.is_nan() { f64::INFINITY } else { *v };
        let worst = here.max_by(|a, b| size(a).total_cmp(&size(b)));
        worst.map_or(Cell::Unmeasured, |v| Cell::Value(*v, false))
    };
    let row = |p: &ByPosition<'_>| Row {
        label: format!("{}{}", if p.born { "× " } else { "" }, short(p.point)),
        gap: false,
        cells: (0..count.div_ceil(group)).map(|i| cell(p, i)).collect(),
    };
    let mut rows: Vec<Row> = points.iter().map(row).collect();
    let mut notes = shortened(&mut rows);
    if group > 1 {
        notes.push(format!("each column is the largest of {group} positions"));
    }
    if points.iter().any(|p| p.born) {
        notes.push("×: a fault is born at this point".to_owned());
    }
    Heatmap {
        title: title(report, "Error by token"),
        outcome: report.outcome,
        unit: "rel. L2 error of each token".to_owned(),
        ramp: Ramp::over(points.iter().flat_map(|p| p.errors.iter().flatten().copied()), dark),
        columns: (0..count.div_ceil(group)).map(|i| (i * group).to_string()).collect(),
        axis: "columns: positions, the prompt's tokens and then the decoded ones".to_owned(),
        rows,
        nothing: "",
        notes,
    }
    .draw()
}
