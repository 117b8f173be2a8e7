//! How large the errors of a point are at values of which size.

use super::figure::{draw_title, title};
use super::font;
use super::ramp::Ramp;
use super::scene::{Anchor, Area, Scene};
use super::series::{Dash, Style};
use super::theme::{EDGE, HEIGHT, INK, MARGIN, MUTED, PAPER, ROW, TEXT, TITLE, WIDTH};
use crate::error::{Error, Result};
use crate::metrics::{ErrorsByValue, ValueRow};
use crate::model::layer_of;
use crate::report::{PointByValue, Report};

/// Unit roundoffs that are drawn as lines, with the precision's name and its exponent of 2.
const ROUNDOFFS: [(&str, i32); 3] = [("bfloat16", -8), ("float16", -11), ("float32", -24)];

/// Elements that make a picture.
const FEW: u64 = 64;

/// The picture of the first faulty point among those of the report, else of that of enough elements with the largest error.
pub(super) fn scene(report: &Report, dark: bool) -> Result<Scene> {
    let shown = chosen(report)?;
    let mut scene = Scene::default();
    let card = Area { left: 0.0, top: 0.0, right: WIDTH, bottom: HEIGHT };
    scene.fill(card.corners(), PAPER, 1.0);
    scene.outline(card.grown(-1.0), EDGE, 2.0);
    let inner = card.grown(-MARGIN);
    let point = shown.point.strip_prefix("model.").unwrap_or(&shown.point);
    let subject = format!("Errors of {point} by value");
    draw_title(&mut scene, inner, &title(report, &subject), report.outcome);
    let counts =
        rows(&shown.counts).flat_map(|row| &row.counts).chain(rows(&shown.counts).map(|row| &row.exact));
    let counts: Vec<f64> = counts.map(|n| *n as f64).collect();
    let ramp = Ramp::over(counts.iter().copied(), dark);
    let said = format!(
        "prompt {}, step {}: {} elements{}",
        shown.prompt,
        shown.step,
        shown.counts.elements(),
        match shown.counts.not_finite {
            0 => String::new(),
            n => format!(", {n} of them not finite and not shown"),
        }
    );
    legend(&mut scene, &said, ramp, inner);
    let Some(plot) = Plot::new(&shown.counts, inner) else {
        let middle = (WIDTH / 2.0, HEIGHT / 2.0);
        scene.text(middle, "no value is finite and not 0", TEXT, INK, Anchor::Centre);
        return Ok(scene);
    };
    plot.draw(&mut scene, &shown.counts, ramp);
    Ok(scene)
}

fn rows(counts: &ErrorsByValue) -> impl Iterator<Item = &ValueRow> {
    counts.rows.iter().chain([&counts.at_zero])
}

