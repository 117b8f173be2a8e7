//! A table of coloured cells.

use super::figure::draw_title;
use super::font;
use super::ramp::{Ramp, is_dark};
use super::scene::{Anchor, Area, Scene};
use super::theme::{EDGE, FAULT, GRID, INK, MARGIN, MUTED, PAPER, TEXT, TITLE, WIDTH};
use crate::report::Outcome;

/// What a cell shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell {
    /// There is no such thing.
    Nothing,
    /// It was not measured.
    Unmeasured,
    /// A value, and whether an error is born here.
    Value(f64, bool),
}

/// A row of cells.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub label: String,
    /// True where some room separates it from the row above.
    pub gap: bool,
    pub cells: Vec<Cell>,
}

/// A whole picture.
pub(super) struct Heatmap {
    pub title: String,
    pub outcome: Outcome,
    /// What the colours are.
    pub unit: String,
    pub ramp: Ramp,
    /// What is written above the columns.
    pub columns: Vec<String>,
    /// What the columns are.
    pub axis: String,
    pub rows: Vec<Row>,
    /// What an empty cell is, where there may be one.
    pub nothing: &'static str,
    /// Sentences below the table.
    pub notes: Vec<String>,
}

/// More rows than these in one picture are too many to read.
pub(super) const ROWS: usize = 60;

const ROW_HEIGHT: f64 = 27.0;
const GAP: f64 = 10.0;
/// A label gets no more room than this.
const LABEL: f64 = 430.0;

impl Heatmap {
    /// Draws the picture; its height follows from the number of rows.
    pub(super) fn draw(&self) -> Scene {
        let mut scene = Scene::default();
        let label = |row: &Row| font::width(&font::drawable(&row.label), TEXT, false);
        let left = MARGIN + self.rows.iter().map(label).fold(60.0, f64::max).min(LABEL) + 12.0;
        let legend_top = MARGIN + TITLE + 20.0;
        // Laid out once to see how high it is.
        let mut trial = Scene::default();
        let legend = self.legend(&mut trial, legend_top);
        let top = legend_top + legend + 44.0;
        let rows: f64 = self.rows.iter().map(|row| ROW_HEIGHT + if row.gap { GAP } else { 0.0 }).sum();
        let notes = 34.0 * (1 + self.notes.len()) as f64;
        scene.height = (top + rows + notes + MARGIN).ceil();
        let card = Area { left: 0.0, top: 0.0, right: WIDTH, bottom: scene.height };
        scene.fill(card.corners(), PAPER, 1.0);
        scene.outline(card.grown(-1.0), EDGE, 2.0);
        draw_title(&mut scene, card.grown(-MARGIN), &self.title, self.outcome);
        self.legend(&mut scene, legend_top);
        let grid = Area { left, top, right: WIDTH - MARGIN, bottom: top + rows };
        self.draw_columns(&mut scene, grid);
        self.draw_rows(&mut scene, grid);
        let notes = std::iter::once(&self.axis).chain(&self.notes);
        for (i, note) in notes.enumerate() {
            let note = font::fit(note, TEXT, false, WIDTH - 2.0 * MARGIN);
            let y = grid.bottom + 34.0 * (i + 1) as f64 - 4.0;
            scene.text((MARGIN, y), &note, TEXT, MUTED, Anchor::Left);
        }
        scene
    }

    fn column_width(&self, grid: Area) -> f64 {
        // A few columns need not take the whole width.
        ((grid.right - grid.left) / self.columns.len().max(1) as f64).min(150.0)
    }

