//! Quantiles of magnitudes without keeping them: a histogram with bins of equal relative width.

use super::kernel::{BINS, COPIES, MANTISSA_BITS, RUN, SHIFT as NARROW_SHIFT, TABLE, Table};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ops::Range;

const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - MANTISSA_BITS;
const WIDE: usize = 1 << (11 + MANTISSA_BITS);
/// Bins of finite f32; those of NaN and infinity follow.
const FINITE: usize = 255 << MANTISSA_BITS;
/// Numbers after which the counts of 32 bits are moved on.
const SPILL: u64 = 1 << 31;
/// The most that a kernel may have counted in one copy of a bin before the counts of 16 bits are moved on.
const FULL: usize = u16::MAX as usize - RUN.div_ceil(COPIES);

thread_local! {
    /// Counts that are not in use, all zeros: to make them takes as long as to compare a small tensor.
    static SPARE: Cell<Option<Counts>> = const { Cell::new(None) };
}

/// Counts non-negative finite numbers.
///
/// A bin's centre is within 1/64 (1.6 %) of every number in it, so that a quantile has at most
/// this relative error; below the smallest normal number of the type that was counted it has more. Zeros are
/// counted exactly.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By the upper bits of an f32; none until one is asked for.
    narrow: Option<Narrow>,
    /// By the upper bits of an f64; empty until one is counted.
    wide: Vec<u32>,
    /// How many are in these two.
    unsettled: u64,
    counted: Counted,
}

/// What was counted by the upper bits of f32.
#[derive(Debug)]
struct Narrow {
    counts: Counts,
    /// From which bin on, up to which, may have been counted in, beside the first and those of what is not finite.
    from: usize,
    to: usize,
    /// The most that can be in one copy of a bin.
    fullest: usize,
    /// How many in the first bin are not 0.
    not_zero: u64,
}

#[derive(Debug)]
struct Counts {
    table: Box<Table>,
    /// Of each bin, what is no longer in the table.
    sums: Vec<u64>,
}

impl Counts {
    fn new() -> Self {
        let table = vec![0; TABLE].into_boxed_slice().try_into().expect("it was made so long");
        Self { table, sums: vec![0; FINITE] }
    }

    /// Moves the counts of some bins out of the table.
    fn add_up(&mut self, bins: Range<usize>) {
        let copies = &mut self.table[bins.start * COPIES..bins.end * COPIES];
        for (sum, copies) in self.sums[bins].iter_mut().zip(copies.chunks_exact_mut(COPIES)) {
            *sum += copies.iter().map(|count| u64::from(*count)).sum::<u64>();
            copies.fill(0);
        }
    }
}

impl Narrow {
    fn new() -> Self {
        let counts = SPARE.take().unwrap_or_else(Counts::new);
        Self { counts, from: BINS, to: 0, fullest: 0, not_zero: 0 }
    }

    /// The bins between the first and those of what is not finite that may have been counted in.
    fn used(&self) -> Range<usize> {
        let from = self.from.clamp(1, FINITE);
        from..self.to.clamp(from, FINITE)
    }

    /// Makes room in the table.
    fn spill(&mut self) {
        self.counts.add_up(0..1);
        self.counts.add_up(self.used());
        self.counts.table[FINITE * COPIES..].fill(0);
        self.fullest = 0;
    }

