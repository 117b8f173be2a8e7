//! The error over the whole model.

use super::figure::Figure;
use super::series::{Dash, Marker, Series, Style, Value};
use super::theme;
use crate::report::stops::{self, Kind, Stop};
use crate::report::{PointReport, Report};

const NOT_COMPARED: Style =
    Style { colour: theme::INK, dash: Dash::Solid, marker: Some(Marker::Cross), line: None };

/// The error of the layers' outputs, the worst point of each layer, the floor and what is explained.
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
    Figure {
        report,
        subject: "Error by layer".to_owned(),
        stops: all.iter().collect(),
        kinds,
        series: vec![
            series("points not compared", NOT_COMPARED, &missing),
            series("explained", theme::EXPLAINED, &|s| output(s, &|p| p.explained)),
            series("floor", theme::FLOOR_LINE, &|s| output(s, &|p| p.floor)),
            series("worst point", theme::WORST, &worst),
            series("layer output", theme::OUTPUT, &|s| output(s, &stops::error)),
        ],
        dodge: false,
        floors: Vec::new(),
        notes,
        shows: Box::new(|_| true),
    }
}
