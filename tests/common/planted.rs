//! Wrong formulas, written down once more and in 32 bits, as an engine would compute them.

use super::*;
use layerdiff::hook::{At, Hook};
use layerdiff::parameters::Parameters;
use layerdiff::tensor::{Tensor, Values};
use std::collections::HashMap;

/// What a formula computes from.
pub struct Now<'a> {
    /// The component's inputs.
    pub x: Vec<&'a [f32]>,
    /// What the step before left.
    pub old: Option<&'a [f32]>,
    /// The component's parameters.
    pub w: &'a [Vec<f32>],
    /// What the engine computed.
    pub right: &'a [f32],
    /// Tokens of the step, and before it.
    pub n: usize,
    pub past: usize,
}

/// A component's output.
pub type Formula = fn(&Now<'_>) -> Vec<f32>;

/// Puts a formula in place of a component's own.
pub struct Plant<'a> {
    component: &'a Component,
    seen: HashMap<(u32, String), Vec<f32>>,
    w: Vec<Vec<f32>>,
    prompt: usize,
    formula: Formula,
}

impl<'a> Plant<'a> {
    pub fn new(component: &'a Component, parameters: &Parameters, prompt: usize, formula: Formula) -> Self {
        let read =
            |name: &String| parameters.view(name).unwrap().to_f64().into_iter().map(|v| v as f32).collect();
        let w = component.params.iter().map(read).collect();
        Self { component, seen: HashMap::new(), w, prompt, formula }
    }
}

impl Hook for Plant<'_> {
    fn wants(&self, point: &str) -> bool {
        let read = self.component.inputs.iter().chain(&self.component.carried);
        point == self.component.point || read.into_iter().any(|input| input == point)
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> layerdiff::error::Result<Tensor> {
        let shape = tensor.shape.clone();
        let is_mask = matches!(tensor.values, Values::U8(_));
        let mut values = match tensor.values {
            Values::F32(values) => values,
            Values::U8(values) => values.into_iter().map(f32::from).collect(),
        };
        if at.point == self.component.point {
            let past = if at.step == 0 { 0 } else { self.prompt + at.step as usize - 1 };
            let find = |step: u32, point: &String| self.seen[&(step, point.clone())].as_slice();
            let old = at.step.checked_sub(1);
            values = (self.formula)(&Now {
                x: self.component.inputs.iter().map(|input| find(at.step, input)).collect(),
                old: old.and_then(|step| Some(find(step, self.component.carried.first()?))),
                w: &self.w,
                right: &values,
                n: if at.step == 0 { self.prompt } else { 1 },
                past,
            });
        }
        self.seen.insert((at.step, at.point.to_owned()), values.clone());
        Ok(if is_mask {
            Tensor::mask(&shape, values.into_iter().map(|v| v as u8).collect())
        } else {
            Tensor::new(&shape, values)
        })
    }
}

const HEADS: usize = 4;
const KV: usize = 2;
const D: usize = 64;
const HALF: usize = 8;
const KEYS: usize = 2;
const DK: usize = 32;
const CONV: usize = 256;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

fn b16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

fn softplus(x: f32) -> f32 {
    x.exp().ln_1p()
}

fn each(now: &Now<'_>, f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    now.x[0].iter().zip(now.x[1]).map(|(a, b)| f(*a, *b)).collect()
}

fn squares(row: &[f32]) -> f32 {
    row.iter().map(|x| x * x).sum()
}

fn norm(now: &Now<'_>, weight: impl Fn(f32) -> f32, inverse: impl Fn(&[f32]) -> f32) -> Vec<f32> {
    let w = &now.w[0];
    let rows = now.x[0].chunks_exact(w.len());
    rows.flat_map(|row| {
        let r = inverse(row);
        row.iter().zip(w).map(|(x, w)| x * r * weight(*w)).collect::<Vec<_>>()
    })
    .collect()
}

fn rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (squares(row) / row.len() as f32 + eps).sqrt()
}

