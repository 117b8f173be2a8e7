//! The gated delta rule: `S ← g S`, `m = Sᵀ k`, `S ← S + k ((v − m) β)ᵀ`, `o = Sᵀ q d^-½` for each token.
//!
//! One kernel gives the output and the state: what is wrong with the recurrence is planted in both.

use super::super::number::{to_bf16, to_int8};
use super::super::{Call, Fault, When};
use super::LIST;
use super::rule::{RIGHT, Rule, scale};
use crate::error::Result;
use crate::model::{Component, Graph, Op};

const OUTPUT: &[Op] = &[Op::DeltaRule];
const STATE: &[Op] = &[Op::DeltaRuleState];
const BOTH: &[Op] = &[Op::DeltaRule, Op::DeltaRuleState];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("state-transposed", BOTH, "m = Sᵀ k", "m = S k", LIST, |c| {
        Rule { transposed: true, ..RIGHT }.run(c)
    })
    .lives(|graph, _| graph.dim("key_dim") == graph.dim("value_dim")),
    Fault::new("heads-tiled", BOTH, "key head = h / ratio", "h % key heads", LIST, |c| {
        Rule { key: |h, _, keys| h % keys, ..RIGHT }.run(c)
    })
    .lives(grouped),
    Fault::new("memory-undecayed", BOTH, "m = (g S)ᵀ k", "m = Sᵀ k", LIST, |c| {
        Rule { memory_decay: false, ..RIGHT }.run(c)
    })
    .quiet(),
    // In a decode step, each token and each step are one; so are they in a layer that forgets within a token.
    Fault::new("state-bf16", BOTH, "S", "bf16(S) for each token", LIST, |c| {
        let store = |s: &mut [f32], _: usize| s.iter_mut().for_each(|v| *v = to_bf16(*v));
        Rule { store, ..RIGHT }.run(c)
    })
    .quiet()
    .akin(&["output-bf16"]),
    Fault::new("state-int8", BOTH, "S", "int8 of each row for each token", LIST, |c| {
        let store = |s: &mut [f32], dv: usize| s.chunks_exact_mut(dv).for_each(to_int8);
        Rule { store, ..RIGHT }.run(c)
    })
    .quiet(),
    Fault::new("q-scale-missing", OUTPUT, "q · d^-½", "q", LIST, |c| {
        Rule { after: |_| 1.0, ..RIGHT }.run(c)
    })
    .quiet(),
    Fault::new("state-undecayed", BOTH, "S ← g S", "S", "DeltaNet's kernel for the gated one", |c| {
        Rule { decay: |_| 1.0, ..RIGHT }.run(c)
    })
    .called(&["decay-missing"]),
    Fault::new("decay-twice", BOTH, "g", "g²", "a decay applied in the caller and in the kernel", |c| {
        Rule { decay: |g| g * g, ..RIGHT }.run(c)
    }),
    Fault::new(
        "delta-forgotten",
        BOTH,
        "(v − m) β",
        "v β",
        "plain linear attention for the delta rule",
        |c| Rule { delta: |v, _, beta| v * beta, ..RIGHT }.run(c),
    )
    .called(&["memory-missing"]),
    Fault::new(
        "beta-on-value-only",
        BOTH,
        "(v − m) β",
        "v β − m",
        "β multiplied into v beforehand",
        |c| Rule { delta: |v, m, beta| v * beta - m, ..RIGHT }.run(c),
    ),
    Fault::new("read-before-write", OUTPUT, "o = Sᵀ q after the write", "before", "one token late", |c| {
        Rule { read_first: true, ..RIGHT }.run(c)
    }),
    Fault::new(
        "chunk-state-lost",
        BOTH,
        "S over all tokens",
        "S = 0 every 16 tokens",
        "chunked kernels that do not carry the state over a border",
        |c| Rule { chunk: 16, ..RIGHT }.run(c),
    )
    .when(When::Prefill),
    Fault::new(
        "state-not-returned",
        STATE,
        "S after the prefill",
        "0",
        "`output_final_state` not passed on: decoding starts from nothing",
        |c| Ok(vec![0.0; c.output.len()]),
    )
    .when(When::Prefill)
    .called(&["state-zero"]),
    // As with `state-bf16`.
    Fault::new(
        "state-output-bf16",
        STATE,
        "S",
        "bf16(S) after each step",
        "a state cache in the model's type",
        |c| Ok(c.output.iter().map(|v| to_bf16(*v)).collect()),
    )
    .quiet()
    .called(&["output-bf16"])
    .akin(&["state-bf16"]),
];

fn grouped(graph: &Graph, _: &Component) -> bool {
    graph.dim("key_heads") > 1 && graph.dim("value_heads") > graph.dim("key_heads")
}

/// The right rule, with the scale on the queries, not on what they read.
pub(super) fn scaled_queries(c: &Call<'_>) -> Result<Vec<f32>> {
    Rule { before: scale, after: |_| 1.0, ..RIGHT }.run(c)
}
