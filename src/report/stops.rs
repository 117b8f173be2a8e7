//! The way through the model as a reader walks it: what all renderings of a report share.

use super::{Fault, PointReport, Report, State};
use std::cmp::Ordering;

/// A layer, or one point before or after the layers.
#[derive(Debug, Clone)]
pub(super) struct Stop<'a> {
    /// `embed`, `3`, `logits`.
    pub label: String,
    /// The layer's number.
    pub layer: Option<usize>,
    /// True for a point before the layers.
    pub before_layers: bool,
    /// Index into [`kinds`].
    pub kind: Option<usize>,
    /// All its points, of all steps, in the order of execution.
    pub points: Vec<&'a PointReport>,
}

/// A type of layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// One letter.
    pub letter: char,
    /// `full attention`.
    pub name: String,
    /// The name in the report.
    pub key: String,
}

/// The error that the candidate is judged by at a point, if it was compared. NaN counts as infinite: it
/// must not get lost.
pub(super) fn error(point: &PointReport) -> Option<f64> {
    point.judged().map(|m| if m.rel_l2.is_nan() { f64::INFINITY } else { m.rel_l2 })
}

/// The largest of `points` by error, the first of equals; points that were not compared do not count.
pub(super) fn worst<'a>(points: impl IntoIterator<Item = &'a PointReport>) -> Option<&'a PointReport> {
    points.into_iter().fold(None, |best, point| match (best.and_then(error), error(point)) {
        (Some(old), Some(new)) if new.total_cmp(&old) != Ordering::Greater => best,
        (_, Some(_)) => Some(point),
        (_, None) => best,
    })
}

/// The point's name within its layer; `layer output` for the layer's own.
pub(super) fn local(point: &PointReport) -> &str {
    let Some(layer) = point.layer else { return point.point.strip_prefix("model.").unwrap_or(&point.point) };
    match point.point.strip_prefix(&format!("model.layers.{layer}")) {
        Some("") => "layer output",
        Some(rest) => rest.strip_prefix('.').unwrap_or(rest),
        None => &point.point,
    }
}

impl<'a> Stop<'a> {
    /// The point with the largest error.
    pub(super) fn worst(&self) -> Option<&'a PointReport> {
        worst(self.points.iter().copied())
    }

    /// The layer's output, or the point before or after the layers; the worst of its steps.
    pub(super) fn output(&self) -> Option<&'a PointReport> {
        let outputs = self.points.iter().copied();
        worst(outputs.filter(|p| p.layer.is_none() || local(p) == "layer output"))
    }

    /// The point of this name at the step with the largest error.
    pub(super) fn at_worst(&self, name: &str) -> Option<&'a PointReport> {
        worst(self.points.iter().copied().filter(|p| p.point == name))
    }

    /// The points where a fault starts, at each step where it does.
    pub(super) fn born(&self) -> impl Iterator<Item = &'a PointReport> {
        self.points.iter().copied().filter(|p| p.state == State::Born)
    }

    /// The point to show: where a fault starts, at its largest error, and not the one downstream where
    /// the error is largest; else the point with the largest error.
    pub(super) fn shown(&self) -> Option<&'a PointReport> {
        let born = self.born().next();
        born.map(|born| self.at_worst(&born.point).unwrap_or(born)).or_else(|| self.worst())
    }

    /// How many points were not compared.
    pub(super) fn unmeasured(&self) -> usize {
        self.points.iter().filter(|p| p.note.is_some()).count()
    }
}

/// A point where a fault is born.
pub(super) struct Faulty<'a> {
    /// Its fault with the largest ratio; NaN is the largest of all.
    pub worst: &'a Fault,
    /// The largest relative L2 error of its faults.
    pub rel_l2: f64,
    /// In how many prompts and steps a fault is born here.
    pub often: usize,
}

