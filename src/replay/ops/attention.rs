//! Full attention.

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::{Precision, within_range};
use crate::replay::step::{Replayed, Rows, Step, Stop};

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
    let (context, rows) = (step.past() + step.tokens(), step.output_rows());
    sized("the mask", judge.len(), rows.len() * context)?;
    for (place, t) in rows.iter().enumerate() {
        let row: Vec<f64> = (0..context).map(|u| f64::from(u8::from(sees(step.past() + t, u)))).collect();
        judge.check_exact(place * context, &row);
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
    sized("the cache", rows.len(), judge.len())?;
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
    let (rows, masks) = (step.output_rows(), step.input_rows(2));
    sized("the queries", q.len(), n * heads * d)?;
    sized("the keys", k.len(), seen * kv * d)?;
    sized("the mask", mask.len(), masks.len() * seen)?;
    sized("the scores", judge.len(), heads * rows.len() * seen)?;
    let precision = step.precision()?;
    let scale = scale(d as f64);
    let bound = ScoreBound::new(precision, d, scale);
    let norms: Vec<f64> = k.chunks_exact(d).map(norm).collect();
    for h in 0..heads {
        let group = group(h, heads, kv);
        for (place, t) in rows.iter().enumerate() {
            let allowed = row_of(&mask, masks, t, seen).ok_or_else(|| lacking("mask", t))?;
            let query = &q[(t * heads + h) * d..][..d];
            let size = norm(query);
            let (mut out, mut bounds) = (vec![f64::NEG_INFINITY; seen], vec![0.0; seen]);
            for u in (0..seen).filter(|u| allowed[*u] != 0.0) {
                let key = &k[(u * kv + group) * d..][..d];
                out[u] = scale * query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
                bounds[u] = bound.of(size * norms[u * kv + group], out[u]);
            }
            judge.check((h * rows.len() + place) * seen, &out, &bounds);
        }
    }
    Ok(())
}

/// The rounding error of a scaled product of a query and a key.
pub(super) struct ScoreBound {
    factor: f64,
    stored: f64,
    least: f64,
}

impl ScoreBound {
    /// That of heads of `d` numbers.
    pub fn new(precision: Precision, d: usize, scale: f64) -> Self {
        Self { factor: precision.gamma(d + 3) * scale, stored: precision.stored, least: precision.lost(d) }
    }

    /// For a query and a key whose norms multiply to `size`.
    pub fn of(&self, size: f64, score: f64) -> f64 {
        within_range(size, self.factor * size + 2.0 * self.stored * score.abs() + self.least)
    }
}

pub(super) fn norm(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The row of a query token in `values`, of which these rows were captured.
fn row_of<'a>(values: &'a [f64], rows: Rows<'_>, token: usize, width: usize) -> Option<&'a [f64]> {
    rows.place(token).map(|place| &values[place * width..][..width])
}

fn lacking(what: &str, token: usize) -> Stop {
    Stop::Missing(format!("the row of token {token} of its {what} was not captured"))
}

/// Roundings of an online softmax for each token, if it takes them one by one and each is larger than all
/// before: a sum, and a rescaling by an exponential of two units.
pub(super) const ONLINE: usize = 4;

/// Relative error of a probability: an error of the exponent `s − max` is a relative one of its
/// exponential, and all n exponentials are summed; an online softmax rescales in each of its blocks, by
/// exponents that add up to the farthest.
pub(super) fn of_a_probability(distance: f64, farthest: f64, unit: f64, gamma: f64) -> f64 {
    unit * (distance + farthest) + gamma + 12.0 * unit
}

/// `exp(s − max) / Σ exp(s − max)` over each row; a row without any token is 0.
pub(crate) fn softmax(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let s = step.input(0)?.to_f64();
    let (seen, heads) = (step.past() + step.tokens(), step.dim("heads"));
    let (rows, known) = (step.output_rows(), step.input_rows(0));
    sized("the scores", s.len(), heads * known.len() * seen)?;
    sized("the probabilities", judge.len(), heads * rows.len() * seen)?;
    let precision = step.precision()?;
    let gamma = precision.gamma(ONLINE * seen);
    for i in 0..heads * rows.len() {
        let (h, t) = (i / rows.len(), rows.token(i % rows.len()));
        let of_head = &s[h * known.len() * seen..][..known.len() * seen];
        let row = row_of(of_head, known, t, seen).ok_or_else(|| lacking("scores", t))?;
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
