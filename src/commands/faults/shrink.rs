//! How small a fault may be made and still be found.

use super::run::points;
use super::score::Smallest;
use super::trial::{Bench, Scope};
use crate::engine::Engine;
use crate::error::Result;
use crate::faults::{Fault, Planted, Site, Weight};
use crate::model::{Graph, Op};

/// Halvings after which every fault has drowned: no 32-bit number is smaller, and what should be exactly 0 can
/// be off by any other.
const HALVINGS: i32 = 149;

/// A mask has no number between right and wrong.
pub(super) fn can_be_blended(fault: &Fault, graph: &Graph, site: &Site<'_>) -> bool {
    let mask = |point: &str| graph.get(point).is_some_and(|c| c.op == Op::CausalMask);
    fault.weight != Weight::Harmless && !site.components.iter().any(|c| mask(&c.point))
}

/// Finds how often a fault can be halved before it drowns in rounding, and looks what is named then.
///
/// The ratio grows with the size, so that bisection finds the last halving that shows without trying all.
pub(super) fn shrink(
    bench: &Bench<'_>,
    engine: &mut dyn Engine,
    planted: Planted<'_>,
    ratio: f64,
) -> Result<Smallest> {
    let (mut found, mut drowned) = ((0, ratio), HALVINGS);
    while drowned - found.0 > 1 {
        let halvings = found.0.midpoint(drowned);
        let planted = Planted { size: size(halvings), ..planted };
        let ratio = bench.trial(engine, &[planted], Scope::Site)?.ratio(|_| true);
        if ratio > 1.0 {
            found = (halvings, ratio);
        } else {
            drowned = halvings;
        }
    }
    let last = bench.trial(engine, &[Planted { size: size(drowned), ..planted }], Scope::Model)?;
    let named_when_drowned = points(&last.named);
    Ok(Smallest { size: f64::from(size(found.0)), ratio: found.1, named_when_drowned })
}

fn size(halvings: i32) -> f32 {
    0.5f32.powi(halvings)
}
