//! Scores, probabilities and context of full attention.

use super::{Hypothesis, exact, first_of, one_row_late};
use crate::replay::ops::attention::{grouped, scores, scores_by, softmax};
use crate::replay::ops::context::{context, context_by};
use crate::replay::{Edits, Judge, Replayed, Rows, SMALLEST, Step, Stop};
use std::f64::consts::LN_2;

pub(super) const SCORES: &[Hypothesis] = &[
    exact("gqa-tiled", "key heads tiled: query head h reads key head h % n", |s, j| {
        scores_by(s, j, |h, _, kv| h % kv, |d| 1.0 / d.sqrt())
    }),
    exact("gqa-first", "every query head reads the first key head", |s, j| {
        scores_by(s, j, |_, _, _| 0, |d| 1.0 / d.sqrt())
    }),
    exact("scale-missing", "the scale d^-½ is left out", |s, j| scores_by(s, j, grouped, |_| 1.0)),
    exact("scale-twice", "scaled by 1/d instead of d^-½", |s, j| scores_by(s, j, grouped, |d| 1.0 / d)),
    exact("scale-root", "scaled by d^-¼: on one side of the product only", |s, j| {
        scores_by(s, j, grouped, |d| d.powf(-0.25))
    }),
    exact("scale-inverse", "multiplied by √d", |s, j| scores_by(s, j, grouped, f64::sqrt)),
    exact("scale-of-hidden", "scaled by (hidden / heads)^-½ instead of that of the head's size", |s, j| {
        // Of the scale of a head: what is left of it is a factor.
        let factor = (s.dim("head_dim") as f64 * s.dim("heads") as f64 / s.dim("hidden") as f64).sqrt();
        j.then(move |_, y, bound| (y * factor, bound * factor));
        scores(s, j)
    }),
    exact("scores-softcapped", "the scores softly capped: c tanh(s / c), with c of 20, 30 or 50", |s, j| {
        let unit = 8.0 * s.precision()?.unit;
        first_of(s, j, [20.0, 30.0, 50.0], |s, j, cap| {
            j.then(
                move |_, y, bound| {
                    if y.is_finite() { (cap * (y / cap).tanh(), bound + unit * y.abs()) } else { (y, bound) }
                },
            );
            scores(s, j)
        })
    }),
    exact("mask-finite", "a large negative number where it is masked instead of −∞", |s, j| {
        let lowest = [-1e4, -65504.0, -1e9, f64::from(f32::MIN)];
        first_of(s, j, lowest, |s, j, low| {
            j.then(move |_, y, bound| {
                if y == f64::NEG_INFINITY { (low, low.abs() * f64::from(f32::EPSILON)) } else { (y, bound) }
            });
            scores(s, j)
        })
    }),
    exact("mask-ignored", "the mask is not applied", |s, j| {
        let edits = Edits::of_input(s, 2, |mask| mask.fill(1.0))?;
        scores_by(&s.edited(&edits), j, grouped, |d| 1.0 / d.sqrt())
    }),
    exact("mask-off-by-one", "each token sees the one after it too", |s, j| {
        scores_by(&s.edited(&widened(s)?), j, grouped, |d| 1.0 / d.sqrt())
    }),
    exact("mask-strict", "no token sees itself", |s, j| {
        let (seen, first, rows) = (s.past() + s.tokens(), s.past(), s.input_rows(2));
        let narrow = |mask: &mut [f64]| {
            mask.chunks_exact_mut(seen).zip(rows.iter()).for_each(|(row, t)| row[first + t] = 0.0);
        };
        let edits = Edits::of_input(s, 2, narrow)?;
        scores_by(&s.edited(&edits), j, grouped, |d| 1.0 / d.sqrt())
    }),
    exact("keys-one-row-late", "keys one row too low", |s, j| {
        let width = s.dim("kv_heads") * s.dim("head_dim");
        let edits = Edits::of_input(s, 1, |k| one_row_late(k, width))?;
        scores_by(&s.edited(&edits), j, grouped, |d| 1.0 / d.sqrt())
    }),
];

