//! The run without a fault, which says of every component that a fault does not reach what its replay gives.

use crate::model::{Graph, Op};
use crate::replay::Place;
use crate::trace::Trace;
use std::collections::HashMap;

/// A trace without a fault, with the ratios of its replay.
pub(super) struct Healthy {
    pub trace: Trace,
    /// By prompt, step and point; none for what could not be replayed.
    pub ratios: HashMap<(String, u32, String), Option<f64>>,
}

impl Healthy {
    /// The ratio of a component of another trace, if all that it reads and writes there is bit for bit what
    /// it is here; the inner one as in `ratios`.
    pub fn ratio(&self, graph: &Graph, trace: &Trace, place: &Place<'_>) -> Option<Option<f64>> {
        let component = graph.get(place.point)?;
        // A table's replay looks at the tables of the prefill too, to learn where positions begin.
        if component.op == Op::RopeTable {
            return None;
        }
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
        if !all.all(|(step, point)| same(step, point)) {
            return None;
        }
        self.ratios.get(&(prompt.clone(), place.step, place.point.to_owned())).copied()
    }
}
