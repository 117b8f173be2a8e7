//! Comparison: the metrics of every pair, in parallel across tensors.

use crate::align::{Pair, Partner, restore};
use crate::basis::{Gains, Restored};
use crate::elements::Picked;
use crate::error::{Error, Result};
use crate::metrics::{self, Metrics};
use crate::model::{Component, Graph, Op};
use crate::trace::{Entry, Trace};
use rayon::prelude::*;

/// The metrics of each pair, in the order of the pairs; none where nothing can be compared.
///
/// A side in a rotated basis is brought back first, with `gains` where those were folded away.
///
/// Each tensor is read once, by one thread, in chunks: memory does not grow with the trace, and
/// no number depends on how many threads there are.
pub fn compare(
    graph: &Graph,
    reference: &Trace,
    candidate: &Trace,
    pairs: &[Pair<'_>],
    gains: &Gains,
    done: impl Fn() + Sync,
) -> Vec<Option<Metrics>> {
    pairs
        .par_iter()
        .map(|pair| {
            let Partner::Matched(r, c) = pair.partner else { return None };
            let rows = pair.rows.as_deref();
            let sides = sides(graph, pair.component, rows, (reference, r), (candidate, c), gains)?;
            let metrics = metrics_of(graph, pair.component, rows, sides);
            done();
            Some(metrics)
        })
        .collect()
}

/// Both sides of a point in the original basis, of `rows` where these are all that both have; none where
/// alignment would not have matched them.
pub fn sides<'a>(
    graph: &Graph,
    component: Option<&Component>,
    rows: Option<&[usize]>,
    (reference, r): (&'a Trace, &'a Entry),
    (candidate, c): (&'a Trace, &'a Entry),
    gains: &Gains,
) -> Option<[Picked<Restored<'a>>; 2]> {
    let way = |entry, other| restore(component, entry, other, gains).ok()?.ok();
    let (theirs, ours) = (way(r, c)?, way(c, r)?);
    let axis = component.and_then(|component| graph.row_axis(component)).unwrap_or(0);
    Some([
        common(axis, rows, Restored { view: reference.view(r), restore: theirs }, r),
        common(axis, rows, Restored { view: candidate.view(c), restore: ours }, c),
    ])
}

/// What a side has of the rows that both have.
fn common<'a>(
    axis: usize,
    rows: Option<&[usize]>,
    side: Restored<'a>,
    entry: &Entry,
) -> Picked<Restored<'a>> {
    let place = |row: &usize| match &entry.rows {
        Some(rows) => rows.binary_search(row).expect("a common row is one of either side's"),
        None => *row,
    };
    // A side that has no others is read as it lies.
    let rows = rows.filter(|rows| entry.rows.as_deref() != Some(rows));
    Picked::new(side, axis, rows.map(|rows| rows.iter().map(place).collect()))
}

