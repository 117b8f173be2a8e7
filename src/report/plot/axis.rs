//! The axes: stops from left to right, and a logarithm with rows for what it cannot show.

use super::font;
use super::scene::{Anchor, Area, Place, Scene};
use super::series::Value;
use super::theme::{EDGE, GRID, MUTED, ROW, SHADES, TEXT};
use crate::report::stops::{Kind, Stop};

/// A row for values without a logarithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    NotFinite,
    Exact,
    NotCompared,
}

impl Row {
    fn name(self) -> &'static str {
        match self {
            Self::NotFinite => "not finite",
            Self::Exact => "0 (exact)",
            Self::NotCompared => "not compared",
        }
    }
}

const ROW_HEIGHT: f64 = 36.0;
/// Room under the plot for numbers, letters and the axis' name.
const BELOW: f64 = 96.0;

/// Where everything is.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The plot, rows included.
    pub area: Area,
    /// The part with the logarithm.
    pub scale: Area,
    rows: Vec<(Row, f64)>,
    low: i32,
    high: i32,
    slots: Vec<(f64, f64)>,
}

/// The row that a value belongs to, if it has no logarithm.
pub(super) fn row_of(value: Value) -> Option<Row> {
    match value {
        Value::Skip | Value::Gap => None,
        Value::Unmeasured => Some(Row::NotCompared),
        Value::Measured(v) if !v.is_finite() => Some(Row::NotFinite),
        Value::Measured(v) => (v <= 0.0).then_some(Row::Exact),
    }
}

impl Frame {
    /// Lays out the plot inside `outer` for these values and stops.
    pub(super) fn new(outer: Area, values: &[Value], stops: &[&Stop]) -> Self {
        let present: Vec<Row> = values.iter().filter_map(|v| row_of(*v)).collect();
        let rows: Vec<Row> = [Row::NotFinite, Row::Exact, Row::NotCompared]
            .into_iter()
            .filter(|row| present.contains(row))
            .collect();
        let label = |row: &Row| font::width(row.name(), TEXT, false);
        let left = rows.iter().map(label).fold(font::width("1e-300", TEXT, false), f64::max) + 14.0;
        let area = Area { left: outer.left + left, bottom: outer.bottom - BELOW, ..outer };
        let mut scale = area;
        let mut placed = Vec::new();
        for row in rows.iter().filter(|row| **row == Row::NotFinite) {
            placed.push((*row, scale.top + ROW_HEIGHT / 2.0));
            scale.top += ROW_HEIGHT;
        }
        for row in rows.iter().rev().filter(|row| **row != Row::NotFinite) {
            scale.bottom -= ROW_HEIGHT;
            placed.push((*row, scale.bottom + ROW_HEIGHT / 2.0));
        }
        let (low, high) = decades(values);
        Self { area, scale, rows: placed, low, high, slots: slots(area, stops) }
    }

    /// Middle of a stop.
    pub(super) fn x(&self, slot: usize) -> f64 {
        let (left, right) = self.slots[slot];
        f64::midpoint(left, right)
    }

    /// Room of a stop.
    pub(super) fn slot_width(&self, slot: usize) -> f64 {
        self.slots[slot].1 - self.slots[slot].0
    }

    /// Left and right edge of a stop.
    pub(super) fn slot(&self, slot: usize) -> (f64, f64) {
        self.slots[slot]
    }

    /// Height of a positive finite value.
    pub(super) fn y(&self, value: f64) -> f64 {
        let (top, bottom) = (self.scale.top + 14.0, self.scale.bottom - 14.0);
        let part = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        (bottom - part * (bottom - top)).clamp(top, bottom)
    }

    /// Height of a row that some value belongs to.
    pub(super) fn row_y(&self, row: Row) -> f64 {
        self.rows.iter().find(|(r, _)| *r == row).map_or(self.area.bottom, |(_, y)| *y)
    }

