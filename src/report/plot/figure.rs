//! A whole picture: title, legend, plot.

use super::axis::{Frame, row_of};
use super::callout;
use super::font;
use super::legend::{self, Swatch};
use super::scene::{Anchor, Area, Place, Scene};
use super::series::{Series, Value};
use super::theme::{self, EDGE, HEIGHT, INK, MARGIN, PAPER, TITLE, WIDTH};
use crate::report::stops::{Kind, Stop};
use crate::report::text::{multiple, number, ratios_of, word};
use crate::report::verdict::largest_at;
use crate::report::{Fault, Outcome, PointReport, Report, stops};

/// Words at a mark.
pub(super) struct Label {
    pub slot: usize,
    pub error: f64,
    pub lines: Vec<String>,
}

/// What a picture shows.
pub(super) struct Figure<'a> {
    /// What it shows, of what.
    pub title: String,
    /// What stands on the upright axis.
    pub unit: &'static str,
    pub outcome: Outcome,
    /// Whose first fault that the picture shows is called out, or where its error starts to grow; none for no callout.
    pub called_out: Option<&'a Report>,
    /// Marks that are named where they stand.
    pub labels: Vec<Label>,
    pub stops: Vec<&'a Stop<'a>>,
    pub kinds: &'a [Kind],
    /// What the stops are.
    pub axis: &'static str,
    /// The curves, the lowest first.
    pub series: Vec<Series>,
    /// Whether the series stand side by side in each stop, so that none hides another.
    pub dodge: bool,
    /// The lowest and highest floor of each stop, shown as boxes; empty for none.
    pub floors: Vec<Option<(f64, f64)>>,
    /// Sentences at the end of the legend.
    pub notes: Vec<String>,
    /// Chooses the faults that belong into this picture.
    pub shows: Box<dyn Fn(&PointReport) -> bool + 'a>,
}

impl Figure<'_> {
    /// Draws the picture.
    pub(super) fn draw(&self) -> Scene {
        let mut scene = Scene::default();
        let card = Area { left: 0.0, top: 0.0, right: WIDTH, bottom: HEIGHT };
        scene.fill(card.corners(), PAPER, 1.0);
        scene.outline(card.grown(-1.0), EDGE, 2.0);
        let inner = card.grown(-MARGIN);
        draw_title(&mut scene, inner, &self.title, self.outcome);
        let rings = self.rings();
        let legend = Area { top: inner.top + TITLE + 18.0, ..inner };
        let height = legend::draw(&mut scene, legend, &self.entries(!rings.is_empty()));
        let frame =
            Frame::new(Area { top: legend.top + height + 10.0, ..inner }, &self.values(), &self.stops);
        frame.draw(&mut scene, &self.stops, self.kinds, self.axis);
        let data = scene.shapes.len();
        self.draw_floors(&mut scene, &frame);
        let visible: Vec<&Series> = self.series.iter().filter(|s| s.is_visible()).collect();
        for (i, series) in visible.iter().enumerate() {
            series.draw(&mut scene, &frame, &|slot| self.shift(&visible, i, slot, &frame));
        }
        for spot in &rings {
            if let Some(place) = self.place(&visible, spot, &frame) {
                legend::ring(&mut scene, place, frame.marker_radius() + 5.0);
            }
        }
        if let Some((spot, lines)) = self.callout()
            && let Some(target) = self.place(&visible, &spot, &frame)
        {
            let obstacles = callout::obstacles(&scene.shapes[data..]);
            callout::draw(&mut scene, frame.scale, target, &lines, &obstacles);
        }
        for label in &self.labels {
            if let Some(target) = frame.place(label.slot, Value::Measured(label.error)) {
                let obstacles = callout::obstacles(&scene.shapes[data..]);
                callout::draw(&mut scene, frame.scale, target, &label.lines, &obstacles);
            }
        }
        scene
    }

    fn entries(&self, rings: bool) -> Vec<(Swatch, String)> {
        let mut entries = vec![(Swatch::None, self.unit.to_owned())];
        let visible = self.series.iter().rev().filter(|s| s.is_visible() && !s.name.is_empty());
        entries.extend(visible.map(|s| (Swatch::Series(s.style), s.name.clone())));
        if self.floors.iter().any(Option::is_some) {
            entries.push((Swatch::FloorBox, "floor range".to_owned()));
        }
        if rings {
            entries.push((Swatch::Ring, "fault born here".to_owned()));
        }
        entries.extend(self.notes.iter().map(|note| (Swatch::None, note.clone())));
        entries
    }

    /// All that has to have a place on the axis.
    fn values(&self) -> Vec<Value> {
        let floors = self.floors.iter().flatten().flat_map(|(low, high)| [*low, *high]);
        let rings = self.rings().into_iter().map(|spot| spot.error);
        let series = self.series.iter().flat_map(|s| s.values.iter().copied());
        let target = self.callout().map(|(spot, _)| spot.error);
        series.chain(floors.chain(rings).chain(target).map(Value::Measured)).collect()
    }

    fn draw_floors(&self, scene: &mut Scene, frame: &Frame) {
        for (slot, floor) in self.floors.iter().enumerate() {
            let Some((low, high)) = *floor else { continue };
            let places = [high, low].map(|v| frame.place(slot, Value::Measured(v)));
            let [Some((_, top)), Some((_, bottom))] = places else { continue };
            let (left, right) = frame.slot(slot);
            if bottom - top < 5.0 {
                legend::floor_line(scene, (left + 2.0, f64::midpoint(top, bottom)), right - 2.0);
                continue;
            }
            legend::floor_box(scene, Area { left: left + 2.0, right: right - 2.0, top, bottom });
        }
    }

    /// How far the mark of the `i`th series moves aside at a stop: always in a figure that says so,
    /// else only among the marks in the same row.
    fn shift(&self, series: &[&Series], i: usize, slot: usize, frame: &Frame) -> f64 {
        let row = row_of(series[i].values[slot]);
        let same = |j: &usize| match row {
            None => self.dodge && frame.place(slot, series[*j].values[slot]).is_some(),
            row => row_of(series[*j].values[slot]) == row,
        };
        let group: Vec<usize> = (0..series.len()).filter(same).collect();
        // The first series is drawn last, and stands on the left.
        let rank = group.iter().rev().position(|j| *j == i).unwrap_or(0) as f64;
        let (share, most) = if row.is_some() { (0.9, 16.0) } else { (0.6, 12.0) };
        let spread = (share * frame.slot_width(slot) / group.len().max(1) as f64).min(most);
        (rank - (group.len().max(1) as f64 - 1.0) / 2.0) * spread
    }

    /// Where the mark of a point stands: in the curve of its kind, else in one with its value.
    fn place(&self, series: &[&Series], spot: &Spot, frame: &Frame) -> Option<Place> {
        let value = Value::Measured(spot.error);
        let (x, y) = frame.place(spot.slot, value)?;
        let same = |s: &&Series| s.style.marker.is_some() && s.values[spot.slot] == value;
        let owner = series.iter().position(|s| same(s) && s.name == spot.name);
        let owner = owner.or_else(|| series.iter().position(same));
        Some((x + owner.map_or(0.0, |i| self.shift(series, i, spot.slot, frame)), y))
    }

    /// Where faults are born: each point once, at the step with the largest error, as the curves have it.
    fn rings(&self) -> Vec<Spot<'_>> {
        let mut rings: Vec<Spot<'_>> = Vec::new();
        for (slot, stop) in self.stops.iter().enumerate() {
            for born in stop.born().filter(|p| (self.shows)(p)) {
                let Some(spot) = Spot::new(slot, stop.at_worst(&born.point).unwrap_or(born)) else {
                    continue;
                };
                if !rings.iter().any(|r| r.slot == slot && r.name == spot.name) {
                    rings.push(spot);
                }
            }
        }
        rings
    }

    /// The first fault, or else the point where the error starts to grow.
    fn callout(&self) -> Option<(Spot<'_>, Vec<String>)> {
        let report = self.called_out?;
        let find = |name: &str| {
            self.stops.iter().enumerate().find_map(|(slot, stop)| {
                stop.at_worst(name).filter(|p| (self.shows)(p)).and_then(|p| Spot::new(slot, p))
            })
        };
        let short = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
        let fault = |fault: &Fault| {
            let spot = find(&fault.point)?;
            let ratio = multiple(largest_at(fault, &report.faults, |f| f.ratio));
            let size = format!("largest error {}, ratio {ratio} × {}", number(spot.error), ratios_of(report));
            Some((spot, vec![format!("born: {}", short(&fault.point)), size]))
        };
        if let Some(callout) = report.faults.iter().find_map(fault) {
            return Some(callout);
        }
        let name = report.growth.first_point.as_deref().filter(|_| report.faults.is_empty())?;
        let spot = find(name)?;
        let size = format!("error {}", number(spot.error));
        Some((spot, vec![format!("grows from: {}", short(name)), size]))
    }
}

