//! The context of full attention, of tokens whose probabilities were captured and of others.
//!
//! # Tokens whose probabilities were not captured
//!
//! Of a long context a trace keeps the rows of some tokens only. The context of the others is replayed from
//! queries and keys, row by row, by the formulas of mask, scores and softmax. All of these must be sound in the rows
//! that were captured: else nothing is known of what the kernel went on with in the others.
//!
//! With s the exact scores, those of a correct kernel are off by at most β_u, the bound of [`ScoreBound`]. Its
//! softmax is that of them. With p the exact one,
//!
//! `softmax(ŝ)_u / p_u = exp(ŝ_u − s_u) / Σ_w p_w exp(ŝ_w − s_w)`,
//!
//! which is at most `exp(β_u) / Σ p_w exp(−β_w)` and at least `exp(−β_u) / Σ p_w exp(β_w)`. With
//! `B = ln Σ p_w exp(β_w)`, which is not less than `−ln Σ p_w exp(−β_w)` (Jensen's inequality), a probability's relative error is at
//! most `ε_u = exp(β_u + B) − 1`. The softmax's own rounding and that of the sum come on top with e_u, the relative
//! error that [`context`] allows a term whose probability is known: `(1 + ε_u)(1 + e_u) − 1` of each `|p_u v_u|`.

use super::attention::{Group, ONLINE, ScoreBound, grouped, mask, norm, of_a_probability, scores, softmax};
use super::sized;
use crate::model::{Component, Op};
use crate::replay::judge::Judge;
use crate::replay::precision::Precision;
use crate::replay::step::{Replayed, Rows, Step, Stop};

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
    let rows = step.input_rows(0);
    sized("the probabilities", p.len(), heads * rows.len() * seen)?;
    sized("the values", v.len(), seen * kv * d)?;
    sized("the context", judge.len(), n * heads * d)?;
    let precision = step.precision()?;
    let gamma = precision.gamma((ONLINE + 1) * seen);
    let lost = precision.lost(seen);
    for (place, t) in rows.iter().enumerate() {
        for h in 0..heads {
            let row = &p[(h * rows.len() + place) * seen..][..seen];
            let (mut out, mut size) = (vec![0.0; d], vec![0.0; d]);
            let mut least = vec![lost; d];
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
    if rows.len() < n {
        match Behind::of(step)? {
            Ok(behind) => behind.check(step, judge, (rows, &v), group)?,
            Err(why) => judge.leave_unseen(format!(
                "the probabilities of {} of the {n} tokens were not captured, and {why}; the others are within their bounds",
                n - rows.len()
            )),
        }
    }
    Ok(())
}

/// What a component's probabilities are made of.
pub(super) struct Behind<'a> {
    q: Vec<f64>,
    k: Vec<f64>,
    /// Of each key of each head.
    norms: Vec<f64>,
    bound: ScoreBound,
    scale: f64,
    /// Of the softmax.
    precision: Precision,
    steps: [Step<'a>; 3],
}

/// The softmax and the scores behind a context, by the architecture's description.
fn chain<'a>(step: &Step<'a>) -> Option<[&'a Component; 2]> {
    let input = |component: &Component, op: Op| {
        step.graph.get(component.inputs.first()?).filter(|component| component.op == op)
    };
    let probs = input(step.component, Op::Softmax)?;
    Some([probs, input(probs, Op::AttentionScores)?])
}

/// The points of queries and keys that a context is replayed from where not all probabilities were captured.
pub(super) fn read_behind<'a>(step: &Step<'a>) -> Option<[&'a str; 2]> {
    let partial = step.component.op == Op::AttentionContext && step.input_rows(0).len() < step.tokens();
    let [_, scores] = chain(step).filter(|_| partial)?;
    Some([scores.inputs.first()?, scores.inputs.get(1)?])
}

impl<'a> Behind<'a> {
    /// Reads it; the inner error says why nothing can be said of the tokens without probabilities.
    fn of(step: &Step<'a>) -> Replayed<Result<Self, String>> {
        let Some([probs, scores]) = chain(step) else {
            return Ok(Err("the description does not say what they are made of".into()));
        };
        let Some(mask) = scores.inputs.get(2).and_then(|point| step.graph.get(point)) else {
            return Ok(Err("the description gives the scores no mask".into()));
        };
        let steps = [mask, scores, probs].map(|component| step.of(component));
        let [_, scores, probs] = &steps;
        let read = || -> Replayed<Self> {
            let (q, k) = (scores.input(0)?.to_f64(), scores.input(1)?.to_f64());
            let (heads, kv, d) = (step.dim("heads"), step.dim("kv_heads"), step.dim("head_dim"));
            sized("the queries", q.len(), step.tokens() * heads * d)?;
            sized("the keys", k.len(), (step.past() + step.tokens()) * kv * d)?;
            let scale = 1.0 / (d as f64).sqrt();
            let norms = k.chunks_exact(d).map(norm).collect();
            let bound = ScoreBound::new(scores.precision()?, d, scale);
            Ok(Self { q, k, norms, bound, scale, precision: probs.precision()?, steps })
        };
        let behind = match read() {
            Ok(behind) => behind,
            Err(Stop::Missing(why)) => {
                return Ok(Err(format!("what they are made of cannot be replayed: {why}")));
            }
            Err(bad) => return Err(bad),
        };
        Ok(behind.unsound()?.map_or(Ok(behind), Err))
    }