fn right(row: &[f32]) -> f32 {
    rms(row, 1e-6)
}

fn gated(now: &Now<'_>, weight: impl Fn(f32) -> f32, gate: impl Fn(f32) -> f32) -> Vec<f32> {
    let w = &now.w[0];
    let rows = now.x[0].chunks_exact(w.len()).zip(now.x[1].chunks_exact(w.len()));
    rows.flat_map(|(row, z)| {
        let r = right(row);
        (0..w.len()).map(|i| row[i] * r * weight(w[i]) * gate(z[i])).collect::<Vec<_>>()
    })
    .collect()
}

fn l2(now: &Now<'_>, start: usize, inverse: impl Fn(&[f32]) -> f32) -> Vec<f32> {
    let heads = now.x[0].chunks_exact(CONV).flat_map(|row| row[start..start + KEYS * DK].chunks_exact(DK));
    heads
        .flat_map(|head| {
            let r = inverse(head);
            head.iter().map(|x| x * r).collect::<Vec<_>>()
        })
        .collect()
}

/// Turns pairs of each head by cosine and sine of token and pair.
fn turn(
    now: &Now<'_>,
    pairs: usize,
    pair: impl Fn(usize) -> (usize, usize),
    angle: impl Fn(usize, usize) -> (f32, f32),
) -> Vec<f32> {
    let mut out = now.x[0].to_vec();
    let row = out.len() / now.n;
    for (i, head) in out.chunks_exact_mut(D).enumerate() {
        for j in 0..pairs {
            let ((a, b), (cos, sin)) = (pair(j), angle(i * D / row, j));
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
        }
    }
    out
}

fn at(position: f32, theta: f32, i: usize, of: usize) -> (f32, f32) {
    let angle = position * theta.powf(-(i as f32) / of as f32);
    (angle.cos(), angle.sin())
}

fn halves(j: usize) -> (usize, usize) {
    (j, HALF + j)
}

fn scores(
    now: &Now<'_>,
    group: impl Fn(usize) -> usize,
    scale: f32,
    sees: impl Fn(usize, usize) -> bool,
) -> Vec<f32> {
    let (seen, mut out) = (now.past + now.n, Vec::new());
    for h in 0..HEADS {
        for t in 0..now.n {
            for u in 0..seen {
                let q = &now.x[0][(t * HEADS + h) * D..][..D];
                let k = &now.x[1][(u * KV + group(h)) * D..][..D];
                let dot: f32 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                out.push(if sees(now.past + t, u) { dot * scale } else { f32::NEG_INFINITY });
            }
        }
    }
    out
}

fn context(
    now: &Now<'_>,
    group: impl Fn(usize) -> usize,
    value: impl Fn(f32, usize, usize) -> f32,
) -> Vec<f32> {
    let (seen, mut out) = (now.past + now.n, vec![0.0; now.n * HEADS * D]);
    for t in 0..now.n {
        for h in 0..HEADS {
            for u in 0..seen {
                let p = now.x[0][(h * now.n + t) * seen + u];
                for i in 0..D {
                    out[(t * HEADS + h) * D + i] += p * value(now.x[1][(u * KV + group(h)) * D + i], u, i);
                }
            }
        }
    }
    out
}

/// The convolution with taps of any distance: 0 is the newest, −1 the one after it.
fn conv(now: &Now<'_>, distance: impl Fn(i64) -> Option<i64>, activation: impl Fn(f32) -> f32) -> Vec<f32> {
    let mut out = Vec::new();
    for t in 0..now.n as i64 {
        for c in 0..CONV {
            let x = |t: i64| match (t, now.old) {
                (0.., _) => now.x[0].get(t as usize * CONV + c).copied().unwrap_or(0.0),
                (-3..0, Some(old)) => old[c * 3 + (t + 3) as usize],
                _ => 0.0,
            };
            let tap = |j: i64| distance(3 - j).map_or(0.0, |d| x(t - d) * now.w[0][c * 4 + j as usize]);
            out.push(activation((0..4).map(tap).sum()));
        }
    }
    out
}

