//! The error of one family of components.

use super::figure::{Figure, REL_L2, title, value};
use super::series::{Series, Value};
use super::theme;
use crate::report::stops::{self, Kind, Stop};
use crate::report::{PointReport, Report};

/// The points of one family, or all of a report that has only a few, a curve for each kind of point.
pub(super) fn figure<'a>(
    report: &'a Report,
    family: Option<&'a str>,
    all: &'a [Stop<'a>],
    kinds: &'a [Kind],
) -> Figure<'a> {
    let of_family = move |p: &PointReport| family.is_none_or(|family| p.family == family);
    let subject = family.map_or_else(|| "Error of points".to_owned(), |f| format!("Error of {f} points"));
    let stops: Vec<&Stop> =
        all.iter().filter(|s| s.layer.is_some() || s.points.iter().any(|p| of_family(p))).collect();
    let (series, mut notes) = curves(&of_family, &stops);
    let floors: Vec<Option<(f64, f64)>> = stops.iter().map(|stop| floor(stop, &of_family)).collect();
    if floors.iter().all(Option::is_none) {
        notes.push("(no floor measured)".to_owned());
    }
    Figure {
        title: title(report, &subject),
        unit: REL_L2,
        outcome: report.outcome,
        called_out: Some(report),
        labels: Vec::new(),
        stops,
        kinds,
        axis: "layer",
        series,
        dodge: true,
        floors,
        notes,
        shows: Box::new(of_family),
    }
}

/// More curves than these in one picture cannot be told apart.
const CURVES: usize = 10;

/// Whether a point belongs into the picture.
type Belongs<'a> = &'a dyn Fn(&PointReport) -> bool;

/// A curve for each kind of point, drawn from the last to the first, and a note on those left out.
fn curves(of_family: Belongs<'_>, stops: &[&Stop]) -> (Vec<Series>, Vec<String>) {
    let mut names: Vec<&str> = Vec::new();
    for point in stops.iter().filter(|s| s.layer.is_some()).flat_map(|s| &s.points) {
        if of_family(point) && !names.contains(&stops::local(point)) {
            names.push(stops::local(point));
        }
    }
    let of = |stop: &Stop<'_>, name: &str| -> Value {
        let same: Vec<&PointReport> =
            stop.points.iter().copied().filter(|p| of_family(p) && stops::local(p) == name).collect();
        value(&same)
    };
    let mut notes = Vec::new();
    if names.len() > CURVES {
        let size = |name: &&str| {
            stops
                .iter()
                .filter(|s| s.layer.is_some())
                .map(|s| match of(s, name) {
                    Value::Measured(v) => v,
                    Value::Unmeasured => f64::INFINITY,
                    Value::Gap | Value::Skip => 0.0,
                })
                .fold(0.0, f64::max)
        };
        let mut by_size = names.clone();
        by_size.sort_by(|a, b| size(b).total_cmp(&size(a)));
        notes.push(format!("({} more with smaller errors)", names.len() - CURVES));
        names.retain(|name| by_size[..CURVES].contains(name));
    }
    let mut series: Vec<Series> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let has = |kind| stops.iter().any(|s| s.kind == kind && of(s, name) != Value::Gap);
            let values = stops.iter().map(|stop| match (stop.layer, of(stop, name)) {
                (None, _) => Value::Gap,
                (Some(_), Value::Gap) if !has(stop.kind) => Value::Skip,
                (Some(_), value) => value,
            });
            Series { name: (*name).to_owned(), style: theme::series(i), values: values.collect() }
        })
        .collect();
    let ends = stops.iter().map(|stop| {
        let own: Vec<&PointReport> = stop.points.iter().copied().filter(|p| of_family(p)).collect();
        if stop.layer.is_some() { Value::Gap } else { value(&own) }
    });
    series.push(Series { name: "outside the layers".to_owned(), style: theme::ENDS, values: ends.collect() });
    series.reverse();
    (series, notes)
}

/// The lowest and the highest floor of the family's points at a stop; an infinite one is highest.
/// Floors of 0, as of masks, only count where there is no other: a range down to 0 says nothing.
fn floor(stop: &Stop, of_family: Belongs<'_>) -> Option<(f64, f64)> {
    let floors = stop.points.iter().filter(|p| of_family(p)).filter_map(|p| p.floor);
    let floors = floors.map(|f| if f.is_nan() { f64::INFINITY } else { f });
    floors.fold(None, |range: Option<(f64, f64)>, f| match range {
        None | Some((_, 0.0)) => Some((f, f)),
        Some((low, high)) if f > 0.0 => Some((low.min(f), high.max(f))),
        range => range,
    })
}
