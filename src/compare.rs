//! Comparison: the metrics of every pair, in parallel across tensors.

use crate::align::{Pair, Partner};
use crate::error::{Error, Result};
use crate::metrics::{self, Metrics};
use crate::model::Graph;
use crate::trace::{Entry, Trace};
use rayon::prelude::*;

/// The metrics of each pair, in the order of the pairs; none where nothing can be compared.
///
/// Each tensor is read once, by one thread, in chunks: memory does not grow with the trace, and
/// no number depends on how many threads there are.
pub fn compare(
    graph: &Graph,
    reference: &Trace,
    candidate: &Trace,
    pairs: &[Pair<'_>],
    done: impl Fn() + Sync,
) -> Vec<Option<Metrics>> {
    pairs
        .par_iter()
        .map(|pair| {
            let Partner::Matched(r, c) = pair.partner else { return None };
            let axis = pair.component.and_then(|component| graph.token_axis(component));
            let metrics = metrics::compare(reference.view(r), candidate.view(c), axis);
            done();
            Some(metrics)
        })
        .collect()
}

/// Refuses a trace in which two layers gave the same bytes: one buffer was captured for both, as
/// happens when hooks sit on a graph that is only replayed.
pub fn refuse_repeated_layers(graph: &Graph, trace: &Trace) -> Result<()> {
    let is_layer = |e: &&Entry| graph.get(&e.point).is_some_and(|c| c.layer.is_some() && c.local.is_empty());
    let layers: Vec<&Entry> = trace.entries().iter().filter(is_layer).collect();
    for pair in layers.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        // A layer that adds nothing has an output equal to its input.
        let adds_nothing = graph.get(&b.point).is_some_and(|component| {
            let inputs = component.inputs.iter().filter_map(|p| trace.find(&b.prompt, b.step, p));
            inputs
                .map(|e| trace.view(e))
                .any(|view| view.bytes.iter().all(|byte| *byte == 0 || *byte == 0x80))
        });
        let same_pass = a.prompt == b.prompt && a.step == b.step;
        let view = trace.view(b);
        if same_pass
            && !adds_nothing
            && trace.view(a).bytes == view.bytes
            && view.bytes.iter().any(|byte| *byte != 0)
        {
            return Err(Error::new(format!("`{}` and `{}` are equal byte for byte", a.point, b.point)).at(trace.path())
                .hint("one buffer was captured for several layers: clone at capture, and switch compiled or replayed graphs off"));
        }
    }
    Ok(())
}
