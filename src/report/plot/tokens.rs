//! The errors of the logits over the positions of a prompt.

use super::figure::{Figure, REL_L2};
use super::scene::Scene;
use super::series::{Series, Style, Value};
use super::theme;
use crate::report::stops::{Kind, Stop};
use crate::report::{Report, TokenError};

/// A curve for each error that was measured, over the prompt and every decoded token.
pub(super) fn scene(report: &Report) -> Scene {
    let part = |letter, name: &str| Kind { letter, name: name.to_owned(), key: name.to_owned() };
    let kinds = [part('P', "prompt"), part('D', "decoded")];
    let stops: Vec<Stop<'_>> = report.by_token.iter().map(stop).collect();
    let curve = |name: &str, style: Style, of: &dyn Fn(&TokenError) -> Option<f64>| Series {
        name: name.to_owned(),
        style: Style { marker: None, ..style },
        values: report.by_token.iter().map(|t| of(t).map_or(Value::Gap, Value::Measured)).collect(),
    };
    let mut series = Vec::new();
    if report.arms.quantization.status == "measured" {
        series.push(curve("total, C−T", theme::TOTAL, &|t| t.total));
        series.push(curve("quantization, Q−T", theme::QUANTIZATION, &|t| t.quantization));
        series.push(curve("engine, C−Q", theme::OUTPUT, &|t| t.engine));
    } else {
        series.push(curve("total, C−T", theme::OUTPUT, &|t| t.total));
    }
    let figure = Figure {
        title: format!(
            "Error of the logits by position: {} against {}, prompt {}",
            report.engine, report.provenance.reference.engine, report.prompt_id
        ),
        unit: REL_L2,
        outcome: report.outcome,
        called_out: None,
        labels: Vec::new(),
        stops: stops.iter().collect(),
        kinds: &kinds,
        axis: "position",
        series,
        dodge: false,
        floors: Vec::new(),
        notes: Vec::new(),
        shows: Box::new(|_| false),
    };
    figure.draw()
}

fn stop(token: &TokenError) -> Stop<'static> {
    Stop {
        label: token.position.to_string(),
        layer: Some(token.position),
        before_layers: false,
        kind: Some(usize::from(token.step > 0)),
        points: Vec::new(),
    }
}
