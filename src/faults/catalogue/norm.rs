//! Norms over rows: `x · 1/√(mean x² + ε) · (shift + w)`, with `silu(z)` behind it where there is a gate.

use super::super::number::{sigmoid, silu, to_bf16};
use super::super::{Call, Fault};
use super::LIST;
use crate::error::Result;
use crate::model::{Component, Graph, Op};

const PLAIN: &[Op] = &[Op::RmsNorm];
const GATED: &[Op] = &[Op::GatedRmsNorm];
const BOTH: &[Op] = &[Op::RmsNorm, Op::GatedRmsNorm];
const HALF: &str = "modules cast to half precision as a whole: Gemma fine-tunes with (1 + w) in bfloat16";

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("norm-no-shift", PLAIN, "(1 + w)", "w", LIST, |c| normed(c, c.input(0)?, root, |w| w, silu)),
    Fault::new("norm-double-shift", PLAIN, "(1 + w)", "(2 + w)", LIST, |c| {
        normed(c, c.input(0)?, root, |w| 2.0 + w, silu)
    }),
    Fault::new("norm-eps-outside", BOTH, "rsqrt(ms + ε)", "1 / (√ms + ε)", LIST, |c| {
        scaled(c, |row, eps| 1.0 / (mean_square(row).sqrt() + eps))
    })
    .quiet()
    .called(&["norm-eps-outside", "gated-norm-eps-outside"]),
    Fault::new("shift-bf16", PLAIN, "(1 + w)", "bf16(1 + w)", LIST, |c| {
        normed(c, c.input(0)?, root, |w| to_bf16(1.0 + w), silu)
    })
    .quiet(),
    Fault::new("norm-sum-bf16", BOTH, "Σx² in f32", "Σx² in bf16", LIST, |c| {
        let sum = |row: &[f32]| row.iter().fold(0.0, |sum, v| to_bf16(sum + to_bf16(v * v)));
        scaled(c, |row, eps| 1.0 / (sum(row) / row.len() as f32 + eps).sqrt())
    })
    .quiet()
    .called(&["norm-sum-bf16", "gated-norm-sum-bf16"]),
    Fault::new(
        "norm-eps-1e-5",
        BOTH,
        "ε = 1e-6",
        "ε = 1e-5",
        "llama.cpp before the epsilon came from the file: one constant for LLaMA 1 and 2",
        |c| scaled(c, |row, _| 1.0 / (mean_square(row) + 1e-5).sqrt()),
    )
    .quiet()
    .called(&["norm-eps-1e-5", "gated-norm-eps-1e-5"]),
    Fault::new("norm-no-eps", BOTH, "rsqrt(ms + ε)", "rsqrt(ms)", "hand-written kernels", |c| {
        scaled(c, |row, _| 1.0 / mean_square(row).sqrt())
    })
    .quiet()
    .called(&["norm-no-eps", "gated-norm-no-eps"]),
    Fault::new(
        "norm-sum-for-mean",
        BOTH,
        "mean x²",
        "Σx²",
        "ports that take an L2 norm for an RMS norm",
        |c| scaled(c, |row, eps| 1.0 / (mean_square(row) * row.len() as f32 + eps).sqrt()),
    )
    .called(&["norm-sum", "gated-norm-sum"]),
    Fault::new(
        "norm-mean-subtracted",
        PLAIN,
        "x",
        "x − mean x",
        "ports that take a layer norm for an RMS norm",
        |c| {
            let width = c.param(0)?.len();
            let rows = c.input(0)?.chunks_exact(width);
            let centred = rows.flat_map(|row| {
                let mean = row.iter().sum::<f32>() / width as f32;
                row.iter().map(move |v| v - mean)
            });
            let shift = c.number("shift")?;
            normed(c, &centred.collect::<Vec<_>>(), root, |w| shift + w, silu)
        },
    )
    .called(&["norm-centered"]),
    Fault::new("norm-cast-before-gain", PLAIN, "n · (1 + w)", "bf16(n) · (1 + w)", HALF, |c| {
        let shift = c.number("shift")?;
        let plain = normed(c, c.input(0)?, root, |_| 1.0, silu)?;
        let w = c.param(0)?;
        Ok(plain.iter().zip(w.iter().cycle()).map(|(n, w)| to_bf16(*n) * (shift + w)).collect())
    })
    .quiet(),
    Fault::new("qk-norm-skipped", PLAIN, "norm(q), norm(k)", "q, k", "ports of Qwen2 code to Qwen3", |c| {
        Ok(c.input(0)?.to_vec())
    })
    .lives(of_heads)
    .called(&["norm-left-out"]),
    Fault::new(
        "qk-norm-all-heads",
        PLAIN,
        "one mean for each head",
        "one mean for all heads",
        "OLMo 2 norms all heads at once, Qwen3 each: code of one used for the other",
        over_all_heads,
    )
    .lives(of_heads)
    .called(&["norm-all-heads"]),
    Fault::new("gated-norm-sigmoid", GATED, "silu(z)", "sigmoid(z)", LIST, |c| {
        normed(c, c.input(0)?, root, |w| w, sigmoid)
    }),
    Fault::new(
        "gated-norm-shifted",
        GATED,
        "w",
        "(1 + w)",
        "Qwen3-Next ports: one norm for both kinds",
        |c| normed(c, c.input(0)?, root, |w| 1.0 + w, silu),
    ),
    Fault::new(
        "gated-norm-ungated",
        GATED,
        "norm(o) · silu(z)",
        "norm(o)",
        "a gate forgotten in a port",
        |c| normed(c, c.input(0)?, root, |w| w, |_| 1.0),
    )
    .called(&["gated-norm-no-gate"]),
    Fault::new(
        "gated-norm-gate-first",
        GATED,
        "norm(o) · silu(z)",
        "norm(o · silu(z))",
        "Mamba 2 has both orders (`norm_before_gate`), and ports mix them up",
        |c| {
            let gated: Vec<f32> = c.input(0)?.iter().zip(c.input(1)?).map(|(o, z)| o * silu(*z)).collect();
            normed(c, &gated, root, |w| w, |_| 1.0)
        },
    ),
];

