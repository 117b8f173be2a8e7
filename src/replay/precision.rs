//! The rounding that a correct kernel may make.
//!
//! A floating-point operation gives its exact result times `1 + δ`, |δ| ≤ u, with u the unit roundoff.
//! A sum of n products in any order, with or without fused multiply-add, errs by at most
//! `γ_n Σ|x||w|`, `γ_n = n u / (1 − n u)` (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd
//! ed., 2002, section 3.1); by Cauchy and Schwarz `Σ|x||w| ≤ ‖x‖ ‖w‖`, which costs no second product.
//! What a formula does beside its sums adds a small number of u.

use crate::tensor::DType;

/// Unit roundoffs of a component's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Precision {
    /// Of single operations: that of the coarsest element type among inputs and output.
    pub unit: f64,
    /// Of sums: kernels that store 16 bits accumulate in 32.
    pub sum: f64,
    /// One rounding to the output's own type, where that is coarser than the sums.
    pub stored: f64,
}

impl Precision {
    pub fn new(output: DType, inputs: impl Iterator<Item = DType>) -> Self {
        let single = DType::F32.unit_roundoff();
        let stored = output.unit_roundoff();
        let unit = inputs.map(DType::unit_roundoff).fold(stored, f64::max);
        let sum = unit.min(single);
        // The replay itself rounds to 64 bits.
        let own = DType::F64.unit_roundoff();
        Self { unit: unit + own, sum: sum + own, stored: if stored > sum { stored } else { 0.0 } }
    }

    /// γ_n for sums.
    pub fn gamma(self, n: usize) -> f64 {
        let nu = n as f64 * self.sum;
        if nu < 1.0 { nu / (1.0 - nu) } else { f64::INFINITY }
    }
}

/// Below this f32 keeps fewer digits, and an error is absolute.
pub(crate) const SMALLEST: f64 = f32::MIN_POSITIVE as f64;
