//! The mask and the cache of full attention.

use super::{Hypothesis, exact, one_row_late};
use crate::replay::ops::attention::{cache, cache_by, mask_by};

pub(super) const MASK: &[Hypothesis] = &[
    exact("mask-off-by-one", "each token sees the one after it too", |s, j| mask_by(s, j, |t, u| u <= t + 1)),
    exact("mask-strict", "no token sees itself", |s, j| mask_by(s, j, |t, u| u < t)),
    exact("mask-none", "every token sees all", |s, j| mask_by(s, j, |_, _| true)),
    exact("mask-anticausal", "each token sees itself and those after it", |s, j| {
        mask_by(s, j, |t, u| u >= t)
    }),
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
