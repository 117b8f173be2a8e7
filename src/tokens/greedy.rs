//! Where two greedy runs part.

use serde::{Deserialize, Serialize};

/// The greedy tokens of both sides after one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Greedy {
    /// The reference's.
    pub reference: Vec<u32>,
    /// The candidate's, each after its own.
    pub candidate: Vec<u32>,
    /// Where they part; none where they do not.
    pub divergence: Option<Divergence>,
}

/// The first position with another token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Counted from 0.
    pub position: usize,
    /// The reference's likeliest tokens there, with the logarithms of their probabilities.
    pub reference: Vec<(u32, f64)>,
    /// The candidate's.
    pub candidate: Vec<(u32, f64)>,
    /// How much a logit of the reference moves when PyTorch computes in f64 instead, at the most; none where
    /// that was not run.
    pub floor: Option<f64>,
}

impl Divergence {
    /// By how much the reference prefers its first token to its second, as a logarithm.
    pub fn margin(&self) -> f64 {
        margin(&self.reference)
    }

    /// The same in the candidate.
    pub fn candidate_margin(&self) -> f64 {
        margin(&self.candidate)
    }

    /// True where the reference itself might have gone either way: its margin is within what computing in
    /// f64 instead of f32 may move two logits by. None where that is not known.
    pub fn is_tie(&self) -> Option<bool> {
        self.floor.map(|floor| self.margin() <= 2.0 * floor)
    }
}

fn margin(top: &[(u32, f64)]) -> f64 {
    match top {
        [(_, first), (_, second), ..] => first - second,
        _ => f64::INFINITY,
    }
}

impl Greedy {
    /// How many tokens are the same before the first that is not.
    pub fn prefix(&self) -> usize {
        first_difference(&self.reference, &self.candidate).unwrap_or(self.reference.len())
    }

    /// How many of the first `n` tokens are the same, in their places.
    pub fn matches(&self, n: usize) -> usize {
        self.reference.iter().take(n).zip(&self.candidate).filter(|(a, b)| a == b).count()
    }
}

/// The first place in which two runs differ; a run that ends early differs there.
pub fn first_difference(a: &[u32], b: &[u32]) -> Option<usize> {
    let shorter = a.len().min(b.len());
    (0..shorter).find(|i| a[*i] != b[*i]).or_else(|| (a.len() != b.len()).then_some(shorter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_part_at_the_first_other_token_or_where_one_ends() {
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(first_difference(&[1, 2, 3], &[1, 9, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2]), Some(2));
        assert_eq!(first_difference(&[], &[]), None);
    }

    #[test]
    fn a_match_counts_in_its_own_place() {
        let greedy = Greedy { reference: vec![1, 2, 3, 4], candidate: vec![1, 9, 3, 9], divergence: None };
        assert_eq!((greedy.matches(1), greedy.matches(3), greedy.matches(50), greedy.prefix()), (1, 2, 2, 1));
    }

    #[test]
    fn a_margin_within_the_floor_is_a_tie() {
        let top = |gap: f64| vec![(1, -0.5), (2, -0.5 - gap)];
        let at = |gap, floor| Divergence { position: 0, reference: top(gap), candidate: top(1.0), floor };
        assert_eq!(at(1e-6, Some(1e-5)).is_tie(), Some(true));
        assert_eq!(at(1e-2, Some(1e-5)).is_tie(), Some(false));
        assert_eq!(at(1e-6, None).is_tie(), None);
    }
}