    /// Which component cannot be relied on, by its rows that were captured.
    fn unsound(&self) -> Replayed<Option<String>> {
        type Formula = fn(&Step<'_>, &mut Judge<'_>) -> Replayed<()>;
        let formulas: [Formula; 3] = [mask, scores, softmax];
        for (step, formula) in self.steps.iter().zip(formulas) {
            let judged = || -> Replayed<bool> {
                step.fits()?;
                let mut judge = Judge::new(step.output()?);
                formula(step, &mut judge)?;
                let local = judge.finish();
                Ok(local.is_rounding() && local.unbounded == 0)
            };
            let point = &step.component.point;
            match judged() {
                Ok(true) => {}
                Ok(false) => {
                    return Ok(Some(format!(
                        "{point} errs beyond its bounds in the rows that were captured"
                    )));
                }
                Err(Stop::Missing(why)) => return Ok(Some(format!("{point} cannot be replayed: {why}"))),
                Err(bad) => return Err(bad),
            }
        }
        Ok(None)
    }

    /// Holds the context of the tokens that have no row against what queries, keys and values `v` give.
    fn check(
        &self,
        step: &Step<'_>,
        judge: &mut Judge<'_>,
        (rows, v): (Rows<'_>, &[f64]),
        group: Group,
    ) -> Replayed<()> {
        let (heads, kv, d) = (step.dim("heads"), step.dim("kv_heads"), step.dim("head_dim"));
        let seen = step.past() + step.tokens();
        let precision = step.precision()?;
        let gamma = precision.gamma((ONLINE + 1) * seen).max(self.precision.gamma((ONLINE + 1) * seen));
        let unit = precision.sum.max(self.precision.sum);
        let kept = precision.kept().max(self.precision.kept()).max(self.precision.stored);
        let lost = precision.lost(seen);
        let mut row = Row::default();
        for t in (0..step.tokens()).filter(|t| rows.place(*t).is_none()) {
            for h in 0..heads {
                let query = &self.q[(t * heads + h) * d..][..d];
                self.fill(&mut row, query, step.past() + t + 1, (grouped(h, heads, kv), kv));
                let at = (t * heads + h) * d;
                if !row.bounded {
                    judge.check_further(at, &vec![0.0; d], &vec![f64::INFINITY; d]);
                    continue;
                }
                let (mut out, mut size) = (vec![0.0; d], vec![0.0; d]);
                let mut least = vec![lost; d];
                for (u, (p, drift)) in row.probs.iter().zip(&row.drift).enumerate() {
                    let value = &v[(u * kv + group(h, heads, kv)) * d..][..d];
                    least.iter_mut().zip(value).for_each(|(least, v)| *least += precision.least * v.abs());
                    if *p == 0.0 {
                        continue;
                    }
                    let own = of_a_probability(-p.ln().min(0.0) + 2.0 * drift, 40.0, unit, gamma) + kept;
                    let error = drift.exp_m1() * (1.0 + own) + own;
                    for ((out, size), v) in out.iter_mut().zip(&mut size).zip(value) {
                        *out += p * v;
                        *size += error * (p * v).abs();
                    }
                }
                let stored =
                    |((size, least), y): ((&f64, &f64), &f64)| size + least + precision.stored * y.abs();
                let bounds: Vec<f64> = size.iter().zip(&least).zip(&out).map(stored).collect();
                judge.check_further(at, &out, &bounds);
            }
        }
        Ok(())
    }

    /// The probabilities of one query over the first `seen` keys.
    fn fill(&self, row: &mut Row, query: &[f64], seen: usize, (group, kv): (usize, usize)) {
        let d = query.len();
        let size = norm(query);
        row.probs.clear();
        row.drift.clear();
        for u in 0..seen {
            let at = u * kv + group;
            let score = self.scale * dot(query, &self.k[at * d..][..d]);
            row.probs.push(score);
            row.drift.push(self.bound.of(size * self.norms[at], score));
        }
        let max = row.probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.probs.iter_mut().for_each(|s| *s = (*s - max).exp());
        let sum: f64 = row.probs.iter().sum();
        row.probs.iter_mut().for_each(|p| *p /= sum);
        let all = row.probs.iter().zip(&row.drift).map(|(p, bound)| p * bound.exp_m1()).sum::<f64>().ln_1p();
        row.drift.iter_mut().for_each(|bound| *bound += all);
        // What is not a number here is infinite, and times 0.
        row.bounded = all.is_finite() && row.drift.iter().all(|bound| bound.exp_m1().is_finite());
    }
}

/// The probabilities of one query.
#[derive(Default)]
struct Row {
    probs: Vec<f64>,
    /// β_u + B: how far the exponent of each may be off by the errors of the scores.
    drift: Vec<f64>,
    /// False where a score has no bound: nothing that follows from it has one.
    bounded: bool,
}

/// Sums side by side: one after the other would wait for each other.
const LANES: usize = 8;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        lanes.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
    }
    lanes.iter().sum::<f64>() + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f64>()
}
