//! Rotary position embedding: the tables, and the rotation of the pairs `(i, half + i)`.

use super::super::number::to_bf16;
use super::super::{Call, Fault, When};
use super::LIST;
use crate::error::Result;
use crate::model::{Component, Graph, Op};

const ROTATION: &[Op] = &[Op::Rope];
const TABLE: &[Op] = &[Op::RopeTable];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("rope-interleaved", ROTATION, "pairs (i, half + i)", "pairs (2i, 2i + 1)", LIST, |c| {
        rotated(c, |i, _, _| (2 * i, 2 * i + 1), 1.0)
    })
    .quiet(),
    Fault::new("rope-full-dim", ROTATION, "rotate the first dims", "rotate all of head_dim", LIST, |c| {
        positioned(c, 0, c.dim("head_dim") / 2)
    }),
    // Position 0 turns nothing; that it is so in decode alone is said by the steps.
    Fault::new("decode-position-zero", ROTATION, "position t", "0 in decode", LIST, |c| {
        Ok(c.input(0)?.to_vec())
    })
    .when(When::Decode)
    .called(&["rope-skipped"]),
    Fault::new("decode-position-plus-one", ROTATION, "position t", "t + 1 in decode", LIST, |c| {
        positioned(c, 1, c.dim("rope_half"))
    })
    .when(When::Decode)
    .lives(|_, component| component.layer.is_some_and(|layer| layer > 0))
    .quiet()
    .called(&["rope-position-plus-one"]),
    Fault::new(
        "rope-backwards",
        ROTATION,
        "(a cos − b sin, b cos + a sin)",
        "(a cos + b sin, b cos − a sin)",
        "a sign lost in `rotate_half`",
        |c| rotated(c, |i, half, _| (i, half + i), -1.0),
    )
    .called(&["rope-negated-sine"]),
    Fault::new(
        "rope-last-dims",
        ROTATION,
        "rotate the first dims",
        "rotate the last",
        "ports of partial RoPE",
        |c| rotated(c, |i, half, dim| (dim - 2 * half + i, dim - half + i), 1.0),
    ),
    Fault::new(
        "rope-key-skipped",
        ROTATION,
        "rotate k",
        "k as it is",
        "keys written to the cache before the rotation",
        |c| Ok(c.input(0)?.to_vec()),
    )
    .lives(of_keys)
    .called(&["rope-skipped"]),
    Fault::new(
        "rope-output-bf16",
        ROTATION,
        "q, k",
        "bf16(q), bf16(k)",
        "autocast around the rotation",
        |c| Ok(c.output.iter().map(|v| to_bf16(*v)).collect()),
    )
    .quiet()
    .called(&["output-bf16"]),
    Fault::new("rope-theta-1e6", TABLE, "θ = 1e7", "θ = 1e6", LIST, |c| {
        table(c, |t, i, half, _| t * 1e6f64.powf(-(i / half)))
    })
    .quiet(),
    Fault::new(
        "rope-theta-default",
        TABLE,
        "θ of the configuration",
        "θ = 1e4",
        "loaders that did not read `rope_theta` (Code Llama's 1e6 run with 1e4)",
        |c| table(c, |t, i, half, _| t * 1e4f64.powf(-(i / half))),
    )
    .called(&["rope-theta-1e4"]),
    Fault::new(
        "rope-frequency-bf16",
        TABLE,
        "θ^(−i/half)",
        "bf16(θ^(−i/half))",
        "Transformers models cast as a whole, `inv_freq` included",
        |c| {
            let narrow = |v: f64| f64::from(to_bf16(v as f32));
            table(c, move |t, i, half, theta| t * narrow(theta.powf(-(i / half))))
        },
    )
    .quiet()
    .called(&["rope-frequencies-bf16"]),
    Fault::new(
        "rope-table-bf16",
        TABLE,
        "cos, sin",
        "bf16(cos), bf16(sin)",
        "tables kept in the model's type",
        |c| Ok(c.output.iter().map(|v| to_bf16(*v)).collect()),
    )
    .quiet()
    .called(&["output-bf16"]),
    Fault::new("rope-scaled", TABLE, "position t", "t / 2", "linear scaling of long context left on", |c| {
        table(c, |t, i, half, theta| 0.5 * t * theta.powf(-(i / half)))
    })
    .called(&["rope-linear-scaling"]),
    Fault::new(
        "rope-head-dim-exponent",
        TABLE,
        "θ^(−i/half)",
        "θ^(−2i/head_dim)",
        "partial RoPE with the frequencies of a full one",
        |c| {
            let all = c.dim("head_dim") as f64;
            table(c, move |t, i, _, theta| t * theta.powf(-2.0 * i / all))
        },
    )
    .called(&["rope-frequencies-full"]),
];

fn of_keys(graph: &Graph, component: &Component) -> bool {
    graph.axes(component).iter().any(|name| name == "kv_heads")
}

/// Cosine or sine of `angle(position, i, half, θ)`.
pub(super) fn table(c: &Call<'_>, angle: impl Fn(f64, f64, f64, f64) -> f64) -> Result<Vec<f32>> {
    let (half, theta) = (c.dim("rope_half"), c.theta()?);
    let function = if c.word("function") == "sin" { f64::sin } else { f64::cos };
    let entry = |t: usize, i: usize| function(angle(t as f64, i as f64, half as f64, theta)) as f32;
    Ok((c.past..c.seen()).flat_map(|t| (0..half).map(move |i| (t, i))).map(|(t, i)| entry(t, i)).collect())
}

/// The engine's own tables on other pairs, `pair(i, half, dim)`, or with another sign.
pub(super) fn rotated(
    c: &Call<'_>,
    pair: impl Fn(usize, usize, usize) -> (usize, usize),
    sign: f32,
) -> Result<Vec<f32>> {
    let (half, dim) = (c.dim("rope_half"), c.dim("head_dim"));
    let (cos, sin) = (c.input(1)?, c.input(2)?);
    let mut out = c.input(0)?.to_vec();
    let row = out.len() / c.tokens;
    for (n, head) in out.chunks_exact_mut(dim).enumerate() {
        let t = n * dim / row;
        for i in 0..half {
            turn(head, pair(i, half, dim), cos[t * half + i], sign * sin[t * half + i]);
        }
    }
    Ok(out)
}

/// The rotation of pairs `(i, half + i)` at positions that are `shift` off.
pub(super) fn positioned(c: &Call<'_>, shift: usize, half: usize) -> Result<Vec<f32>> {
    let (dim, theta) = (c.dim("head_dim"), c.theta()?);
    let mut out = c.input(0)?.to_vec();
    let row = out.len() / c.tokens;
    for (n, head) in out.chunks_exact_mut(dim).enumerate() {
        let position = (c.past + n * dim / row + shift) as f64;
        for i in 0..half {
            let angle = position * theta.powf(-(i as f64) / half as f64);
            turn(head, (i, half + i), angle.cos() as f32, angle.sin() as f32);
        }
    }
    Ok(out)
}

fn turn(head: &mut [f32], (i, j): (usize, usize), cos: f32, sin: f32) {
    let (a, b) = (head[i], head[j]);
    (head[i], head[j]) = (a * cos - b * sin, b * cos + a * sin);
}
