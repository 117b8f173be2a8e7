//! Layers × components.

use super::figure::title;
use super::heatmap::{Cell, Heatmap, ROWS, Row};
use super::ramp::Ramp;
use super::scene::Scene;
use crate::report::stops::{self, Stop};
use crate::report::{PointReport, Report, State};

/// What the cells show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The relative L2 error that the candidate is judged by.
    Total,
    /// The local error by replay, as a multiple of its bound.
    Local,
}

impl Measure {
    fn of(self, point: &PointReport) -> Option<f64> {
        match self {
            // NaN shows as what it is.
            Self::Total => point.judged().map(|m| m.rel_l2),
            Self::Local => point.local_ratio,
        }
    }
}

/// A row for each component, a column for each layer, and one for the points outside the layers.
pub(super) fn scene(report: &Report, measure: Measure, subject: &str, dark: bool) -> Scene {
    let all = stops::stops(report);
    let (layers, ends): (Vec<&Stop>, Vec<&Stop>) = all.iter().partition(|stop| stop.layer.is_some());
    let lead = usize::from(!ends.is_empty());
    let mut columns: Vec<String> = layers.iter().map(|stop| stop.label.clone()).collect();
    if lead == 1 {
        columns.insert(0, "ends".to_owned());
    }
    let end = |stop: &Stop, gap: bool| {
        let mut cells = vec![Cell::Nothing; columns.len()];
        cells[0] = cell(&stop.points, measure);
        Row { label: stops::local(stop.points[0]).to_owned(), gap, cells }
    };
    let mut rows: Vec<Row> = ends.iter().filter(|s| s.before_layers).map(|s| end(s, false)).collect();
    let mut module = None;
    for name in names(&layers) {
        let own = name.split_once('.').map(|(module, _)| module.to_owned());
        let of = |stop: &&Stop<'_>| {
            let points = stop.points.iter().copied().filter(|p| stops::local(p) == name);
            cell(&points.collect::<Vec<_>>(), measure)
        };
        let cells = std::iter::repeat_n(Cell::Nothing, lead).chain(layers.iter().map(of)).collect();
        rows.push(Row { label: name.clone(), gap: !rows.is_empty() && module != Some(own.clone()), cells });
        module = Some(own);
    }
    let after = ends.iter().filter(|s| !s.before_layers).enumerate();
    rows.extend(after.map(|(i, stop)| end(stop, i == 0)).collect::<Vec<_>>());
    let notes = shortened(&mut rows);
    let ramp = match measure {
        Measure::Total => Ramp::over(rows.iter().flat_map(|row| &row.cells).filter_map(value), dark),
        Measure::Local => Ramp::Ratio { dark },
    };
    let unit = match measure {
        Measure::Total => super::figure::REL_L2,
        Measure::Local => "local error ÷ bound, largest over prompts and steps",
    };
    Heatmap {
        title: title(report, subject),
        outcome: report.outcome,
        unit: unit.replace('÷', "/"),
        ramp,
        columns,
        axis: "columns: layers".to_owned(),
        rows,
        nothing: "no such component",
        notes,
    }
    .draw()
}

fn value(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Value(value, _) => Some(*value),
        Cell::Nothing | Cell::Unmeasured => None,
    }
}

/// Of too many rows those with a fault or the largest values stay; says how many others there were.
pub(super) fn shortened(rows: &mut Vec<Row>) -> Vec<String> {
    let left_out = rows.len().saturating_sub(ROWS);
    if left_out == 0 {
        return Vec::new();
    }
    let badness = |row: &Row| {
        let largest = |(born, most): (bool, f64), cell: &Cell| match cell {
            Cell::Value(v, b) => (born || *b, most.max(if v.is_nan() { f64::INFINITY } else { *v })),
            Cell::Unmeasured => (born, f64::INFINITY),
            Cell::Nothing => (born, most),
        };
        row.cells.iter().fold((false, -1.0), largest)
    };
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (badness(&rows[*a]), badness(&rows[*b]));
        b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    let kept: std::collections::BTreeSet<usize> = order.into_iter().take(ROWS).collect();
    *rows = kept.into_iter().map(|i| rows[i].clone()).collect();
    vec![format!("{left_out} more rows with smaller values")]
}

/// The worst of these points: a value that was not measured anywhere is none.
fn cell(points: &[&PointReport], measure: Measure) -> Cell {
    if points.is_empty() {
        return Cell::Nothing;
    }
    let size = |v: &f64| if v.is_nan() { f64::INFINITY } else { *v };
    let worst = points.iter().filter_map(|p| measure.of(p)).max_by(|a, b| size(a).total_cmp(&size(b)));
    let born = points.iter().any(|p| p.state == State::Born);
    worst.map_or(Cell::Unmeasured, |value| Cell::Value(value, born))
}

/// The components in the order of execution. Each type of layer has its own: a name stands behind the one that it
/// follows.
fn names(layers: &[&Stop]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for stop in layers {
        let mut last = 0;
        for point in &stop.points {
            let local = stops::local(point);
            last = match names.iter().position(|name| name == local) {
                Some(at) => at + 1,
                None => {
                    names.insert(last, local.to_owned());
                    last + 1
                }
            };
        }
    }
    names
}
