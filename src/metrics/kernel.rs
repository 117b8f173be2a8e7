//! The loop over the numbers: sums, the largest difference and a histogram, eight at a time.
//!
//! It is plain Rust that the compiler vectorizes, compiled once for each kind of processor and chosen when it
//! runs. The eight accumulators are the same everywhere and nothing is fused, so that a result is the same bit
//! for bit on every processor.
//!
//! **Accuracy.** The sums are of f64. Products of f32 are exact in f64, and so is a difference of two f32 unless
//! they are 2^29 apart, where it is rounded once. A run of n ≤ 4096 numbers is summed in eight chains of n/8, and
//! the runs one after the other: a sum of N squares has a relative error below `(n/8 + 11 + N/n) · 2⁻⁵³`, which for
//! 10⁹ numbers is 3e-11.

use multiversion::multiversion;

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

/// The loop; `MASKED` leaves out places whose difference is not finite.
#[inline(always)]
#[allow(clippy::inline_always)] // Else it is not compiled for the processor that its caller is for.
fn run<T: Copy + Into<f64>, const MASKED: bool>(reference: &[T], candidate: &[T]) -> Run {
    let mut lanes = [[0.0f64; LANES]; 5];
    let (r8, r_rest) = reference.as_chunks::<LANES>();
    let (c8, c_rest) = candidate.as_chunks::<LANES>();
    for (r, c) in r8.iter().zip(c8) {
        for lane in 0..LANES {
            add::<MASKED>(&mut lanes, lane, r[lane].into(), c[lane].into());
        }
    }
    for (lane, (r, c)) in r_rest.iter().zip(c_rest).enumerate() {
        add::<MASKED>(&mut lanes, lane, (*r).into(), (*c).into());
    }
    let sum = |lane: &[f64; LANES]| -> f64 {
        let pair = |i: usize| lane[i] + lane[i + 4];
        (pair(0) + pair(2)) + (pair(1) + pair(3))
    };
    let max = lanes[4].iter().fold(0.0f64, |a, b| a.max(*b));
    Run { rr: sum(&lanes[0]), cc: sum(&lanes[1]), rc: sum(&lanes[2]), dd: sum(&lanes[3]), max }
}

#[inline(always)]
#[allow(clippy::inline_always)] // As above.
fn add<const MASKED: bool>(lanes: &mut [[f64; LANES]; 5], lane: usize, r: f64, c: f64) {
    let d = c - r;
    let (r, c, d) = if !MASKED || d.abs() < f64::INFINITY { (r, c, d) } else { (0.0, 0.0, 0.0) };
    lanes[0][lane] += r * r;
    lanes[1][lane] += c * c;
    lanes[2][lane] += r * c;
    lanes[3][lane] += d * d;
    let size = d.abs();
    lanes[4][lane] = if size > lanes[4][lane] { size } else { lanes[4][lane] };
}

macro_rules! for_processors {
    ($($(#[$doc:meta])* $name:ident of $t:ty: $run:expr;)*) => {$(
        $(#[$doc])*
        #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
        pub(super) fn $name(reference: &[$t], candidate: &[$t]) -> Run {
            $run(reference, candidate)
        }
    )*};
}

for_processors! {
    /// A run of numbers of 32 bits.
    run_f32 of f32: run::<f32, false>;
    /// A run of numbers of 64 bits.
    run_f64 of f64: run::<f64, false>;
    /// The places of a run whose difference is finite.
    masked_f32 of f32: run::<f32, true>;
    /// The places of a run whose difference is finite.
    masked_f64 of f64: run::<f64, true>;
}

/// The bins of |d|, rounded to f32: its exponent and the first five bits of its mantissa. Returns how many are 0.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl+avx512bw", "x86_64+avx2"))]
pub(super) fn bins(reference: &[f32], candidate: &[f32], out: &mut [u16]) -> u32 {
    let mut zeros = 0;
    for ((r, c), bin) in reference.iter().zip(candidate).zip(out) {
        let d = c - r;
        zeros += u32::from(d == 0.0);
        *bin = (d.abs().to_bits() >> super::histogram::NARROW_SHIFT) as u16;
    }
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_is_the_same_bit_for_bit_on_the_least_of_the_processors_and_on_this_one(
            pairs in prop::collection::vec((any::<f32>(), -1e3f32..1e3), 0..100),
        ) {
            let (r, c): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let bits = |run: Run| [run.rr, run.cc, run.rc, run.dd, run.max].map(f64::to_bits);
            prop_assert_eq!(bits(run_f32(&r, &c)), bits(run::<f32, false>(&r, &c)));
            prop_assert_eq!(bits(masked_f32(&r, &c)), bits(run::<f32, true>(&r, &c)));
        }

        #[test]
        fn sums_are_within_the_stated_bound_of_exact_ones(
            pairs in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..RUN),
        ) {
            let (r, c): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let exact = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).fold((0.0, 0.0), two_sum);
            let (high, low) = exact(&r);
            let bound = (r.len() as f64 / 8.0 + 11.0) * f64::EPSILON / 2.0;
            prop_assert!((run_f32(&r, &c).rr - high - low).abs() <= bound * high);
        }
    }

    /// A sum whose rounding errors are kept: Knuth, The Art of Computer Programming, vol. 2, 4.2.2.
    fn two_sum((high, low): (f64, f64), x: f64) -> (f64, f64) {
        let sum = high + x;
        let part = sum - high;
        (sum, low + ((high - (sum - part)) + (x - part)))
    }
}