pub(super) const SOFTMAX: &[Hypothesis] = &[
    exact("softmax-axis", "softmax over the queries instead of the keys", over_queries),
    exact("softmax-over-heads", "softmax over the heads instead of the tokens", over_heads),
    exact("mask-off-by-one", "each token sees the one after it too", one_more),
    exact("softmax-exp2", "2^x in place of e^x", |s, j| scaled(s, j, LN_2)),
    exact("softmax-scaled-twice", "the scores are scaled once more", |s, j| {
        scaled(s, j, 1.0 / (s.dim("head_dim") as f64).sqrt())
    }),
    exact("softmax-unscaled", "the scale of the scores is taken back", |s, j| {
        scaled(s, j, (s.dim("head_dim") as f64).sqrt())
    }),
    exact("softmax-plus-one", "1 is added to the sum (an attention sink)", |s, j| {
        resummed(s, j, |max, sum| sum / (sum + (-max).exp()))
    }),
    exact("softmax-unnormalized", "not divided by the sum", |s, j| resummed(s, j, |_, sum| sum)),
    exact("softmax-no-max", "the bare exponentials: neither the maximum nor the sum taken off", |s, j| {
        resummed(s, j, |max, sum| sum * max.exp())
    }),
    exact("softmax-late", "the probabilities of the token before", |s, j| {
        let seen = s.past() + s.tokens();
        whole(s)?;
        let edits = Edits::of_input(s, 0, |x| one_row_late(x, seen))?;
        softmax(&s.edited(&edits), j)
    }),
];

pub(super) const CONTEXT: &[Hypothesis] = &[
    exact("gqa-tiled", "value heads tiled: query head h reads value head h % n", |s, j| {
        context_by(s, j, |h, _, kv| h % kv)
    }),
    exact("gqa-first", "every query head reads the first value head", |s, j| context_by(s, j, |_, _, _| 0)),
    exact("context-half-zero", "the upper half of each head is not written: 0", |s, j| {
        let d = s.dim("head_dim");
        j.then(move |i, y, bound| if i % d >= d / 2 { (0.0, 0.0) } else { (y, bound) });
        context(s, j)
    }),
    exact("context-half-heads-zero", "the upper half of the heads is not written: 0", |s, j| {
        let width = s.dim("heads") * s.dim("head_dim");
        j.then(move |i, y, bound| if i % width >= width / 2 { (0.0, 0.0) } else { (y, bound) });
        context(s, j)
    }),
    exact("context-heads-first", "heads before tokens: not transposed before it is flattened", heads_first),
    exact("values-one-row-late", "values one row too low", |s, j| values(s, j, one_row_late)),
    exact("values-last-row-missing", "the newest row of the values is not read", |s, j| {
        values(s, j, |v, width| {
            let last = v.len() - width;
            v[last..].fill(0.0);
        })
    }),
    exact("values-mean", "the mean of the values: the probabilities are not used", |s, j| {
        whole(s)?;
        let mask = |p: &mut [f64]| {
            for row in p.chunks_exact_mut(s.past() + s.tokens()) {
                let seen = row.iter().filter(|p| **p != 0.0).count() as f64;
                row.iter_mut().filter(|p| **p != 0.0).for_each(|p| *p = 1.0 / seen);
            }
        };
        let edits = Edits::of_input(s, 0, mask)?;
        context(&s.edited(&edits), j)
    }),
];

/// Declines where only some rows of what a component reads were captured: a formula that mixes rows needs all.
fn whole(step: &Step<'_>) -> Replayed<()> {
    match step.input_rows(0) {
        Rows::All(_) => Ok(()),
        Rows::Some(rows) => Err(Stop::Missing(format!(
            "it mixes the rows of different tokens, and those of {} of {} were captured",
            rows.len(),
            step.tokens()
        ))),
    }
}

/// Declines where a component has other rows than what it reads.
fn same_rows(step: &Step<'_>) -> Replayed<()> {
    if step.input_rows(0) == step.output_rows() {
        return Ok(());
    }
    Err(Stop::Missing("the rows of other tokens were captured of what it reads".into()))
}

fn values(step: &Step<'_>, judge: &mut Judge<'_>, change: fn(&mut [f64], usize)) -> Replayed<()> {
    let width = step.dim("kv_heads") * step.dim("head_dim");
    let edits = Edits::of_input(step, 1, |v| change(v, width))?;
    context(&step.edited(&edits), judge)
}

/// The softmax of scores times a factor.
fn scaled(step: &Step<'_>, judge: &mut Judge<'_>, factor: f64) -> Replayed<()> {
    let edits = Edits::of_input(step, 0, |x| x.iter_mut().for_each(|x| *x *= factor))?;
    softmax(&step.edited(&edits), judge)
}

/// The softmax with each row multiplied by a function of its maximum and of the sum of `exp(s − max)`.
fn resummed(step: &Step<'_>, judge: &mut Judge<'_>, factor: fn(f64, f64) -> f64) -> Replayed<()> {
    same_rows(step)?;
    let (s, seen) = (step.input(0)?.to_f64(), step.past() + step.tokens());
    let of_row = |row: &[f64]| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        factor(max, row.iter().map(|s| (s - max).exp()).sum())
    };
    let factors: Vec<f64> = s.chunks_exact(seen).map(of_row).collect();
    judge.then(move |i, y, bound| (y * factors[i / seen], bound * factors[i / seen]));
    softmax(step, judge)
}

