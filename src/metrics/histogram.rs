//! Quantiles of magnitudes without keeping them: a histogram with bins of equal relative width.

use serde::{Deserialize, Serialize};

/// Bits of the mantissa that tell bins apart: 32 bins for each power of two.
const MANTISSA_BITS: u32 = 5;
const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - MANTISSA_BITS;
const BINS: usize = 1 << (11 + MANTISSA_BITS);

/// Counts non-negative finite numbers.
///
/// A bin's centre is within 1/64 (1.6 %) of every number in it, so that a quantile has at most
/// this relative error; below the smallest normal f64 it has more. Zeros are counted exactly.
#[derive(Debug)]
pub struct Histogram {
    bins: Vec<u32>,
    zeros: u64,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS], zeros: 0, count: 0 }
    }
}

impl Histogram {
    /// Counts one magnitude.
    ///
    /// # Panics
    /// In debug builds, when it is negative or not finite.
    #[inline]
    pub fn add(&mut self, magnitude: f64) {
        debug_assert!(magnitude.is_finite() && magnitude >= 0.0);
        self.count += 1;
        if magnitude == 0.0 {
            self.zeros += 1;
        } else {
            self.bins[(magnitude.to_bits() >> SHIFT) as usize] += 1;
        }
    }

    /// The counts in bins that are wide enough to draw.
    pub fn magnitudes(&self) -> Magnitudes {
        // Two binary exponents make a bin; 1023 is the bias of those of f64.
        let bin_of = |bin: usize| (i32::from((bin >> MANTISSA_BITS) as u16) - 1023).div_euclid(2);
        let used = || self.bins.iter().enumerate().filter(|(_, count)| **count > 0);
        let Some(from) = used().next().map(|(bin, _)| bin_of(bin)) else {
            return Magnitudes { zeros: self.zeros, ..Magnitudes::default() };
        };
        let mut counts = Vec::new();
        for (bin, &count) in used() {
            let at = (bin_of(bin) - from) as usize;
            counts.resize(at + 1, 0);
            counts[at] += u64::from(count);
        }
        Magnitudes { zeros: self.zeros, from, counts }
    }

    /// The number below which the fraction `q` of the magnitudes lies; 0 when nothing was counted.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.count as f64).ceil().max(1.0) as u64;
        if self.count == 0 || rank <= self.zeros {
            return 0.0;
        }
        let mut seen = self.zeros;
        for (bin, &count) in self.bins.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                let low = f64::from_bits((bin as u64) << SHIFT);
                let high = f64::from_bits((bin as u64 + 1) << SHIFT);
                return low + (high - low) / 2.0;
            }
        }
        0.0
    }
}

/// How many numbers there are of which size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Magnitudes {
    /// Those that are 0.
    pub zeros: u64,
    /// The power of 4 at which the first bin begins.
    pub from: i32,
    /// How many lie in each bin, from one power of 4 up to the next.
    pub counts: Vec<u64>,
}

impl Magnitudes {
    /// True where nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.zeros == 0 && self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_within_two_percent_of_the_exact_one(
            mut values in prop::collection::vec((-30f64..30.0).prop_map(f64::exp2), 1..200),
            q in 0f64..=1.0,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|v| histogram.add(*v));
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil().max(1.0) as usize).min(values.len());
            let exact = values[rank - 1];
            prop_assert!((histogram.quantile(q) - exact).abs() <= 0.02 * exact);
        }
    }

    #[test]
    fn each_magnitude_is_counted_between_its_powers_of_four() {
        let mut histogram = Histogram::default();
        for value in [0.0, 1.0, 3.9, 4.0, 0.25, 0.24, 64.0] {
            histogram.add(value);
        }
        // From 1/16: 0.24; 0.25; 1 and 3.9; 4; none; 64.
        let expected = Magnitudes { zeros: 1, from: -2, counts: vec![1, 1, 2, 1, 0, 1] };
        assert_eq!(histogram.magnitudes(), expected);
        assert!(Histogram::default().magnitudes().is_empty());
    }

    #[test]
    fn zeros_are_counted_exactly() {
        let mut histogram = Histogram::default();
        for value in [0.0, 0.0, 0.0, 1.0] {
            histogram.add(value);
        }
        assert_eq!(histogram.quantile(0.75), 0.0);
        assert!(histogram.quantile(0.76) > 0.9);
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }
}
