//! The loop over the numbers: sums, the largest difference and a count of differences by size, eight at a time.
//!
//! Compilers do not vectorize five sums at once well, so that there is one form for each kind of processor, chosen
//! when it runs, and a plain one. All have the same eight accumulators: a result is the same bit for bit on every
//! processor. Numbers are widened in registers, from the bytes as they lie in a trace.
//!
//! **Accuracy.** The sums are of f64. Products of f32 are exact in f64, so that it makes no difference whether one
//! is fused with the addition that follows. A difference of two f32 is exact unless they are 2^29 apart, where it is
//! rounded once; its square is rounded, on every processor, and added after. A run of n ≤ 4096 numbers is summed in
//! eight chains of n/8, and r runs one after the other: a sum of squares has a relative error below
//! `(n/8 + 11 + r) · 2⁻⁵³`, which for 10⁹ numbers in runs of 4096 is 3e-11. A run also ends where the numbers of a
//! token do: runs are as short as the rows of a head are.
//!
//! **Counting.** A difference is rounded to f32, and the upper bits of that are its [bin](Table). What one number
//! costs is the one store of its count. Numbers that follow each other go into different copies of a bin, since
//! a count that was just stored cannot be loaded at once, and are counted [`LAG`] eights after their bins were
//! written down, for the same reason.

pub(super) mod number;
mod plain;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use number::Number;

/// Accumulators side by side.
const LANES: usize = 8;

/// Numbers of a run, at most.
pub(super) const RUN: usize = 4096;

/// Bits of the mantissa that tell bins apart: 32 bins for each power of two.
pub(super) const MANTISSA_BITS: u32 = 5;

/// The bits of an f32 below those that tell bins apart.
pub(super) const SHIFT: u32 = f32::MANTISSA_DIGITS - 1 - MANTISSA_BITS;

/// Copies of each bin's count, one for each lane.
pub(super) const COPIES: usize = LANES;

/// The bins of f32 without their sign.
pub(super) const BINS: usize = 1 << (u32::BITS - 1 - SHIFT);

/// Where a bin's copies are: its number times [`COPIES`], which are the bits above this one.
const PLACE_SHIFT: u32 = SHIFT - COPIES.ilog2();
const PLACES: u32 = ((BINS - 1) * COPIES) as u32;

/// The length of a [`Table`]: one bin more than there are, so that no place that 16 bits can name plus a lane lies
/// outside.
pub(super) const TABLE: usize = (BINS + 1) * COPIES;

/// The counts of differences by their bins, each bin's copies beside each other. The smaller the counts, the less
/// of the nearest cache they take from what is read.
pub(super) type Table = [u16; TABLE];

/// Eights of numbers between writing a bin down and counting it.
#[cfg(target_arch = "x86_64")]
const LAG: usize = 8;

/// What a run of numbers comes to. `dd` is finite unless a difference is not, or leaves the range of f64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Run {
    pub rr: f64,
    pub cc: f64,
    pub rc: f64,
    pub dd: f64,
    /// The largest |d|; means nothing where `dd` is not finite.
    pub max: f64,
    /// The bits of the least |d| as an f32 that is not 0, less one; all bits set where nothing was counted.
    pub least: u32,
}

/// The accumulators of a [`Run`].
#[derive(Debug, Clone, Copy)]
struct Sums {
    rr: [f64; LANES],
    cc: [f64; LANES],
    rc: [f64; LANES],
    dd: [f64; LANES],
    max: [f64; LANES],
    least: u32,
}

impl Default for Sums {
    fn default() -> Self {
        let zero = [0.0; LANES];
        Self { rr: zero, cc: zero, rc: zero, dd: zero, max: zero, least: u32::MAX }
    }
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

    /// Counts a place in the copy of a lane.
    #[inline]
    fn count(&mut self, lane: usize, r: f32, c: f32, table: &mut Table) {
        let bits = (c - r).to_bits();
        self.least = self.least.min((bits & (u32::MAX >> 1)).wrapping_sub(1));
        let place = ((bits >> PLACE_SHIFT) & PLACES) as usize + lane;
        table[place] = table[place].wrapping_add(1);
    }

    fn finish(&self) -> Run {
        let sum = |lanes: &[f64; LANES]| {
            let pair = |i: usize| lanes[i] + lanes[i + 4];
            (pair(0) + pair(2)) + (pair(1) + pair(3))
        };
        let max = self.max.iter().fold(0.0f64, |a, b| a.max(*b));
        let [rr, cc, rc, dd] = [&self.rr, &self.cc, &self.rc, &self.dd].map(sum);
        Run { rr, cc, rc, dd, max, least: self.least }
    }
}

/// A run of numbers of at most 32 bits, as they lie in a trace.
///
/// # Panics
/// When the sides are not of the same number of elements.
pub(super) fn run<R: Number, C: Number>(reference: &[u8], candidate: &[u8]) -> Run {
    best::<R, C, false>(reference, candidate, None)
}

/// The same without the places whose difference is not finite.
pub(super) fn masked<R: Number, C: Number>(reference: &[u8], candidate: &[u8]) -> Run {
    best::<R, C, true>(reference, candidate, None)
}

/// All places, which are counted by the size of their differences as well.
pub(super) fn counted<R: Number, C: Number>(reference: &[u8], candidate: &[u8], table: &mut Table) -> Run {
    best::<R, C, false>(reference, candidate, Some(table))
}

fn best<R: Number, C: Number, const MASKED: bool>(
    reference: &[u8],
    candidate: &[u8],
    table: Option<&mut Table>,
) -> Run {
    assert_eq!(reference.len() / R::SIZE, candidate.len() / C::SIZE);
    #[cfg(target_arch = "x86_64")]
    match x86_64::Level::here() {
        Some(level) => x86_64::run::<R, C, MASKED>(level, reference, candidate, table),
        None => plain::run::<R, C>(reference, candidate, MASKED, table),
    }
    #[cfg(not(target_arch = "x86_64"))]
    plain::run::<R, C>(reference, candidate, MASKED, table)
}

/// A run of numbers of 64 bits; `masked` as above.
pub(super) fn run_f64(reference: &[f64], candidate: &[f64], masked: bool) -> Run {
    plain::run_f64(reference, candidate, masked)
}

#[cfg(test)]
mod tests;
