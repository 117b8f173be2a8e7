//! The loop over the numbers: sums, the largest difference and the bins of a histogram, eight at a time.
//!
//! Compilers do not vectorize five sums at once well, so that there is one form for each kind of processor, chosen
//! when it runs, and a plain one. All have the same eight accumulators and fuse nothing: a result is the same bit
//! for bit on every processor.
//!
//! **Accuracy.** The sums are of f64. Products of f32 are exact in f64, and so is a difference of two f32 unless
//! they are 2^29 apart, where it is rounded once. A run of n ≤ 4096 numbers is summed in eight chains of n/8, and
//! the runs one after the other: a sum of N squares has a relative error below `(n/8 + 11 + N/n) · 2⁻⁵³`, which for
//! 10⁹ numbers is 3e-11.

mod plain;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use super::histogram::NARROW_SHIFT;

/// Accumulators side by side.
const LANES: usize = 8;

/// Numbers of a run, at most.
pub(super) const RUN: usize = 4096;

/// What a run of numbers comes to. `dd` is finite unless a difference is not, or leaves the range of f64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Run {
    pub rr: f64,
    pub cc: f64,
    pub rc: f64,
    pub dd: f64,
    /// The largest |d|; means nothing where `dd` is not finite.
    pub max: f64,
}

/// The accumulators of a [`Run`].
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    rr: [f64; LANES],
    cc: [f64; LANES],
    rc: [f64; LANES],
    dd: [f64; LANES],
    max: [f64; LANES],
}

impl Sums {
    /// Adds a place to a lane; `masked` leaves it out where its difference is not finite.
    #[inline]
    fn add(&mut self, lane: usize, r: f64, c: f64, masked: bool) {
        let d = c - r;
        if masked && !d.is_finite() {
            return;
        }
        self.rr[lane] += r * r;
        self.cc[lane] += c * c;
        self.rc[lane] += r * c;
        self.dd[lane] += d * d;
        if d.abs() > self.max[lane] {
            self.max[lane] = d.abs();
        }
    }

    fn finish(&self) -> Run {
        let sum = |lanes: &[f64; LANES]| {
            let pair = |i: usize| lanes[i] + lanes[i + 4];
            (pair(0) + pair(2)) + (pair(1) + pair(3))
        };
        let max = self.max.iter().fold(0.0f64, |a, b| a.max(*b));
        Run { rr: sum(&self.rr), cc: sum(&self.cc), rc: sum(&self.rc), dd: sum(&self.dd), max }
    }
}

/// A run of numbers of 32 bits; `MASKED` leaves out the places whose difference is not finite.
pub(super) fn run_f32<const MASKED: bool>(reference: &[f32], candidate: &[f32]) -> Run {
    #[cfg(target_arch = "x86_64")]
    if let Some(run) = x86_64::run::<MASKED>(reference, candidate) {
        return run;
    }
    plain::run(reference, candidate, MASKED)
}

/// A run of numbers of 64 bits.
pub(super) fn run_f64<const MASKED: bool>(reference: &[f64], candidate: &[f64]) -> Run {
    plain::run(reference, candidate, MASKED)
}

/// The bins of |d|, rounded to f32: its exponent and the first bits of its mantissa. Returns how many are 0.
///
/// # Panics
/// When the three are not of one length.
pub(super) fn bins(reference: &[f32], candidate: &[f32], out: &mut [u16]) -> u32 {
    assert!(reference.len() == candidate.len() && reference.len() == out.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(zeros) = x86_64::bins(reference, candidate, out) {
        return zeros;
    }
    plain::bins(reference, candidate, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_is_the_same_bit_for_bit_on_every_processor(
            pairs in prop::collection::vec((any::<f32>(), prop_oneof![any::<f32>(), -1e3f32..1e3]), 0..100),
        ) {
            let (r, c): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let bits = |run: Run| [run.rr, run.cc, run.rc, run.dd, run.max].map(|v| (v.is_nan(), v.to_bits()));
            let masked = bits(plain::run(&r, &c, true));
            prop_assert_eq!(bits(run_f32::<true>(&r, &c)), masked);
            let all = plain::run(&r, &c, false);
            // Which NaN it is depends on the order of the operands.
            if all.dd.is_finite() {
                prop_assert_eq!(bits(run_f32::<false>(&r, &c)), bits(all));
            } else {
                prop_assert!(!run_f32::<false>(&r, &c).dd.is_finite());
            }
            let (mut one, mut other) = (vec![0; r.len()], vec![0; r.len()]);
            prop_assert_eq!(bins(&r, &c, &mut one), plain::bins(&r, &c, &mut other));
            prop_assert_eq!(one, other);
            #[cfg(target_arch = "x86_64")]
            for run in x86_64::each::<true>(&r, &c) {
                prop_assert_eq!(bits(run), masked);
            }
        }

        #[test]
        fn sums_are_within_the_stated_bound_of_exact_ones(
            pairs in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..RUN),
        ) {
            let (r, c): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let (high, low) = r.iter().map(|x| f64::from(*x) * f64::from(*x)).fold((0.0, 0.0), two_sum);
            let bound = (r.len() as f64 / 8.0 + 11.0) * f64::EPSILON / 2.0;
            prop_assert!((run_f32::<false>(&r, &c).rr - high - low).abs() <= bound * high);
        }
    }

    /// A sum whose rounding errors are kept: Knuth, The Art of Computer Programming, vol. 2, 4.2.2.
    fn two_sum((high, low): (f64, f64), x: f64) -> (f64, f64) {
        let sum = high + x;
        let part = sum - high;
        (sum, low + ((high - (sum - part)) + (x - part)))
    }
}