/// Opens the mask by one token, as the scores' hypothesis of that name does.
fn widened(step: &Step<'_>) -> Replayed<Edits> {
    let (seen, first, rows) = (step.past() + step.tokens(), step.past(), step.input_rows(2));
    Edits::of_input(step, 2, |mask| {
        for (row, t) in mask.chunks_exact_mut(seen).zip(rows.iter()) {
            row.iter_mut().skip(first + t + 1).take(1).for_each(|m| *m = 1.0);
        }
    })
}

/// The softmax over one score more in each row: the masked ones are computed anew, for a trace does not
/// show what a mask hid.
fn one_more(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let point = step.component.inputs.first();
    let component = point.and_then(|point| step.graph.get(point));
    let component = component.ok_or_else(|| Stop::Missing("it has no scores".into()))?;
    let before = Step { component, ..*step };
    let mut all = Judge::new(before.output()?).keeping(usize::MAX);
    scores_by(&before.edited(&widened(&before)?), &mut all, grouped, |d| 1.0 / d.sqrt())?;
    let open = all.seen().replayed;
    let edits = Edits::of_input(step, 0, |scores| {
        let hidden = scores.iter_mut().zip(&open).filter(|(s, _)| **s == f64::NEG_INFINITY);
        hidden.for_each(|(s, open)| *s = *open);
    })?;
    softmax(&step.edited(&edits), judge)
}

/// Each column sums to 1 instead of each row.
fn over_queries(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    let (n, seen) = (step.tokens(), step.past() + step.tokens());
    let turn = |x: &mut [f64], rows: usize| {
        for head in x.chunks_exact_mut(n * seen) {
            let old = head.to_vec();
            let columns = head.len() / rows;
            head.iter_mut().enumerate().for_each(|(i, x)| *x = old[(i % rows) * columns + i / rows]);
        }
    };
    // Only where there are as many queries as keys do the rows of the turned scores have the right length.
    if n != seen {
        return Err(Stop::Missing("the scores are not square".into()));
    }
    whole(step)?;
    same_rows(step)?;
    let mut p = step.input(0)?.to_f64();
    turn(&mut p, n);
    for row in p.chunks_exact_mut(n) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|s| (s - max).exp()).sum();
        row.iter_mut().for_each(|s| *s = (*s - max).exp() / sum);
    }
    turn(&mut p, n);
    // The bound of a probability, as of one that lies 40 below the largest.
    let unit = step.precision()?.gamma(n + 100);
    let bounds: Vec<f64> = p.iter().map(|p| unit * p).collect();
    judge.check(0, &p, &bounds);
    Ok(())
}

/// `exp s / Σ exp s` over the heads; a token that is masked for one is so for all.
fn over_heads(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    same_rows(step)?;
    let (s, heads) = (step.input(0)?.to_f64(), step.dim("heads"));
    let size = s.len() / heads.max(1);
    let of = |i: usize| (0..heads).map(move |h| h * size + i);
    let (mut p, mut bounds) = (vec![0.0; s.len()], vec![0.0; s.len()]);
    let precision = step.precision()?;
    for i in 0..size {
        let max = of(i).map(|at| s[at]).fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            continue;
        }
        let sum: f64 = of(i).map(|at| (s[at] - max).exp()).sum();
        // An error of the exponent is a relative one of its exponential; the largest may be taken off or not.
        let largest = of(i).map(|at| s[at].abs()).fold(0.0, f64::max);
        let unit = precision.gamma(heads + 12) + 4.0 * precision.unit * largest;
        for at in of(i) {
            p[at] = (s[at] - max).exp() / sum;
            bounds[at] = unit * p[at] + SMALLEST;
        }
    }
    judge.check(0, &p, &bounds);
    Ok(())
}

/// The right context, read in another order.
fn heads_first(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    // The bounds of tokens without probabilities are others.
    whole(step)?;
    let (n, heads, d) = (step.tokens(), step.dim("heads"), step.dim("head_dim"));
    let mut right = Judge::new(step.output()?).keeping(usize::MAX);
    context(step, &mut right)?;
    let right = right.seen().replayed;
    // The largest bound of any place of the right context, as all places are exchanged.
    let values = step.input(1)?.to_f64().iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let precision = step.precision()?;
    let bound = (precision.gamma(2 * (step.past() + n) + 64) + precision.stored) * values;
    let moved: Vec<f64> = (0..heads)
        .flat_map(|h| (0..n).map(move |t| (t * heads + h) * d))
        .flat_map(|at| right[at..at + d].to_vec())
        .collect();
    judge.check(0, &moved, &vec![bound; moved.len()]);
    Ok(())
}
