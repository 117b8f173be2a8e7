//! The causal convolution before the delta rule, and what it keeps.

use super::super::number::{silu, to_bf16};
use super::super::{Call, Fault, When};
use super::LIST;
use crate::error::Result;
use crate::model::Op;

const CONVOLUTION: &[Op] = &[Op::CausalConvSilu];
const STATE: &[Op] = &[Op::ConvState];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("conv-no-silu", CONVOLUTION, "silu(conv)", "conv", LIST, |c| {
        convolved(c, |j, k, t| Some((j, t + j + 1 - k)), |y| y)
    }),
    Fault::new(
        "conv-taps-reversed",
        CONVOLUTION,
        "oldest tap first",
        "newest tap first",
        "weights of a correlation taken for those of a convolution",
        |c| convolved(c, |j, k, t| Some((k - 1 - j, t + j + 1 - k)), silu),
    ),
    Fault::new(
        "conv-shift-first",
        CONVOLUTION,
        "K inputs",
        "the last two taps see the same input, the oldest is lost",
        "lattice 0.15.0's Q8_0 engine, found with this tool",
        |c| convolved(c, |j, k, t| Some((j, if j + 1 < k { t + j + 2 - k } else { t })), silu),
    )
    .called(&["conv-newest-twice"]),
    // A decode step has no history but the state: both say the same of it, on any input.
    Fault::new(
        "conv-history-lost",
        CONVOLUTION,
        "state of the step before",
        "zeros when decoding",
        "Mamba ports whose decode step starts with an empty buffer",
        |c| {
            let keep = |j: usize, k: usize, t: usize| (j + 1 == k).then_some((j, t));
            convolved(c, keep, silu)
        },
    )
    .when(When::Decode)
    .called(&["conv-state-ignored", "conv-no-history"]),
    Fault::new(
        "conv-one-late",
        CONVOLUTION,
        "x_t is the newest",
        "x_{t−1} is the newest",
        "padding on both sides, cut at the wrong end",
        |c| convolved(c, |j, k, t| (t + j).checked_sub(k).map(|at| (j, at)), silu),
    )
    .called(&["conv-late"]),
    Fault::new(
        "conv-output-bf16",
        CONVOLUTION,
        "y",
        "bf16(y)",
        "a kernel that returns its weights' type",
        |c| Ok(c.output.iter().map(|v| to_bf16(*v)).collect()),
    )
    .quiet()
    .called(&["output-bf16"]),
    // The state before a prefill is zero: not updated is the same, on any input.
    Fault::new(
        "conv-state-lost",
        STATE,
        "the last inputs",
        "zeros after the prefill",
        "prefill kernels that do not return their tail",
        |c| Ok(vec![0.0; c.output.len()]),
    )
    .when(When::Prefill)
    .called(&["conv-state-zero", "conv-state-not-updated"]),
    Fault::new(
        "conv-state-reversed",
        STATE,
        "oldest first",
        "newest first",
        "buffers read in the order of a ring",
        |c| {
            let kept = c.dim("conv_tail");
            Ok(c.output
                .chunks_exact(kept)
                .flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>())
                .collect())
        },
    ),
];

/// `f(Σ_j w[tap] x[at])`, where `taps(j, K, t)` gives the tap and the input's place for token t, counted so
/// that the state before the step lies at t − K + 1 .. t; both are offset by K − 1 to stay positive.
pub(super) fn convolved(
    c: &Call<'_>,
    taps: impl Fn(usize, usize, usize) -> Option<(usize, usize)>,
    f: impl Fn(f32) -> f32,
) -> Result<Vec<f32>> {
    let (x, w, channels) = (c.input(0)?, c.param(0)?, c.dim("conv_dim"));
    let kernel = w.len() / channels;
    let kept = kernel - 1;
    let old = c.carried(channels * kept);
    let at = |channel: usize, place: usize| match place.checked_sub(kept) {
        Some(t) => x[t * channels + channel],
        None => old[channel * kept + place],
    };
    let mut out = Vec::with_capacity(c.output.len());
    for t in 0..c.tokens {
        for channel in 0..channels {
            let terms = (0..kernel).filter_map(|j| taps(j, kernel, t + kept));
            out.push(f(terms.map(|(tap, place)| w[channel * kernel + tap] * at(channel, place)).sum()));
        }
    }
    Ok(out)
}
