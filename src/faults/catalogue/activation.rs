//! The gated activation of the MLP, and the residual sums.

use super::super::number::{gelu, sigmoid, silu, to_bf16};
use super::super::{Call, Fault};
use super::LIST;
use crate::error::Result;
use crate::model::Op;

const ACTIVATION: &[Op] = &[Op::SiluMul];
const SUM: &[Op] = &[Op::Add];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("gate-up-swapped", ACTIVATION, "silu(gate) · up", "silu(up) · gate", LIST, |c| {
        both(c, |gate, up| silu(up) * gate)
    }),
    Fault::new("gelu-for-silu", ACTIVATION, "silu", "gelu", LIST, |c| both(c, |gate, up| gelu(gate) * up))
        .called(&["gelu-tanh-for-silu"]),
    Fault::new(
        "quick-gelu-for-silu",
        ACTIVATION,
        "x · sigmoid(x)",
        "x · sigmoid(1.702 x)",
        "CLIP's quick GELU, which is nearly a SiLU, taken for it",
        |c| both(c, |gate, up| gate * sigmoid(1.702 * gate) * up),
    )
    .called(&["gelu-quick-for-silu"]),
    Fault::new("sigmoid-for-silu", ACTIVATION, "silu", "sigmoid", "GLU for SwiGLU", |c| {
        both(c, |gate, up| sigmoid(gate) * up)
    }),
    Fault::new(
        "up-plus-one",
        ACTIVATION,
        "silu(gate) · up",
        "silu(gate) · (up + 1)",
        "gpt-oss's activation in shared code",
        |c| both(c, |gate, up| silu(gate) * (up + 1.0)),
    ),
    Fault::new(
        "activation-clamped",
        ACTIVATION,
        "gate, up",
        "clamped to ±1",
        "gpt-oss's limit in shared code, with another value",
        |c| both(c, |gate, up| silu(gate.min(1.0)) * up.clamp(-1.0, 1.0)),
    )
    .quiet(),
    Fault::new(
        "activation-bf16",
        ACTIVATION,
        "silu(gate) · up",
        "bf16(silu(gate)) · up",
        "two kernels with bf16 between them",
        |c| both(c, |gate, up| to_bf16(silu(gate)) * up),
    )
    .quiet()
    .called(&["silu-bf16"]),
    Fault::new("residual-dropped", SUM, "x + f(x)", "f(x)", LIST, |c| Ok(c.input(1)?.to_vec())),
    Fault::new(
        "residual-doubled",
        SUM,
        "x + f(x)",
        "x + 2 f(x)",
        "a residual added in the kernel and after it",
        |c| both(c, |x, f| x + 2.0 * f),
    )
    .called(&["branch-twice"]),
    Fault::new(
        "residual-bf16",
        SUM,
        "x + f(x)",
        "bf16(x + f(x))",
        "a residual stream in bf16 beside f32 weights",
        |c| both(c, |x, f| to_bf16(x + f)),
    )
    .quiet()
    .called(&["output-bf16"]),
];

fn both(c: &Call<'_>, f: impl Fn(f32, f32) -> f32) -> Result<Vec<f32>> {
    Ok(c.input(0)?.iter().zip(c.input(1)?).map(|(a, b)| f(*a, *b)).collect())
}
