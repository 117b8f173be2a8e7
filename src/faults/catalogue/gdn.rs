//! What a GatedDeltaNet prepares for its recurrence: unit vectors, β, decay.

use super::super::number::{sigmoid, softplus, to_bf16};
use super::super::{Call, Fault};
use super::LIST;
use crate::error::Result;
use crate::model::Op;

const UNIT: &[Op] = &[Op::L2Norm];
const BETA: &[Op] = &[Op::Sigmoid];
const DECAY: &[Op] = &[Op::GdnDecay];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("l2-no-eps", UNIT, "rsqrt(Σ + 1e-6)", "Σ > 1e-12 ? rsqrt(Σ) : 0", LIST, |c| {
        lengths(c, |sum, _| if sum > 1e-12 { 1.0 / sum.sqrt() } else { 0.0 })
    })
    .quiet(),
    Fault::new("l2-as-rms", UNIT, "rsqrt(Σ + ε)", "rsqrt(Σ/d + ε) · d^-½", LIST, |c| {
        let eps = c.number("eps")?;
        lengths(c, |sum, d| 1.0 / (sum / d + eps).sqrt() / d.sqrt())
    })
    .quiet(),
    Fault::new(
        "l2-eps-outside",
        UNIT,
        "rsqrt(Σ + ε)",
        "1 / (√Σ + ε)",
        "F.normalize written by hand",
        |c| {
            let eps = c.number("eps")?;
            lengths(c, |sum, _| 1.0 / (sum.sqrt() + eps))
        },
    )
    .quiet(),
    Fault::new("l2-eps-1e-5", UNIT, "ε = 1e-6", "ε = 1e-5", "the norms' epsilon taken for this one", |c| {
        lengths(c, |sum, _| 1.0 / (sum + 1e-5).sqrt())
    })
    .quiet(),
    Fault::new(
        "l2-scale-missing",
        UNIT,
        "rsqrt(Σ + ε)",
        "rsqrt(Σ/d + ε)",
        "an RMS norm for an L2 norm",
        |c| {
            let eps = c.number("eps")?;
            lengths(c, |sum, d| 1.0 / (sum / d + eps).sqrt())
        },
    )
    .called(&["l2-mean"]),
    Fault::new(
        "l2-skipped",
        UNIT,
        "x · rsqrt(Σ + ε)",
        "x",
        "flash-linear-attention leaves it to its caller (`use_qk_l2norm_in_kernel`)",
        |c| lengths(c, |_, _| 1.0),
    ),
    Fault::new("beta-raw", BETA, "sigmoid(b)", "b", "kernels that want β after the sigmoid", |c| {
        Ok(c.input(0)?.to_vec())
    })
    .called(&["beta-no-sigmoid"]),
    Fault::new(
        "beta-doubled",
        BETA,
        "sigmoid(b)",
        "2 sigmoid(b)",
        "`allow_neg_eigval` of DeltaNet left on",
        |c| Ok(c.input(0)?.iter().map(|b| 2.0 * sigmoid(*b)).collect()),
    ),
    Fault::new("beta-bf16", BETA, "sigmoid(b)", "bf16(sigmoid(b))", "β kept in the model's type", |c| {
        Ok(c.output.iter().map(|b| to_bf16(*b)).collect())
    })
    .quiet()
    .called(&["output-bf16"]),
    Fault::new("decay-raw-a-log", DECAY, "−exp(A_log) · sp", "A_log · sp", LIST, |c| {
        decay(c, |a| a, |b| b, softplus, |g| g)
    }),
    Fault::new("a-log-bf16", DECAY, "A_log", "bf16(A_log)", LIST, |c| {
        decay(c, |a| -to_bf16(a).exp(), |b| b, softplus, |g| g)
    })
    .quiet(),
    Fault::new("decay-bf16", DECAY, "e^g", "bf16(e^g)", LIST, |c| {
        decay(c, |a| -a.exp(), |b| b, softplus, to_bf16)
    })
    .quiet()
    .called(&["output-bf16"]),
    Fault::new(
        "decay-rate-bf16",
        DECAY,
        "exp(A_log)",
        "bf16(exp(A_log))",
        "A stored converted, in bf16",
        |c| decay(c, |a| -to_bf16(a.exp()), |b| b, softplus, |g| g),
    )
    .quiet(),
    Fault::new(
        "decay-no-bias",
        DECAY,
        "a + dt_bias",
        "a",
        "a parameter without `.weight`, not loaded",
        |c| decay(c, |a| -a.exp(), |_| 0.0, softplus, |g| g),
    )
    .called(&["decay-no-dt-bias"]),
    Fault::new(
        "decay-no-softplus",
        DECAY,
        "softplus(t)",
        "max(t, 0)",
        "`dt_softplus` not passed on (Mamba)",
        |c| decay(c, |a| -a.exp(), |b| b, |t| t.max(0.0), |g| g),
    )
    .called(&["decay-relu"]),
    Fault::new("decay-not-exponentiated", DECAY, "e^g", "1 + g", "a first-order discretization", |c| {
        let g = decay(c, |a| -a.exp(), |b| b, softplus, |g| g)?;
        Ok(g.iter().map(|g| 1.0 + g.ln()).collect())
    })
    .called(&["decay-first-order"]),
    Fault::new("decay-log2", DECAY, "e^g", "2^g", "kernels that use exp2 without the factor log2 e", |c| {
        let g = decay(c, |a| -a.exp(), |b| b, softplus, |g| g)?;
        Ok(g.iter().map(|g| g.ln().exp2()).collect())
    })
    .called(&["decay-exp2"]),
];

/// Heads times `factor(Σx², d)`.
pub(super) fn lengths(c: &Call<'_>, factor: impl Fn(f32, f32) -> f32) -> Result<Vec<f32>> {
    let (heads, dim, width) = (c.dim("key_heads"), c.dim("key_dim"), c.dim("conv_dim"));
    let start = if c.word("slice") == "key" { heads * dim } else { 0 };
    let rows = c.input(0)?.chunks_exact(width).flat_map(|row| row[start..][..heads * dim].chunks_exact(dim));
    let scaled = rows.flat_map(|head| {
        let f = factor(head.iter().map(|v| v * v).sum(), dim as f32);
        head.iter().map(move |v| v * f)
    });
    Ok(scaled.collect())
}

/// `after(exp(rate(A_log) · soft(a + bias(dt_bias))))`.
pub(super) fn decay(
    c: &Call<'_>,
    rate: impl Fn(f32) -> f32,
    bias: impl Fn(f32) -> f32,
    soft: impl Fn(f32) -> f32,
    after: impl Fn(f32) -> f32,
) -> Result<Vec<f32>> {
    let (a_log, dt_bias) = (c.param(0)?, c.param(1)?);
    let heads = a_log.iter().zip(&dt_bias).cycle();
    let one = |(a, (log, b)): (&f32, (&f32, &f32))| after((rate(*log) * soft(a + bias(*b))).exp());
    Ok(c.input(0)?.iter().zip(heads).map(one).collect())
}