/// exp(g), of a, A_log and dt_bias.
pub fn decay(now: &Now<'_>, g: impl Fn(f32, f32, f32) -> f32) -> Vec<f32> {
    let (a_log, dt) = (&now.w[0], &now.w[1]);
    now.x[0].iter().enumerate().map(|(i, a)| g(*a, a_log[i % 4], dt[i % 4])).collect()
}

/// The recurrence: what may be varied of one token is given the state, query, key, value, beta and decay, and
/// leaves the output.
type Token = fn(&mut [f32], &[f32], &[f32], &[f32], f32, f32) -> Vec<f32>;

fn delta(
    now: &Now<'_>,
    key_head: impl Fn(usize) -> usize,
    old: Option<&[f32]>,
    token: Token,
) -> (Vec<f32>, Vec<f32>) {
    let with_queries = now.x.len() == 5;
    let first = usize::from(with_queries);
    let (k, conv, beta, g) = (now.x[first], now.x[first + 1], now.x[first + 2], now.x[first + 3]);
    let mut states = old.map_or_else(|| vec![0.0; HEADS * DK * DK], <[f32]>::to_vec);
    let mut out = Vec::new();
    for t in 0..now.n {
        for h in 0..HEADS {
            let at = (t * KEYS + key_head(h)) * DK;
            let q = if with_queries { &now.x[0][at..at + DK] } else { &k[at..at + DK] };
            let v = &conv[t * CONV + 2 * KEYS * DK + h * DK..][..DK];
            let i = t * HEADS + h;
            let state = &mut states[h * DK * DK..(h + 1) * DK * DK];
            out.extend(token(state, q, &k[at..at + DK], v, beta[i], g[i]));
        }
    }
    (out, states)
}

fn read(state: &[f32], x: &[f32]) -> Vec<f32> {
    (0..DK).map(|j| (0..DK).map(|i| state[i * DK + j] * x[i]).sum()).collect()
}

fn read_rows(state: &[f32], x: &[f32]) -> Vec<f32> {
    (0..DK).map(|i| (0..DK).map(|j| state[i * DK + j] * x[j]).sum()).collect()
}

fn write(state: &mut [f32], k: &[f32], v: &[f32], memory: &[f32], beta: f32) {
    for i in 0..DK {
        for j in 0..DK {
            state[i * DK + j] += k[i] * (v[j] - memory[j]) * beta;
        }
    }
}

fn scaled(mut out: Vec<f32>) -> Vec<f32> {
    out.iter_mut().for_each(|o| *o *= (DK as f32).powf(-0.5));
    out
}

fn right_token(s: &mut [f32], q: &[f32], k: &[f32], v: &[f32], beta: f32, g: f32) -> Vec<f32> {
    s.iter_mut().for_each(|m| *m *= g);
    let memory = read(s, k);
    write(s, k, v, &memory, beta);
    scaled(read(s, q))
}

fn undecayed_token(s: &mut [f32], q: &[f32], k: &[f32], v: &[f32], beta: f32, g: f32) -> Vec<f32> {
    let memory = read(s, k);
    s.iter_mut().for_each(|m| *m *= g);
    write(s, k, v, &memory, beta);
    scaled(read(s, q))
}

fn bf16_token(s: &mut [f32], q: &[f32], k: &[f32], v: &[f32], beta: f32, g: f32) -> Vec<f32> {
    s.iter_mut().for_each(|m| *m *= g);
    let memory = read(s, k);
    write(s, k, v, &memory, beta);
    s.iter_mut().for_each(|m| *m = b16(*m));
    scaled(read(s, q))
}

