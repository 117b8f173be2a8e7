//! The places of a planting: each component of each step of each prompt, counted for itself.

use super::score::ROUNDING;
use super::trial::Trial;
use serde::Serialize;

/// How many places there are of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    /// Changed by more than rounding, and judged.
    pub visible: usize,
    /// Those of them that are named.
    pub named: usize,
    /// Those of them whose ratio shows that they are below the bound.
    pub below: usize,
    /// Those that are neither.
    pub missed: usize,
    /// Changed by more than rounding, but not judged.
    pub unjudged: usize,
}

impl Count {
    fn plus(self, other: Self) -> Self {
        Self {
            visible: self.visible + other.visible,
            named: self.named + other.named,
            below: self.below + other.below,
            missed: self.missed + other.missed,
            unjudged: self.unjudged + other.unjudged,
        }
    }
}

/// A place that is changed by more than rounding, and not named.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Place {
    pub prompt: String,
    pub step: u32,
    pub point: String,
    /// None where no ratio is known.
    #[serde(with = "crate::number::option")]
    pub ratio: Option<f64>,
    /// The relative L2 change of the output.
    #[serde(with = "crate::number")]
    pub change: f64,
}

/// The places of a planting that are changed by more than rounding.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Places {
    pub prefill: Count,
    pub decode: Count,
    /// Below the bound.
    pub below: Vec<Place>,
    /// Not named, though nothing shows that they are below the bound.
    pub missed: Vec<Place>,
}

impl Places {
    /// Those of a trial at the components that `has` chooses.
    pub fn of(trial: &Trial, has: impl Fn(&str) -> bool) -> Self {
        let mut places = Self::default();
        for (prompt, change) in trial.changes.iter().filter(|(_, c)| has(&c.point) && c.size > ROUNDING) {
            let at = (prompt.clone(), change.step, change.point.clone());
            let count = if change.step == 0 { &mut places.prefill } else { &mut places.decode };
            if trial.unjudged.contains_key(&at) {
                count.unjudged += 1;
                continue;
            }
            count.visible += 1;
            let is_here = |n: &super::trial::Named| {
                (n.prompt.as_str(), n.step, n.point.as_str()) == (prompt, at.1, at.2.as_str())
            };
            if trial.named.iter().any(is_here) {
                count.named += 1;
                continue;
            }
            let ratio = trial.ratios.iter().find(|(known, _)| *known == at).map(|(_, ratio)| *ratio);
            let place = Place { prompt: at.0, step: at.1, point: at.2, ratio, change: change.size };
            if ratio.is_some_and(|ratio| ratio <= 1.0) {
                count.below += 1;
                places.below.push(place);
            } else {
                count.missed += 1;
                places.missed.push(place);
            }
        }
        places
    }

    /// What is below the bound, by component.
    pub fn below_by_component(&self) -> Vec<Below> {
        let mut all: Vec<Below> = Vec::new();
        for place in &self.below {
            let ratio = place.ratio.unwrap_or(f64::NAN);
            match all.iter_mut().find(|below| below.point == place.point) {
                Some(below) => {
                    below.places += 1;
                    below.ratio = below.ratio.max(ratio);
                    below.change = below.change.max(place.change);
                }
                None => {
                    all.push(Below { point: place.point.clone(), places: 1, ratio, change: place.change });
                }
            }
        }
        all
    }
}

/// The places of one component that are below the bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Below {
    pub point: String,
    pub places: usize,
    /// The largest.
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// The largest.
    #[serde(with = "crate::number")]
    pub change: f64,
}

/// All places of some plantings: of the prefill, and of the decode steps.
pub(super) fn counted<'a>(places: impl IntoIterator<Item = &'a Places>) -> [Count; 2] {
    let none = [Count::default(); 2];
    places.into_iter().fold(none, |[prefill, decode], p| [prefill.plus(p.prefill), decode.plus(p.decode)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::faults::trial::{Named, Unjudged};
    use crate::faults::Change;
    use std::collections::HashMap;

    const ACT: &str = "model.layers.2.mlp.act";

    /// A trial whose steps 0, 1 and 2 are changed by this much at `ACT`, and have these ratios.
    fn trial(changes: [f64; 3], ratios: [Option<f64>; 3]) -> Trial {
        let at = |step: usize| ("p".to_owned(), step as u32, ACT.to_owned());
        let change = |(i, size)| ("p".to_owned(), Change { step: i as u32, point: ACT.into(), size });
        let named = |(i, ratio): (usize, Option<f64>)| {
            let ratio = ratio.filter(|ratio| *ratio > 1.0)?;
            let (prompt, step, point) = at(i);
            Some(Named { prompt, step, point, layer: Some(2), ratio })
        };
        let known = ratios.into_iter().enumerate();
        Trial {
            changes: changes.into_iter().enumerate().map(change).collect(),
            named: known.clone().filter_map(named).collect(),
            ratios: known.filter_map(|(i, ratio)| Some((at(i), ratio?))).collect(),
            ..Trial::default()
        }
    }

    #[test]
    fn prefill_and_decode_are_counted_apart() {
        let places = Places::of(&trial([1.0; 3], [Some(9.0), Some(9.0), Some(0.5)]), |_| true);
        assert_eq!(places.prefill, Count { visible: 1, named: 1, ..Count::default() });
        assert_eq!(places.decode, Count { visible: 2, named: 1, below: 1, ..Count::default() });
        assert_eq!((places.below[0].step, places.below[0].ratio), (2, Some(0.5)));
        assert_eq!(places.missed, []);
    }

    #[test]
    fn a_place_that_is_not_named_is_missed_unless_its_ratio_is_below_the_bound() {
        let places = Places::of(&trial([1.0; 3], [Some(9.0), None, Some(1.0)]), |_| true);
        assert_eq!(places.decode, Count { visible: 2, below: 1, missed: 1, ..Count::default() });
        assert_eq!((places.missed[0].step, places.missed[0].ratio), (1, None));
    }

    #[test]
    fn a_change_as_small_as_rounding_is_not_visible_and_what_cannot_be_judged_is_not_counted_with_the_rest() {
        let mut trial = trial([ROUNDING, 1.0, f64::INFINITY], [Some(0.1), Some(9.0), None]);
        let unjudged = Unjudged { why: "its input is not finite".into(), by_fault: true };
        trial.unjudged = HashMap::from([(("p".to_owned(), 2, ACT.to_owned()), unjudged)]);
        let places = Places::of(&trial, |_| true);
        assert_eq!(places.prefill, Count::default());
        assert_eq!(places.decode, Count { visible: 1, named: 1, unjudged: 1, ..Count::default() });
    }

    #[test]
    fn of_a_component_the_largest_of_what_is_below_the_bound_is_said() {
        let places = Places::of(&trial([2.0, 3.0, 1.0], [Some(0.2), Some(0.1), Some(9.0)]), |_| true);
        let below = places.below_by_component();
        assert_eq!(below, [Below { point: ACT.into(), places: 2, ratio: 0.2, change: 3.0 }]);
    }
}
