//! How large the errors are at values of which size: a histogram over both.

use crate::elements::Elements;
use serde::{Deserialize, Serialize};

/// The elements of a pair of tensors, counted by the size of the reference value and of the absolute difference.
///
/// A bin reaches from one power of 2 up to the next. Each element is counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorsByValue {
    /// By the size of the value, the smallest first; only sizes that occur.
    pub rows: Vec<ValueRow>,
    /// The errors at values that are 0.
    #[serde(default, skip_serializing_if = "ValueRow::is_empty")]
    pub at_zero: ValueRow,
    /// Places where the reference value or the difference is not finite.
    pub not_finite: u64,
}

/// The errors at values of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueRow {
    /// The exponent of the power of 2 at which the value's bin begins.
    pub value: i32,
    /// How many values have no error.
    pub exact: u64,
    /// The exponent at which the first bin of errors begins.
    pub from: i32,
    /// How many errors lie in each bin.
    pub counts: Vec<u64>,
}

impl ValueRow {
    /// True where nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.exact == 0 && self.counts.is_empty()
    }

    /// `counted` by [`size`].
    fn new(value: i32, counted: &[u64]) -> Self {
        let Some((exact, errors)) = counted.split_first() else { return Self::default() };
        let mut row = Self { value, exact: *exact, ..Self::default() };
        if let Some(first) = errors.iter().position(|n| *n > 0) {
            let last = errors.iter().rposition(|n| *n > 0).unwrap_or(first);
            row.from = exponent(first + 1);
            row.counts = errors[first..=last].to_vec();
        }
        row
    }
}

impl ErrorsByValue {
    /// Counts the elements of two tensors of the same shape.
    pub fn of(reference: impl Elements, candidate: impl Elements) -> Self {
        let n: usize = reference.shape().iter().product();
        // By the size of the value, then of the error; empty where no value has that size.
        let mut counted: Vec<Vec<u64>> = vec![Vec::new(); SIZES];
        let mut not_finite = 0;
        let (mut r, mut c) = (vec![0.0; super::RUN], vec![0.0; super::RUN]);
        for start in (0..n).step_by(super::RUN) {
            let len = super::RUN.min(n - start);
            reference.read_into(start, &mut r[..len]);
            candidate.read_into(start, &mut c[..len]);
            for (r, c) in r[..len].iter().zip(&c[..len]) {
                let d = c - r;
                if r.is_finite() && d.is_finite() {
                    let row = &mut counted[size(*r)];
                    if row.is_empty() {
                        row.resize(SIZES, 0);
                    }
                    row[size(d)] += 1;
                } else {
                    not_finite += 1;
                }
            }
        }
        let at_zero = ValueRow::new(0, &counted[0]);
        let rows = counted.iter().enumerate().skip(1).filter(|(_, row)| !row.is_empty());
        let rows = rows.map(|(size, row)| ValueRow::new(exponent(size), row));
        Self { rows: rows.collect(), at_zero, not_finite }
    }

    /// How many elements were counted.
    pub fn elements(&self) -> u64 {
        let rows = self.rows.iter().chain([&self.at_zero]);
        self.not_finite + rows.map(|row| row.exact + row.counts.iter().sum::<u64>()).sum::<u64>()
    }
}

/// Sizes that a finite number can have: 0, and the powers of 2 below it.
const SIZES: usize = 1 << 11;

/// The size of a finite number: 0 of 0, else one more than its biased exponent.
fn size(value: f64) -> usize {
    if value == 0.0 { 0 } else { (value.abs().to_bits() >> 52) as usize + 1 }
}

/// The exponent of the power of 2 below numbers of a size that is not 0.
fn exponent(size: usize) -> i32 {
    const BIAS: i32 = 1023;
    i32::from(size as u16) - 1 - BIAS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, TensorView};
    use proptest::prelude::*;

    fn of(reference: &[f32], candidate: &[f32]) -> ErrorsByValue {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (r, c, shape) = (bytes(reference), bytes(candidate), [reference.len()]);
        let view = |bytes| TensorView { dtype: DType::F32, shape: &shape, bytes };
        ErrorsByValue::of(view(&r), view(&c))
    }

    #[test]
    fn each_element_is_counted_at_its_value_and_its_error() {
        let found =
            of(&[1.0, 1.5, -3.0, 0.0, 0.0, f32::NAN, 1.0], &[1.0, 1.75, -3.5, 0.0, 4.0, 1.0, f32::INFINITY]);
        let row =
            |value, exact, from, counts: &[u64]| ValueRow { value, exact, from, counts: counts.to_vec() };
        assert_eq!(found.rows, [row(0, 1, -2, &[1]), row(1, 0, -1, &[1])]);
        assert_eq!((found.at_zero.clone(), found.not_finite), (row(0, 1, 2, &[1]), 2));
        assert_eq!(found.elements(), 7);
    }

    proptest! {
        #[test]
        fn no_element_is_lost(pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 0..60)) {
            let (r, c): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let found = of(&r, &c);
            prop_assert_eq!(found.elements(), r.len() as u64);
            let back: ErrorsByValue = serde_json::from_str(&serde_json::to_string(&found).unwrap()).unwrap();
            prop_assert_eq!(back, found);
        }
    }
}