/// The points where a fault is born, each once.
pub(super) fn faulty_points(report: &Report) -> Vec<Faulty<'_>> {
    let mut points: Vec<Faulty<'_>> = Vec::new();
    for fault in &report.faults {
        match points.iter_mut().find(|known| known.worst.point == fault.point) {
            Some(known) => {
                known.often += 1;
                if known.rel_l2.total_cmp(&fault.rel_l2).is_lt() {
                    known.rel_l2 = fault.rel_l2;
                }
                if known.worst.ratio.total_cmp(&fault.ratio).is_lt() {
                    known.worst = fault;
                }
            }
            None => points.push(Faulty { worst: fault, rel_l2: fault.rel_l2, often: 1 }),
        }
    }
    points
}

/// The types of layers, in the order in which they first appear.
pub(super) fn kinds(report: &Report) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for key in &report.layer_types {
        if kinds.iter().any(|k| k.key == *key) {
            continue;
        }
        let name = key.replace('_', " ");
        // Full attention is `A`, the letter that others leave free; `F` would say nothing.
        let wanted = if key.starts_with("full_") { "A".to_owned() } else { name.to_ascii_uppercase() };
        let letter = wanted
            .chars()
            .chain('1'..='9')
            .find(|c| c.is_ascii_alphanumeric() && kinds.iter().all(|k| k.letter != *c))
            .unwrap_or('?');
        kinds.push(Kind { letter, name, key: key.clone() });
    }
    kinds
}

/// Every layer of the model and every other point that the report has, in the order of execution.
pub(super) fn stops(report: &Report) -> Vec<Stop<'_>> {
    let kinds = kinds(report);
    let first_layered = report.points.iter().position(|p| p.layer.is_some());
    let (mut before, mut after): (Vec<Stop>, Vec<Stop>) = (Vec::new(), Vec::new());
    let layers = report.points.iter().filter_map(|p| p.layer).max().map_or(0, |last| last + 1);
    let mut inside: Vec<Stop> = (0..layers.max(report.layer_types.len()))
        .map(|layer| Stop {
            label: layer.to_string(),
            layer: Some(layer),
            before_layers: false,
            kind: report.layer_types.get(layer).and_then(|t| kinds.iter().position(|k| k.key == *t)),
            points: Vec::new(),
        })
        .collect();
    for (i, point) in report.points.iter().enumerate() {
        if let Some(layer) = point.layer {
            inside[layer].points.push(point);
            continue;
        }
        let named = |s: &Stop| s.points[0].point == point.point;
        if let Some(stop) = before.iter_mut().chain(&mut after).find(|s| named(s)) {
            stop.points.push(point);
            continue;
        }
        let label = label(&point.point);
        let ends = matches!(label.as_str(), "norm" | "logits");
        let late = ends || first_layered.is_some_and(|first| i > first);
        let stop = Stop { label, layer: None, before_layers: !late, kind: None, points: vec![point] };
        if late { &mut after } else { &mut before }.push(stop);
    }
    before.into_iter().chain(inside).chain(after).collect()
}

fn label(point: &str) -> String {
    match point.rsplit('.').next().unwrap_or(point) {
        "embed_tokens" => "embed".to_owned(),
        "lm_head" => "logits".to_owned(),
        last => last.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_way_leads_from_the_embedding_through_every_layer_to_the_logits() {
        let report = sample::healthy();
        let labels: Vec<String> = stops(&report).into_iter().map(|s| s.label).collect();
        let expected = ["embed", "cos", "sin", "0", "1", "2", "3", "4", "5", "6", "7", "norm", "logits"];
        assert_eq!(labels, expected);
    }

    #[test]
    fn nan_is_the_worst_error_and_the_first_of_equals_wins() {
        let report = sample::broken();
        let stops = stops(&report);
        let stop = stops.iter().find(|s| s.layer == Some(5)).unwrap();
        assert_eq!(local(stop.worst().unwrap()), "mlp.act");
        assert_eq!(error(stop.worst().unwrap()), Some(f64::INFINITY));
    }

    #[test]
    fn each_type_of_layer_has_a_letter_of_its_own() {
        let mut report = sample::healthy();
        report.layer_types = ["linear_attention", "full_attention", "local_attention", "attention"]
            .map(str::to_owned)
            .to_vec();
        let letters: Vec<char> = kinds(&report).iter().map(|k| k.letter).collect();
        assert_eq!(letters, ['L', 'A', 'O', 'T']);
    }
}