    fn draw_columns(&self, scene: &mut Scene, grid: Area) {
        let width = self.column_width(grid);
        // The first may be a word; where numbers would touch, only multiples of a round one are shown.
        let half = |name: &String| font::width(&font::drawable(name), TEXT, false) / 2.0;
        let widest = self.columns.iter().skip(1).map(half).fold(0.0, f64::max) * 2.0 + 10.0;
        let steps = [1, 2, 5, 10, 20, 25, 50, 100];
        let step = steps.into_iter().find(|step| *step as f64 * width >= widest).unwrap_or(200);
        let lead = usize::from(self.columns.first().is_some_and(|name| name.parse::<usize>().is_err()));
        let mut free = grid.left - TEXT;
        for (i, name) in self.columns.iter().enumerate() {
            let middle = grid.left + (i as f64 + 0.5) * width;
            let is_shown = i < lead || (i - lead).is_multiple_of(step);
            if !is_shown || middle - half(name) < free || middle + half(name) > WIDTH - 8.0 {
                continue;
            }
            scene.text((middle, grid.top - 10.0), name, TEXT, INK, Anchor::Centre);
            free = middle + half(name) + 10.0;
        }
    }

    fn draw_rows(&self, scene: &mut Scene, grid: Area) {
        let width = self.column_width(grid);
        let (mut top, mut marked) = (grid.top, Vec::new());
        for row in &self.rows {
            top += if row.gap { GAP } else { 0.0 };
            let name = font::fit(&row.label, TEXT, false, grid.left - MARGIN - 12.0);
            scene.text((grid.left - 12.0, top + 21.0), &name, TEXT, INK, Anchor::Right);
            for (i, cell) in row.cells.iter().enumerate() {
                let from = grid.left + i as f64 * width;
                let area = Area { left: from, top, right: from + width, bottom: top + ROW_HEIGHT };
                // Close columns need all the room that they have.
                let space = if width > 16.0 { 1.0 } else { 0.0 };
                let area = Area { right: area.right - space, bottom: area.bottom - 1.0, ..area };
                draw_cell(scene, *cell, area, self.ramp);
                marked.extend(matches!(cell, Cell::Value(_, true)).then_some(area));
            }
            top += ROW_HEIGHT;
        }
        // Around the cells and above all of them.
        marked.into_iter().for_each(|area| born(scene, area));
    }

    fn has(&self, wanted: impl Fn(&Cell) -> bool) -> bool {
        self.rows.iter().flat_map(|row| &row.cells).any(wanted)
    }

    /// What the colours and the marks mean; gives its height.
    fn legend(&self, scene: &mut Scene, top: f64) -> f64 {
        let mut pen = Pen { scene, x: MARGIN, y: top + TEXT };
        pen.say(&self.unit, MUTED);
        for (before, behind, values) in self.ramp.bars() {
            pen.bar(&before, &behind, &values, self.ramp);
        }
        let marks = [
            (Cell::Unmeasured, self.has(|c| *c == Cell::Unmeasured), "not compared"),
            (
                Cell::Value(f64::NAN, false),
                self.has(|c| matches!(c, Cell::Value(v, _) if !v.is_finite())),
                "not finite",
            ),
            (Cell::Value(0.0, false), self.has(|c| matches!(c, Cell::Value(v, _) if *v == 0.0)), "0 (exact)"),
            (Cell::Nothing, self.has(|c| *c == Cell::Nothing) && !self.nothing.is_empty(), self.nothing),
        ];
        for (cell, _, name) in marks.into_iter().filter(|(_, there, _)| *there) {
            pen.mark(name, |scene, area| draw_cell(scene, cell, area, self.ramp));
        }
        if self.has(|c| matches!(c, Cell::Value(_, true))) {
            pen.mark("fault born here", born);
        }
        pen.y + 0.25 * TEXT - top
    }
}

/// Writes a legend from left to right.
struct Pen<'a> {
    scene: &'a mut Scene,
    x: f64,
    y: f64,
}

