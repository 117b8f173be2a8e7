//! The glob that chooses some of the points, and what is captured of the largest.

use super::point::resolve;
use super::scores::Scores;
use crate::error::{Error, Result};
use globset::{Glob, GlobMatcher};
use std::collections::BTreeSet;

/// Chooses points by a glob such as `*.self_attn.*`; `*` crosses dots.
#[derive(Debug, Clone)]
pub struct PointFilter {
    glob: String,
    matcher: GlobMatcher,
    /// Only these, where only what was captured is asked for.
    among: Option<BTreeSet<String>>,
    scores: Scores,
}

impl PointFilter {
    /// Compiles a glob, or what [`resolve`] knows.
    pub fn new(glob: &str) -> Result<Self> {
        let glob = resolve(glob);
        let matcher = Glob::new(glob)
            .map_err(|e| {
                Error::new(format!("bad glob for points: {}", e.kind()))
                    .expected("a glob such as `*.self_attn.*`", format!("`{glob}`"))
                    .hint("`*` and `?` stand for any characters, `[0-9]` for one of some, `{a,b}` for either")
            })?
            .compile_matcher();
        Ok(Self { glob: glob.to_owned(), matcher, among: None, scores: Scores::default() })
    }

    /// True when the point is chosen.
    pub fn accepts(&self, point: &str) -> bool {
        self.matcher.is_match(point) && self.among.as_ref().is_none_or(|among| among.contains(point))
    }

    /// The same, but of no other points than these.
    pub fn among(mut self, points: BTreeSet<String>) -> Self {
        self.among = Some(points);
        self
    }

    /// The same, with these rows of the points that have one for each query token, where they are captured.
    pub fn keeping(mut self, scores: Scores) -> Self {
        self.scores = scores;
        self
    }

    /// Which rows are captured of the points that have one for each query token.
    pub fn scores(&self) -> Scores {
        self.scores
    }

    /// True where only some points are asked for, because only these were captured.
    pub fn is_only_captured(&self) -> bool {
        self.among.is_some()
    }

    /// The error for a filter that accepts no point of the architecture.
    pub fn chooses_nothing(&self) -> Error {
        Error::new("no point is chosen")
            .expected("points of the architecture", format!("`{}`", self.glob))
            .hint(
                "`layerdiff inspect TRACE` lists the points; `--points` takes a glob such as `*.self_attn.*`",
            )
    }

    /// The glob as given.
    pub fn as_str(&self) -> &str {
        &self.glob
    }
}

impl Default for PointFilter {
    fn default() -> Self {
        Self::new("*").expect("a star is a valid glob")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_a_report_means_its_point() {
        let filter = PointFilter::new("logits").unwrap();
        assert!(filter.accepts("lm_head") && !filter.accepts("model.norm"));
        assert_eq!([resolve("embed"), resolve("model.norm")], ["model.embed_tokens", "model.norm"]);
    }

    #[test]
    fn a_star_crosses_dots() {
        let filter = PointFilter::new("model.layers.*.k_rope").unwrap();
        assert!(filter.accepts("model.layers.3.self_attn.k_rope"));
        assert!(!filter.accepts("model.layers.3.self_attn.q_rope"));
        assert!(PointFilter::new("[").is_err());
    }
}
