//! How far two tensors are apart: all metrics in one pass over the data.
//!
//! With reference r, candidate c and d = c − r. Both sides are widened to f64, which is exact,
//! and sums are f64 in a fixed order: a result repeats bit for bit, whatever the number of threads
//! and the processor. How exact they are is said in `metrics/kernel.rs`.
//!
//! **Numbers that are not finite.** A place where both sides have the same infinity, or both have
//! NaN, agrees; it is counted and takes no part in the sums. A place where only one side is
//! finite, or the infinities differ, or the difference overflows, is a *non-finite mismatch*: it is counted, its first
//! coordinate is kept, and it makes [`Metrics::rel_l2`] and [`Metrics::max_abs`] infinite, so that
//! no maximum and no mean can hide it. +0 and −0 are equal.

mod by_value;
mod histogram;
mod kernel;
mod pass;

pub use by_value::{ErrorsByValue, ValueRow};
pub use histogram::{Counted, Histogram, Magnitudes};

use crate::elements::Elements;
use crate::tensor::{DType, TensorView};
use kernel::number::{BF16, F16, F32, Number, U8};
use kernel::{RUN, Run};
use pass::{Narrow, Pass, Wide, Worst};
use serde::{Deserialize, Serialize};

/// The distance between a reference and a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Number of elements of each side.
    pub elements: u64,
    /// *How large is the error, measured by the size of what it spoils?* `√Σd² / √Σr²`.
    /// 0 when both sums are 0; infinite when only Σr² is, or at a non-finite mismatch.
    #[serde(with = "crate::number")]
    pub rel_l2: f64,
    /// *How large is a typical reference value?* `√(Σr²/n)`; the denominator of `rel_l2`, which
    /// is printed beside it because a relative error also jumps when its denominator does.
    #[serde(with = "crate::number")]
    pub rms_reference: f64,
    /// *How large is a typical error?* `√(Σd²/n)`.
    #[serde(with = "crate::number")]
    pub rms_difference: f64,
    /// *How large is the worst error?* `max |d|`; infinite at a non-finite mismatch.
    #[serde(with = "crate::number")]
    pub max_abs: f64,
    /// Where the worst error is: the first non-finite mismatch, else the first place of `max |d|`.
    pub max_abs_at: Option<Place>,
    /// *Do both point the same way?* `Σrc / (√Σr² √Σc²)`. Blind to a constant factor, therefore
    /// never used alone. 1 when both are zero, 0 when one is.
    #[serde(with = "crate::number")]
    pub cosine: f64,
    /// *Has the candidate the right size?* `√Σc² / √Σr²`. 1 when both are zero.
    #[serde(with = "crate::number")]
    pub norm_ratio: f64,
    /// *How is the error distributed?* Quantiles of |d|, with a relative error of at most 1.6 %.
    pub quantiles: Quantiles,
    /// *How many elements err how much?* |d| counted by size, where both sides are finite.
    #[serde(default, skip_serializing_if = "Magnitudes::is_empty")]
    pub magnitudes: Magnitudes,
    /// Numbers that are not finite, by side.
    pub non_finite: NonFinite,
    /// *Which tokens are hit?* `rel_l2` of each token's elements, null for one that was not compared; empty
    /// without a token axis.
    #[serde(with = "crate::number::options", default)]
    pub per_token: Vec<Option<f64>>,
}

/// A coordinate with both values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Place {
    pub index: Vec<usize>,
    #[serde(with = "crate::number")]
    pub reference: f64,
    #[serde(with = "crate::number")]
    pub candidate: f64,
}

/// Quantiles of the absolute difference over the places where both sides are finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
}

/// Counts of numbers that are not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NonFinite {
    pub reference_nan: u64,
    pub candidate_nan: u64,
    pub reference_inf: u64,
    pub candidate_inf: u64,
    /// Places where both sides have NaN: nothing can be said about them.
    pub both_nan: u64,
    /// Places where only one side is finite, or both differ in what they are.
    pub mismatches: u64,
}

/// Sums of one part of a tensor.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    rr: f64,
    cc: f64,
    rc: f64,
    dd: f64,
    mismatch: bool,
}

impl Sums {
    fn add(&mut self, run: &Run) {
        self.rr += run.rr;
        self.cc += run.cc;
        self.rc += run.rc;
        self.dd += run.dd;
    }

    fn merge(&mut self, other: &Self) {
        self.rr += other.rr;
        self.cc += other.cc;
        self.rc += other.rc;
        self.dd += other.dd;
        self.mismatch |= other.mismatch;
    }

    /// `√Σr² √Σc²`. One root of the product is exact for equal sides, where two roots round twice;
    /// they are taken only where the product leaves the range of f64.
    fn norms(&self) -> f64 {
        let product = self.rr * self.cc;
        if product.is_normal() { product.sqrt() } else { self.rr.sqrt() * self.cc.sqrt() }
    }

    fn rel_l2(&self) -> f64 {
        // A sum of squares that overflows hides what was added to it.
        if self.mismatch || !(self.rr + self.cc + self.dd).is_finite() {
            f64::INFINITY
        } else {
            ratio(self.dd.sqrt(), self.rr.sqrt(), 0.0)
        }
    }
}

/// `a / b`; `both_zero` when both are 0.
fn ratio(a: f64, b: f64, both_zero: f64) -> f64 {
    if a == 0.0 && b == 0.0 { both_zero } else { a / b }
}

/// Compares two tensors of the same shape; `token_axis` is the axis that counts tokens.
///
/// # Panics
/// When the shapes differ: alignment has to exclude that.
pub fn compare(reference: impl Elements, candidate: impl Elements, token_axis: Option<usize>) -> Metrics {
    let elements = reference.shape().iter().product();
    let mut pass = Pass::new(reference.shape(), token_axis, Some(Histogram::default()));
    all(&reference, &candidate, &mut pass);
    pass.finish(elements)
}

