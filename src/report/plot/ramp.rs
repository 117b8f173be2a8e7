//! Colours of heatmaps.

use super::theme::Colour;
use crate::report::text::{multiple, number};

/// Stages of viridis, from dark to light: equal steps look equal, also in grey and to people who do not tell red
/// from green (van der Walt and Smith, 2015).
const VIRIDIS: [Colour; 9] = [
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
];
/// Within the bound: what is large stands out from a light page, and from a dark one.
const COLD: [[Colour; 3]; 2] =
    [[(239, 243, 255), (158, 202, 225), (49, 130, 189)], [(22, 40, 62), (36, 90, 140), (90, 165, 222)]];
/// Beyond the bound.
const HOT: [[Colour; 3]; 2] =
    [[(253, 190, 133), (217, 95, 14), (115, 32, 0)], [(150, 62, 8), (232, 120, 32), (255, 216, 168)]];
/// Powers of ten beyond the bound that have colours of their own.
const BEYOND: f64 = 4.0;

/// What colour a value has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ramp {
    /// A logarithm between two powers of ten. What is large stands out from the page; what is `below` the lower
    /// one, if anything is, has its colour.
    Log { low: i32, high: i32, dark: bool, below: bool },
    /// A multiple of the bound: blue up to 1, then orange.
    Ratio { dark: bool },
}

impl Ramp {
    /// A logarithmic ramp over all of these that have a logarithm, but for the smallest twentieth: a few values
    /// that are nearly exact would leave the others one colour.
    pub(super) fn over(values: impl Iterator<Item = f64>, dark: bool) -> Self {
        let mut logs: Vec<f64> = values.filter(|v| v.is_finite() && *v > 0.0).map(f64::log10).collect();
        logs.sort_by(f64::total_cmp);
        let (low, high) = match (logs.get(logs.len() / 20), logs.last()) {
            (Some(low), Some(high)) => (low.floor() as i32, high.ceil() as i32),
            _ => (-7, -5),
        };
        let below = logs.first().is_some_and(|first| *first < f64::from(low));
        Self::Log { low, high: high.max(low + 1), dark, below }
    }

    /// The colour of a finite value that is not 0.
    pub(super) fn colour(self, value: f64) -> Colour {
        match self {
            Self::Log { low, high, dark, .. } => {
                let t = (value.log10() - f64::from(low)) / f64::from(high - low);
                between(&VIRIDIS, if dark { t } else { 1.0 - t })
            }
            Self::Ratio { dark } if value <= 1.0 => between(&COLD[usize::from(dark)], value),
            Self::Ratio { dark } => between(&HOT[usize::from(dark)], value.log10() / BEYOND),
        }
    }

    /// The value as it stands in a cell.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Log { .. } => number(value),
            Self::Ratio { .. } if (0.01..10.0).contains(&value) => format!("{value:.2}"),
            Self::Ratio { .. } => multiple(value),
        }
    }

    /// Parts of the legend: what stands before and behind each bar, and the values from its start to its end.
    pub(super) fn bars(self) -> Vec<(String, String, Vec<f64>)> {
        const STEPS: usize = 24;
        let steps =
            |from: f64, to: f64| (0..STEPS).map(move |i| from + (to - from) * i as f64 / (STEPS - 1) as f64);
        match self {
            Self::Log { low, high, below, .. } => {
                let values = steps(f64::from(low), f64::from(high)).map(|e| 10f64.powf(e)).collect();
                vec![(format!("{}1e{low}", if below { "≤ " } else { "" }), format!("1e{high}"), values)]
            }
            Self::Ratio { .. } => {
                let hot = steps(0.001, BEYOND).map(|e| 10f64.powf(e)).collect();
                vec![
                    ("0".into(), "1, the bound".into(), steps(0.0, 1.0).collect()),
                    (String::new(), "1e4 and more".into(), hot),
                ]
            }
        }
    }
}

/// The colour at `t` from 0 to 1 between those of a ramp.
fn between(ramp: &[Colour], t: f64) -> Colour {
    let place = t.clamp(0.0, 1.0) * (ramp.len() - 1) as f64;
    let i = (place as usize).min(ramp.len() - 2);
    let ((r0, g0, b0), (r1, g1, b1), rest) = (ramp[i], ramp[i + 1], place - i as f64);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * rest).round() as u8;
    (mix(r0, r1), mix(g0, g1), mix(b0, b1))
}

/// True where white letters are easier to read on a colour than black ones (WCAG's relative luminance).
pub(super) fn is_dark((r, g, b): Colour) -> bool {
    let linear = |v: u8| {
        let s = f64::from(v) / 255.0;
        if s <= 0.04045 { s / 12.92 } else { ((s + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) < 0.18
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_reaches_from_the_smallest_to_the_largest_power_of_ten() {
        let ramp = Ramp::over([0.0, 2e-7, f64::NAN, 3e-3].into_iter(), false);
        assert!(matches!(ramp, Ramp::Log { low: -7, high: -2, dark: false, below: false }));
        let few = (0..40).map(|i| if i == 0 { 1e-11 } else { 2e-7 });
        let ramp = Ramp::over(few, false);
        assert!(matches!(ramp, Ramp::Log { low: -7, high: -6, below: true, .. }));
        assert_eq!((ramp.bars()[0].0.as_str(), ramp.colour(1e-11)), ("≤ 1e-7", ramp.colour(1e-7)));
        assert_eq!((ramp.colour(1e-7), ramp.colour(1e-2)), (VIRIDIS[8], VIRIDIS[0]));
        assert!(is_dark(ramp.colour(1e-2)) && !is_dark(ramp.colour(1e-7)));
    }

    #[test]
    fn the_bound_parts_cold_from_hot() {
        for (i, dark) in [false, true].into_iter().enumerate() {
            let ramp = Ramp::Ratio { dark };
            assert_eq!((ramp.colour(1.0), ramp.colour(1e9)), (COLD[i][2], HOT[i][2]));
        }
    }
}
