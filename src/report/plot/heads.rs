//! Errors by head.

use super::components::shortened;
use super::figure::title;
use super::heatmap::{Cell, Heatmap, Row};
use super::ramp::Ramp;
use super::scene::Scene;
use crate::error::{Error, Result};
use crate::model::layer_of;
use crate::report::{HeadErrors, Report, State};

/// A row for each point with heads, a column for each head; of all points those of the component that is at fault,
/// or else of that with the largest error, unless points were `chosen`.
pub(super) fn scene(report: &Report, chosen: bool, dark: bool) -> Result<Scene> {
    let there = |h: &&HeadErrors| report.points.iter().any(|p| p.point == h.point);
    let all: Vec<&HeadErrors> = report.heads.iter().filter(there).collect();
    let shown: Vec<&HeadErrors> = match worst(report, &all) {
        _ if chosen => all,
        Some(worst) => {
            let name = local(&worst.point);
            all.into_iter().filter(|h| local(&h.point) == name).collect()
        }
        None => Vec::new(),
    };
    if shown.is_empty() {
        return Err(nothing(report));
    }
    let columns = shown.iter().map(|h| h.rel_l2.len()).max().unwrap_or(0);
    let row = |h: &&HeadErrors| {
        let born = |p: &&crate::report::PointReport| p.point == h.point && p.state == State::Born;
        let born = report.points.iter().any(|p| born(&p));
        let values = h.rel_l2.iter().map(|v| Cell::Value(*v, false));
        let name = h.point.strip_prefix("model.").unwrap_or(&h.point);
        Row {
            label: format!("{}{name}", if born { "× " } else { "" }),
            gap: false,
            cells: values.chain(std::iter::repeat(Cell::Nothing)).take(columns).collect(),
        }
    };
    let mut rows: Vec<Row> = shown.iter().map(row).collect();
    let mut notes = shortened(&mut rows);
    if rows.iter().any(|row| row.label.starts_with('×')) {
        notes.push("×: a fault is born at this point".to_owned());
    }
    let axes: Vec<&str> = shown.iter().map(|h| h.axis.as_str()).collect();
    let axis = if axes.windows(2).all(|pair| pair[0] == pair[1]) { axes[0] } else { "heads of any kind" };
    let map = Heatmap {
        title: title(report, "Error by head"),
        outcome: report.outcome,
        unit: "rel. L2 error of each head, where its point errs most; of a head near 0 it is large"
            .to_owned(),
        ramp: Ramp::over(shown.iter().flat_map(|h| h.rel_l2.iter().copied()), dark),
        columns: (0..columns).map(|i| i.to_string()).collect(),
        axis: format!("columns: {}", axis.replace('_', " ")),
        rows,
        nothing: "no such head",
        notes,
    };
    Ok(map.draw())
}

/// The point's name without its layer.
fn local(point: &str) -> String {
    layer_of(point).map_or_else(|| point.to_owned(), |layer| point.replace(&format!("layers.{layer}."), ""))
}

/// That of the first fault with heads, else that with the largest error of a head.
fn worst<'a>(report: &Report, all: &[&'a HeadErrors]) -> Option<&'a HeadErrors> {
    let faulty = report.faults.iter().find_map(|f| all.iter().find(|h| h.point == f.point));
    let size = |h: &HeadErrors| {
        h.rel_l2.iter().fold(0.0, |most: f64, v| most.max(if v.is_nan() { f64::INFINITY } else { *v }))
    };
    faulty.or_else(|| all.iter().max_by(|a, b| size(a).total_cmp(&size(b)))).copied()
}

fn nothing(report: &Report) -> Error {
    if report.heads.is_empty() {
        return Error::new("the report has no errors by head")
            .hint("an earlier layerdiff wrote it, or no point with heads was compared: make it anew");
    }
    let mut names: Vec<String> = Vec::new();
    for head in &report.heads {
        let name = local(&head.point);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let names: Vec<&str> = names.iter().map(|name| name.trim_start_matches("model.")).collect();
    Error::new("no point that was chosen has heads").hint(format!(
        "these have: {}; such as --point '*.{}'",
        names.join(", "),
        names[0]
    ))
}
