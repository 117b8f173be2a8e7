//! The frequencies of rotary position embedding, scaled for long contexts where the configuration says so.

use crate::error::Error;
use crate::model::Op;
use crate::replay::step::{Replayed, Step, Stop};
use std::f64::consts::TAU;

/// The angle that a pair turns by from one position to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frequencies {
    theta: f64,
    pairs: usize,
    scaling: Scaling,
}

/// What is done to `θ^(−i/pairs)`.
#[derive(Debug, Clone, Copy)]
enum Scaling {
    None,
    /// All are divided by a factor.
    Linear {
        factor: f64,
    },
    /// Those that turn less than `low` times in the `original` context are divided by the factor, those that
    /// turn more than `high` times are left, and between them a straight line leads from one to the other.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

impl Frequencies {
    /// Those of the architecture's tables.
    pub fn new(step: &Step<'_>) -> Replayed<Self> {
        let table = match step.component.op {
            Op::RopeTable => Some(step.component),
            _ => step.graph.components().iter().find(|c| c.op == Op::RopeTable),
        };
        let component = table.ok_or_else(|| Stop::Missing("the architecture has no table".into()))?;
        let step = Step { component, ..*step };
        let scaling = match step.choice("scaling") {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: step.number("factor")? },
            Some("llama3") => Scaling::Llama3 {
                factor: step.number("factor")?,
                low: step.number("low")?,
                high: step.number("high")?,
                original: step.number("original")?,
            },
            Some(other) => {
                let known = "default, linear or llama3";
                return Err(Error::new("an unknown scaling of rotary frequencies")
                    .expected(known, other)
                    .into());
            }
        };
        Ok(Self { theta: step.number("theta")?, pairs: step.dim("rope_half"), scaling })
    }

    /// With another base.
    pub fn with_theta(self, theta: f64) -> Self {
        Self { theta, ..self }
    }

    /// Of a head of another number of pairs.
    pub fn with_pairs(self, pairs: usize) -> Self {
        Self { pairs, ..self }
    }

    /// Without the scaling; none where there is none.
    pub fn unscaled(self) -> Option<Self> {
        let scaled = !matches!(self.scaling, Scaling::None);
        scaled.then_some(Self { scaling: Scaling::None, ..self })
    }

    /// That of pair `i`, in radians.
    pub fn of(&self, i: usize) -> f64 {
        let plain = self.plain(i);
        match self.scaling {
            Scaling::None => plain,
            Scaling::Linear { factor } => plain / factor,
            Scaling::Llama3 { factor, .. } => {
                let kept = self.kept(plain);
                (1.0 - kept) * plain / factor + kept * plain
            }
        }
    }

    /// How many times the relative error of `θ^(−i/pairs)` the scaled frequency has: on the straight line the
    /// weights of both ends depend on the frequency too.
    pub fn stretch(&self, i: usize) -> f64 {
        let plain = self.plain(i);
        match self.scaling {
            Scaling::Llama3 { factor, low, high, original } if ![0.0, 1.0].contains(&self.kept(plain)) => {
                let slope = original * plain / TAU / (high - low);
                1.0 + (slope * (plain - plain / factor) / self.of(i)).abs()
            }
            _ => 1.0,
        }
    }

    fn plain(&self, i: usize) -> f64 {
        self.theta.powf(-(i as f64) / self.pairs as f64)
    }

    /// How much of a frequency is left as it is, from 0 to 1.
    fn kept(&self, plain: f64) -> f64 {
        match self.scaling {
            Scaling::Llama3 { low, high, original, .. } => {
                ((original * plain / TAU - low) / (high - low)).clamp(0.0, 1.0)
            }
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_3: Scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };

    /// As Transformers writes it: by wavelengths, in 32 bits.
    fn by_wavelength(plain: f64) -> f64 {
        let wavelength = TAU / plain;
        if wavelength > 8192.0 {
            plain / 8.0
        } else if wavelength < 8192.0 / 4.0 {
            plain
        } else {
            let smooth = (8192.0 / wavelength - 1.0) / 3.0;
            (1.0 - smooth) * plain / 8.0 + smooth * plain
        }
    }

    #[test]
    fn the_three_bands_of_llama3_are_those_of_the_wavelengths() {
        let scaled = Frequencies { theta: 5e5, pairs: 64, scaling: LLAMA_3 };
        let plain = scaled.unscaled().unwrap();
        let mut bands = [0; 3];
        for i in 0..64 {
            let (right, got) = (by_wavelength(plain.of(i)), scaled.of(i));
            assert!((right - got).abs() <= 1e-15 * right, "{i}: {right} {got}");
            let ratio = got / plain.of(i);
            bands[if ratio == 1.0 {
                0
            } else if ratio == 0.125 {
                2
            } else {
                1
            }] += 1;
        }
        assert!(bands.iter().all(|band| *band > 1), "{bands:?}");
    }

    #[test]
    fn the_stretch_is_how_a_scaled_frequency_follows_a_change_of_the_plain_one() {
        let scaled = Frequencies { theta: 5e5, pairs: 64, scaling: LLAMA_3 };
        for i in 0..64 {
            // A base that is a little larger makes each frequency a little smaller.
            let step = 1e-7;
            let other = scaled.with_theta(5e5 * (1.0 + step));
            let change = |f: fn(&Frequencies, usize) -> f64| (f(&other, i) / f(&scaled, i) - 1.0).abs();
            let (plain, all) = (change(Frequencies::plain), change(Frequencies::of));
            let stretch = scaled.stretch(i);
            assert!(all <= 1.001 * stretch * plain + 1e-14, "{i}: {all} {plain}");
            assert!(all >= 0.3 * stretch * plain - 1e-14, "{i}: {all} {plain} {stretch}");
            assert!(stretch == 1.0 || (0.126..0.999).contains(&(scaled.of(i) / scaled.plain(i))), "{i}");
        }
    }
}