/// The title and the badge with the outcome.
pub(super) fn draw_title(scene: &mut Scene, inner: Area, title: &str, outcome: Outcome) {
    let badge = word(outcome);
    let width = font::width(badge, TITLE, true) + 28.0;
    let area = Area { left: inner.right - width, bottom: inner.top + TITLE + 8.0, ..inner };
    scene.fill(area.corners(), theme::outcome(outcome), 1.0);
    let y = inner.top + TITLE - 1.0;
    scene.bold((inner.right - width / 2.0, y), badge, TITLE, PAPER, Anchor::Centre);
    let title = font::fit(title, TITLE, true, inner.right - inner.left - width - 20.0);
    scene.bold((inner.left, y), &title, TITLE, INK, Anchor::Left);
}

/// What most figures show.
pub(super) const REL_L2: &str = "rel. L2 error, largest over prompts and steps";

/// The title of a picture of one report.
pub(super) fn title(report: &Report, subject: &str) -> String {
    let prompt = match report.prompts.len() {
        0 | 1 => format!("prompt {}", report.prompt_id),
        n => format!("worst of {n} prompts"),
    };
    format!("{subject}: {} against {}, {prompt}", report.engine, report.provenance.reference.engine)
}

/// A point in a figure.
struct Spot<'a> {
    slot: usize,
    error: f64,
    /// The point's name within its layer.
    name: &'a str,
}

impl<'a> Spot<'a> {
    fn new(slot: usize, point: &'a PointReport) -> Option<Self> {
        stops::error(point).map(|error| Self { slot, error, name: stops::local(point) })
    }
}

/// What a stop's point is worth in a series.
pub(super) fn value(points: &[&PointReport]) -> Value {
    match (points.is_empty(), stops::worst(points.iter().copied()).and_then(stops::error)) {
        (true, _) => Value::Gap,
        (false, None) => Value::Unmeasured,
        (false, Some(error)) => Value::Measured(error),
    }
}
