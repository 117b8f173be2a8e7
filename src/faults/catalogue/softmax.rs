//! Which tokens are seen, and with what probabilities.

use super::super::number::to_bf16;
use super::super::{Call, Fault, When};
use super::LIST;
use crate::error::Result;
use crate::model::Op;

const MASK: &[Op] = &[Op::CausalMask];
const SOFTMAX: &[Op] = &[Op::Softmax];

pub(super) const FAULTS: &[Fault] = &[
    Fault::new("mask-off-by-one", MASK, "row t sees 0..t", "0..t + 1", LIST, |c| {
        Ok(masked(c, |t, u| u <= t + 1))
    })
    .when(When::Prefill),
    Fault::new("mask-not-causal", MASK, "row t sees 0..t", "all", "`is_causal` not passed on", |c| {
        Ok(masked(c, |_, _| true))
    })
    .when(When::Prefill)
    .called(&["mask-none"]),
    Fault::new(
        "mask-first-hidden",
        MASK,
        "row t sees 0..t",
        "1..t",
        "a first token taken for padding, where pad and BOS share an id",
        |c| Ok(masked(c, |t, u| u <= t && (u > 0 || t == 0))),
    ),
    Fault::new(
        "mask-window-leaked",
        MASK,
        "row t sees 0..t",
        "the last 16",
        "a sliding window applied to layers of full attention (Gemma 2, Qwen2 ports)",
        |c| Ok(masked(c, |t, u| u <= t && u + 16 > t)),
    )
    .called(&["mask-window"]),
    Fault::new("softmax-bf16", SOFTMAX, "p", "bf16(p)", "softmax without the upcast to f32", |c| {
        Ok(c.output.iter().map(|p| to_bf16(*p)).collect())
    })
    .quiet()
    .called(&["output-bf16"]),
    Fault::new(
        "softmax-plus-one",
        SOFTMAX,
        "eˢ / Σ eˢ",
        "eˢ / (1 + Σ eˢ)",
        "attention sinks left on",
        |c| probabilities(c, |sum, max| sum + (-max).exp()),
    ),
    Fault::new("softmax-over-heads", SOFTMAX, "softmax over tokens", "over heads", "a wrong axis", |c| {
        let heads = c.dim("heads");
        let (s, size) = (c.input(0)?, c.output.len() / heads);
        let weight = |h: usize, i: usize| s[h * size + i].exp();
        let sum = |i: usize| (0..heads).map(|h| weight(h, i)).sum::<f32>();
        let one = |h: usize, i: usize| if s[h * size + i].is_finite() { weight(h, i) / sum(i) } else { 0.0 };
        Ok((0..heads).flat_map(|h| (0..size).map(move |i| (h, i))).map(|(h, i)| one(h, i)).collect())
    }),
];

fn masked(c: &Call<'_>, allowed: impl Fn(usize, usize) -> bool) -> Vec<f32> {
    let rows = (0..c.tokens).flat_map(|t| (0..c.seen()).map(move |u| (c.past + t, u)));
    rows.map(|(t, u)| f32::from(u8::from(allowed(t, u)))).collect()
}

/// A softmax with another denominator, of the sum and the largest score.
pub(super) fn probabilities(c: &Call<'_>, denominator: impl Fn(f32, f32) -> f32) -> Result<Vec<f32>> {
    let mut out = c.input(0)?.to_vec();
    for row in out.chunks_exact_mut(c.seen()) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|s| *s = (*s - max).exp());
        let sum = denominator(row.iter().sum(), max);
        row.iter_mut().for_each(|p| *p /= sum);
    }
    Ok(out)
}
