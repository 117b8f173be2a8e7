//! One position: two distributions after the same tokens.

use super::distribution::Distribution;
use super::sampler::Sampler;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// How many likeliest tokens are looked at.
pub(super) const TOP: usize = 5;

/// What belongs to all positions of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Tokens after each prompt.
    pub tokens: usize,
    /// Temperature of the tempered figures.
    pub temperature: f64,
    /// Seed of the sampling.
    pub seed: u64,
}

/// What is known of one position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// KL divergence of the candidate from the reference, in nats.
    #[serde(with = "crate::number")]
    pub kl: f64,
    /// Total variation.
    #[serde(with = "crate::number")]
    pub tv: f64,
    /// The same at the temperature of the setting.
    #[serde(with = "crate::number")]
    pub tempered_kl: f64,
    #[serde(with = "crate::number")]
    #[allow(missing_docs)]
    pub tempered_tv: f64,
    /// Logarithm of the probability of the token that the reference goes on with, in the reference.
    #[serde(with = "crate::number")]
    pub reference: f64,
    /// The same in the candidate.
    #[serde(with = "crate::number")]
    pub candidate: f64,
    /// True when both have the same likeliest token.
    pub top1: bool,
    /// How many of the five likeliest tokens are the same.
    pub top5: usize,
    /// True when both draw the same token with the same random numbers.
    pub drawn: bool,
    /// The largest difference of two logits, after the mean difference is taken off: no sampler sees that.
    #[serde(with = "crate::number")]
    pub logit_error: f64,
}

/// Compares the logits of one position; `token` is the one that the reference goes on with.
///
/// # Errors
/// When the vocabularies differ, or a logit is not a number.
pub fn compare(
    (reference, candidate): (&[f32], &[f32]),
    token: u32,
    place: usize,
    (setting, sampler): (&Setting, &Sampler),
) -> Result<Position> {
    if reference.len() != candidate.len() {
        return Err(Error::new("the two sides have different vocabularies")
            .expected(format!("{} tokens", reference.len()), format!("{} tokens", candidate.len()))
            .hint("both must run the same model with the same tokenizer"));
    }
    let of = |side: &str, logits: &[f32], temperature| {
        Distribution::new(logits, temperature)
            .map_err(|e| Error::new(format!("position {place} of the {side}: {e}")))
    };
    let p = of("reference", reference, 1.0)?;
    let q = of("candidate", candidate, 1.0)?;
    let tempered_p = of("reference", reference, setting.temperature)?;
    let tempered_q = of("candidate", candidate, setting.temperature)?;
    let (top_p, top_q) = (p.top(TOP), q.top(TOP));
    Ok(Position {
        kl: p.kl(&q),
        tv: p.total_variation(&q),
        tempered_kl: tempered_p.kl(&tempered_q),
        tempered_tv: tempered_p.total_variation(&tempered_q),
        reference: p.log_probability(token),
        candidate: q.log_probability(token),
        top1: top_p[0].0 == top_q[0].0,
        top5: top_p.iter().filter(|(t, _)| top_q.iter().any(|(u, _)| t == u)).count(),
        drawn: sampler.draw(reference, place) == sampler.draw(candidate, place),
        logit_error: logit_error(reference, candidate),
    })
}

fn logit_error(reference: &[f32], candidate: &[f32]) -> f64 {
    let finite = || {
        let pairs = reference.iter().zip(candidate).filter(|(r, c)| r.is_finite() && c.is_finite());
        pairs.map(|(r, c)| f64::from(*c) - f64::from(*r))
    };
    let count = finite().count().max(1) as f64;
    let mean = finite().sum::<f64>() / count;
    finite().map(|d| (d - mean).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting { tokens: 1, temperature: 0.7, seed: 0 };

    fn at(reference: &[f32], candidate: &[f32]) -> Result<Position> {
        let sampler = Sampler::new(0.7, 0, "p");
        compare((reference, candidate), 1, 0, (&SETTING, &sampler))
    }

    #[test]
    fn an_engine_against_itself_has_no_divergence_at_all() {
        let logits = [0.3, 2.0, -1.5, 0.25, 7.5, 1.0];
        let p = at(&logits, &logits).unwrap();
        let zeros = [p.kl, p.tv, p.tempered_kl, p.tempered_tv, p.logit_error, p.reference - p.candidate];
        assert_eq!(zeros, [0.0; 6]);
        assert!(p.top1 && p.drawn && p.top5 == 5);
    }

    #[test]
    fn a_constant_on_all_logits_is_no_error() {
        let p = at(&[0.0, 1.0, 2.0], &[4.0, 5.0, 6.0]).unwrap();
        assert!(p.kl < 1e-12 && p.logit_error < 1e-12, "{p:?}");
    }

    #[test]
    fn other_vocabularies_and_nan_are_refused() {
        let error = at(&[0.0, 1.0], &[0.0, 1.0, 2.0]).unwrap_err().to_string();
        assert!(error.contains("different vocabularies"), "{error}");
        let error = at(&[0.0, 1.0], &[0.0, f32::NAN]).unwrap_err().to_string();
        assert!(error.contains("position 0 of the candidate") && error.contains("token 1"), "{error}");
    }
}