fn of_heads(graph: &Graph, component: &Component) -> bool {
    graph.axes(component).iter().any(|name| name == "head_dim")
}

fn mean_square(row: &[f32]) -> f32 {
    row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32
}

fn root(row: &[f32], eps: f32) -> f32 {
    1.0 / (mean_square(row) + eps).sqrt()
}

/// The norm with another factor for each row.
pub(super) fn scaled(c: &Call<'_>, factor: impl Fn(&[f32], f32) -> f32) -> Result<Vec<f32>> {
    let shift = c.number("shift")?;
    normed(c, c.input(0)?, factor, |w| shift + w, silu)
}

/// The norm of `x` with another factor for each row, another gain, another gate.
fn normed(
    c: &Call<'_>,
    x: &[f32],
    factor: impl Fn(&[f32], f32) -> f32,
    gain: impl Fn(f32) -> f32,
    gate: impl Fn(f32) -> f32,
) -> Result<Vec<f32>> {
    let (w, eps) = (c.param(0)?, c.number("eps")?);
    let factors = x.chunks_exact(w.len()).map(|row| factor(row, eps));
    let factors = factors.flat_map(|f| std::iter::repeat_n(f, w.len()));
    let mut out: Vec<f32> =
        x.iter().zip(factors).zip(w.iter().cycle()).map(|((x, f), w)| x * f * gain(*w)).collect();
    if c.component.inputs.len() > 1 {
        out.iter_mut().zip(c.input(1)?).for_each(|(y, z)| *y *= gate(*z));
    }
    Ok(out)
}

fn over_all_heads(c: &Call<'_>) -> Result<Vec<f32>> {
    let (x, w, eps, shift) = (c.input(0)?, c.param(0)?, c.number("eps")?, c.number("shift")?);
    let rows = x.chunks_exact(x.len() / c.tokens);
    let factors = rows.flat_map(|row| std::iter::repeat_n(root(row, eps), row.len()));
    Ok(x.iter().zip(factors).zip(w.iter().cycle()).map(|((x, f), w)| x * f * (shift + w)).collect())
}
