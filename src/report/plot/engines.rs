//! Several engines on the same model: what each adds, and what its format costs.

use super::figure::Figure;
use super::series::{Dash, Series, Style, Value};
use super::theme;
use crate::report::stops::{self, Kind, Stop, stops};
use crate::report::{Outcome, PointReport, Report};

/// Two curves for each engine: its own error as a line with marks, the price of quantization dashed.
pub(super) fn figure<'a>(
    reports: &[Report],
    outcome: Outcome,
    all: &'a [Stop<'a>],
    kinds: &'a [Kind],
) -> Figure<'a> {
    let mut series = Vec::new();
    for (i, report) in reports.iter().enumerate() {
        let style = Style { dash: Dash::Solid, ..theme::series(i) };
        let price = Style { dash: Dash::Dashed, marker: None, ..style };
        if report.arms.quantization.status == "measured" {
            series.push(curve(report, "", price, &|p| p.quantization));
        }
        series.push(curve(report, &report.engine, style, &stops::error));
    }
    series.reverse();
    Figure {
        title: "What each engine adds, by layer output".to_owned(),
        outcome,
        faults: &[],
        growth: None,
        stops: all.iter().collect(),
        kinds,
        series,
        dodge: false,
        floors: Vec::new(),
        notes: vec!["lines: the engine, C−Q; dashed: its price of quantization, Q−T".to_owned()],
        shows: Box::new(|_| false),
    }
}

fn curve(report: &Report, name: &str, style: Style, of: &dyn Fn(&PointReport) -> Option<f64>) -> Series {
    // Tables that are computed beside the residual stream are no part of its curve.
    let value = |stop: &Stop<'_>| match stop.output().and_then(of) {
        _ if stop.before_layers && stop.label != "embed" => Value::Skip,
        None => Value::Gap,
        Some(value) => Value::Measured(value),
    };
    Series { name: name.to_owned(), style, values: stops(report).iter().map(value).collect() }
}
