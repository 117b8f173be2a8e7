//! The rounding that a correct kernel may make.
//!
//! A floating-point operation gives its exact result times `1 + δ`, |δ| ≤ u, with u the unit roundoff.
//! A sum of n products in any order, with or without fused multiply-add, errs by at most
//! `γ_n Σ|x||w|`, `γ_n = n u / (1 − n u)` (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd
//! ed., 2002, section 3.1); by Cauchy and Schwarz `Σ|x||w| ≤ ‖x‖ ‖w‖`, which costs no second product.
//! What a formula does beside its sums adds a small number of u: a chain of n ≤ 16 operations errs by at
//! most `n u / (1 − 16 u)` (lemma 3.1 there).
//!
//! Below the smallest normal number an error is absolute, and many kernels put 0 there: each term of a sum
//! and each factor of a product may lose [`SMALLEST`], times what it is multiplied with afterwards. A sum
//! whose terms may leave the range of 32 bits has no bound at all: what then comes out depends on the order.
//!
//! # How near correct kernels come
//!
//! Ratios of error to bound, median and largest: of lattice's f32 engine on the bundled prompts (`ratios` in the
//! report of `layerdiff run`), and of the kernels of tests/bounds on random numbers of many sizes (`cargo test
//! --test bounds -- --nocapture`; other numbers in each run).
//!
//! | kind | bound, in units u | lattice-f32 | tests/bounds |
//! |---|---|---|---|
//! | sum of two | 1 | 0.98, 1.00 | 0, 0.94 |
//! | rotation | 2 of each product | 0.70, 0.96 | 0.59, 0.97 |
//! | silu · up, gate, sigmoid | 7, 6, 5 | 0.38, 0.48 | 0.14, 0.95 |
//! | decay | 3, and the exponent's error | 0.14, 0.28 | 0.20, 0.58 |
//! | convolution | γ_5, 6 | 0.17, 0.27 | 0.09, 0.26 |
//! | rotary table | 6 of the angle and more, 2 | 0.08, 0.25 | 0.26, 0.48 |
//! | L2 norm, norm, gated norm | γ_n / 2, some | 0.08, 0.18 | 0.04, 0.20 |
//! | softmax | γ_4n, 12, the exponents' errors | 0.06, 0.14 | 0.03, 0.98 |
//! | delta rule, its state | 8 × measured | 0.08, 0.17 | 0.12, 0.40 |
//! | scores | γ_d | 0.02, 0.05 | 0.01, 0.22 |
//! | context | γ_5n, 52, the exponents' errors | 0.02, 0.03 | 0.02, 0.09 |
//! | the same of tokens whose probabilities were not captured | and the drift of the scores' γ_d | 0.01, 0.01 | 0.02, 0.04 |
//! | linear | 10 √k of ‖x‖ ‖w‖; 8 × tried | 0.02, 0.04 | 0.002, 0.23 |
//! | the same on 4-bit codes (lattice-q4) | and 170 √(k/32 + 38) of the largest of the blocks | 0.03, 0.09 | 0.000, 0.06 |
//!
//! The bound of a long sum is the loosest. The worst case, `γ_k`, is k^(3/2) u against a usual output, of
//! ‖x‖ ‖w‖ / √k: 1.3e-2 for 3584 terms. With independent roundings ([`Precision::likely`]) it is 10 k u, 2e-3. And what
//! all elements lose shows in their median, which is held against 8 times that of kernels tried on the same numbers:
//! of a linear of 3584 terms whose input was rounded to f16 on the way (relative error 2e-4) it is 20 times as
//! much as that. An error below both, in single elements, is not told from rounding by replay.

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
    /// What a number too small for a normal one may lose, in the type with the least range: of f16 half the
    /// distance of subnormal numbers wherever a kernel stores it on the way, else [`SMALLEST`].
    pub least: f64,
}

impl Precision {
    pub fn new(output: DType, inputs: impl Iterator<Item = DType>) -> Self {
        let single = DType::F32.unit_roundoff();
        let stored = output.unit_roundoff();
        let all: Vec<DType> = inputs.chain([output]).collect();
        let unit = all.iter().copied().map(DType::unit_roundoff).fold(stored, f64::max);
        let least = if all.contains(&DType::F16) { STORED * 2f64.powi(-25) } else { SMALLEST };
        let sum = unit.min(single);
        // The replay itself rounds to 64 bits.
        let own = DType::F64.unit_roundoff();
        let chain = |u: f64| u / (1.0 - 16.0 * u) + own;
        let stored = if stored > sum { stored } else { 0.0 };
        Self { unit: chain(unit), sum: chain(sum), stored, least }
    }

    /// One rounding of an intermediate result to 16 bits, where a kernel may keep it so.
    pub fn kept(self) -> f64 {
        if self.unit > self.sum { self.unit } else { 0.0 }
    }

    /// What is used of γ_n where the roundings of a sum are taken for independent of one another, with mean 0:
    /// `exp(λ √n u + n u² / (1 − u)) − 1` with λ = 10, and never more than γ_n (Higham and Mary, *A New Approach
    /// to Probabilistic Rounding Error Analysis*, SIAM J. Sci. Comput. 41, 2019, theorem 3.1). A correct kernel
    /// exceeds it with a probability below `2 n exp(−λ² / 2)`, 1e-18 for 3584 terms. Terms that are all alike
    /// round alike: where it is exceeded, kernels are tried.
    pub fn likely(self, n: usize) -> f64 {
        let (n64, u) = (n as f64, self.sum);
        (LAMBDA * n64.sqrt() * u + n64 * u * u / (1.0 - u)).exp_m1().min(self.gamma(n))
    }

    /// What a sum of so many products loses that are too small, and what its result loses when it is stored.
    pub fn lost(self, products: usize) -> f64 {
        SMALLEST * products as f64 + self.least
    }

    /// True where sums are in 32 bits.
    pub fn sums_in_32_bits(self) -> bool {
        self.sum >= DType::F32.unit_roundoff()
    }

    /// γ_n for sums.
    pub fn gamma(self, n: usize) -> f64 {
        let nu = n as f64 * self.sum;
        if nu < 1.0 { nu / (1.0 - nu) } else { f64::INFINITY }
    }
}

/// How often a kernel of 16 bits stores what it computes, of formulas that are a few operations: the output, and what
/// two of them left.
const STORED: f64 = 3.0;

/// λ of [`Precision::likely`].
const LAMBDA: f64 = 10.0;

/// The bound of a sum whose terms add up to `size` at the most in absolute value: none where 32 bits may not
/// hold it in every order.
pub(crate) fn within_range(size: f64, bound: f64) -> f64 {
    // Half the range is safe from what rounding adds.
    if size > f64::from(f32::MAX) / 2.0 { f64::INFINITY } else { bound }
}

/// Below this f32 keeps fewer digits, and an error is absolute.
pub(crate) const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// By how much an absolute error of one factor, or of the product of some, may be enlarged by the others, in
/// whatever order they are multiplied.
pub(crate) fn above(factors: &[f64]) -> f64 {
    factors.iter().map(|f| f.abs().max(1.0)).product()
}
