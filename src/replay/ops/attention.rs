//! Full attention.

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::{SMALLEST, within_range};
use crate::replay::step::{Replayed, Step};

/// Which key head a query head reads, of query and key heads.
pub(crate) type Group = fn(usize, usize, usize) -> usize;

/// Query heads share key heads in groups of neighbours.
pub(crate) fn grouped(head: usize, heads: usize, kv: usize) -> usize {
    head / (heads / kv)
}

/// 1 where a token may look: at itself and all before it.
pub(crate) fn mask(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    mask_by(step, judge, |position, other| other <= position)
}

/// [`mask`] by another rule, of a token's position and that of another.
pub(crate) fn mask_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    sees: impl Fn(usize, usize) -> bool,
) -> Replayed<()> {
    let context = step.past() + step.tokens();
    sized("the mask", &vec![0.0; judge.len()], step.tokens() * context)?;
    for t in 0..step.tokens() {
        let row: Vec<f64> = (0..context).map(|u| f64::from(u8::from(sees(step.past() + t, u)))).collect();
        judge.check_exact(t * context, &row);
    }
    Ok(())
}

/// What the step before left, and the step's own rows behind it.
pub(crate) fn cache(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    cache_by(step, judge, |_, _| ())
}

/// [`cache`] after a change of its rows, of which each has the given width.
pub(crate) fn cache_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    change: fn(&mut Vec<f64>, usize),
) -> Replayed<()> {
    let mut rows = step.carried()?.map(|view| view.to_f64()).unwrap_or_default();
    rows.extend(step.input(0)?.to_f64());
    sized("the cache", &rows, judge.len())?;
    change(&mut rows, judge.len() / (step.past() + step.tokens()).max(1));
    // A cache of a coarser type rounds what it takes.
    let precision = step.precision()?;
    let least = if precision.stored > 0.0 { precision.least } else { 0.0 };
    let bounds: Vec<f64> = rows.iter().map(|v| precision.stored * v.abs() + least).collect();
    judge.check(0, &rows, &bounds);
    Ok(())
}

/// `q · k / √d` where the mask allows it, −∞ elsewhere; query heads share key heads in groups.
pub(crate) fn scores(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    scores_by(step, judge, grouped, |d| 1.0 / d.sqrt())
}

/// [`scores`] with another choice of key heads, and another scale, of the head's size.
pub(crate) fn scores_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    group: Group,
    scale: fn(f64) -> f64,
) -> Replayed<()> {
    let (q, k, mask) = (step.input(0)?.to_f64(), step.input(1)?.to_f64(), step.input(2)?.to_f64());
    let (heads, kv, d) = (step.dim("heads"), step.dim("kv_heads"), step.dim("head_dim"));
    let (n, seen) = (step.tokens(), step.past() + step.tokens());
    sized("the queries", &q, n * heads * d)?;
    sized("the keys", &k, seen * kv * d)?;
    sized("the mask", &mask, n * seen)?;
    sized("the scores", &vec![0.0; judge.len()], heads * n * seen)?;
    let precision = step.precision()?;
    let scale = scale(d as f64);
    let factor = precision.gamma(d + 3) * scale;
    let least = SMALLEST * d as f64 + precision.least;
    let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
    let norms: Vec<f64> = k.chunks_exact(d).map(norm).collect();
    for h in 0..heads {
        let group = group(h, heads, kv);
        for t in 0..n {
            let query = &q[(t * heads + h) * d..][..d];
            let size = norm(query);
            let (mut out, mut bounds) = (vec![f64::NEG_INFINITY; seen], vec![0.0; seen]);
            for u in (0..seen).filter(|u| mask[t * seen + u] != 0.0) {
                let key = &k[(u * kv + group) * d..][..d];
                out[u] = scale * query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
                let size = size * norms[u * kv + group];
                let bound = factor * size + 2.0 * precision.stored * out[u].abs() + least;
                bounds[u] = within_range(size, bound);
            }
            judge.check((h * n + t) * seen, &out, &bounds);
        }
    }
    Ok(())
}

