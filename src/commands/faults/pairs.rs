//! Two faults at once: both must be found, and nothing else.

use super::score::{Found, Planting, Row, judge};
use super::trial::{Bench, Scope};
use crate::engine::Engine;
use crate::error::Result;
use crate::faults::{Fault, Planted, Site, Weight, named, sites};
use crate::model::Graph;
use serde::Serialize;
use std::collections::BTreeMap;

/// Where the sample begins: the same pairs in every run.
const SEED: u64 = 0x1a7e_d1ff;

/// Two faults of one run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Pair {
    pub faults: [&'static str; 2],
    /// True when a component of one reads, in the same layer, what one of the other writes.
    pub feeding: bool,
    pub plantings: [Planting; 2],
}

impl Pair {
    /// True when both are named, and nothing else.
    pub fn is_found(&self) -> bool {
        self.plantings.iter().all(|p| p.found == Found::Exactly)
    }
}

/// A planting that can be one of two.
struct One<'a> {
    fault: &'static Fault,
    site: Site<'a>,
}

/// Plants `count` pairs of those that are found alone, half of them in one layer, one feeding the other.
///
/// Those after which numbers are not finite are left out: what they leave behind cannot be judged.
pub(super) fn pairs(
    bench: &Bench<'_>,
    engine: &mut dyn Engine,
    rows: &[Row],
    count: usize,
    done: impl Fn(),
) -> Result<Vec<Pair>> {
    let all = candidates(rows, bench.model.graph())?;
    let mut random = Random(SEED);
    let mut groups = [true, false].map(|feeding| groups(&all, feeding));
    let mut pairs = Vec::new();
    while pairs.len() < count {
        // An empty half leaves its share to the other.
        let half = if groups[pairs.len() % 2].is_empty() { 1 - pairs.len() % 2 } else { pairs.len() % 2 };
        if groups[half].is_empty() {
            break;
        }
        let group = groups[half].swap_remove(random.below(groups[half].len()));
        let (i, j) = group[random.below(group.len())];
        let planted = [&all[i], &all[j]].map(|one| Planted { fault: one.fault, site: &one.site, size: 1.0 });
        let trial = bench.trial(engine, &planted, Scope::Model)?;
        pairs.push(Pair {
            faults: planted.map(|planted| planted.fault.name),
            feeding: half == 0,
            plantings: planted.map(|planted| judge(&planted, &trial)),
        });
        done();
    }
    Ok(pairs)
}

fn candidates<'a>(rows: &[Row], graph: &'a Graph) -> Result<Vec<One<'a>>> {
    let mut all = Vec::new();
    for row in rows {
        let fault = named(row.name)?;
        let fits = |p: &&Planting| p.found == Found::Exactly && p.change.is_finite() && p.undefined == 0;
        let found: Vec<Option<usize>> = row.plantings.iter().filter(fits).map(|p| p.layer).collect();
        if fault.weight != Weight::Harmless {
            let sites = sites(fault, graph).into_iter().filter(|site| found.contains(&site.layer));
            all.extend(sites.map(|site| One { fault, site }));
        }
    }
    Ok(all)
}

/// Pairs of places by their pair of faults, so that faults that live in many places do not crowd out others.
fn groups(all: &[One<'_>], feeding: bool) -> Vec<Vec<(usize, usize)>> {
    let mut groups: BTreeMap<[&str; 2], Vec<(usize, usize)>> = BTreeMap::new();
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate() {
            let disjoint = !a.site.components.iter().any(|c| b.site.has(&c.point));
            let (to, back) = (feeds(&a.site, &b.site), feeds(&b.site, &a.site));
            if disjoint && if feeding { to } else { i < j && !to && !back } {
                groups.entry([a.fault.name, b.fault.name]).or_default().push((i, j));
            }
        }
    }
    groups.into_values().collect()
}

fn feeds(from: &Site<'_>, to: &Site<'_>) -> bool {
    let reads = to.components.iter().flat_map(|c| c.inputs.iter().chain(&c.carried));
    from.layer == to.layer && reads.into_iter().any(|point| from.has(point))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}