/// The [relative L2 error](Metrics::rel_l2) of the elements at each place of an axis, without the rest.
///
/// # Panics
/// When the shapes differ.
pub fn rel_l2_along(reference: impl Elements, candidate: impl Elements, axis: usize) -> Vec<f64> {
    let mut pass = Pass::new(reference.shape(), Some(axis), None);
    all(&reference, &candidate, &mut pass);
    pass.per_token()
}

/// Leads all places of two tensors through a pass.
fn all(reference: &impl Elements, candidate: &impl Elements, pass: &mut Pass<'_>) {
    assert_eq!(reference.shape(), candidate.shape());
    let (Some(r), Some(c)) = (reference.as_it_lies(), candidate.as_it_lies()) else {
        return all_wide(reference, candidate, pass);
    };
    match (r.dtype, c.dtype) {
        (DType::F32, DType::F32) => all_narrow::<F32, F32>(r, c, pass),
        (DType::F32, DType::F16) => all_narrow::<F32, F16>(r, c, pass),
        (DType::F32, DType::BF16) => all_narrow::<F32, BF16>(r, c, pass),
        (DType::F16, DType::F32) => all_narrow::<F16, F32>(r, c, pass),
        (DType::F16, DType::F16) => all_narrow::<F16, F16>(r, c, pass),
        (DType::F16, DType::BF16) => all_narrow::<F16, BF16>(r, c, pass),
        (DType::BF16, DType::F32) => all_narrow::<BF16, F32>(r, c, pass),
        (DType::BF16, DType::F16) => all_narrow::<BF16, F16>(r, c, pass),
        (DType::BF16, DType::BF16) => all_narrow::<BF16, BF16>(r, c, pass),
        (DType::U8, DType::U8) => all_narrow::<U8, U8>(r, c, pass),
        // Numbers of 64 bits; and masks are not held against numbers.
        _ => all_wide(reference, candidate, pass),
    }
}

fn all_narrow<R: Number, C: Number>(
    reference: TensorView<'_>,
    candidate: TensorView<'_>,
    pass: &mut Pass<'_>,
) {
    let runs = reference.bytes.chunks(RUN * R::SIZE).zip(candidate.bytes.chunks(RUN * C::SIZE));
    for (start, (r, c)) in (0..).step_by(RUN).zip(runs) {
        pass.chunk(start, Narrow::<R, C>::new(r, c));
    }
}

fn all_wide(reference: &impl Elements, candidate: &impl Elements, pass: &mut Pass<'_>) {
    let n: usize = reference.shape().iter().product();
    let (mut r, mut c) = (vec![0.0; RUN.min(n)], vec![0.0; RUN.min(n)]);
    for start in (0..n).step_by(RUN) {
        let len = RUN.min(n - start);
        reference.read_into(start, &mut r[..len]);
        candidate.read_into(start, &mut c[..len]);
        pass.chunk(start, Wide { reference: &r[..len], candidate: &c[..len] });
    }
}

impl Metrics {
    fn new(shape: &[usize], elements: usize, total: &Sums, worst: Option<Worst>) -> Self {
        let (norm_r, norm_c) = (total.rr.sqrt(), total.cc.sqrt());
        let per_element = |sum: f64| (sum / elements.max(1) as f64).sqrt();
        Self {
            elements: elements as u64,
            rel_l2: total.rel_l2(),
            rms_reference: per_element(total.rr),
            rms_difference: per_element(total.dd),
            max_abs: worst.map_or(0.0, |worst| worst.size),
            max_abs_at: worst.map(|Worst { at, reference, candidate, .. }| Place {
                index: coordinate(at, shape),
                reference,
                candidate,
            }),
            cosine: if norm_r == 0.0 && norm_c == 0.0 { 1.0 } else { ratio(total.rc, total.norms(), 0.0) },
            norm_ratio: ratio(norm_c, norm_r, 1.0),
            quantiles: Quantiles::default(),
            magnitudes: Magnitudes::default(),
            non_finite: NonFinite::default(),
            per_token: Vec::new(),
        }
    }
}

impl Metrics {
    /// Says that the tokens on `axis` were these, as positions among all.
    pub fn of_rows(&mut self, axis: usize, rows: &[usize]) {
        let mut per_token = vec![None; rows.last().map_or(0, |last| last + 1)];
        for (row, error) in rows.iter().zip(&self.per_token) {
            per_token[*row] = *error;
        }
        self.per_token = per_token;
        if let Some(place) = self.max_abs_at.as_mut().and_then(|at| at.index.get_mut(axis)) {
            *place = rows[*place];
        }
    }
}

impl NonFinite {
    /// Counts a place where at least one side is not finite; true at a mismatch.
    fn count(&mut self, r: f64, c: f64) -> bool {
        self.reference_nan += u64::from(r.is_nan());
        self.candidate_nan += u64::from(c.is_nan());
        self.reference_inf += u64::from(r.is_infinite());
        self.candidate_inf += u64::from(c.is_infinite());
        let both_nan = r.is_nan() && c.is_nan();
        self.both_nan += u64::from(both_nan);
        let equal = r == c && !r.is_finite();
        let mismatch = !both_nan && !equal;
        self.mismatches += u64::from(mismatch);
        mismatch
    }
}

/// The coordinate of the flat index `i`.
fn coordinate(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, &size) in index.iter_mut().zip(shape).rev() {
        *place = i % size.max(1);
        i /= size.max(1);
    }
    index
}

#[cfg(test)]
mod tests;
