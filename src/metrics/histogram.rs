//! Quantiles of magnitudes without keeping them: a histogram with bins of equal relative width.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bits of the mantissa that tell bins apart: 32 bins for each power of two.
const MANTISSA_BITS: u32 = 5;
const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - MANTISSA_BITS;
const WIDE: usize = 1 << (11 + MANTISSA_BITS);
/// The same of an f32.
pub(super) const NARROW_SHIFT: u32 = f32::MANTISSA_DIGITS - 1 - MANTISSA_BITS;
/// Bins of finite f32.
const NARROW: usize = 255 << MANTISSA_BITS;
/// All of them, with those of NaN and infinity.
const NARROW_ALL: usize = 1 << (8 + MANTISSA_BITS);
/// Copies of each narrow bin: neighbours that fall into one bin do not wait for each other.
const COPIES: usize = 4;
/// Numbers after which the counts of 32 bits are moved on.
const SPILL: u64 = 1 << 31;

/// Counts non-negative finite numbers.
///
/// A bin's centre is within 1/64 (1.6 %) of every number in it, so that a quantile has at most
/// this relative error; below the smallest normal number of the type that was counted it has more. Zeros are
/// counted exactly.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By the upper bits of an f32; empty until one is counted.
    narrow: Vec<[u32; COPIES]>,
    /// By the upper bits of an f64; empty until one is counted.
    wide: Vec<u32>,
    /// How many zeros were counted in the least narrow bin, where numbers that are not normal are too.
    narrow_zeros: u32,
    /// How many are in these two.
    unsettled: u64,
    counted: Counted,
}

impl Histogram {
    /// Counts one magnitude.
    ///
    /// # Panics
    /// In debug builds, when it is negative or not finite.
    #[inline]
    pub fn add(&mut self, magnitude: f64) {
        debug_assert!(magnitude.is_finite() && magnitude >= 0.0);
        if magnitude == 0.0 {
            return self.add_zeros(1);
        }
        if self.wide.is_empty() {
            self.wide = vec![0; WIDE];
        }
        self.wide[(magnitude.to_bits() >> SHIFT) as usize] += 1;
        self.unsettled += 1;
        if self.unsettled >= SPILL {
            self.settle();
        }
    }

    /// Counts so many zeros.
    pub(super) fn add_zeros(&mut self, zeros: u64) {
        self.counted.zeros += zeros;
    }

    /// Counts f32 by their [bins](super::kernel::bins); those that are not finite are left out. `zeros` of them
    /// are 0.
    pub(super) fn add_bins(&mut self, bins: &[u16], zeros: u32) {
        if self.narrow.is_empty() {
            self.narrow = vec![[0; COPIES]; NARROW_ALL];
        }
        let narrow: &mut [[u32; COPIES]; NARROW_ALL] =
            self.narrow.as_mut_slice().try_into().expect("it was made so long");
        let (fours, rest) = bins.as_chunks::<COPIES>();
        for four in fours {
            for (copy, bin) in four.iter().enumerate() {
                narrow[usize::from(*bin) % NARROW_ALL][copy] += 1;
            }
        }
        for bin in rest {
            narrow[usize::from(*bin) % NARROW_ALL][0] += 1;
        }
        self.narrow_zeros += zeros;
        self.add_zeros(u64::from(zeros));
        self.unsettled += bins.len() as u64;
        if self.unsettled >= SPILL {
            self.settle();
        }
    }

    /// Moves the counts to those of 64 bits.
    fn settle(&mut self) {
        for (bin, counts) in self.narrow.iter_mut().enumerate() {
            let zeros = if bin == 0 { std::mem::take(&mut self.narrow_zeros) } else { 0 };
            let sum = counts.iter().sum::<u32>() - zeros;
            if sum > 0 && bin < NARROW {
                // The middle of the least bin, which begins at 0.
                let low = f32::from_bits(((bin as u32) << NARROW_SHIFT).max(1 << (NARROW_SHIFT - 1)));
                self.counted.add((f64::from(low).to_bits() >> SHIFT) as u32, u64::from(sum));
            }
            *counts = [0; COPIES];
        }
        for (bin, count) in (0..).zip(&mut self.wide) {
            if *count > 0 {
                self.counted.add(bin, u64::from(std::mem::take(count)));
            }
        }
        self.unsettled = 0;
    }

