//! What a trial says about the localization.

use super::trial::{Named, Trial};
use crate::faults::{Fault, Site, Weight};
use serde::Serialize;

/// A change of a component's output below this relative L2 size, and below the bound, is taken for rounding:
/// what two correct kernels differ by. A larger one that is not named was missed.
pub(super) const ROUNDING: f64 = 1e-5;

/// What became of one planting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    /// Every component that was changed is named, and no other.
    Exactly,
    /// A component with the fault is not named.
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
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// The largest relative L2 change of an output.
    #[serde(with = "crate::number")]
    pub change: f64,
}

/// Judges one trial.
pub(super) fn judge(fault: &Fault, site: &Site<'_>, trial: &Trial) -> Planting {
    let changed = |n: &&Named| {
        trial.changes.iter().any(|(p, c)| *p == n.prompt && c.step == n.step && c.point == n.point)
    };
    let named = once(trial.named.iter().map(|n| n.point.as_str()));
    let wrong = once(trial.named.iter().filter(|n| !changed(n)).map(|n| n.point.as_str()));
    let planted: Vec<String> = site.components.iter().map(|c| c.point.clone()).collect();
    let size = |point: &str| {
        let of = trial.changes.iter().filter(|(_, c)| c.point == point);
        of.map(|(_, c)| c.size).fold(0.0, f64::max)
    };
    let missed: Vec<String> =
        planted.iter().filter(|p| size(p) > ROUNDING && !named.contains(p)).cloned().collect();
    let found = match () {
        () if fault.weight == Weight::Harmless => {
            if trial.named.is_empty() {
                Found::Silent
            } else {
                Found::Alarm
            }
        }
        () if !wrong.is_empty() => Found::Wrong,
        () if trial.changes.is_empty() => Found::NotVisible,
        () if !missed.is_empty() => Found::Missed,
        () if named.is_empty() => Found::Indistinguishable,
        () => Found::Exactly,
    };
    let layer_exact = trial.named.iter().all(|n| n.layer == site.layer);
    let change = planted.iter().map(|p| size(p)).fold(0.0, f64::max);
    Planting {
        layer: site.layer,
        planted,
        found,
        layer_exact,
        named,
        wrong,
        missed,
        ratio: trial.ratio,
        change,
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
    /// True when `diagnosis` named the fault; none while reports have no diagnosis.
    pub diagnosis: Option<bool>,
}

impl Row {
    pub fn count(&self, found: Found) -> usize {
        self.plantings.iter().filter(|p| p.found == found).count()
    }

    /// True when nothing is missed, nothing wrong is named, and nothing harmless is reported.
    pub fn is_right(&self) -> bool {
        let bad = |p: &Planting| matches!(p.found, Found::Missed | Found::Wrong | Found::Alarm);
        let drowned = self.smallest.as_ref().is_none_or(|s| s.named_when_drowned.is_empty());
        drowned && !self.plantings.iter().any(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::checkpoint::ModelDir;
    use crate::faults::{Change, named, sites};

    const ACT: &str = "model.layers.2.mlp.act";
    const DOWN: &str = "model.layers.2.mlp.down_proj";

    /// What becomes of a fault at `ACT` that changes it by `change`, where these points are named.
    fn found(fault: &str, change: Option<f64>, named_points: &[&str]) -> Found {
        let bundle = Bundle::unpack().unwrap();
        let model = ModelDir::open(&bundle.model()).unwrap();
        let sites = sites(named("gate-up-swapped").unwrap(), model.graph());
        let site = sites.iter().find(|site| site.has(ACT)).unwrap();
        let change = change.map(|size| ("p".to_owned(), Change { step: 0, point: ACT.into(), size }));
        let name = |point: &&str| Named {
            prompt: "p".into(),
            step: 0,
            point: (*point).into(),
            layer: Some(2),
            ratio: 9.0,
        };
        let named_points = named_points.iter().map(name).collect();
        let trial = Trial { changes: change.into_iter().collect(), named: named_points, ..Trial::default() };
        judge(named(fault).unwrap(), site, &trial).found
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
    fn whatever_is_named_of_a_harmless_change_is_an_alarm() {
        assert_eq!(found("norm-other-order", Some(1.0), &[]), Found::Silent);
        assert_eq!(found("norm-other-order", Some(1.0), &[ACT]), Found::Alarm);
    }
}
