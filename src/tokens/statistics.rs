//! Statistics of many figures.

use serde::{Deserialize, Serialize};

/// The middle and the end of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Arithmetic mean.
    #[serde(with = "crate::number")]
    pub mean: f64,
    /// Half are not larger.
    #[serde(with = "crate::number")]
    pub median: f64,
    /// 95 of 100 are not larger.
    #[serde(with = "crate::number")]
    pub p95: f64,
    /// 99 of 100 are not larger.
    #[serde(with = "crate::number")]
    pub p99: f64,
    /// The largest.
    #[serde(with = "crate::number")]
    pub max: f64,
}

impl Summary {
    /// That of some figures; none of none. Infinite ones count as what they are.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (count, max) = (sorted.len(), *sorted.last()?);
        let at = |share: f64| quantile(&sorted, share);
        let mean = sorted.iter().sum::<f64>() / count as f64;
        Some(Self { count, mean, median: at(0.5), p95: at(0.95), p99: at(0.99), max })
    }
}

/// The quantile of sorted figures, linear between neighbours (numpy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, rest) = (place.floor() as usize, place.fract());
    match sorted.get(low + 1) {
        // Between two infinite figures there is no other.
        Some(high) if rest > 0.0 && *high != sorted[low] => sorted[low] + rest * (high - sorted[low]),
        _ => sorted[low],
    }
}

/// A share of some trials, with what it may be in truth if they are independent. Prompts and questions are;
/// the tokens of one prompt are not, and no interval is shown for them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Trials that succeeded.
    pub of: usize,
    /// All trials.
    pub count: usize,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Share {
    /// The Wilson score interval at 95 % (Wilson 1927; statsmodels' `proportion_confint(method="wilson")`).
    pub fn new(of: usize, count: usize) -> Self {
        const Z: f64 = 1.959_963_984_540_054;
        if count == 0 {
            return Self { of, count, low: 0.0, high: 1.0 };
        }
        let (n, p) = (count as f64, of as f64 / count as f64);
        let z2 = Z * Z;
        let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Self { of, count, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    /// The share itself; NaN of no trials.
    pub fn value(self) -> f64 {
        self.of as f64 / self.count as f64
    }
}

/// McNemar's exact test: how probable it is that of `a + b` changes at least so many go one way, if both ways
/// are equally probable (two-sided binomial; `scipy.stats.binomtest(a, a + b)`).
pub fn mcnemar(a: usize, b: usize) -> f64 {
    let (n, few) = (a + b, a.min(b));
    if n == 0 {
        return 1.0;
    }
    // The probabilities of 0, 1, … of n, from one to the next.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for k in 0..=few {
        sum += log_term.exp();
        log_term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_those_of_numpy() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.median, summary.mean, summary.max), (2.5, 2.5, 4.0));
        assert!((summary.p95 - 3.85).abs() < 1e-12 && (summary.p99 - 3.97).abs() < 1e-12);
        assert_eq!(Summary::of(&[]), None);
        let infinite = Summary::of(&[1.0, f64::INFINITY, f64::INFINITY, f64::INFINITY]).unwrap();
        assert_eq!(
            (infinite.median, infinite.p95, infinite.max),
            (f64::INFINITY, f64::INFINITY, f64::INFINITY)
        );
    }

    /// `statsmodels.stats.proportion.proportion_confint(k, n, method="wilson")`.
    #[test]
    fn the_interval_is_the_one_in_the_books() {
        let share = Share::new(45, 60);
        assert!((share.low - 0.627_679).abs() < 1e-5 && (share.high - 0.842_235).abs() < 1e-5, "{share:?}");
        assert_eq!(Share::new(0, 60).low, 0.0);
        assert_eq!((Share::new(0, 0).low, Share::new(0, 0).high), (0.0, 1.0));
    }

    #[test]
    fn changes_in_one_direction_only_are_improbable() {
        assert_eq!(mcnemar(0, 0), 1.0);
        assert!((mcnemar(0, 10) - 2.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar(5, 5), 1.0);
        assert!((mcnemar(3, 9) - 0.145_996_093_75).abs() < 1e-9, "{}", mcnemar(3, 9));
    }
}