    /// Where a value is shown, if anywhere.
    pub(super) fn place(&self, slot: usize, value: Value) -> Option<Place> {
        let y = match (row_of(value), value) {
            (Some(row), _) => self.row_y(row),
            (None, Value::Measured(v)) => self.y(v),
            (None, _) => return None,
        };
        Some((self.x(slot), y))
    }

    /// Markers shrink where stops are close.
    pub(super) fn marker_radius(&self) -> f64 {
        let narrowest = self.slots.iter().map(|(l, r)| r - l).fold(f64::INFINITY, f64::min);
        (narrowest / 5.0).clamp(4.0, 7.0)
    }

    /// Draws everything that lies behind the data, and the labels around it.
    pub(super) fn draw(&self, scene: &mut Scene, stops: &[&Stop], kinds: &[Kind], name: &str) {
        let Area { left, right, top, bottom } = self.area;
        for (slot, stop) in stops.iter().enumerate() {
            let (l, r) = self.slots[slot];
            if let Some(kind) = stop.kind.filter(|k| k % SHADES.len() != 0) {
                let shade = Area { left: l, right: r, top, bottom };
                scene.fill(shade.corners(), SHADES[kind % SHADES.len()], 1.0);
            }
        }
        let every = (self.high - self.low).div_euclid(9) + 1;
        for decade in (self.low..=self.high).filter(|d| (d - self.high) % every == 0) {
            let y = self.y(10f64.powi(decade));
            scene.line(vec![(left, y), (right, y)], GRID, 1.0);
            scene.text((left - 10.0, y + 8.0), &format!("1e{decade}"), TEXT, MUTED, Anchor::Right);
        }
        for (row, y) in &self.rows {
            let band =
                Area { left, right, top: y - ROW_HEIGHT / 2.0 + 2.0, bottom: y + ROW_HEIGHT / 2.0 - 2.0 };
            scene.fill(band.corners(), ROW, 1.0);
            scene.text((left - 10.0, y + 8.0), row.name(), TEXT, MUTED, Anchor::Right);
        }
        self.draw_labels(scene, stops, kinds, name);
        scene.outline(self.area, EDGE, 2.0);
    }
}

/// Width of a name under a plot.
pub(super) fn text_width(text: &str) -> f64 {
    font::width(text, TEXT, false)
}

/// Exponents of the powers of ten below and above all values; at least two decades apart.
fn decades(values: &[Value]) -> (i32, i32) {
    let logs = values.iter().filter_map(|v| match v {
        Value::Measured(v) if v.is_finite() && *v > 0.0 => Some(v.log10()),
        _ => None,
    });
    let (min, max) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if min > max {
        return (-8, 0);
    }
    let (low, high) = ((min + 1e-9).floor() as i32, (max - 1e-9).ceil() as i32);
    if high - low >= 2 { (low, high) } else { (low - 1, high.max(low + 1)) }
}

/// Edges of the stops: those with a name get the room that it needs, layers share the rest.
fn slots(area: Area, stops: &[&Stop]) -> Vec<(f64, f64)> {
    let named = |stop: &Stop| (font::width(&stop.label, TEXT, false) + 18.0).max(44.0);
    let fixed: f64 = stops.iter().filter(|s| s.layer.is_none()).map(|s| named(s)).sum();
    let layers = stops.iter().filter(|s| s.layer.is_some()).count();
    let total = area.right - area.left;
    // A lone layer need not take the whole width.
    let share = ((total - fixed) / layers.max(1) as f64).min(160.0).max(total / (2.0 * stops.len() as f64));
    let widths: Vec<f64> = stops.iter().map(|s| if s.layer.is_some() { share } else { named(s) }).collect();
    let stretch = total / widths.iter().sum::<f64>();
    let mut x = area.left;
    widths
        .iter()
        .map(|width| {
            let left = x;
            x += width * stretch;
            (left, x)
        })
        .collect()
}
