//! What a trial says about the localization, and about the names.

use super::places::{Count, Places, counted};
use super::said::{Said, Verdict, said, together};
use super::trial::{Named, Trial};
use crate::faults::{Change, Planted, Weight};
use serde::Serialize;

/// A change of a component's output below this relative L2 size, and below the bound, is taken for rounding:
/// what two correct kernels differ by. A larger one that is not named was missed.
pub(super) const ROUNDING: f64 = 1e-5;

/// What became of one planting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    /// Every component that was changed is named, and no other; single places of it may be below the bound.
    Exactly,
    /// A component with the fault is not named, or a place of it is not that nothing shows to be below the
    /// bound.
    Missed,
    /// A component without the fault is named.
    Wrong,
    /// Below the bound: nothing is named, and nothing could be.
    Indistinguishable,
    /// Not a bit was changed: this input cannot show it.
    NotVisible,
    /// It must not be reported, and is not.
    Silent,
    /// It must not be reported, and is.
    Alarm,
}

/// One fault in one layer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Planting {
    pub layer: Option<usize>,
    pub planted: Vec<String>,
    pub found: Found,
    /// True when all that is named lies in the layer.
    pub layer_exact: bool,
    /// Names of all that is named, each once, in order of execution.
    pub named: Vec<String>,
    /// Those among them that were not planted.
    pub wrong: Vec<String>,
    /// Planted ones that are changed by more than rounding, and not named.
    pub missed: Vec<String>,
    /// The places that are changed by more than rounding.
    pub places: Places,
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// The largest relative L2 change of an output.
    #[serde(with = "crate::number")]
    pub change: f64,
    /// How many components could not be judged that can be where nothing is planted: they read numbers that
    /// are not finite.
    pub undefined: usize,
    /// What is said of the planted components that are named.
    pub diagnosis: Vec<Said>,
}

impl Planting {
    /// True when the planted fault is named.
    pub fn is_located(&self) -> bool {
        !self.diagnosis.is_empty()
    }

    /// Names that would be given if those of the fault were unknown.
    pub fn left_out(&self) -> impl Iterator<Item = &'static str> {
        self.diagnosis.iter().flat_map(|said| &said.left_out).copied()
    }

    /// True when nothing is missed, nothing wrong is named, and nothing harmless is reported.
    pub fn is_right(&self) -> bool {
        let found = !matches!(self.found, Found::Missed | Found::Wrong | Found::Alarm);
        found && together(&self.diagnosis) != Some(Verdict::Wrong) && self.left_out().next().is_none()
    }
}

/// Judges one of the faults of a trial.
pub(super) fn judge(planted: &Planted<'_>, trial: &Trial) -> Planting {
    let Planted { fault, site, .. } = planted;
    let changed = |n: &&Named| {
        trial.changes.iter().any(|(p, c)| *p == n.prompt && c.step == n.step && c.point == n.point)
    };
    let named = once(trial.named.iter().map(|n| n.point.as_str()));
    let wrong = once(trial.named.iter().filter(|n| !changed(n)).map(|n| n.point.as_str()));
    let planted: Vec<String> = site.components.iter().map(|c| c.point.clone()).collect();
    let judged = |(prompt, c): &&(String, Change)| {
        !trial.unjudged.contains(&(prompt.clone(), c.step, c.point.clone()))
    };
    let size = |point: &str| {
        let of = trial.changes.iter().filter(judged).filter(|(_, c)| c.point == point);
        of.map(|(_, c)| c.size).fold(0.0, f64::max)
    };
    // What must not be reported has no place that must.
    let harmless = fault.weight == Weight::Harmless;
    let places = if harmless { Places::default() } else { Places::of(trial, |point| site.has(point)) };
    let lost = |point: &String| {
        (size(point) > ROUNDING && !named.contains(point)) || places.missed.iter().any(|p| p.point == *point)
    };
    let missed: Vec<String> = planted.iter().filter(|point| lost(point)).cloned().collect();
    let found = match () {
        () if harmless => {
            if trial.named.is_empty() {
                Found::Silent
            } else {
                Found::Alarm
            }
        }
        () if !wrong.is_empty() => Found::Wrong,
        () if !trial.changes.iter().any(|(_, c)| site.has(&c.point)) => Found::NotVisible,
        () if !missed.is_empty() => Found::Missed,
        () if !named.iter().any(|point| site.has(point)) => Found::Indistinguishable,
        () => Found::Exactly,
    };
    let layer_exact = trial.named.iter().all(|n| n.layer == site.layer);
    let change = planted.iter().map(|p| size(p)).fold(0.0, f64::max);
    let diagnosed = trial.diagnosed.iter().filter(|(point, _)| site.has(point));
    let diagnosis = diagnosed.map(|(point, found)| said(fault, point, found)).collect();
    Planting {
        layer: site.layer,
        planted,
        found,
        layer_exact,
        named,
        wrong,
        missed,
        places,
        ratio: trial.ratio(|point| site.has(point)),
        change,
        undefined: 0,
        diagnosis,
    }
}

