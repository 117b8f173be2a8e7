//! How far two distributions over the vocabulary are apart.
//!
//! All of it is computed in f64 from logits as the engines gave them, over the whole vocabulary: no
//! truncation to the likeliest tokens, no clipping of small probabilities. A logit of −∞ is a token that
//! cannot come; NaN and +∞ are refused.
//!
//! With `p` the reference's distribution and `q` the candidate's:
//!
//! | figure | formula | unit |
//! |---|---|---|
//! | KL | `Σ p (ln p − ln q)` | nats |
//! | total variation | `½ Σ |p − q|` | probability |
//!
//! llama.cpp's `--kl-divergence` computes the same KL, in the same direction, from a file in which the
//! reference's log-probabilities are 16-bit codes; scipy's `entropy(p, q)` is the same figure.
//!
//! Rounding: with `Δ = ln p − ln q` the sum is taken as `Σ p (Δ + e^−Δ − 1)`, which is the same since both
//! distributions sum to 1, and of which no term is negative. The rounding of the two normalizations, some
//! `vocab · 2⁻⁵³` at the most, moves every Δ by the same, and enters in the second order: about `KL^½` times it.
//! For equal logits the sum is exactly 0.

use crate::error::{Error, Result};

/// Logarithms of probabilities, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution(Vec<f64>);

impl Distribution {
    /// That of these logits at a temperature.
    ///
    /// # Errors
    /// When a logit is NaN or +∞, or all are −∞.
    pub fn new(logits: &[f32], temperature: f64) -> Result<Self> {
        if let Some(i) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(Error::new(format!("the logit of token {i} is {}", logits[i]))
                .hint("layer by layer, `layerdiff run` shows where it comes from"));
        }
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if largest == f32::NEG_INFINITY {
            return Err(Error::new("no token has a finite logit"));
        }
        let scaled = |l: f32| (f64::from(l) - f64::from(largest)) / temperature;
        let sum: f64 = logits.iter().map(|l| scaled(*l).exp()).sum();
        let log_sum = sum.ln();
        Ok(Self(logits.iter().map(|l| scaled(*l) - log_sum).collect()))
    }

    /// The logarithm of a token's probability; −∞ for one outside the vocabulary.
    pub fn log_probability(&self, token: u32) -> f64 {
        self.0.get(token as usize).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// Kullback–Leibler divergence of `other` from this one, in nats; infinite where `other` excludes a token
    /// that can come.
    ///
    /// # Panics
    /// When the vocabularies differ.
    pub fn kl(&self, other: &Self) -> f64 {
        assert_eq!(self.0.len(), other.0.len(), "one vocabulary");
        // Of a token that cannot come the term p (Δ + e^−Δ − 1) is what is left of it, q.
        let term = |(p, q): (&f64, &f64)| if p.exp() > 0.0 { p.exp() * excess(p - q) } else { q.exp() };
        self.0.iter().zip(&other.0).map(term).sum()
    }

    /// Half the sum of the differences of all probabilities.
    ///
    /// # Panics
    /// As [`Distribution::kl`].
    pub fn total_variation(&self, other: &Self) -> f64 {
        assert_eq!(self.0.len(), other.0.len(), "one vocabulary");
        0.5 * self.0.iter().zip(&other.0).map(|(p, q)| (p.exp() - q.exp()).abs()).sum::<f64>()
    }

    /// The `n` likeliest tokens with the logarithms of their probabilities; of equals the first comes first.
    pub fn top(&self, n: usize) -> Vec<(u32, f64)> {
        let mut all: Vec<(u32, f64)> = (0..).zip(self.0.iter().copied()).collect();
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let n = n.min(all.len());
        if n < all.len() {
            all.select_nth_unstable_by(n, order);
            all.truncate(n);
        }
        all.sort_by(order);
        all
    }
}

