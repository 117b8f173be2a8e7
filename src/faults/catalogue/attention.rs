//! Full attention: split, scores, context, gate.

use super::super::number::{silu, to_f16};
use super::super::{Call, Fault, When};
use super::LIST;
use crate::error::Result;
use crate::model::{Graph, Op};

const SPLIT: &[Op] = &[Op::SplitHeads];
const SCORES: &[Op] = &[Op::AttentionScores];
const CONTEXT: &[Op] = &[Op::AttentionContext];
const GATE: &[Op] = &[Op::SigmoidGate];
const HEADS: &[Op] = &[Op::AttentionScores, Op::AttentionContext];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("gate-split-halves", SPLIT, "[q | gate] of each head", "[all q | all gate]", LIST, |c| {
        let (x, part) = (c.input(0)?, c.number("part")? as usize);
        let width = c.output.len() / c.tokens;
        Ok(x.chunks_exact(2 * width).flat_map(|row| row[part * width..][..width].to_vec()).collect())
    }),
    Fault::new(
        "gate-query-swapped",
        SPLIT,
        "[q | gate]",
        "[gate | q]",
        "the order of a fused projection",
        |c| {
            let (x, part, dim) = (c.input(0)?, c.number("part")? as usize, c.dim("head_dim"));
            Ok(x.chunks_exact(2 * dim).flat_map(|head| head[(1 - part) * dim..][..dim].to_vec()).collect())
        },
    )
    .called(&["gate-split-exchanged"]),
    Fault::new("gqa-tiled", HEADS, "kv head = h / groups", "h % kv heads", LIST, |c| {
        if c.component.op == Op::AttentionScores { scores(c, tiled, scale(c)) } else { context(c, tiled) }
    })
    .lives(grouped),
    Fault::new(
        "scores-unscaled",
        SCORES,
        "q·k · d^-½",
        "q·k",
        "a scale folded into the query by one side only",
        |c| scores(c, shared, 1.0),
    )
    .called(&["scale-missing"]),
    Fault::new(
        "scores-other-scale",
        SCORES,
        "d^-½",
        "(hidden / heads)^-½",
        "llama.cpp's first Gemma 2 27B: the scale is not that of head_dim; here the other way round",
        |c| scores(c, shared, ((c.dim("hidden") / c.dim("heads")) as f32).sqrt().recip()),
    )
    .lives(|graph, _| graph.dim("hidden") != graph.dim("heads") * graph.dim("head_dim"))
    .called(&["scale-of-hidden"]),
    Fault::new(
        "scores-softcapped",
        SCORES,
        "s",
        "50 tanh(s / 50)",
        "Gemma 2's cap left on in shared code",
        |c| Ok(c.output.iter().map(|s| if s.is_finite() { 50.0 * (s / 50.0).tanh() } else { *s }).collect()),
    )
    .quiet(),
    Fault::new("scores-f16", SCORES, "s", "f16(s)", "half-precision attention without f32 scores", |c| {
        Ok(c.output.iter().map(|s| to_f16(*s)).collect())
    })
    .quiet()
    .called(&["output-f16"]),
    Fault::new("scores-masked-finite", SCORES, "−∞ where masked", "−1e4", "masks made for f16", |c| {
        Ok(c.output.iter().map(|s| s.max(-1e4)).collect())
    })
    .quiet()
    .when(When::Prefill)
    .called(&["mask-finite"]),
    Fault::new("context-half-zero", CONTEXT, "Σ p v", "upper half of each head unwritten", LIST, |c| {
        let dim = c.dim("head_dim");
        let mut out = c.output.to_vec();
        out.chunks_exact_mut(dim).for_each(|head| head[dim / 2..].fill(0.0));
        Ok(out)
    }),
    Fault::new(
        "context-heads-first",
        CONTEXT,
        "[token, head]",
        "[head, token]",
        "a transpose left out before reshape",
        |c| {
            let (heads, dim) = (c.dim("heads"), c.dim("head_dim"));
            let place = |h: usize, t: usize| &c.output[(t * heads + h) * dim..][..dim];
            Ok((0..heads).flat_map(|h| (0..c.tokens).flat_map(move |t| place(h, t).to_vec())).collect())
        },
    )
    .when(When::Prefill),
    Fault::new("gate-skipped", GATE, "ctx · sigmoid(gate)", "ctx", LIST, |c| Ok(c.input(0)?.to_vec())),
    Fault::new(
        "gate-silu",
        GATE,
        "ctx · sigmoid(gate)",
        "ctx · silu(gate)",
        "one helper for both gates",
        |c| Ok(c.input(0)?.iter().zip(c.input(1)?).map(|(x, g)| x * silu(*g)).collect()),
    ),
];

fn grouped(graph: &Graph, _: &crate::model::Component) -> bool {
    // With one head on either side both orders are the same.
    graph.dim("kv_heads") > 1 && graph.dim("heads") > graph.dim("kv_heads")
}

fn tiled(h: usize, _: usize, kv: usize) -> usize {
    h % kv
}

pub(super) fn shared(h: usize, heads: usize, kv: usize) -> usize {
    h / (heads / kv)
}

pub(super) fn scale(c: &Call<'_>) -> f32 {
    (c.dim("head_dim") as f32).sqrt().recip()
}

/// Scores with another choice of key heads, or another scale.
pub(super) fn scores(c: &Call<'_>, head: fn(usize, usize, usize) -> usize, scale: f32) -> Result<Vec<f32>> {
    let (q, k) = (c.input(0)?, c.input(1)?);
    let (heads, kv, dim) = (c.dim("heads"), c.dim("kv_heads"), c.dim("head_dim"));
    let mut out = c.output.to_vec();
    for (i, s) in out.iter_mut().enumerate().filter(|(_, s)| s.is_finite()) {
        let (row, u) = (i / c.seen(), i % c.seen());
        let (h, t) = (row / c.tokens, row % c.tokens);
        let q = &q[(t * heads + h) * dim..][..dim];
        let k = &k[(u * kv + head(h, heads, kv)) * dim..][..dim];
        *s = q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>() * scale;
    }
    Ok(out)
}

pub(super) fn context(c: &Call<'_>, head: fn(usize, usize, usize) -> usize) -> Result<Vec<f32>> {
    let (p, v) = (c.input(0)?, c.input(1)?);
    let (heads, kv, dim, seen) = (c.dim("heads"), c.dim("kv_heads"), c.dim("head_dim"), c.seen());
    let mut out = vec![0.0; c.output.len()];
    for (n, out) in out.chunks_exact_mut(dim).enumerate() {
        let (t, h) = (n / heads, n % heads);
        for (u, p) in p[(h * c.tokens + t) * seen..][..seen].iter().enumerate() {
            let v = &v[(u * kv + head(h, heads, kv)) * dim..][..dim];
            out.iter_mut().zip(v).for_each(|(out, v)| *out += p * v);
        }
    }
    Ok(out)
}