    /// The bins that were counted in, by the upper bits of an f64, with how many are in each; and how many numbers
    /// were 0. Nothing is left.
    fn take(&mut self) -> (Vec<(u32, u64)>, u64) {
        self.spill();
        let used = self.used();
        let bin = |f32_bits: u32| (f64::from(f32::from_bits(f32_bits)).to_bits() >> SHIFT) as u32;
        let not_zero = std::mem::take(&mut self.not_zero);
        let zeros = std::mem::take(&mut self.counts.sums[0]) - not_zero;
        // The middle of the first bin, which begins at 0.
        let mut taken = vec![(bin(1 << (NARROW_SHIFT - 1)), not_zero)];
        for (number, sum) in used.clone().zip(&mut self.counts.sums[used]) {
            taken.push((bin((number as u32) << NARROW_SHIFT), std::mem::take(sum)));
        }
        taken.retain(|(_, count)| *count > 0);
        (self.from, self.to) = (BINS, 0);
        (taken, zeros)
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
        if magnitude == 0.0 {
            self.counted.zeros += 1;
            return;
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

    /// Where a [kernel](super::kernel::counted) counts a run of f32. What it counted is to be told by
    /// [`Histogram::counted`], run by run.
    pub(super) fn table(&mut self) -> &mut Table {
        &mut self.narrow.get_or_insert_with(Narrow::new).counts.table
    }

    /// Says that so many of those that the kernel has counted in the first bin are not 0.
    pub(super) fn not_zero(&mut self, numbers: usize) {
        if let Some(narrow) = &mut self.narrow {
            narrow.not_zero += numbers as u64;
        }
    }

    /// Says that the kernel has counted so many numbers: the least that is not 0 has the bits `least` + 1 as an
    /// f32, and the largest that is finite is `max`.
    pub(super) fn counted(&mut self, numbers: usize, least: u32, max: f64) {
        if let Some(narrow) = &mut self.narrow {
            narrow.from = narrow.from.min((least >> NARROW_SHIFT) as usize);
            // The largest was rounded to f64 before, and may lie one bin further.
            narrow.to = narrow.to.max(((max as f32).to_bits() >> NARROW_SHIFT) as usize + 2);
            narrow.fullest += numbers.div_ceil(COPIES);
            if narrow.fullest > FULL {
                narrow.spill();
            }
        }
        self.unsettled += numbers as u64;
        if self.unsettled >= SPILL {
            self.settle();
        }
    }

    /// Moves the counts to those of 64 bits.
    fn settle(&mut self) {
        if let Some(narrow) = &mut self.narrow {
            let (bins, zeros) = narrow.take();
            self.counted.add(bins);
            self.counted.zeros += zeros;
        }
        let wide = (0..).zip(&mut self.wide).filter(|(_, count)| **count > 0);
        let wide = wide.map(|(bin, count)| (bin, u64::from(std::mem::take(count)))).collect();
        self.counted.add(wide);
        self.unsettled = 0;
    }

    /// What was counted.
    pub fn finish(mut self) -> Counted {
        self.settle();
        if let Some(narrow) = self.narrow {
            SPARE.set(Some(narrow.counts));
        }
        self.counted
    }
}

/// How many numbers fell into which bin.
#[derive(Debug, Default)]
pub struct Counted {
    /// By the upper bits of an f64, in order.
    bins: Vec<(u32, u64)>,
    zeros: u64,
}

impl Counted {
    fn add(&mut self, mut bins: Vec<(u32, u64)>) {
        bins.append(&mut self.bins);
        bins.sort_unstable();
        bins.dedup_by(|(bin, count), (before, sum)| {
            let same = bin == before;
            *sum += if same { *count } else { 0 };
            same
        });
        self.bins = bins;
    }

    /// The counts in bins that are wide enough to draw.
    pub fn magnitudes(&self) -> Magnitudes {
        // Two binary exponents make a bin; 1023 is the bias of those of f64.
        let bin_of = |bin: u32| (i32::from((bin >> MANTISSA_BITS) as u16) - 1023).div_euclid(2);
        let Some(from) = self.bins.first().map(|(bin, _)| bin_of(*bin)) else {
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
        let count = self.zeros + self.bins.iter().map(|(_, count)| count).sum::<u64>();
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
    use super::super::kernel::number::F32;
    use super::super::pass::{Narrow, Places};
    use super::Histogram;
    use super::Magnitudes;
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
                prop_oneof![Just(0.0f32), Just(1.5), (-149f32..128.0).prop_map(f32::exp2), Just(f32::NAN), Just(f32::INFINITY)], 1..300),
            q in 0f64..=1.0,
        ) {
            let (mut one, mut other) = (Histogram::default(), Histogram::default());
            let finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
            finite.iter().for_each(|v| one.add(f64::from(*v)));
            for values in values.chunks(50) {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let zeros = vec![0; bytes.len()];
                let places = Narrow::<F32, F32>::new(&zeros, &bytes);
                let run = places.run(Some(&mut other));
                let max = places.masked().max;
                places.count_rest(run.least, max, &mut other);
            }
            // Whoever counts next finds zeros.
            other.settle();
            prop_assert!(other.table().iter().all(|count| *count == 0));
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