impl Pen<'_> {
    const GAP: f64 = 26.0;
    const BAR: f64 = 168.0;

    /// Starts a new line where `width` does not fit.
    fn room(&mut self, width: f64) {
        if self.x > MARGIN && self.x + width > WIDTH - MARGIN {
            (self.x, self.y) = (MARGIN, self.y + 33.0);
        }
    }

    fn say(&mut self, text: &str, colour: super::theme::Colour) {
        let text = font::fit(text, TEXT, false, WIDTH - 2.0 * MARGIN);
        let width = font::width(&text, TEXT, false);
        self.room(width);
        self.scene.text((self.x, self.y), &text, TEXT, colour, Anchor::Left);
        self.x += width + Self::GAP;
    }

    fn bar(&mut self, before: &str, behind: &str, values: &[f64], ramp: Ramp) {
        let widths = [before, behind].map(|text| font::width(text, TEXT, false));
        self.room(widths[0] + widths[1] + Self::BAR + 18.0);
        self.scene.text((self.x, self.y), before, TEXT, INK, Anchor::Left);
        self.x += widths[0] + if before.is_empty() { 0.0 } else { 9.0 };
        let step = Self::BAR / values.len() as f64;
        for (i, value) in values.iter().enumerate() {
            let left = self.x + i as f64 * step;
            let area = Area { left, right: left + step, top: self.y - 18.0, bottom: self.y + 4.0 };
            self.scene.fill(area.corners(), ramp.colour(*value), 1.0);
        }
        self.x += Self::BAR + 9.0;
        self.scene.text((self.x, self.y), behind, TEXT, INK, Anchor::Left);
        self.x += widths[1] + Self::GAP;
    }

    fn mark(&mut self, name: &str, draw: impl FnOnce(&mut Scene, Area)) {
        let width = font::width(name, TEXT, false);
        self.room(width + 44.0);
        draw(
            self.scene,
            Area { left: self.x, right: self.x + 34.0, top: self.y - 19.0, bottom: self.y + 5.0 },
        );
        self.scene.text((self.x + 44.0, self.y), name, TEXT, INK, Anchor::Left);
        self.x += width + 44.0 + Self::GAP;
    }
}

fn draw_cell(scene: &mut Scene, cell: Cell, area: Area, ramp: Ramp) {
    let middle = (f64::midpoint(area.left, area.right), f64::midpoint(area.top, area.bottom));
    let Cell::Value(value, _) = cell else {
        if cell == Cell::Unmeasured {
            hatch(scene, area);
        } else {
            scene.outline(area.grown(-0.5), GRID, 1.0);
        }
        return;
    };
    if value == 0.0 {
        scene.fill(area.corners(), GRID, 1.0);
        let radius = 3.0_f64.min((area.right - area.left) / 3.0);
        scene.shapes.push(super::scene::Shape::Disc { centre: middle, radius, colour: MUTED });
    } else if value.is_finite() {
        let colour = ramp.colour(value);
        scene.fill(area.corners(), colour, 1.0);
        let text = ramp.text(value);
        if font::width(&text, TEXT, false) + 10.0 < area.right - area.left {
            let ink = if is_dark(colour) { WHITE } else { DARK };
            scene.text((middle.0, middle.1 + 8.0), &text, TEXT, ink, Anchor::Centre);
        }
    } else {
        scene.fill(area.corners(), INK, 1.0);
        scene.bold((middle.0, middle.1 + 8.0), "!", TEXT, PAPER, Anchor::Centre);
    }
}

/// Letters on cells, which have the same colours on a dark page; a little off the page's own, which change there.
const WHITE: super::theme::Colour = (254, 254, 254);
const DARK: super::theme::Colour = (20, 20, 20);

/// The mark of a cell where a fault is born.
fn born(scene: &mut Scene, area: Area) {
    scene.outline(area.grown(3.5), PAPER, 2.0);
    scene.outline(area.grown(1.0), FAULT, 4.0);
}

/// Lines from the lower left to the upper right, within the area.
fn hatch(scene: &mut Scene, area: Area) {
    let height = area.bottom - area.top;
    scene.outline(area.grown(-0.5), EDGE, 1.0);
    let mut x = area.left - height + 6.0;
    while x < area.right {
        // Where the line enters and leaves.
        let (from, to) = (x.max(area.left), (x + height).min(area.right));
        if to - from > 1.0 {
            scene.line(vec![(from, area.bottom - (from - x)), (to, area.bottom - (to - x))], MUTED, 1.5);
        }
        x += 9.0;
    }
}
