//! Figures over the positions of a text, and how often something came: the pictures of token metrics.

use super::Curve;
use super::axis::text_width;
use super::figure::{Figure, draw_title};
use super::scene::{Anchor, Area, Scene};
use super::series::{Series, Style, Value};
use super::theme::{self, EDGE, GRID, HEIGHT, INK, MARGIN, MUTED, PAPER, TEXT, TITLE, WIDTH};
use crate::report::Outcome;
use crate::report::stops::Stop;

/// A curve for each name, over positions 0, 1, …; the first is drawn on top, the limits below all.
pub(super) fn curves(
    title: &str,
    (unit, axis): (&'static str, &'static str),
    outcome: Outcome,
    (curves, limits): (&[Curve<'_>], &[Curve<'_>]),
) -> Scene {
    let count = curves.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let stops: Vec<Stop<'_>> = (0..count).map(stop).collect();
    // One value for each position; a limit may end before them.
    let over = |values: &[f64]| {
        let known = values.iter().take(count).map(|v| Value::Measured(*v));
        known.chain(std::iter::repeat(Value::Gap)).take(count).collect()
    };
    let limits = limits.iter().map(|(name, values)| Series {
        name: (*name).to_owned(),
        style: theme::LIMIT,
        values: over(values),
    });
    let curves = curves.iter().enumerate().rev().map(|(i, (name, values))| Series {
        name: (*name).to_owned(),
        style: Style { marker: None, ..theme::series(i) },
        values: over(values),
    });
    let figure = Figure {
        title: title.to_owned(),
        unit,
        outcome,
        called_out: None,
        labels: Vec::new(),
        stops: stops.iter().collect(),
        kinds: &[],
        axis,
        series: limits.chain(curves).collect(),
        dodge: false,
        floors: Vec::new(),
        notes: Vec::new(),
        shows: Box::new(|_| false),
    };
    figure.draw()
}

fn stop(position: usize) -> Stop<'static> {
    Stop {
        label: position.to_string(),
        layer: Some(position),
        before_layers: false,
        kind: None,
        points: Vec::new(),
    }
}

/// Room under the bars for their names.
const BELOW: f64 = 96.0;

/// A bar for each name, as high as its count, which stands above it.
pub(super) fn bars(title: &str, unit: &str, axis: &str, outcome: Outcome, bars: &[(String, usize)]) -> Scene {
    let mut scene = Scene::default();
    let card = Area { left: 0.0, top: 0.0, right: WIDTH, bottom: HEIGHT };
    scene.fill(card.corners(), PAPER, 1.0);
    scene.outline(card.grown(-1.0), EDGE, 2.0);
    let inner = card.grown(-MARGIN);
    draw_title(&mut scene, inner, title, outcome);
    scene.text((inner.left, inner.top + TITLE + 40.0), unit, TEXT, MUTED, Anchor::Left);
    let plot = Area {
        left: inner.left + 14.0,
        top: inner.top + TITLE + 90.0,
        right: inner.right - 14.0,
        bottom: inner.bottom - BELOW,
    };
    scene.line(vec![(plot.left, plot.bottom), (plot.right, plot.bottom)], GRID, 2.0);
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1) as f64;
    let slot = (plot.right - plot.left) / bars.len().max(1) as f64;
    let widest = bars.iter().map(|(name, _)| text_width(name)).fold(0.0, f64::max);
    // Names that would touch are left out in turn.
    let every = ((widest + 10.0) / slot).ceil().max(1.0) as usize;
    for (i, (name, count)) in bars.iter().enumerate() {
        let middle = plot.left + (i as f64 + 0.5) * slot;
        let top = plot.bottom - *count as f64 / most * (plot.bottom - plot.top);
        let half = (0.38 * slot).min(60.0);
        let bar = Area { left: middle - half, right: middle + half, top, bottom: plot.bottom };
        scene.fill(bar.corners(), theme::OUTPUT.colour, 1.0);
        scene.text((middle, top - 10.0), &count.to_string(), TEXT, INK, Anchor::Centre);
        if i % every == 0 {
            scene.text((middle, plot.bottom + 32.0), name, TEXT, INK, Anchor::Centre);
        }
    }
    let middle = f64::midpoint(plot.left, plot.right);
    scene.text((middle, plot.bottom + 74.0), axis, TEXT, MUTED, Anchor::Centre);
    scene
}
