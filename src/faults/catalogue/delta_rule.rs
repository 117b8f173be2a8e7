//! The gated delta rule: `S ← g S`, `m = Sᵀ k`, `S ← S + k ((v − m) β)ᵀ`, `o = Sᵀ q d^-½` for each token.
//!
//! One kernel gives the output and the state: what is wrong with the recurrence is planted in both.

use super::super::number::{to_bf16, to_int8};
use super::super::{Call, Fault, When};
use super::LIST;
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
    Fault::new("state-bf16", BOTH, "S", "bf16(S) for each token", LIST, |c| {
        let store = |s: &mut [f32], _: usize| s.iter_mut().for_each(|v| *v = to_bf16(*v));
        Rule { store, ..RIGHT }.run(c)
    })
    .quiet(),
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
    }),
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
    ),
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
    .when(When::Prefill),
    Fault::new(
        "state-output-bf16",
        STATE,
        "S",
        "bf16(S) after each step",
        "a state cache in the model's type",
        |c| Ok(c.output.iter().map(|v| to_bf16(*v)).collect()),
    )
    .quiet(),
];

fn grouped(graph: &Graph, _: &Component) -> bool {
    graph.dim("key_heads") > 1 && graph.dim("value_heads") > graph.dim("key_heads")
}

/// The right rule, with the scale on the queries, not on what they read.
pub(super) fn scaled_queries(c: &Call<'_>) -> Result<Vec<f32>> {
    Rule { before: scale, after: |_| 1.0, ..RIGHT }.run(c)
}

/// The recurrence, with what may be wrong about it.
#[derive(Clone, Copy)]
struct Rule {
    key: fn(usize, usize, usize) -> usize,
    transposed: bool,
    memory_decay: bool,
    /// Factor of the queries, and of what they read, for their size.
    before: fn(usize) -> f32,
    after: fn(usize) -> f32,
    read_first: bool,
    chunk: usize,
    decay: fn(f32) -> f32,
    delta: fn(f32, f32, f32) -> f32,
    store: fn(&mut [f32], usize),
}

const RIGHT: Rule = Rule {
    key: |h, heads, keys| h / (heads / keys),
    transposed: false,
    memory_decay: true,
    before: |_| 1.0,
    after: scale,
    read_first: false,
    chunk: usize::MAX,
    decay: |g| g,
    delta: |v, m, beta| (v - m) * beta,
    store: |_, _| (),
};

impl Rule {
    /// Output or state, whichever the component is.
    fn run(&self, c: &Call<'_>) -> Result<Vec<f32>> {
        let queries = c.component.op == Op::DeltaRule;
        let first = usize::from(queries);
        let (k, conv, beta, decay) =
            (c.input(first)?, c.input(first + 1)?, c.input(first + 2)?, c.input(first + 3)?);
        let q = if queries { c.input(0)? } else { k };
        let (heads, keys) = (c.dim("value_heads"), c.dim("key_heads"));
        let (dk, dv, width) = (c.dim("key_dim"), c.dim("value_dim"), c.dim("conv_dim"));
        let mut all = c.carried(heads * dk * dv);
        let mut out = vec![0.0; c.tokens * heads * dv];
        for (h, state) in all.chunks_exact_mut(dk * dv).enumerate() {
            let key = (self.key)(h, heads, keys);
            for t in 0..c.tokens {
                if t > 0 && t % self.chunk == 0 {
                    state.fill(0.0);
                }
                let place = (t * keys + key) * dk;
                let q: Vec<f32> = q[place..place + dk].iter().map(|q| q * (self.before)(dk)).collect();
                let (q, k) = (q.as_slice(), &k[place..place + dk]);
                let v = &conv[t * width + 2 * keys * dk + h * dv..][..dv];
                let (beta, g) = (beta[t * heads + h], (self.decay)(decay[t * heads + h]));
                let undecayed = self.memory(state, k, dv);
                state.iter_mut().for_each(|s| *s *= g);
                let memory = if self.memory_decay { self.memory(state, k, dv) } else { undecayed };
                let early = read(state, q, dv);
                for (line, k) in state.chunks_exact_mut(dv).zip(k) {
                    let change = v.iter().zip(&memory).map(|(v, m)| (self.delta)(*v, *m, beta));
                    line.iter_mut().zip(change).for_each(|(s, d)| *s += k * d);
                }
                (self.store)(state, dv);
                let read = if self.read_first { early } else { read(state, q, dv) };
                let scale = (self.after)(dk);
                let out = &mut out[(t * heads + h) * dv..][..dv];
                out.iter_mut().zip(read).for_each(|(out, o)| *out = o * scale);
            }
        }
        Ok(if queries { out } else { all })
    }

    fn memory(&self, state: &[f32], k: &[f32], dv: usize) -> Vec<f32> {
        if self.transposed {
            state.chunks_exact(dv).map(|line| line.iter().zip(k).map(|(s, k)| s * k).sum()).collect()
        } else {
            read(state, k, dv)
        }
    }
}

fn scale(dk: usize) -> f32 {
    (dk as f32).sqrt().recip()
}

/// `Sᵀ x`.
fn read(state: &[f32], x: &[f32], dv: usize) -> Vec<f32> {
    let mut out = vec![0.0; dv];
    for (line, x) in state.chunks_exact(dv).zip(x) {
        out.iter_mut().zip(line).for_each(|(out, s)| *out += s * x);
    }
    out
}
