//! The error over the whole model.

use super::figure::{Figure, REL_L2, title};
use super::series::{Dash, Marker, Series, Style, Value};
use super::theme;
use crate::report::stops::{self, Kind, Stop};
use crate::report::{PointReport, Report};

const NOT_COMPARED: Style =
    Style { colour: theme::INK, dash: Dash::Solid, marker: Some(Marker::Cross), line: None };

/// The error of the layers' outputs by arm, the worst point of each layer, the floors and what is explained.
pub(super) fn figure<'a>(report: &'a Report, all: &'a [Stop<'a>], kinds: &'a [Kind]) -> Figure<'a> {
    let series = |name: &str, style, of: &dyn Fn(&Stop) -> Value| Series {
        name: name.to_owned(),
        style,
        values: all.iter().map(of).collect(),
    };
    let family = all.iter().filter(|s| s.layer.is_some()).find_map(Stop::output).map(|p| p.family.as_str());
    // Tables that are computed beside the residual stream are no part of its curve.
    let beside = |s: &Stop| {
        s.layer.is_none()
            && family.is_some()
            && s.before_layers
            && s.points.iter().all(|p| Some(p.family.as_str()) != family)
    };
    let output = |s: &Stop, of: &dyn Fn(&PointReport) -> Option<f64>| match s.output().and_then(of) {
        _ if beside(s) => Value::Skip,
        None => Value::Gap,
        Some(value) => Value::Measured(value),
    };
    let worst = |s: &Stop| match s.worst().and_then(stops::error) {
        Some(error) if s.layer.is_some() || beside(s) => Value::Measured(error),
        _ => Value::Gap,
    };
    let missing = |s: &Stop| if s.unmeasured() > 0 { Value::Unmeasured } else { Value::Gap };
    let mut notes = Vec::new();
    if !all.iter().any(|s| s.output().is_some_and(|p| p.floor.is_some())) {
        notes.push("(no floor measured)".to_owned());
    }
    let quantized = report.arms.quantization.status == "measured";
    let mut curves = vec![series("points not compared", NOT_COMPARED, &missing)];
    if !quantized {
        curves.push(series("explained", theme::EXPLAINED, &|s| output(s, &|p| p.explained)));
    }
    let others = report.arms.floor.iter().skip(1).filter_map(|arm| arm.dtype.as_deref());
    for dtype in others {
        let style = theme::floor(dtype);
        curves.push(series(&format!("{dtype} floor"), style, &|s| {
            output(s, &|p| p.floors.get(dtype).copied())
        }));
    }
    let own = report.arms.floor.first().and_then(|arm| arm.dtype.as_deref());
    let own = own.map_or_else(|| "floor".to_owned(), |dtype| format!("{dtype} floor"));
    curves.push(series(&own, theme::FLOOR_LINE, &|s| output(s, &|p| p.floor)));
    if quantized {
        let total = |p: &PointReport| p.metrics.as_ref().map(|m| m.rel_l2);
        curves.push(series("total, C−T", theme::TOTAL, &|s| output(s, &total)));
        curves.push(series("quantization, Q−T", theme::QUANTIZATION, &|s| output(s, &|p| p.quantization)));
    }
    curves.push(series("worst point", theme::WORST, &worst));
    let own = if quantized { "engine, C−Q (layer output)" } else { "layer output" };
    curves.push(series(own, theme::OUTPUT, &|s| output(s, &stops::error)));
    Figure {
        title: title(report, "Error by layer"),
        unit: REL_L2,
        outcome: report.outcome,
        called_out: Some(report),
        labels: Vec::new(),
        stops: all.iter().collect(),
        kinds,
        axis: "layer",
        series: curves,
        dodge: false,
        floors: Vec::new(),
        notes,
        shows: Box::new(|_| true),
    }
}