    /// What was counted.
    pub fn finish(mut self) -> Counted {
        self.settle();
        self.counted
    }
}

/// How many numbers fell into which bin.
#[derive(Debug, Default)]
pub struct Counted {
    /// By the upper bits of an f64.
    bins: BTreeMap<u32, u64>,
    zeros: u64,
}

impl Counted {
    fn add(&mut self, bin: u32, count: u64) {
        *self.bins.entry(bin).or_default() += count;
    }

    /// The counts in bins that are wide enough to draw.
    pub fn magnitudes(&self) -> Magnitudes {
        // Two binary exponents make a bin; 1023 is the bias of those of f64.
        let bin_of = |bin: u32| (i32::from((bin >> MANTISSA_BITS) as u16) - 1023).div_euclid(2);
        let Some(from) = self.bins.keys().next().map(|bin| bin_of(*bin)) else {
            return Magnitudes { zeros: self.zeros, ..Magnitudes::default() };
        };
        let mut counts = Vec::new();
        for (bin, count) in &self.bins {
            let at = (bin_of(*bin) - from) as usize;
            counts.resize(at + 1, 0);
            counts[at] += count;
        }
        Magnitudes { zeros: self.zeros, from, counts }
    }

    /// The number below which the fraction `q` of the magnitudes lies; 0 when nothing was counted.
    pub fn quantile(&self, q: f64) -> f64 {
        let count = self.zeros + self.bins.values().sum::<u64>();
        let rank = (q * count as f64).ceil().max(1.0) as u64;
        if count == 0 || rank <= self.zeros {
            return 0.0;
        }
        let mut seen = self.zeros;
        for (bin, count) in &self.bins {
            seen += count;
            if seen >= rank {
                let low = f64::from_bits(u64::from(*bin) << SHIFT);
                let high = f64::from_bits((u64::from(*bin) + 1) << SHIFT);
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
            prop_assert!((histogram.finish().quantile(q) - exact).abs() <= 0.02 * exact);
        }

        #[test]
        fn numbers_that_are_counted_by_their_bins_have_the_same_quantiles(
            values in prop::collection::vec(
                prop_oneof![Just(0.0f32), Just(1.5), (-140f32..120.0).prop_map(f32::exp2), Just(f32::NAN)], 1..300),
            q in 0f64..=1.0,
        ) {
            let (mut one, mut other) = (Histogram::default(), Histogram::default());
            let finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
            finite.iter().for_each(|v| one.add(f64::from(*v)));
            let mut bins = vec![0; values.len()];
            for (values, bins) in values.chunks(50).zip(bins.chunks_mut(50)) {
                let zeros = super::super::kernel::bins(&vec![0.0; values.len()], values, bins);
                other.add_bins(bins, zeros);
            }
            let (one, other) = (one.finish().quantile(q), other.finish().quantile(q));
            // Below 2^-126 the numbers of a bin are not alike.
            let least = f64::from(f32::MIN_POSITIVE);
            prop_assert!((one - other).abs() <= 1e-12 * one || (one < least && other < least), "{one} {other}");
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
        assert_eq!(histogram.finish().magnitudes(), expected);
        assert!(Histogram::default().finish().magnitudes().is_empty());
    }

    #[test]
    fn zeros_are_counted_exactly() {
        let mut histogram = Histogram::default();
        for value in [0.0, 0.0, 0.0, 1.0] {
            histogram.add(value);
        }
        let counted = histogram.finish();
        assert_eq!(counted.quantile(0.75), 0.0);
        assert!(counted.quantile(0.76) > 0.9);
        assert_eq!(Histogram::default().finish().quantile(0.5), 0.0);
    }
}
