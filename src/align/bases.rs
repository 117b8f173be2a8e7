//! The bases that two traces are in, and the way from one to the other.

use crate::basis::{self, Gains, Restore};
use crate::error::{Error, Result};
use crate::model::{Basis, Component, Graph, ModelConfig};
use crate::trace::{Entry, Trace};

/// A trace is rotated by one seed, that of its model's configuration if it states one, and its rotated
/// bases name it.
pub(super) fn check_bases(graph: &Graph, trace: &Trace) -> Result<()> {
    let config = ModelConfig::new(trace.manifest().config.clone())?;
    let stated = basis::config_seed(&config, &graph.description().config_section)?;
    let mut first: Option<(&str, u64)> = stated.map(|seed| ("its configuration", seed));
    for entry in trace.entries() {
        let Some(seed) = basis::seed(&entry.basis)? else {
            let touched = graph.get(&entry.point).is_some_and(|c| c.basis != Basis::Original);
            if let Some(seed) = stated.filter(|_| touched && entry.basis == basis::ORIGINAL) {
                return Err(Error::new("the trace is of a rotated model and does not say so of its points")
                    .expected(format!("{} at `{}`", basis::name(seed), entry.point), &entry.basis)
                    .hint("capture it with layerdiff, which states the basis, or run the weights brought back to the original basis"));
            }
            continue;
        };
        if graph.get(&entry.point).is_some() {
            basis::Rotation::new(seed, graph.dim("hidden"))?;
        }
        match first {
            Some((point, other)) if other != seed => {
                return Err(Error::new("the trace speaks of two rotations")
                    .expected(
                        format!("seed {other}, as {point} has it"),
                        format!("seed {seed} at {}", entry.point),
                    )
                    .hint("one run has one residual stream, in one basis: capture the trace again"));
            }
            _ => first = first.or(Some((&entry.point, seed))),
        }
    }
    Ok(())
}

/// The way of an entry back to the original basis, when its partner is in that; none when both are in
/// the same basis. The inner error says why there is no way that can be measured.
pub fn restore(
    component: Option<&Component>,
    entry: &Entry,
    partner: &Entry,
    gains: &Gains,
) -> Result<std::result::Result<Option<Restore>, String>> {
    if entry.basis == partner.basis {
        return Ok(Ok(None));
    }
    let Some(seed) = basis::seed(&entry.basis)? else { return Ok(Ok(None)) };
    let Some(component) = component else {
        return Ok(Err("rotated, and the architecture does not know this point".into()));
    };
    let width = entry.shape.last().copied().unwrap_or(1);
    Ok(Restore::new(component, width, seed, gains)?.map(Some))
}

/// True for a basis from which there is a way.
pub(super) fn is_known(basis: &str) -> bool {
    basis == basis::ORIGINAL || basis::seed(basis).is_ok_and(|seed| seed.is_some())
}
