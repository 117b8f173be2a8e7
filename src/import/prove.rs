//! Whether the values contradict the map.
//!
//! That values differ from the reference's proves nothing: it is what a comparison is made for. A map is
//! refused where a dump is far from its own point and the very tensor of another, or its own in another
//! order of axes. An engine may itself give one point's values at another, as when it leaves a component
//! out; that is a fault to be found, and it shows otherwise: the other point has a dump of its own which
//! fits, or what follows fits nothing.

use super::block::Block;
use super::near::{SAME, Way, distance};
use super::plan::{Place, Target};
use crate::error::{Error, Result};
use crate::trace::Trace;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How many times nearer another point must be than a dump's own.
const FAR: f64 = 100.0;

/// Holds each dump against the reference.
#[derive(Debug)]
pub(super) struct Proof<'a> {
    reference: &'a Trace,
    target: &'a Target<'a>,
    seen: BTreeMap<Place, Seen>,
}

/// What a dump was found to be.
#[derive(Debug)]
struct Seen {
    name: String,
    path: PathBuf,
    own: f64,
    better: Option<Better>,
}

/// What it is far nearer to.
#[derive(Debug)]
struct Better {
    error: f64,
    words: String,
    /// Another point; none for its own in another order.
    place: Option<Place>,
}

impl<'a> Proof<'a> {
    pub fn new(reference: &'a Trace, target: &'a Target<'a>) -> Self {
        Self { reference, target, seen: BTreeMap::new() }
    }

    /// Looks at what is about to be written. What the reference does not have cannot be held against it.
    pub fn look(&mut self, place: Place, block: &Block, name: &str, path: &std::path::Path) {
        let (prompt, step, component) = place;
        let graph = self.target.graph;
        let id = &self.target.prompts[prompt].id;
        let point = &graph.components()[component].point;
        let entry = |point: &str| {
            let entry = self.reference.find(id, step, point)?;
            (entry.shape == block.shape && entry.dtype.is_float() == block.dtype.is_float()).then_some(entry)
        };
        let Some(own_entry) = entry(point) else { return };
        let ways = Way::all(None, &block.shape, graph.size("head_dim"));
        let own = distance(self.reference.view(own_entry), block, &ways[0]);
        let mut better: Option<Better> = None;
        if block.dtype.is_float() && own > SAME {
            let mut offer = |error: f64, words: String, place: Option<Place>| {
                if error < SAME && own > FAR * error && better.as_ref().is_none_or(|b| error < b.error) {
                    better = Some(Better { error, words, place });
                }
            };
            for way in &ways[1..] {
                offer(
                    distance(self.reference.view(own_entry), block, way),
                    format!("`{point}` {}", way.words()),
                    None,
                );
            }
            for (other, c) in graph.components().iter().enumerate().filter(|(i, _)| *i != component) {
                if let Some(entry) = entry(&c.point) {
                    let error = distance(self.reference.view(entry), block, &ways[0]);
                    offer(error, format!("`{}`", c.point), Some((prompt, step, other)));
                }
            }
        }
        self.seen.insert(place, Seen { name: name.to_owned(), path: path.to_path_buf(), own, better });
    }

    /// An error for the first dump that the values prove to be another point's.
    pub fn judge(&self) -> Result<()> {
        for (place, seen) in &self.seen {
            let Some(better) = &seen.better else { continue };
            if let Some(other) = better.place {
                let theirs = self.seen.get(&other);
                // Two dumps of the same values, one of them where they belong: the engine gives them twice.
                if theirs.is_some_and(|seen| seen.own <= SAME) {
                    continue;
                }
                let next =
                    self.seen.range((std::ops::Bound::Excluded(*place), std::ops::Bound::Unbounded)).next();
                let same_pass = |(p, _): &(&Place, &Seen)| (p.0, p.1) == (place.0, place.1);
                let goes_astray =
                    next.filter(same_pass).is_some_and(|(_, s)| s.own > SAME && s.better.is_none());
                if theirs.is_none() && goes_astray {
                    continue;
                }
            }
            let point = &self.target.graph.components()[place.2].point;
            return Err(Error::new(format!("the values contradict the map: `{}` is not `{point}`", seen.name))
                .expected(
                    format!("values of `{point}`; these are {:.1e} away from the reference's (relative L2 error)", seen.own),
                    format!("{}, {:.1e} away", better.words, better.error),
                )
                .at(&seen.path)
                .hint("correct the map, or make one with `--suggest`; where the engine itself gives a point another's values, `--trust-map` imports them as they are"));
        }
        Ok(())
    }
}