fn once<'a>(points: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for point in points {
        if !out.iter().any(|known| known == point) {
            out.push(point.to_owned());
        }
    }
    out
}

/// How small a fault may be made and still be found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Smallest {
    /// The smallest s of `right + s (wrong − right)` whose ratio is above 1, halved from 1.
    pub size: f64,
    /// The ratio there.
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// What is named where it has drowned: nothing, if all is well.
    pub named_when_drowned: Vec<String>,
}

/// All plantings of one fault.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub name: &'static str,
    pub weight: &'static str,
    pub plantings: Vec<Planting>,
    /// None where the fault is not found at its full size, or cannot be blended.
    pub smallest: Option<Smallest>,
}

impl Row {
    pub fn count(&self, found: Found) -> usize {
        self.plantings.iter().filter(|p| p.found == found).count()
    }

    /// The places of all plantings: of the prefill, and of the decode steps.
    pub fn places(&self) -> [Count; 2] {
        counted(self.plantings.iter().map(|p| &p.places))
    }

    /// The smallest ratio of a planting, and the largest.
    pub fn ratios(&self) -> (f64, f64) {
        let ratios = || self.plantings.iter().map(|p| p.ratio);
        (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max))
    }

    /// How many of those that are located are given this verdict.
    pub fn said(&self, verdict: Verdict) -> usize {
        self.plantings.iter().filter(|p| together(&p.diagnosis) == Some(verdict)).count()
    }

    /// How many would be given a name if theirs were unknown.
    pub fn left_out(&self) -> usize {
        self.plantings.iter().filter(|p| p.left_out().next().is_some()).count()
    }

    /// True when all plantings are right, and nothing is named where the fault has drowned.
    pub fn is_right(&self) -> bool {
        let drowned = self.smallest.as_ref().is_none_or(|s| s.named_when_drowned.is_empty());
        drowned && self.plantings.iter().all(Planting::is_right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::checkpoint::ModelDir;
    use crate::faults::{named, sites};
    use std::collections::HashSet;

    const ACT: &str = "model.layers.2.mlp.act";
    const DOWN: &str = "model.layers.2.mlp.down_proj";

    /// What becomes of a fault at `ACT` that changes it by `change`, where these points are named.
    fn found(fault: &str, change: Option<f64>, named_points: &[&str]) -> Found {
        of(fault, &trial(change, named_points))
    }

    fn of(fault: &str, trial: &Trial) -> Found {
        let bundle = Bundle::unpack().unwrap();
        let model = ModelDir::open(&bundle.model()).unwrap();
        let sites = sites(named("gate-up-swapped").unwrap(), model.graph());
        let site = sites.iter().find(|site| site.has(ACT)).unwrap();
        judge(&Planted { fault: named(fault).unwrap(), site, size: 1.0 }, trial).found
    }

    fn trial(change: Option<f64>, named_points: &[&str]) -> Trial {
        let change = change.map(|size| ("p".to_owned(), Change { step: 0, point: ACT.into(), size }));
        let name = |point: &&str| Named {
            prompt: "p".into(),
            step: 0,
            point: (*point).into(),
            layer: Some(2),
            ratio: 9.0,
        };
        let named_points = named_points.iter().map(name).collect();
        Trial { changes: change.into_iter().collect(), named: named_points, ..Trial::default() }
    }

    #[test]
    fn exactly_means_all_that_was_changed_and_nothing_else() {
        assert_eq!(found("gate-up-swapped", Some(1.0), &[ACT]), Found::Exactly);
        assert_eq!(found("gate-up-swapped", Some(1.0), &[ACT, DOWN]), Found::Wrong);
        assert_eq!(found("gate-up-swapped", Some(1.0), &[DOWN]), Found::Wrong);
        assert_eq!(found("gate-up-swapped", Some(1.0), &[]), Found::Missed);
    }

    #[test]
    fn what_does_not_show_is_not_missed() {
        assert_eq!(found("gate-up-swapped", Some(ROUNDING), &[]), Found::Indistinguishable);
        assert_eq!(found("gate-up-swapped", None, &[]), Found::NotVisible);
        // A component that was not changed must not be named, though it has the fault's name.
        assert_eq!(found("gate-up-swapped", None, &[ACT]), Found::Wrong);
    }

    #[test]
    fn what_cannot_be_judged_is_not_missed() {
        let change = Some(f64::INFINITY);
        assert_eq!(found("gate-up-swapped", change, &[]), Found::Missed);
        let unjudged = HashSet::from([("p".to_owned(), 0, ACT.to_owned())]);
        let trial = Trial { unjudged, ..trial(change, &[]) };
        assert_eq!(of("gate-up-swapped", &trial), Found::Indistinguishable);
    }

    #[test]
    fn whatever_is_named_of_a_harmless_change_is_an_alarm() {
        assert_eq!(found("norm-other-order", Some(1.0), &[]), Found::Silent);
        assert_eq!(found("norm-other-order", Some(1.0), &[ACT]), Found::Alarm);
    }
}
