//! Several engines on the same model: what each adds, and what its format costs.

use super::figure::{Figure, Label, REL_L2};
use super::series::{Dash, Series, Style, Value};
use super::theme;
use crate::report::stops::{self, Kind, Stop, stops};
use crate::report::{Fault, Outcome, PointReport, Report};

/// Two curves for each engine: its own error as a line with marks, the price of quantization dashed.
pub(super) fn figure<'a>(
    reports: &[Report],
    outcome: Outcome,
    all: &'a [Stop<'a>],
    kinds: &'a [Kind],
) -> Figure<'a> {
    let (mut series, mut labels, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (i, report) in reports.iter().enumerate() {
        let faulty = report.outcome == Outcome::Fault;
        let (dash, line) = if faulty { (Dash::Dotted, Some(4.0)) } else { (Dash::Solid, Some(2.0)) };
        let style = Style { dash, line, ..theme::series(i) };
        let price = Style { dash: Dash::Dashed, marker: None, line: Some(2.0), ..style };
        match report.arms.quantization.status.as_str() {
            "unmeasured" => {
                notes.push(format!("{}: UNMEASURED", report.engine));
                continue;
            }
            "measured" => series.push(curve(report, "", price, &|p| p.quantization)),
            _ => {}
        }
        let name = if faulty { format!("{}: FAULT", report.engine) } else { report.engine.clone() };
        let curve = curve(report, &name, style, &stops::error);
        labels.extend(report.first_fault.as_ref().and_then(|fault| label(&curve, fault, all)));
        series.push(curve);
    }
    if let Some(first) = reports.first() {
        let others = first.arms.floor.iter().skip(1).filter_map(|arm| arm.dtype.as_deref());
        for dtype in others {
            let style = theme::floor(dtype);
            series.push(curve(first, &format!("{dtype} floor"), style, &|p| p.floors.get(dtype).copied()));
        }
    }
    series.reverse();
    let dotted = if labels.is_empty() { "" } else { ", dotted where it has a fault" };
    notes.push(format!("line: the engine, C−Q{dotted}; dashed: its price of quantization, Q−T"));
    Figure {
        title: "What each engine adds, by layer output".to_owned(),
        unit: REL_L2,
        outcome,
        called_out: None,
        labels,
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

/// Names an engine with a fault at its curve, where the first fault is born, or at the first mark after it.
fn label(curve: &Series, fault: &Fault, stops: &[Stop<'_>]) -> Option<Label> {
    let from = stops.iter().position(|stop| stop.points.iter().any(|p| p.point == fault.point)).unwrap_or(0);
    let marks = || curve.values.iter().enumerate();
    let measured = |(slot, value): (usize, &Value)| match value {
        Value::Measured(error) if error.is_finite() && *error > 0.0 => Some((slot, *error)),
        _ => None,
    };
    let (slot, error) = marks().filter(|(slot, _)| *slot >= from).find_map(measured)?;
    let point = fault.point.strip_prefix("model.").unwrap_or(&fault.point);
    Some(Label { slot, error, lines: vec![curve.name.clone(), format!("born: {point}")] })
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