/// `Δ + e^−Δ − 1` without cancellation; never negative.
fn excess(delta: f64) -> f64 {
    if delta.abs() > 1e-2 {
        return delta + (-delta).exp_m1();
    }
    // Δ²/2 − Δ³/6 + Δ⁴/24 − …; what is left out is below 1e-16 of the first term.
    let d = delta;
    d * d * (0.5 - d * (1.0 / 6.0 - d * (1.0 / 24.0 - d * (1.0 / 120.0 - d * (1.0 / 720.0 - d / 5040.0)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(probabilities: &[f64]) -> Distribution {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln() as f32).collect();
        Distribution::new(&logits, 1.0).unwrap()
    }

    #[test]
    fn the_divergence_of_two_coins_is_the_one_in_the_books() {
        let (p, q) = (of(&[0.5, 0.5]), of(&[0.25, 0.75]));
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((p.kl(&q) - expected).abs() < 1e-7, "{} {expected}", p.kl(&q));
        assert!((p.total_variation(&q) - 0.25).abs() < 1e-7);
        assert_eq!((p.kl(&p), p.total_variation(&p)), (0.0, 0.0));
    }

    #[test]
    fn a_tiny_divergence_keeps_its_digits() {
        // Two tokens, log-odds 1e-6 apart: KL = δ² p (1 − p) / 2 to the first order.
        let p = Distribution(vec![0.5f64.ln(), 0.5f64.ln()]);
        let odds = 1e-6f64;
        let (a, b) = ((odds / 2.0).exp(), (-odds / 2.0).exp());
        let q = Distribution(vec![(a / (a + b)).ln(), (b / (a + b)).ln()]);
        assert!((p.kl(&q) / (odds * odds / 8.0) - 1.0).abs() < 1e-6, "{}", p.kl(&q));
        assert!((excess(1.1e-2) / (1.1e-2 + (-1.1e-2f64).exp_m1()) - 1.0).abs() < 1e-9);
        assert!((excess(0.9e-2) / (0.9e-2 + (-0.9e-2f64).exp_m1()) - 1.0).abs() < 1e-9);
        assert_eq!(excess(f64::INFINITY), f64::INFINITY);
    }

    #[test]
    fn an_excluded_token_that_can_come_is_infinitely_far() {
        let p = Distribution::new(&[0.0, 0.0], 1.0).unwrap();
        let q = Distribution::new(&[0.0, f32::NEG_INFINITY], 1.0).unwrap();
        assert_eq!(p.kl(&q), f64::INFINITY);
        assert!((q.kl(&p) - 2.0f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(Distribution::new(&[0.0, bad], 1.0).unwrap_err().to_string().contains("token 1"));
        }
        assert!(Distribution::new(&[f32::NEG_INFINITY], 1.0).is_err());
    }

    #[test]
    fn the_likeliest_come_first_and_of_equals_the_first() {
        let d = Distribution::new(&[1.0, 3.0, 3.0, 2.0], 1.0).unwrap();
        let top: Vec<u32> = d.top(3).into_iter().map(|(token, _)| token).collect();
        assert_eq!(top, [1, 2, 3]);
        assert_eq!(d.top(9).len(), 4);
    }

    proptest! {
        #[test]
        fn what_bounds_them_bounds_them(
            pairs in proptest::collection::vec((-30.0f32..30.0, -30.0f32..30.0), 1..200),
            temperature in 0.1f64..4.0,
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let p = Distribution::new(&a, temperature).unwrap();
            let q = Distribution::new(&b, temperature).unwrap();
            let (kl, tv) = (p.kl(&q), p.total_variation(&q));
            let one: f64 = (0..a.len()).map(|i| p.log_probability(i as u32).exp()).sum();
            prop_assert!((one - 1.0).abs() < 1e-12);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&tv));
            // Pinsker's inequality.
            prop_assert!(tv <= (kl / 2.0).sqrt() + 1e-9, "{kl} {tv}");
            // A constant changes no distribution, up to the rounding of the sums.
            let moved: Vec<f32> = a.iter().map(|l| l + 1024.0 - 1024.0).collect();
            prop_assert!(Distribution::new(&moved, temperature).unwrap().total_variation(&p) < 1e-3);
        }
    }
}