fn chosen(report: &Report) -> Result<&PointByValue> {
    let there = |v: &&PointByValue| report.points.iter().any(|p| p.point == v.point);
    let all: Vec<&PointByValue> = report.by_value.iter().filter(there).collect();
    let error = |v: &PointByValue| {
        let same = report.points.iter().filter(|p| p.point == v.point);
        super::super::stops::worst(same).and_then(super::super::stops::error).unwrap_or(-1.0)
    };
    let faulty = report.faults.iter().find_map(|f| all.iter().find(|v| v.point == f.point));
    // A picture of a few elements says little, if others can be shown.
    let size = |v: &PointByValue| (v.counts.elements() >= FEW, error(v));
    let found = faulty.or_else(|| {
        all.iter().max_by(|a, b| {
            let (a, b) = (size(a), size(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
    });
    found.copied().ok_or_else(|| {
        if report.by_value.is_empty() {
            return Error::new("the report has no errors by value")
                .hint("an earlier layerdiff wrote it, or nothing was compared: make it anew");
        }
        let name =
            |point: &str| layer_of(point).map_or(point.to_owned(), |i| point.replace(&format!(".{i}"), ""));
        let same = |v: &&PointByValue| report.points.iter().any(|p| name(&p.point) == name(&v.point));
        let kept = report.by_value.iter().find(same).map(|v| format!(", here `{}`", v.point));
        Error::new("the errors of this point by value are not in the report").hint(format!(
            "they are kept for faulty points and for the worst point of each component{}",
            kept.unwrap_or_default()
        ))
    })
}

fn legend(scene: &mut Scene, said: &str, ramp: Ramp, inner: Area) {
    let y = inner.top + TITLE + 40.0;
    let [(low, high, values)] = ramp.bars().try_into().expect("a logarithm has one bar");
    let low = format!("elements in a cell: {low}");
    let (step, widths) = (7.0, [&low, &high].map(|text| font::width(text, TEXT, false)));
    let mut x = inner.right - widths[0] - widths[1] - step * values.len() as f64 - 18.0;
    let said = font::fit(said, TEXT, false, x - inner.left - 20.0);
    scene.text((inner.left, y), &said, TEXT, MUTED, Anchor::Left);
    scene.text((x, y), &low, TEXT, INK, Anchor::Left);
    x += widths[0] + 9.0;
    for value in values {
        let area = Area { left: x, right: x + step, top: y - 18.0, bottom: y + 4.0 };
        scene.fill(area.corners(), ramp.colour(value), 1.0);
        x += step;
    }
    scene.text((x + 9.0, y), &high, TEXT, INK, Anchor::Left);
}

/// Where bins are. Both axes have a band for 0, which has no logarithm.
struct Plot {
    /// The part with logarithms on both axes.
    area: Area,
    /// The first exponent of values and of errors, and how many there are.
    values: (i32, usize),
    errors: (i32, usize),
    /// True where there are values that are 0.
    zeros: bool,
}

const BAND: f64 = 44.0;

/// How many, among exponents.
fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl Plot {
    fn new(counts: &ErrorsByValue, inner: Area) -> Option<Self> {
        let (first, last) = (counts.rows.first()?.value, counts.rows.last()?.value);
        let ends = |row: &ValueRow| (row.from, row.from + count(row.counts.len()));
        let spans = rows(counts).filter(|row| !row.counts.is_empty()).map(ends);
        let (low, high) = spans.fold((i32::MAX, i32::MIN), |a, b| (a.0.min(b.0), a.1.max(b.1)));
        // Nothing but exact values: some room above their band.
        let (low, high) = if low < high { (low, high) } else { (first - 24, first - 20) };
        let zeros = !counts.at_zero.is_empty();
        let left = inner.left + 150.0 + if zeros { BAND + 8.0 } else { 0.0 };
        Some(Self {
            area: Area {
                left,
                top: inner.top + TITLE + 64.0,
                right: inner.right,
                bottom: inner.bottom - 84.0 - BAND - 8.0,
            },
            values: (first, (last - first + 1) as usize),
            errors: (low, (high - low) as usize),
            zeros,
        })
    }

    fn x(&self, exponent: f64) -> f64 {
        let part = (exponent - f64::from(self.values.0)) / self.values.1 as f64;
        self.area.left + part * (self.area.right - self.area.left)
    }

    fn y(&self, exponent: f64) -> f64 {
        let part = (exponent - f64::from(self.errors.0)) / self.errors.1 as f64;
        self.area.bottom - part * (self.area.bottom - self.area.top)
    }

    fn draw(&self, scene: &mut Scene, counts: &ErrorsByValue, ramp: Ramp) {
        let exact = (self.area.bottom + 8.0, self.area.bottom + 8.0 + BAND);
        let left = if self.zeros { self.area.left - BAND - 8.0 } else { self.area.left };
        let band = Area { left, right: self.area.right, top: exact.0, bottom: exact.1 };
        scene.fill(band.corners(), ROW, 1.0);
        let at_zero = Area { left, right: left + BAND, top: self.area.top, bottom: exact.1 };
        if self.zeros {
            scene.fill(at_zero.corners(), ROW, 1.0);
            scene.text((left + BAND / 2.0, exact.1 + 30.0), "0", TEXT, INK, Anchor::Centre);
        }
        let zero = self.zeros.then_some((&counts.at_zero, (at_zero.left, at_zero.right)));
        let columns = counts.rows.iter().map(|row| {
            let from = f64::from(row.value);
            (row, (self.x(from), self.x(from + 1.0)))
        });
        for (row, (left, right)) in columns.chain(zero) {
            let mut cell = |n: u64, top: f64, bottom: f64| {
                if n > 0 {
                    let area = Area { left, top, right, bottom };
                    scene.fill(area.corners(), ramp.colour(n as f64), 1.0);
                }
            };
            cell(row.exact, exact.0, exact.1);
            for (from, n) in (row.from..).zip(&row.counts) {
                cell(*n, self.y(f64::from(from) + 1.0), self.y(f64::from(from)));
            }
        }
        scene.outline(self.area, EDGE, 2.0);
        self.draw_roundoffs(scene);
        self.draw_axes(scene, left, exact);
    }

    /// Where an error is half a unit in the last place of its value.
    fn draw_roundoffs(&self, scene: &mut Scene) {
        let line = Style { colour: INK, dash: Dash::Dashed, marker: None, line: Some(1.5) };
        let first = f64::from(self.values.0);
        let (low, high) = (f64::from(self.errors.0), f64::from(self.errors.0) + self.errors.1 as f64);
        for (name, u) in ROUNDOFFS {
            // The part of the diagonal inside the plot.
            let from = first.max(low - f64::from(u));
            let to = (first + self.values.1 as f64).min(high - f64::from(u));
            if to - from < 1.0 {
                continue;
            }
            let place = |value: f64| (self.x(value), self.y(value + f64::from(u)));
            line.draw_line(scene, &[place(from), place(to)]);
            let (x, y) = place(to);
            let half = font::width(name, TEXT, false) + 12.0;
            let y = (y + 26.0).clamp(self.area.top + 26.0, self.area.bottom - 8.0);
            scene.fill(
                Area { left: x - half - 4.0, right: x - 2.0, top: y - 21.0, bottom: y + 6.0 }.corners(),
                PAPER,
                0.8,
            );
            scene.text((x - 8.0, y), name, TEXT, INK, Anchor::Right);
        }
    }

    fn draw_axes(&self, scene: &mut Scene, left: f64, exact: (f64, f64)) {
        let log2 = |decade: i32| f64::from(decade) * std::f64::consts::LOG2_10;
        let decades = |(from, count): (i32, usize)| {
            let low = (f64::from(from) / std::f64::consts::LOG2_10).ceil() as i32;
            let high = ((f64::from(from) + count as f64) / std::f64::consts::LOG2_10).floor() as i32;
            low..=high
        };
        let all: Vec<i32> = decades(self.errors).collect();
        let every = count(all.len() / 12 + 1);
        for decade in all.into_iter().filter(|d| d % every == 0) {
            let y = self.y(log2(decade));
            scene.line(vec![(left - 6.0, y), (left, y)], MUTED, 1.5);
            let y = (y + 8.0).min(self.area.bottom - 2.0);
            scene.text((left - 12.0, y), &format!("1e{decade}"), TEXT, MUTED, Anchor::Right);
        }
        scene.text(
            (left - 12.0, f64::midpoint(exact.0, exact.1) + 8.0),
            "0 (exact)",
            TEXT,
            MUTED,
            Anchor::Right,
        );
        let all: Vec<i32> = decades(self.values).collect();
        let every = count(all.len() / 10 + 1);
        for decade in all.into_iter().filter(|d| d % every == 0) {
            let x = self.x(log2(decade));
            let name = format!("1e{decade}");
            if x + font::width(&name, TEXT, false) / 2.0 > WIDTH - 8.0 {
                continue;
            }
            scene.line(vec![(x, exact.1), (x, exact.1 + 6.0)], MUTED, 1.5);
            scene.text((x, exact.1 + 30.0), &name, TEXT, INK, Anchor::Centre);
        }
        let middle = f64::midpoint(self.area.left, self.area.right);
        let axis = "right: size of the reference value; up: size of the difference; dashed: one rounding";
        scene.text((middle, exact.1 + 64.0), axis, TEXT, MUTED, Anchor::Centre);
    }
}
