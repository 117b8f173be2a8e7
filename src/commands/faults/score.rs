//! What a trial says about the localization, and about the names.

use super::places::{Count, Places, counted};
use super::said::{Said, Verdict, said, together};
use super::trial::{Named, Trial, Unjudged};
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
    /// A component with the fault is visibly changed and not named, and could not be judged where it is.
    Unjudged,
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
    /// Planted ones that are changed, not named, and could not be judged where they are.
    pub unjudged: Vec<NotJudged>,
    /// The places that are changed by more than rounding.
    pub places: Places,
    /// The largest of a planted component; 0 where none could be judged.
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

/// A component that could not be judged, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct NotJudged {
    pub point: String,
    pub why: String,
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

    /// True when nothing is missed, nothing wrong is named, nothing harmless is reported, and what is changed
    /// could be judged.
    pub fn is_right(&self) -> bool {
        self.found != Found::Unjudged && self.is_not_wrong()
    }

    /// The same, where it may be that what is changed could not be judged.
    pub fn is_not_wrong(&self) -> bool {
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
        !trial.unjudged.contains_key(&(prompt.clone(), c.step, c.point.clone()))
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
    // What is harmless changes by no more than rounding, but that is to be shown.
    let least = if harmless { 0.0 } else { ROUNDING };
    let lost_to = |by_fault: bool| -> Vec<NotJudged> {
        let unnamed = planted.iter().filter(|point| !named.contains(point));
        unnamed.filter_map(|point| not_judged(trial, point, least, by_fault)).collect()
    };
    // What cannot be judged without the fault either is not its doing, unless nothing else is said of it.
    let is_named = named.iter().any(|point| site.has(point));
    let mut unjudged = lost_to(true);
    if unjudged.is_empty() && !is_named {
        unjudged = lost_to(false);
    }
    let found = match () {
        () if harmless => match (trial.named.is_empty(), unjudged.is_empty()) {
            (true, true) => Found::Silent,
            (true, false) => Found::Unjudged,
            (false, _) => Found::Alarm,
        },
        () if !wrong.is_empty() => Found::Wrong,
        () if !trial.changes.iter().any(|(_, c)| site.has(&c.point)) => Found::NotVisible,
        () if !missed.is_empty() => Found::Missed,
        () if !unjudged.is_empty() => Found::Unjudged,
        () if !is_named => Found::Indistinguishable,
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
        unjudged,
        places,
        ratio: trial.ratio(|point| site.has(point)),
        change,
        undefined: 0,
        diagnosis,
    }
}

