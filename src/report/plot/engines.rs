//! Several engines on the same model: what each adds, and what its format costs.

use super::figure::{Figure, REL_L2};
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
    let (mut series, mut notes) = (Vec::new(), Vec::new());
    for (i, report) in reports.iter().enumerate() {
        let style = Style { dash: Dash::Solid, ..theme::series(i) };
        let price = Style { dash: Dash::Dashed, marker: None, ..style };
        match report.arms.quantization.status.as_str() {
            "unmeasured" => {
                notes.push(format!("{}: UNMEASURED", report.engine));
                continue;
            }
            "measured" => series.push(curve(report, "", price, &|p| p.quantization)),
            _ => {}
        }
        series.push(curve(report, &report.engine, style, &stops::error));
    }
    if let Some(first) = reports.first() {
        let others = first.arms.floor.iter().skip(1).filter_map(|arm| arm.dtype.as_deref());
        for dtype in others {
            let style = theme::floor(dtype);
            series.push(curve(first, &format!("{dtype} floor"), style, &|p| p.floors.get(dtype).copied()));
        }
    }
    series.reverse();
    notes.push("line: the engine, C−Q; dashed: its price of quantization, Q−T".to_owned());
    Figure {
        title: "What each engine adds, by layer output".to_owned(),
        unit: REL_L2,
        outcome,
        faults: &[],
        growth: None,
        stops: all.iter().collect(),
        kinds,
        axis: "layer",
        series,
        dodge: false,
        floors: Vec::new(),
        notes,
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
