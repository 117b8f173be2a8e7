//! Curves: a name, a look, and a value for each stop.

use super::axis::{Frame, Row, row_of};
use super::scene::{Place, Scene, Shape};
use super::theme::Colour;

/// What a series has at one stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// The model has no such point here: the line goes on to the next.
    Skip,
    /// The point was not asked for: the line breaks.
    Gap,
    /// The point was asked for and not compared: the line breaks, and a mark says so.
    Unmeasured,
    /// The error; NaN counts as infinite.
    Measured(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dash {
    Solid,
    Dashed,
    Dotted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Disc,
    Diamond,
    Square,
    Up,
    Down,
    Plus,
    Cross,
    Star,
}

/// The look of a series; without a line it is markers alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Style {
    pub colour: Colour,
    pub dash: Dash,
    pub marker: Option<Marker>,
    pub line: Option<f64>,
}

/// A curve over the stops.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// Empty for one that the legend leaves out.
    pub name: String,
    pub style: Style,
    /// One for each stop of the figure.
    pub values: Vec<Value>,
}

impl Series {
    /// True when there is something to see.
    pub(super) fn is_visible(&self) -> bool {
        self.values.iter().any(|v| matches!(v, Value::Measured(_) | Value::Unmeasured))
    }

    /// Draws the curve. `shift` says how far a stop's mark moves aside.
    pub(super) fn draw(&self, scene: &mut Scene, frame: &Frame, shift: &dyn Fn(usize) -> f64) {
        let place = |slot: &usize| frame.place(*slot, self.values[*slot]).map(|(x, y)| (x + shift(*slot), y));
        // Thin where the line only passes stops that have no such point.
        let thin = Style { line: self.style.line.map(|width| width / 2.0), ..self.style };
        let runs = self.runs();
        let mut bridged = Vec::new();
        for pair in runs.windows(2) {
            let ends = [pair[0][pair[0].len() - 1], pair[1][0]];
            if self.values[ends[0] + 1..ends[1]].iter().all(|v| *v == Value::Skip) {
                bridged.extend(ends);
                thin.draw_line(scene, &ends.iter().filter_map(place).collect::<Vec<Place>>());
            }
        }
        for run in &runs {
            self.style.draw_line(scene, &run.iter().filter_map(place).collect::<Vec<Place>>());
        }
        for slot in 0..self.values.len() {
            let Some((x, y)) = place(&slot) else { continue };
            let row = row_of(self.values[slot]);
            let alone = row.is_some() || (runs.iter().any(|run| *run == [slot]) && !bridged.contains(&slot));
            match self.style.marker {
                _ if row == Some(Row::NotCompared) => {
                    Marker::Cross.draw(scene, (x, y), frame.marker_radius(), self.style.colour);
                }
                Some(marker) => marker.draw(scene, (x, y), frame.marker_radius(), self.style.colour),
                None if alone => self.style.draw_line(scene, &[(x - 8.0, y), (x + 8.0, y)]),
                None => {}
            }
        }
    }

    /// Stretches of neighbouring stops whose values have a place on the logarithmic axis.
    fn runs(&self) -> Vec<Vec<usize>> {
        let on_scale = |slot: &usize| {
            matches!(self.values[*slot], Value::Measured(_)) && row_of(self.values[*slot]).is_none()
        };
        let slots: Vec<usize> = (0..self.values.len()).filter(on_scale).collect();
        slots.chunk_by(|a, b| a + 1 == *b).map(<[usize]>::to_vec).collect()
    }
}

impl Style {
    /// Draws a line through `places`.
    pub(super) fn draw_line(&self, scene: &mut Scene, places: &[Place]) {
        let Some(width) = self.line else { return };
        let pattern: &[f64] = match self.dash {
            Dash::Solid => return scene.line(places.to_vec(), self.colour, width),
            Dash::Dashed => &[13.0, 8.0],
            Dash::Dotted => &[3.0, 6.0],
        };
        for dash in dashes(places, pattern) {
            scene.line(dash, self.colour, width);
        }
    }
}

/// Cuts a line into dashes: lengths drawn and left out take turns.
fn dashes(places: &[Place], pattern: &[f64]) -> Vec<Vec<Place>> {
    let mut result = Vec::new();
    let (mut phase, mut left) = (0, pattern[0]);
    let mut dash: Vec<Place> = places.first().copied().into_iter().collect();
    for pair in places.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let length = (x1 - x0).hypot(y1 - y0);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let at = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length);
            if phase % 2 == 0 {
                dash.push(at);
                result.push(std::mem::take(&mut dash));
            } else {
                dash = vec![at];
            }
            phase = (phase + 1) % pattern.len();
            left = pattern[phase];
        }
        left -= length - done;
        if phase % 2 == 0 {
            dash.push((x1, y1));
        }
    }
    result.push(dash);
    result
}

impl Marker {
    /// Draws the marker; all have about the same area.
    pub(super) fn draw(self, scene: &mut Scene, (x, y): Place, radius: f64, colour: Colour) {
        let corners = |corners: &[(f64, f64)]| -> Vec<Place> {
            corners.iter().map(|(dx, dy)| (x + dx * radius, y + dy * radius)).collect()
        };
        let width = radius / 2.5;
        match self {
            Self::Disc => scene.shapes.push(Shape::Disc { centre: (x, y), radius, colour }),
            Self::Diamond => {
                scene.fill(corners(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]), colour, 1.0);
            }
            Self::Square => {
                scene.fill(corners(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]), colour, 1.0);
            }
            Self::Up => scene.fill(corners(&[(0.0, -1.2), (1.2, 0.9), (-1.2, 0.9)]), colour, 1.0),
            Self::Down => scene.fill(corners(&[(0.0, 1.2), (1.2, -0.9), (-1.2, -0.9)]), colour, 1.0),
            Self::Plus => {
                scene.line(corners(&[(-1.2, 0.0), (1.2, 0.0)]), colour, width);
                scene.line(corners(&[(0.0, -1.2), (0.0, 1.2)]), colour, width);
            }
            Self::Cross => {
                scene.line(corners(&[(-0.9, -0.9), (0.9, 0.9)]), colour, width);
                scene.line(corners(&[(-0.9, 0.9), (0.9, -0.9)]), colour, width);
            }
            Self::Star => {
                Self::Plus.draw(scene, (x, y), radius, colour);
                Self::Cross.draw(scene, (x, y), radius, colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_go_around_corners() {
        let cut = dashes(&[(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)], &[6.0, 2.0]);
        let expected = [
            vec![(0.0, 0.0), (6.0, 0.0)],
            vec![(8.0, 0.0), (10.0, 0.0), (10.0, 4.0)],
            vec![(10.0, 6.0), (10.0, 10.0)],
        ];
        assert_eq!(cut, expected);
    }
}