/// Why a component that is changed by more than `least` could not be judged where it is: by the fault's doing in
/// a place, or else for any reason in all of them.
fn not_judged(trial: &Trial, point: &str, least: f64, by_fault: bool) -> Option<NotJudged> {
    let changes = trial.changes.iter().filter(|(_, c)| c.point == point && c.size > least);
    let lost = changes.map(|(prompt, c)| trial.unjudged.get(&(prompt.clone(), c.step, c.point.clone())));
    let lost: Vec<Option<&Unjudged>> = lost.collect();
    let first = if by_fault {
        lost.iter().flatten().find(|lost| lost.by_fault)
    } else {
        lost.iter().flatten().next().filter(|_| lost.iter().all(Option::is_some))
    };
    Some(NotJudged { point: point.to_owned(), why: first?.why.clone() })
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

    /// The smallest ratio of a planting that could be judged, and the largest; none where none could.
    pub fn ratios(&self) -> Option<(f64, f64)> {
        let judged = self.plantings.iter().filter(|p| p.found != Found::Unjudged);
        let ratios: Vec<f64> = judged.map(|p| p.ratio).collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        Some((least, ratios.into_iter().fold(0.0, f64::max)))
    }

    /// How many of those that are located are given this verdict.
    pub fn said(&self, verdict: Verdict) -> usize {
        self.plantings.iter().filter(|p| together(&p.diagnosis) == Some(verdict)).count()
    }

    /// How many would be given a name if theirs were unknown.
    pub fn left_out(&self) -> usize {
        self.plantings.iter().filter(|p| p.left_out().next().is_some()).count()
    }

    /// True when no planting is wrong, and nothing is named where the fault has drowned.
    pub fn is_not_wrong(&self) -> bool {
        let drowned = self.smallest.as_ref().is_none_or(|s| s.named_when_drowned.is_empty());
        drowned && self.plantings.iter().all(Planting::is_not_wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::checkpoint::ModelDir;
    use crate::faults::{named, sites};

    const ACT: &str = "model.layers.2.mlp.act";
    const DOWN: &str = "model.layers.2.mlp.down_proj";

    /// What becomes of a fault at `ACT` that changes it by `change`, where these points are named.
    fn found(fault: &str, change: Option<f64>, named_points: &[&str]) -> Found {
        of(fault, &trial(change, named_points))
    }

    fn of(fault: &str, trial: &Trial) -> Found {
        planting(fault, trial).found
    }

    fn planting(fault: &str, trial: &Trial) -> Planting {
        let bundle = Bundle::unpack().unwrap();
        let model = ModelDir::open(&bundle.model()).unwrap();
        let sites = sites(named("gate-up-swapped").unwrap(), model.graph());
        let site = sites.iter().find(|site| site.has(ACT)).unwrap();
        judge(&Planted { fault: named(fault).unwrap(), site, size: 1.0 }, trial)
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

    /// The same, with a second step that is changed by `change` too, and has this ratio.
    fn two_steps(change: f64, ratio: Option<f64>) -> Trial {
        let mut trial = trial(Some(1.0), &[]);
        trial.changes.push(("p".to_owned(), Change { step: 1, point: ACT.into(), size: change }));
        trial.ratios.extend(ratio.map(|ratio| (("p".to_owned(), 1, ACT.to_owned()), ratio)));
        trial
    }

    /// The same, where `ACT` could not be judged in these steps, and whether that is the fault's doing.
    fn unjudged<const N: usize>(trial: Trial, steps: [(u32, bool); N]) -> Trial {
        let one = |(step, by_fault)| {
            let why = format!("step {step} is not finite");
            (("p".to_owned(), step, ACT.to_owned()), Unjudged { why, by_fault })
        };
        Trial { unjudged: steps.into_iter().map(one).collect(), ..trial }
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
        let trial = unjudged(trial(change, &[]), [(0, true)]);
        assert_eq!(of("gate-up-swapped", &trial), Found::Unjudged);
        let planting = planting("gate-up-swapped", &trial);
        let why = NotJudged { point: ACT.into(), why: "step 0 is not finite".into() };
        assert_eq!((planting.unjudged.as_slice(), planting.is_right()), (&[why][..], false));
        assert!(planting.is_not_wrong());
    }

    #[test]
    fn what_is_below_the_bound_in_one_step_may_still_be_unjudged_in_another() {
        let small = two_steps(1.0, Some(0.5));
        assert_eq!(of("gate-up-swapped", &unjudged(small, [(0, true)])), Found::Missed);
        let small = two_steps(ROUNDING, Some(0.5));
        assert_eq!(of("gate-up-swapped", &unjudged(small, [(0, true)])), Found::Unjudged);
        // What is named in the other is found.
        let mut seen = two_steps(1.0, Some(9.0));
        seen.named = trial(None, &[ACT]).named.into_iter().map(|n| Named { step: 1, ..n }).collect();
        assert_eq!(of("gate-up-swapped", &unjudged(seen, [(0, true)])), Found::Exactly);
    }

    #[test]
    fn what_cannot_be_judged_without_the_fault_either_counts_only_where_nothing_else_is_judged() {
        let harmless = |steps| of("norm-other-order", &unjudged(two_steps(1e-7, Some(0.5)), steps));
        assert_eq!(harmless([(0, true)]), Found::Unjudged);
        assert_eq!(harmless([(0, false)]), Found::Silent);
        let none = unjudged(trial(Some(1.0), &[]), [(0, false)]);
        assert_eq!(of("gate-up-swapped", &none), Found::Unjudged);
        // The reason that is given is the fault's.
        let both = unjudged(two_steps(1.0, None), [(0, false), (1, true)]);
        assert_eq!(planting("gate-up-swapped", &both).unjudged[0].why, "step 1 is not finite");
    }

    #[test]
    fn plantings_that_could_not_be_judged_have_no_ratio() {
        let lost = planting("gate-up-swapped", &unjudged(trial(Some(1.0), &[]), [(0, true)]));
        let found = Planting { ratio: 9.0, ..planting("gate-up-swapped", &trial(Some(1.0), &[ACT])) };
        let row = |plantings| Row { name: "gate-up-swapped", weight: "loud", plantings, smallest: None };
        assert_eq!(row(vec![lost.clone()]).ratios(), None);
        assert_eq!(row(vec![lost, found]).ratios(), Some((9.0, 9.0)));
    }

    #[test]
    fn whatever_is_named_of_a_harmless_change_is_an_alarm() {
        assert_eq!(found("norm-other-order", Some(1.0), &[]), Found::Silent);
        assert_eq!(found("norm-other-order", Some(1.0), &[ACT]), Found::Alarm);
    }
}