fn int8_token(s: &mut [f32], q: &[f32], k: &[f32], v: &[f32], beta: f32, g: f32) -> Vec<f32> {
    right_token(s, q, k, v, beta, g);
    for row in s.chunks_exact_mut(DK) {
        let scale = row.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        row.iter_mut().filter(|_| scale > 0.0).for_each(|v| *v = (*v / scale).round() * scale);
    }
    scaled(read(s, q))
}

fn transposed_token(s: &mut [f32], q: &[f32], k: &[f32], v: &[f32], beta: f32, g: f32) -> Vec<f32> {
    s.iter_mut().for_each(|m| *m *= g);
    let memory = read_rows(s, k);
    write(s, k, v, &memory, beta);
    scaled(read(s, q))
}

fn late_decay_token(s: &mut [f32], q: &[f32], k: &[f32], v: &[f32], beta: f32, g: f32) -> Vec<f32> {
    let memory = read(s, k);
    write(s, k, v, &memory, beta);
    s.iter_mut().for_each(|m| *m *= g);
    scaled(read(s, q))
}

fn plain_token(s: &mut [f32], q: &[f32], k: &[f32], v: &[f32], beta: f32, g: f32) -> Vec<f32> {
    s.iter_mut().for_each(|m| *m *= g);
    write(s, k, v, &[0.0; DK], beta);
    scaled(read(s, q))
}

fn grouped(h: usize) -> usize {
    h / 2
}

/// `x Wᵀ` for n outputs, of rows of k.
pub fn linear(x: &[f32], k: usize, weight: impl Fn(usize, usize) -> f32, n: usize) -> Vec<f32> {
    let rows = x.chunks_exact(k);
    rows.flat_map(|x| (0..n).map(|j| (0..k).map(|i| x[i] * weight(j, i)).sum()).collect::<Vec<f32>>())
        .collect()
}

fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}

const NORM: &str = "model.layers.3.input_layernorm";
const FIRST: &str = "model.layers.0.input_layernorm";
const Q_NORM: &str = "model.layers.3.self_attn.q_norm";
const GATED: &str = "model.layers.0.linear_attn.norm";
const Q_L2: &str = "model.layers.0.linear_attn.q_l2norm";
const K_L2: &str = "model.layers.1.linear_attn.k_l2norm";
const Q_ROPE: &str = "model.layers.3.self_attn.q_rope";
const K_ROPE: &str = "model.layers.7.self_attn.k_rope";
const COS: &str = "model.rotary_emb.cos";
const SIN: &str = "model.rotary_emb.sin";
const SCORES: &str = "model.layers.3.self_attn.scores";
const PROBS: &str = "model.layers.3.self_attn.probs";
const CONTEXT: &str = "model.layers.3.self_attn.context";
const CONV1D: &str = "model.layers.0.linear_attn.conv1d";
const DECAY: &str = "model.layers.0.linear_attn.decay";
const BETA: &str = "model.layers.0.linear_attn.beta";
const RULE: &str = "model.layers.0.linear_attn.delta_rule";
const STATE: &str = "model.layers.0.linear_attn.recurrent_state";
const ACT: &str = "model.layers.0.mlp.act";
const GATE: &str = "model.layers.3.self_attn.gated_context";
const MASK: &str = "model.layers.3.self_attn.attention_mask";

