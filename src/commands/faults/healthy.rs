//! The run without a fault, which says of every component that a fault does not reach what its replay gives.

use super::trial::{At, Ratio, at};
use crate::model::{Graph, Op};
use crate::replay::Place;
use crate::trace::Trace;
use std::collections::HashMap;

/// A trace without a fault, with the ratios of its replay.
pub(super) struct Healthy {
    pub trace: Trace,
    /// By prompt, step and point.
    pub ratios: HashMap<At, Ratio>,
}

impl Healthy {
    /// True for a component of another trace if all that it reads and writes there is bit for bit what it is
    /// here, so that its replay is too.
    pub fn is_same(&self, graph: &Graph, trace: &Trace, place: &Place<'_>) -> bool {
        // A table's replay looks at the tables of the prefill too, to learn where positions begin.
        let Some(component) = graph.get(place.point).filter(|c| c.op != Op::RopeTable) else {
            return false;
        };
        let prompt = &place.prompt.id;
        let same = |step: u32, point: &String| match (
            self.trace.find(prompt, step, point),
            trace.find(prompt, step, point),
        ) {
            (Some(here), Some(there)) => self.trace.view(here).bytes == trace.view(there).bytes,
            (here, there) => here.is_none() && there.is_none(),
        };
        let now = std::iter::once(&component.point).chain(&component.inputs);
        let before = component.carried.iter().filter(|_| place.step > 0);
        let mut all = now.map(|p| (place.step, p)).chain(before.map(|p| (place.step - 1, p)));
        all.all(|(step, point)| same(step, point))
    }

    /// The ratio of a component here.
    pub fn ratio(&self, place: &Place<'_>) -> Ratio {
        let known = self.ratios.get(&at(place)).cloned();
        known.unwrap_or_else(|| Err("the run without a fault did not replay it".to_owned()))
    }
}
