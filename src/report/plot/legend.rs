//! The legend: rows above the plot, where it covers nothing.

use super::font;
use super::scene::{Anchor, Area, Place, Scene, Shape};
use super::series::{Dash, Style};
use super::theme::{FAULT, FLOOR, INK, MUTED, TEXT};

/// What stands before an entry's name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Swatch {
    None,
    Series(Style),
    FloorBox,
    Ring,
}

const SWATCH: f64 = 48.0;
const GAP: f64 = 26.0;
const ROW: f64 = 31.0;

/// Draws the entries from `left` to `right`, the first row's baseline at `y`; gives the height
/// that they take.
pub(super) fn draw(scene: &mut Scene, area: Area, entries: &[(Swatch, String)]) -> f64 {
    let (mut x, mut y) = (area.left, area.top + TEXT);
    for (swatch, name) in entries {
        let room = if matches!(swatch, Swatch::None) { 0.0 } else { SWATCH + 8.0 };
        let name = font::fit(name, TEXT, false, area.right - area.left - room);
        let width = room + font::width(&name, TEXT, false);
        if x > area.left && x + width > area.right {
            (x, y) = (area.left, y + ROW);
        }
        draw_swatch(scene, *swatch, (x, y - 8.0));
        let colour = if matches!(swatch, Swatch::None) { MUTED } else { INK };
        scene.text((x + room, y), &name, TEXT, colour, Anchor::Left);
        x += width + GAP;
    }
    y + 0.25 * TEXT - area.top
}

fn draw_swatch(scene: &mut Scene, swatch: Swatch, (x, y): Place) {
    let centre = (x + SWATCH / 2.0, y);
    match swatch {
        Swatch::None => {}
        Swatch::Series(style) => {
            style.draw_line(scene, &[(x, y), (x + SWATCH, y)]);
            if let Some(marker) = style.marker {
                marker.draw(scene, centre, 7.0, style.colour);
            }
        }
        Swatch::FloorBox => {
            floor_box(scene, Area { left: x, right: x + SWATCH, top: y - 8.0, bottom: y + 8.0 });
        }
        Swatch::Ring => ring(scene, centre, 11.0),
    }
}

/// The box from the lowest to the highest floor.
pub(super) fn floor_box(scene: &mut Scene, area: Area) {
    scene.fill(area.corners(), FLOOR, 0.22);
    floor_line(scene, (area.left, area.top), area.right);
    floor_line(scene, (area.left, area.bottom), area.right);
}

/// The edge of such a box, or a box that is no more than that.
pub(super) fn floor_line(scene: &mut Scene, (left, y): Place, right: f64) {
    let edge = Style { colour: FLOOR, dash: Dash::Dashed, marker: None, line: Some(2.0) };
    edge.draw_line(scene, &[(left, y), (right, y)]);
}

/// The mark around a point where a fault is born.
pub(super) fn ring(scene: &mut Scene, centre: Place, radius: f64) {
    scene.shapes.push(Shape::Ring { centre, radius, colour: FAULT, width: 3.0 });
}
