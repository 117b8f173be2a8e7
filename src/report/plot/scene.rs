//! A picture as a list of shapes, before any backend sees it.

use super::font;
use super::theme::{self, Colour};

/// A place in px from the upper left corner.
pub(super) type Place = (f64, f64);

/// Which part of a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Left,
    Centre,
    Right,
}

/// A text on its baseline.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub at: Place,
    pub content: String,
    pub size: f64,
    pub bold: bool,
    pub colour: Colour,
    pub anchor: Anchor,
}

/// What a backend draws.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Line { places: Vec<Place>, colour: Colour, width: f64 },
    Fill { places: Vec<Place>, colour: Colour, opacity: f64 },
    Disc { centre: Place, radius: f64, colour: Colour },
    Ring { centre: Place, radius: f64, colour: Colour, width: f64 },
    Text(Text),
}

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Area {
    pub(super) fn corners(&self) -> Vec<Place> {
        vec![
            (self.left, self.top),
            (self.right, self.top),
            (self.right, self.bottom),
            (self.left, self.bottom),
        ]
    }

    pub(super) fn contains(&self, (x, y): Place) -> bool {
        x >= self.left && x <= self.right && y >= self.top && y <= self.bottom
    }

    pub(super) fn grown(&self, by: f64) -> Self {
        Self { left: self.left - by, top: self.top - by, right: self.right + by, bottom: self.bottom + by }
    }
}

impl Text {
    /// The box around the letters.
    #[cfg(test)]
    pub(super) fn area(&self) -> Area {
        let width = font::width(&self.content, self.size, self.bold);
        let left = self.at.0
            - match self.anchor {
                Anchor::Left => 0.0,
                Anchor::Centre => width / 2.0,
                Anchor::Right => width,
            };
        Area {
            left,
            right: left + width,
            top: self.at.1 - 0.74 * self.size,
            bottom: self.at.1 + 0.22 * self.size,
        }
    }
}

/// The shapes, the lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(super) shapes: Vec<Shape>,
    /// In px; the width is always the same.
    pub(super) height: f64,
}

impl Default for Scene {
    fn default() -> Self {
        Self { shapes: Vec::new(), height: theme::HEIGHT }
    }
}

impl Scene {
    /// The same with every colour as it is on a dark page.
    pub(super) fn darkened(mut self) -> Self {
        for shape in &mut self.shapes {
            let colour = match shape {
                Shape::Line { colour, .. }
                | Shape::Fill { colour, .. }
                | Shape::Disc { colour, .. }
                | Shape::Ring { colour, .. } => colour,
                Shape::Text(text) => &mut text.colour,
            };
            *colour = theme::dark(*colour);
        }
        self
    }

    pub(super) fn line(&mut self, places: Vec<Place>, colour: Colour, width: f64) {
        if places.len() > 1 {
            self.shapes.push(Shape::Line { places, colour, width });
        }
    }

    pub(super) fn fill(&mut self, places: Vec<Place>, colour: Colour, opacity: f64) {
        self.shapes.push(Shape::Fill { places, colour, opacity });
    }

    /// A closed outline.
    pub(super) fn outline(&mut self, area: Area, colour: Colour, width: f64) {
        let mut places = area.corners();
        places.push(places[0]);
        self.line(places, colour, width);
    }

    pub(super) fn text(&mut self, at: Place, text: &str, size: f64, colour: Colour, anchor: Anchor) {
        let content = font::drawable(text);
        self.shapes.push(Shape::Text(Text { at, content, size, bold: false, colour, anchor }));
    }

    pub(super) fn bold(&mut self, at: Place, text: &str, size: f64, colour: Colour, anchor: Anchor) {
        let content = font::drawable(text);
        self.shapes.push(Shape::Text(Text { at, content, size, bold: true, colour, anchor }));
    }
}
