//! A label with an arrow, placed where it hides no data.

use super::font;
use super::scene::{Anchor, Area, Place, Scene, Shape};
use super::theme::{FAULT, INK, PAPER, TEXT};

const LINE: f64 = 28.0;
const PADDING: f64 = 10.0;
/// The arrow ends here, outside the ring around its target.
const CLEARANCE: f64 = 16.0;
/// Length of arrow that looks best.
const REACH: f64 = 60.0;

/// Draws `lines` in a box inside `room`, with an arrow to `target`, clear of `obstacles`.
pub(super) fn draw(scene: &mut Scene, room: Area, target: Place, lines: &[String], obstacles: &[Place]) {
    let limit = room.right - room.left - 2.0 * PADDING - 12.0;
    let lines: Vec<String> = lines.iter().map(|line| font::fit(line, TEXT, true, limit)).collect();
    let widths = lines.iter().enumerate().map(|(i, line)| font::width(line, TEXT, i == 0));
    let size = (widths.fold(0.0, f64::max) + 2.0 * PADDING, lines.len() as f64 * LINE + PADDING);
    let area = best(room.grown(-6.0), target, size, obstacles);
    arrow(scene, nearest(area, target), target);
    scene.fill(area.corners(), PAPER, 1.0);
    scene.outline(area, FAULT, 2.0);
    for (i, line) in lines.iter().enumerate() {
        let at = (area.left + PADDING, area.top + PADDING / 2.0 + 21.0 + i as f64 * LINE);
        if i == 0 {
            scene.bold(at, line, TEXT, FAULT, Anchor::Left);
        } else {
            scene.text(at, line, TEXT, INK, Anchor::Left);
        }
    }
}

/// Places that the data takes: marks, and lines every few px.
pub(super) fn obstacles(shapes: &[Shape]) -> Vec<Place> {
    let mut places = Vec::new();
    for shape in shapes {
        match shape {
            Shape::Disc { centre, .. } | Shape::Ring { centre, .. } => places.push(*centre),
            Shape::Fill { places: corners, .. } => places.extend(corners),
            Shape::Line { places: line, .. } => {
                for pair in line.windows(2) {
                    let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
                    let steps = ((x1 - x0).hypot(y1 - y0) / 8.0).ceil().max(1.0);
                    places.extend((0..=steps as usize).map(|i| {
                        let t = i as f64 / steps;
                        (x0 + (x1 - x0) * t, y0 + (y1 - y0) * t)
                    }));
                }
            }
            Shape::Text(_) => {}
        }
    }
    places
}

/// The place in `area` that is nearest to `target`.
fn nearest(area: Area, (x, y): Place) -> Place {
    (x.clamp(area.left, area.right), y.clamp(area.top, area.bottom))
}

fn best(room: Area, target: Place, (width, height): (f64, f64), obstacles: &[Place]) -> Area {
    let mut best = (f64::INFINITY, room);
    let steps = |from: f64, to: f64| {
        let n = ((to - from).max(0.0) / 14.0) as usize;
        (0..=n).map(move |i| from + (to - from).max(0.0) * i as f64 / n.max(1) as f64)
    };
    for top in steps(room.top, room.bottom - height) {
        for left in steps(room.left, room.right - width) {
            let area = Area { left, top, right: left + width, bottom: top + height };
            let wide = area.grown(10.0);
            if wide.grown(10.0).contains(target) {
                continue;
            }
            let start = nearest(area, target);
            let reach = (start.0 - target.0).hypot(start.1 - target.1);
            let hidden = obstacles.iter().filter(|o| wide.contains(**o)).count() as f64;
            let crossed = obstacles.iter().filter(|o| crosses(start, target, **o)).count() as f64;
            let cost = 30.0 * hidden + 4.0 * crossed + (reach - REACH).abs() / 8.0;
            if cost < best.0 {
                best = (cost, area);
            }
        }
    }
    best.1
}

/// True when `place` lies close to the arrow, but not at its end.
fn crosses(start: Place, end: Place, place: Place) -> bool {
    let (dx, dy) = (end.0 - start.0, end.1 - start.1);
    let length = dx.hypot(dy).max(1.0);
    let along = ((place.0 - start.0) * dx + (place.1 - start.1) * dy) / length;
    let aside = ((place.0 - start.0) * dy - (place.1 - start.1) * dx).abs() / length;
    along > 0.0 && along < length - CLEARANCE && aside < 8.0
}

fn arrow(scene: &mut Scene, start: Place, target: Place) {
    let (dx, dy) = (target.0 - start.0, target.1 - start.1);
    let length = dx.hypot(dy);
    if length <= CLEARANCE + 4.0 {
        return;
    }
    let (ux, uy) = (dx / length, dy / length);
    let tip = (target.0 - ux * CLEARANCE, target.1 - uy * CLEARANCE);
    let wing = |side: f64| (tip.0 - ux * 14.0 - side * uy * 6.0, tip.1 - uy * 14.0 + side * ux * 6.0);
    scene.line(vec![start, (tip.0 - ux * 10.0, tip.1 - uy * 10.0)], FAULT, 2.0);
    scene.fill(vec![tip, wing(1.0), wing(-1.0)], FAULT, 1.0);
}
