//! The mask and the cache of full attention.

use super::{Hypothesis, exact, one_row_late};
use crate::replay::ops::attention::{cache, cache_by, mask_by};
use crate::replay::{Judge, Replayed, Step, Stop};

pub(super) const MASK: &[Hypothesis] = &[
    exact("mask-off-by-one", "each token sees the one after it too", |s, j| mask_by(s, j, |t, u| u <= t + 1)),
    exact("mask-strict", "no token sees itself", |s, j| mask_by(s, j, |t, u| u < t)),
    exact("mask-none", "every token sees all", |s, j| mask_by(s, j, |_, _| true)),
    exact("mask-anticausal", "each token sees itself and those after it", |s, j| {
        mask_by(s, j, |t, u| u >= t)
    }),
    exact("mask-first-hidden", "the first token is hidden from all others, as padding is", |s, j| {
        mask_by(s, j, |t, u| u <= t && (u > 0 || t == 0))
    }),
    exact("mask-window", "a sliding window: only the last tokens are seen", windowed),
    exact("mask-inverted", "1 where a token may not look", |s, j| mask_by(s, j, |t, u| u > t)),
];

pub(super) const CACHE: &[Hypothesis] = &[
    exact("kv-last-row-zero", "the last row of the cache is not written: 0", |s, j| {
        cache_by(s, j, |rows, width| {
            let last = rows.len() - width;
            rows[last..].fill(0.0);
        })
    }),
    exact("kv-last-row-stale", "the last row of the cache is still that of the token before", |s, j| {
        cache_by(s, j, |rows, width| {
            let last = rows.len() - width;
            rows.copy_within(last.saturating_sub(width)..last, last);
        })
    }),
    exact("kv-row-before-zero", "the row before the newest one of the cache is not written: 0", |s, j| {
        cache_by(s, j, |rows, width| {
            let last = rows.len() - width;
            rows[last.saturating_sub(width)..last].fill(0.0);
        })
    }),
    exact(
        "kv-row-before-overwritten",
        "the newest row of the cache is also written over the one before",
        |s, j| {
            cache_by(s, j, |rows, width| {
                let last = rows.len() - width;
                rows.copy_within(last.., last.saturating_sub(width));
            })
        },
    ),
    exact("kv-rolled", "the cache begins at its second row, and its first comes last", |s, j| {
        cache_by(s, j, |rows, width| rows.rotate_left(width))
    }),
    exact("kv-int8", "the new rows rounded to 8 bits by head", in_codes),
    exact("kv-scaled", "the new rows times one factor: the scale of an 8-bit cache", scaled),
    exact("kv-one-row-late", "rows of the cache one too low", |s, j| {
        cache_by(s, j, |rows, width| one_row_late(rows, width))
    }),
    exact("kv-first-row-overwritten", "the newest row of the cache is written to the first", |s, j| {
        cache_by(s, j, |rows, width| {
            let last = rows.len() - width;
            rows.copy_within(last.., 0);
        })
    }),
    exact("kv-old-lost", "what was in the cache before the step is lost: 0", |s, j| {
        let old = s.past() * s.output()?.len() / (s.past() + s.tokens()).max(1);
        j.then(move |i, y, bound| if i < old { (0.0, 0.0) } else { (y, bound) });
        cache(s, j)
    }),
];

/// How near to a half, in codes, a number may be rounded to either side.
const TIE: f64 = 1e-5;

/// Multiples of a 127th of the largest magnitude of each head.
fn in_codes(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (x, dim, unit) = (step.input(0)?.to_f64(), step.dim("head_dim"), 4.0 * step.precision()?.unit);
    let code = |v: f64, scale: f64| {
        let tie = ((v / scale).abs().fract() - 0.5).abs() < TIE;
        let y = (v / scale).round() * scale;
        (y, unit * y.abs() + if tie { scale } else { 0.0 })
    };
    let coded = |head: &[f64]| -> Vec<(f64, f64)> {
        let scale = head.iter().fold(0.0f64, |m, v| m.max(v.abs())) / 127.0;
        head.iter().map(|v| if scale > 0.0 { code(*v, scale) } else { (*v, 0.0) }).collect()
    };
    let coded: Vec<(f64, f64)> = x.chunks_exact(dim).flat_map(coded).collect();
    let old = judge.len() - coded.len().min(judge.len());
    judge.then(move |i, y, bound| if i < old { (y, bound) } else { coded[i - old] });
    cache(step, judge)
}

/// The factor is that which fits best.
fn scaled(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (x, y, unit) = (step.input(0)?.to_f64(), step.output()?.to_f64(), 4.0 * step.precision()?.unit);
    let old = y.len() - x.len().min(y.len());
    let products: f64 = x.iter().zip(&y[old..]).map(|(x, y)| x * y).sum();
    let factor = products / x.iter().map(|x| x * x).sum::<f64>();
    judge.then(
        move |i, y, bound| {
            if i < old { (y, bound) } else { (y * factor, (bound + unit * y.abs()) * factor.abs()) }
        },
    );
    cache(step, judge)
}

/// A window of a power of two tokens, as sliding windows are: the last row shows how many.
fn windowed(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let captured = step.output()?.to_f64();
    let context = step.past() + step.tokens();
    let window = captured.iter().rev().take(context).filter(|m| **m != 0.0).count();
    if !window.is_power_of_two() {
        return Err(Stop::Missing("its last row shows no such window".into()));
    }
    mask_by(step, judge, |t, u| u <= t && u + window > t)
}
