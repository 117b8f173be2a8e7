//! Errors as bars of text.

use super::super::stops::{self, Stop};

/// A bar with a logarithmic scale over all errors and floors.
pub(super) struct Bar {
    low: i32,
    high: i32,
    /// Columns.
    pub width: usize,
}

impl Bar {
    /// A bar for the worst points of these stops.
    pub(super) fn new(stops: &[Stop], width: usize) -> Self {
        let points = stops.iter().filter_map(Stop::worst);
        let values = points.flat_map(|p| [stops::error(p), p.floor]).flatten();
        let logs = values.filter(|v| v.is_finite() && *v > 0.0).map(f64::log10);
        let (min, max) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = if min > max { (-8, 0) } else { (min.floor() as i32, max.ceil() as i32) };
        Self { low: low.min(high - 1), high, width: width.clamp(10, 30) }
    }

    /// The ends of the scale, as a header.
    pub(super) fn scale(&self) -> String {
        let (low, high) = (format!("1e{}", self.low), format!("1e{}", self.high));
        format!("{low}{high:>room$}", room = self.width.saturating_sub(low.len()))
    }

    /// Columns up to a value; a value that is not 0 has at least one.
    fn columns(&self, value: f64) -> usize {
        let part = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        ((part * self.width as f64).round() as usize).clamp(1, self.width)
    }

    /// `#` up to the error, `|` at the floor; all `!` when the error is not finite.
    pub(super) fn draw(&self, error: Option<f64>, floor: Option<f64>) -> String {
        let mut cells = vec![' '; self.width];
        match error {
            None => return "?".to_owned(),
            Some(e) if !e.is_finite() => cells.fill('!'),
            Some(e) if e > 0.0 => cells[..self.columns(e)].fill('#'),
            Some(_) => {}
        }
        if let Some(floor) = floor.filter(|f| f.is_finite() && *f > 0.0) {
            cells[self.columns(floor) - 1] = '|';
        }
        cells.into_iter().collect()
    }
}