/// The metrics of two sides of a point, of which `rows` are compared.
pub fn metrics_of(
    graph: &Graph,
    component: Option<&Component>,
    rows: Option<&[usize]>,
    [reference, candidate]: [Picked<Restored<'_>>; 2],
) -> Metrics {
    let axis = component.and_then(|component| graph.token_axis(component));
    let mut metrics = metrics::compare(reference, candidate, axis);
    if let (Some(rows), Some(axis)) = (rows, axis) {
        metrics.of_rows(axis, rows);
    }
    metrics
}

/// The axis of a component that counts heads, if one does.
pub fn head_axis(graph: &Graph, component: &Component) -> Option<usize> {
    graph.axes(component).iter().position(|name| name == "heads" || name.ends_with("_heads"))
}

/// True for a point that is a layer's output.
pub fn is_layer(component: &Component) -> bool {
    component.layer.is_some() && component.local.is_empty()
}

/// Refuses a trace in which two layers gave the same bytes: one buffer was captured for both, as
/// happens when hooks sit on a graph that is only replayed.
pub fn refuse_repeated_layers(graph: &Graph, trace: &Trace) -> Result<()> {
    let is_layer = |e: &&Entry| graph.get(&e.point).is_some_and(is_layer);
    let mut layers: Vec<&Entry> = trace.entries().iter().filter(is_layer).collect();
    // The steps of a cut prefill are written in turns.
    layers.sort_by_key(|e| (e.prompt.as_str(), e.step));
    let same_pass = |pair: &&[&Entry]| pair[0].prompt == pair[1].prompt && pair[0].step == pair[1].step;
    layers.windows(2).filter(same_pass).try_for_each(|pair| refuse_repeated(graph, trace, pair[0], pair[1]))
}

/// Refuses the outputs `a` and `b` of two layers of one pass, one after the other, that are the same bytes.
pub fn refuse_repeated(graph: &Graph, trace: &Trace, a: &Entry, b: &Entry) -> Result<()> {
    // What is 0, or no number, is the same without a fault of the capture.
    let says_nothing = |v: &f64| *v == 0.0 || !v.is_finite();
    if trace.view(a).bytes != trace.view(b).bytes || trace.view(b).to_f64().iter().all(says_nothing) {
        return Ok(());
    }
    // A layer that adds nothing has an output equal to its input.
    let adds_nothing = graph.get(&b.point).is_some_and(|component| {
        let inputs = component.inputs.iter().filter_map(|p| trace.find(&b.prompt, b.step, p));
        inputs.map(|e| trace.view(e)).any(|view| view.bytes.iter().all(|byte| *byte == 0 || *byte == 0x80))
    });
    if adds_nothing {
        return Ok(());
    }
    Err(Error::new(format!("`{}` and `{}` are equal byte for byte", a.point, b.point)).at(trace.path())
        .hint("one buffer was captured for several layers: clone at capture, and switch compiled or replayed graphs off"))
}

/// How far an embedding that was brought back may be from the original one, in relative L2.
///
/// A wrong seed gives a vector that has nothing to do with the original one: 1.41 but for chance, which
/// reaches 0.5 for fewer than one token in a million even at a width of 32. Four bits give about 0.1.
const SAME_EMBEDDING: f64 = 0.5;

/// How far a point that was brought back by a wrong seed is from the original one, but for chance.
const UNRELATED: f64 = 1.2;

/// How far the embeddings of two sides may be apart that are said to have the same weights.
const SAME_WEIGHTS: f64 = 1e-2;

/// Refuses an arm Q whose weights are not the quantized ones of the reference's model, or not those of the
/// candidate where no hash says so: the embedding is a look-up, which shows the weights themselves.
pub fn refuse_other_arm(
    arm: &Trace,
    pairs: &[Pair<'_>],
    metrics: &[Option<Metrics>],
    against_candidate: bool,
) -> Result<()> {
    let (limit, whose) = if against_candidate {
        (SAME_WEIGHTS, "the candidate computes with")
    } else {
        (SAME_EMBEDDING, "a quantizer could have made of the model's")
    };
    for (pair, metrics) in pairs.iter().zip(metrics) {
        let Some(metrics) = metrics else { continue };
        let embedding = pair.component.is_some_and(|component| component.op == Op::Embedding);
        if embedding && metrics.rel_l2.is_finite() && metrics.rel_l2 > limit {
            return Err(Error::new(format!("arm Q does not carry weights that {whose}"))
                .expected(
                    format!("`{}` within {limit} of the other side's", pair.point),
                    format!("a relative L2 distance of {:.2}", metrics.rel_l2),
                )
                .at(arm.path())
                .hint("it belongs to another model, seed or quantizer: make it anew with `layerdiff dequantize`"));
        }
    }
    Ok(())
}

/// Refuses a trace that was rotated by another seed than it says: its embedding, brought back, must be
/// the reference's up to quantization. The embedding is a look-up, so that nothing but a wrong seed or
/// another model can move it far.
pub fn refuse_wrong_seed(candidate: &Trace, pairs: &[Pair<'_>], metrics: &[Option<Metrics>]) -> Result<()> {
    let mut first = true;
    for (pair, metrics) in pairs.iter().zip(metrics) {
        let (Partner::Matched(r, c), Some(metrics)) = (&pair.partner, metrics) else { continue };
        if r.basis == c.basis {
            continue;
        }
        let embedding = pair.component.is_some_and(|component| component.op == Op::Embedding);
        // Without the embedding the first rotated point has to do, where a fault may move a vector too, but
        // hardly so far that nothing of it is left.
        let limit = if embedding { SAME_EMBEDDING } else { UNRELATED };
        let asked = embedding || std::mem::take(&mut first);
        if asked && metrics.rel_l2.is_finite() && metrics.rel_l2 > limit {
            return Err(Error::new(format!("the basis {} is not the one that the trace is in", c.basis))
                .expected(
                    format!("`{}` brought back within {limit} of the reference's", pair.point),
                    format!("a relative L2 distance of {:.2}", metrics.rel_l2),
                )
                .at(candidate.path())
                .hint("the seed is wrong, or the traces are of different models: take the seed from the directory's quantize_index.json"));
        }
    }
    Ok(())
}