/// Roundings of an online softmax for each token, if it takes them one by one and each is larger than all
/// before: a sum, and a rescaling by an exponential of two units.
const ONLINE: usize = 4;

/// Relative error of a probability: an error of the exponent `s − max` is a relative one of its
/// exponential, and all n exponentials are summed; an online softmax rescales in each of its blocks, by
/// exponents that add up to the farthest.
fn of_a_probability(distance: f64, farthest: f64, unit: f64, gamma: f64) -> f64 {
    unit * (distance + farthest) + gamma + 12.0 * unit
}

/// `exp(s − max) / Σ exp(s − max)` over each row; a row without any token is 0.
pub(crate) fn softmax(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let s = step.input(0)?.to_f64();
    let seen = step.past() + step.tokens();
    sized("the scores", &s, judge.len())?;
    let precision = step.precision()?;
    let gamma = precision.gamma(ONLINE * seen);
    for (i, row) in s.chunks_exact(seen).enumerate() {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            judge.check_exact(i * seen, &vec![0.0; seen]);
            continue;
        }
        let weights: Vec<f64> = row.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let finite = row.iter().filter(|s| s.is_finite()).map(|s| max - s);
        // Terms that are far below the largest have no share in the sum's error.
        let farthest = finite.filter(|d| *d < 40.0).fold(0.0, f64::max);
        let out: Vec<f64> = weights.iter().map(|w| w / sum).collect();
        let bounds: Vec<f64> = out
            .iter()
            .zip(row)
            .map(|(p, s)| {
                if *s == f64::NEG_INFINITY {
                    return 0.0;
                }
                p * (of_a_probability(max - s, farthest, precision.sum, gamma) + precision.stored)
                    + precision.least
            })
            .collect();
        judge.check(i * seen, &out, &bounds);
    }
    Ok(())
}

/// `Σ p v` over the tokens of the cache.
///
/// An engine with an online softmax never holds p: its error is that of a probability too.
/// One that stores 16 bits rounds p to them for the product, though its softmax has 32.
pub(crate) fn context(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    context_by(step, judge, grouped)
}

/// [`context`] with another choice of value heads.
pub(crate) fn context_by(step: &Step<'_>, judge: &mut Judge<'_>, group: Group) -> Replayed<()> {
    let (p, v) = (step.input(0)?.to_f64(), step.input(1)?.to_f64());
    let (heads, kv, d) = (step.dim("heads"), step.dim("kv_heads"), step.dim("head_dim"));
    let (n, seen) = (step.tokens(), step.past() + step.tokens());
    sized("the probabilities", &p, heads * n * seen)?;
    sized("the values", &v, seen * kv * d)?;
    sized("the context", &vec![0.0; judge.len()], n * heads * d)?;
    let precision = step.precision()?;
    let gamma = precision.gamma((ONLINE + 1) * seen);
    for t in 0..n {
        for h in 0..heads {
            let row = &p[(h * n + t) * seen..][..seen];
            let (mut out, mut size) = (vec![0.0; d], vec![0.0; d]);
            let mut least = vec![precision.least; d];
            for (u, p) in row.iter().enumerate() {
                let value = &v[(u * kv + group(h, heads, kv)) * d..][..d];
                // A probability below the smallest number may be 0 here and not 0 in a kernel that kept none.
                least.iter_mut().zip(value).for_each(|(least, v)| *least += precision.least * v.abs());
                if *p == 0.0 {
                    continue;
                }
                // −ln p bounds how far the score was below the largest, up to the sum.
                let error = of_a_probability(-p.ln().min(0.0), 40.0, precision.sum, gamma) + precision.kept();
                for ((out, size), v) in out.iter_mut().zip(&mut size).zip(value) {
                    *out += p * v;
                    *size += error * (p * v).abs();
                }
            }
            let stored = |((size, least), y): ((&f64, &f64), &f64)| size + least + precision.stored * y.abs();
            let bounds: Vec<f64> = size.iter().zip(&least).zip(&out).map(stored).collect();
            judge.check((t * heads + h) * d, &out, &bounds);
        }
    }
    Ok(())
}