/// The name that a formula must get, where it is planted, and the formula.
pub const CASES: &[(&str, &str, Formula)] = &[
    ("norm-no-shift", NORM, |n| norm(n, |w| w, right)),
    ("norm-double-shift", Q_NORM, |n| norm(n, |w| 2.0 + w, right)),
    ("shift-bf16", NORM, |n| norm(n, |w| b16(1.0 + w), right)),
    ("norm-eps-outside", FIRST, |n| {
        norm(n, |w| 1.0 + w, |r| 1.0 / ((squares(r) / r.len() as f32).sqrt() + 1e-6))
    }),
    ("norm-eps-1e-5", FIRST, |n| norm(n, |w| 1.0 + w, |r| rms(r, 1e-5))),
    ("norm-no-eps", FIRST, |n| norm(n, |w| 1.0 + w, |r| rms(r, 0.0))),
    ("norm-sum", "model.norm", |n| norm(n, |w| 1.0 + w, |r| 1.0 / (squares(r) + 1e-6).sqrt())),
    ("norm-sum-bf16", NORM, |n| {
        norm(
            n,
            |w| 1.0 + w,
            |r| {
                let sum = r.iter().fold(0.0, |sum, x| b16(sum + b16(x * x)));
                1.0 / (sum / r.len() as f32 + 1e-6).sqrt()
            },
        )
    }),
    ("norm-centered", NORM, |n| {
        let rows = n.x[0].chunks_exact(128).flat_map(|row| {
            let mean = row.iter().sum::<f32>() / 128.0;
            let row: Vec<f32> = row.iter().map(|x| x - mean).collect();
            let r = right(&row);
            row.iter().zip(&n.w[0]).map(|(x, w)| x * r * (1.0 + w)).collect::<Vec<_>>()
        });
        rows.collect()
    }),
    ("gated-norm-sigmoid", GATED, |n| gated(n, |w| w, sigmoid)),
    ("gated-norm-shifted", GATED, |n| gated(n, |w| 1.0 + w, silu)),
    ("gated-norm-eps-outside", GATED, |n| {
        let x: Vec<f32> = n.x[0].to_vec();
        let o = norm(
            &Now { x: vec![&x], old: None, w: n.w, right: n.right, n: n.n, past: n.past },
            |w| w,
            |r| 1.0 / ((squares(r) / r.len() as f32).sqrt() + 1e-6),
        );
        o.iter().zip(n.x[1]).map(|(o, z)| o * silu(*z)).collect()
    }),
    ("gated-norm-gate-first", GATED, |n| {
        let x: Vec<f32> = n.x[0].iter().zip(n.x[1]).map(|(o, z)| o * silu(*z)).collect();
        norm(&Now { x: vec![&x], old: None, w: n.w, right: n.right, n: n.n, past: n.past }, |w| w, right)
    }),
    ("l2-no-eps", Q_L2, |n| l2(n, 0, |r| if squares(r) > 1e-12 { 1.0 / squares(r).sqrt() } else { 0.0 })),
    ("l2-as-rms", K_L2, |n| l2(n, KEYS * DK, |r| rms(r, 1e-6) * (DK as f32).powf(-0.5))),
    ("l2-skipped", K_L2, |n| l2(n, KEYS * DK, |_| 1.0)),
    ("rope-interleaved", K_ROPE, |n| {
        turn(n, HALF, |j| (2 * j, 2 * j + 1), |t, j| (n.x[1][t * HALF + j], n.x[2][t * HALF + j]))
    }),
    ("rope-negated-sine", Q_ROPE, |n| {
        turn(n, HALF, halves, |t, j| (n.x[1][t * HALF + j], -n.x[2][t * HALF + j]))
    }),
    ("rope-full-dim", Q_ROPE, |n| {
        turn(n, D / 2, |j| (j, D / 2 + j), |t, j| at((n.past + t) as f32, 1e7, j, D / 2))
    }),
    ("rope-skipped", K_ROPE, |n| n.x[0].to_vec()),
    ("rope-position-plus-one", Q_ROPE, |n| {
        turn(n, HALF, halves, |t, j| at((n.past + t + 1) as f32, 1e7, j, HALF))
    }),
    ("rope-theta-1e6", K_ROPE, |n| turn(n, HALF, halves, |t, j| at((n.past + t) as f32, 1e6, j, HALF))),
    // Decode only.
    ("rope-position-plus-one", K_ROPE, |n| {
        if n.past == 0 {
            return n.right.to_vec();
        }
        turn(n, HALF, halves, |t, j| at((n.past + t + 1) as f32, 1e7, j, HALF))
    }),
    ("rope-skipped", Q_ROPE, |n| if n.past == 0 { n.right.to_vec() } else { n.x[0].to_vec() }),
    ("rope-theta-1e6", COS, |n| {
        (0..n.n * HALF).map(|i| at((n.past + i / HALF) as f32, 1e6, i % HALF, HALF).0).collect()
    }),
    ("rope-theta-1e4", SIN, |n| {
        (0..n.n * HALF).map(|i| at((n.past + i / HALF) as f32, 1e4, i % HALF, HALF).1).collect()
    }),
    ("rope-position-zero", COS, |n| {
        (0..n.n * HALF).map(|i| at((i / HALF) as f32, 1e7, i % HALF, HALF).0).collect()
    }),
    ("mask-off-by-one", MASK, |n| {
        let seen = n.past + n.n;
        (0..n.n * seen).map(|i| f32::from(u8::from(i % seen <= n.past + i / seen + 1))).collect()
    }),
    ("gqa-tiled", SCORES, |n| scores(n, |h| h % KV, 0.125, |t, u| u <= t)),
    ("scale-missing", SCORES, |n| scores(n, grouped, 1.0, |t, u| u <= t)),
    ("scale-twice", SCORES, |n| scores(n, grouped, 1.0 / 64.0, |t, u| u <= t)),
    ("mask-off-by-one", SCORES, |n| scores(n, grouped, 0.125, |t, u| u <= t + 1)),
    ("output-f16", DECAY, |n| n.right.iter().map(|y| f16::from_f32(*y).to_f32()).collect()),
    ("output-bf16", PROBS, |n| n.right.iter().map(|p| b16(*p)).collect()),
    ("softmax-axis", PROBS, |n| {
        let (rows, seen) = (n.n, n.past + n.n);
        if n.past > 0 {
            return n.right.to_vec();
        }
        let sum =
            |h: usize, u: usize| (0..rows).map(|t| n.x[0][(h * rows + t) * seen + u].exp()).sum::<f32>();
        n.x[0].iter().enumerate().map(|(i, s)| s.exp() / sum(i / (rows * seen), i % seen)).collect()
    }),
    ("gqa-tiled", CONTEXT, |n| context(n, |h| h % KV, |v, _, _| v)),
    ("context-half-zero", CONTEXT, |n| context(n, grouped, |v, _, i| if i < D / 2 { v } else { 0.0 })),
    ("values-last-row-missing", CONTEXT, |n| {
        let last = n.past + n.n - 1;
        if n.past == 0 {
            return n.right.to_vec();
        }
        context(n, grouped, |v, u, _| if u < last { v } else { 0.0 })
    }),
    ("gate-skipped", GATE, |n| n.x[0].to_vec()),
    ("gate-silu", GATE, |n| each(n, |x, g| x * silu(g))),
    ("gate-split-halves", "model.layers.3.self_attn.query", |n| {
        n.x[0].chunks_exact(2 * HEADS * D).flat_map(|row| row[..HEADS * D].to_vec()).collect()
    }),
    ("gate-split-halves", "model.layers.3.self_attn.gate", |n| {
        n.x[0].chunks_exact(2 * HEADS * D).flat_map(|row| row[HEADS * D..].to_vec()).collect()
    }),
    ("conv-no-silu", CONV1D, |n| conv(n, Some, |x| x)),
    ("conv-taps-reversed", CONV1D, |n| conv(n, |d| Some(3 - d), silu)),
    ("conv-newest-twice", CONV1D, |n| conv(n, |d| Some((d - 1).max(0)), silu)),
    ("conv-late", CONV1D, |n| if n.past == 0 { conv(n, |d| Some(d + 1), silu) } else { n.right.to_vec() }),
    ("conv-state-ignored", CONV1D, |n| {
        conv(&Now { x: n.x.clone(), old: None, w: n.w, right: n.right, n: n.n, past: n.past }, Some, silu)
    }),
    ("decay-raw-a-log", DECAY, |n| decay(n, |a, l, dt| (l * softplus(a + dt)).exp())),
    ("decay-no-softplus", DECAY, |n| decay(n, |a, l, dt| (-l.exp() * (a + dt)).exp())),
    ("decay-no-dt-bias", DECAY, |n| decay(n, |a, l, _| (-l.exp() * softplus(a)).exp())),
    ("decay-not-exponentiated", DECAY, |n| decay(n, |a, l, dt| -l.exp() * softplus(a + dt))),
    ("output-bf16", DECAY, |n| n.right.iter().map(|y| b16(*y)).collect()),
    ("beta-no-sigmoid", BETA, |n| n.x[0].to_vec()),
    ("beta-doubled", BETA, |n| n.x[0].iter().map(|x| 2.0 * sigmoid(*x)).collect()),
    ("heads-tiled", RULE, |n| delta(n, |h| h % KEYS, n.old, right_token).0),
    ("heads-tiled", STATE, |n| delta(n, |h| h % KEYS, n.old, right_token).1),
    ("q-scale-missing", RULE, |n| n.right.iter().map(|o| o * (DK as f32).sqrt()).collect()),
    ("memory-undecayed", RULE, |n| delta(n, grouped, n.old, undecayed_token).0),
    ("memory-undecayed", STATE, |n| delta(n, grouped, n.old, undecayed_token).1),
    ("memory-missing", RULE, |n| delta(n, grouped, n.old, plain_token).0),
    ("state-transposed", RULE, |n| delta(n, grouped, n.old, transposed_token).0),
    ("decay-after-update", RULE, |n| delta(n, grouped, n.old, late_decay_token).0),
    ("decay-after-update", STATE, |n| delta(n, grouped, n.old, late_decay_token).1),
    ("state-bf16", RULE, |n| delta(n, grouped, n.old, bf16_token).0),
    ("state-bf16", STATE, |n| delta(n, grouped, n.old, bf16_token).1),
    ("state-int8", STATE, |n| delta(n, grouped, n.old, int8_token).1),
    ("state-ignored", RULE, |n| delta(n, grouped, None, right_token).0),
    ("gate-up-swapped", ACT, |n| each(n, |g, u| silu(u) * g)),
    ("gelu-tanh-for-silu", ACT, |n| each(n, |g, u| gelu_tanh(g) * u)),
    ("relu-for-silu", ACT, |n| each(n, |g, u| g.max(0.0) * u)),
    ("residual-dropped", "model.layers.0.post_attention_residual", |n| n.x[1].to_vec()),
    ("branch-twice", "model.layers.5", |n| each(n, |x, f| x + 2.0 * f)),
    ("weight-transposed", "model.layers.0.linear_attn.out_proj", |n| {
        linear(n.x[0], 128, |j, i| n.w[0][i * 128 + j], 128)
    }),
    ("q4-nibble-order", "model.layers.0.mlp.up_proj", |n| {
        linear(n.x[0], 128, |j, i| n.w[0][j * 128 + (i ^ 1)], 256)
    }),
    ("linear-late", "model.layers.3.self_attn.v_proj", |n| {
        if n.n == 1 {
            return n.right.to_vec();
        }
        let width = n.right.len() / n.n;
        [&n.right[..width], &n.right[..n.right.len() - width]].concat()
    }),
    ("embedding-plus-one", "model.embed_tokens", |n| {
        let ids = [5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53];
        ids[n.past..n.past + n.n]
            .iter()
            .flat_map(|id| n.w[0][(id + 1) * 128..(id + 2) * 128].to_vec())
            .collect()
    }),
    ("kv-one-row-late", "model.layers.3.self_attn.v_cache", |n| {
        let width = KV * D;
        [&n.right[..width], &n.right[..n.right.len() - width]].concat()
    }),
    ("kv-last-row-zero", "model.layers.3.self_attn.k_cache", |n| {
        let mut rows = n.right.to_vec();
        let last = rows.len() - KV * D;
        rows[last..].fill(0.0);
        rows
    }),
];
