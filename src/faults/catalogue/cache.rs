//! The cache of keys and values.

use super::super::number::{to_bf16, to_int8};
use super::super::{Call, Fault, When};
use super::LIST;
use crate::model::{Component, Graph, Op};

const CACHE: &[Op] = &[Op::KvCache];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("kv-stale-row", CACHE, "all rows written", "the prompt's last row unwritten", LIST, |c| {
        Ok(rows(c, |all, width, past| all[(past - 1) * width..past * width].fill(0.0)))
    })
    .quiet()
    .when(When::FirstDecode)
    .called(&["kv-row-before-zero"]),
    Fault::new(
        "kv-overwritten",
        CACHE,
        "new row behind the last",
        "in place of the last",
        "a cache position that is one too small when decoding starts",
        |c| {
            Ok(rows(c, |all, width, past| {
                let (old, new) = all.split_at_mut(past * width);
                old[(past - 1) * width..].copy_from_slice(&new[..width]);
            }))
        },
    )
    .when(When::FirstDecode)
    .called(&["kv-row-before-overwritten"]),
    Fault::new(
        "kv-rolled",
        CACHE,
        "rows in order",
        "rolled by one",
        "ring buffers read from the wrong start (sliding-window caches in Transformers)",
        |c| Ok(rows(c, |all, width, _| all.rotate_left(width))),
    )
    .when(When::FirstDecode),
    Fault::new(
        "kv-int8",
        CACHE,
        "k, v",
        "int8 of each head, undeclared",
        "a quantized cache without anybody's wish",
        |c| {
            let dim = c.dim("head_dim");
            Ok(newest(c, |row| row.chunks_exact_mut(dim).for_each(to_int8)))
        },
    )
    .quiet(),
    // A cache copies: its rows may be rounded before they are written or after, on any input.
    Fault::new(
        "kv-bf16",
        CACHE,
        "k, v",
        "bf16(k), bf16(v), undeclared",
        "a cache in the model's type",
        |c| Ok(newest(c, |row| row.iter_mut().for_each(|v| *v = to_bf16(*v)))),
    )
    .quiet()
    .called(&["inputs-bf16", "output-bf16"]),
    Fault::new(
        "kv-scale-missing",
        CACHE,
        "v",
        "v / 2",
        "vLLM's 8-bit caches: a checkpoint's scale not loaded, 1 taken for it",
        |c| Ok(newest(c, |row| row.iter_mut().for_each(|v| *v *= 0.5))),
    )
    .lives(of_values)
    .called(&["kv-scaled"]),
];

/// The values are what no rotation precedes: their cache reads a projection.
fn of_values(graph: &Graph, component: &Component) -> bool {
    let source = component.inputs.first().and_then(|point| graph.get(point));
    source.is_some_and(|source| source.op == Op::Linear)
}

/// Changes any rows of the cache, given their width and how many are from before the step.
fn rows(c: &Call<'_>, change: impl Fn(&mut [f32], usize, usize)) -> Vec<f32> {
    let mut all = c.output.to_vec();
    let width = all.len() / c.seen();
    change(&mut all, width, c.past);
    all
}

/// Changes the rows that this step writes.
fn newest(c: &Call<'_>, change: impl Fn(&mut [f32])) -> Vec<f32> {
    rows(c, |all, width, past| all[past * width..].chunks_exact_mut(width).for_each(&change))
}
