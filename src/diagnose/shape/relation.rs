//! How wrong values follow from right ones: a factor, an offset, another order.

use super::axes::{Axis, word};
use crate::replay::Seen;

/// Relative L2 difference up to which two sets of values are the same.
const SAME: f64 = 1e-4;

/// Places on an axis beyond which no order is looked for.
const LARGEST: usize = 1024;

/// The first relation that holds, in a sentence.
pub(super) fn relation(values: &[f64], shape: &[usize], names: &[String], seen: &Seen) -> Option<String> {
    let wrong: Vec<usize> = (0..values.len()).filter(|i| seen.beyond[*i]).collect();
    if wrong.iter().all(|i| values[*i] == 0.0) {
        return Some("All of these are 0.".into());
    }
    let pairs = || wrong.iter().map(|i| (values[*i], seen.replayed[*i]));
    if let Some(factor) = factor(pairs) {
        return Some(factor);
    }
    (0..shape.len()).find_map(|i| order(values, Axis::of(shape, i), word(names, i), seen))
}

/// The wrong values as a multiple of the right ones, or at a distance from them.
fn factor<I: Iterator<Item = (f64, f64)>>(pairs: impl Fn() -> I) -> Option<String> {
    let sum = |of: fn(f64, f64) -> f64| pairs().map(|(c, r)| of(c, r)).sum::<f64>();
    let size = sum(|c, _| c * c);
    let n = pairs().count() as f64;
    if n < 4.0 || !size.is_finite() {
        return None;
    }
    let c = sum(|c, r| c * r) / sum(|_, r| r * r);
    let left = pairs().map(|(x, r)| (x - c * r).powi(2)).sum::<f64>();
    // Below the error itself, so that values that are all but right are no multiple of themselves.
    let error = sum(|c, r| (c - r) * (c - r));
    let holds = |left: f64| left <= SAME * SAME * size && left <= 1e-4 * error;
    if holds(left) {
        let what = if (c + 1.0).abs() < SAME {
            "These have the wrong sign".into()
        } else {
            format!("These are {c:.6} times what they should be")
        };
        return Some(what + ".");
    }
    let offset = sum(|c, r| c - r) / n;
    let left = pairs().map(|(x, r)| (x - r - offset).powi(2)).sum::<f64>();
    holds(left).then(|| format!("{offset:.6e} is added to these."))
}

/// Whether wrong places of an axis hold what belongs to other places.
fn order(values: &[f64], axis: Axis, word: &str, seen: &Seen) -> Option<String> {
    if !(2..=LARGEST).contains(&axis.size) || axis.outer * axis.size * axis.inner != values.len() {
        return None;
    }
    let wrong: Vec<usize> = (0..axis.size).filter(|at| axis.slice(*at).any(|i| seen.beyond[i])).collect();
    let from = |at: usize| (0..axis.size).find(|other| *other != at && same(values, axis, at, *other, seen));
    // A delay leaves the first without a source.
    let sources: Vec<(usize, Option<usize>)> = wrong.iter().map(|at| (*at, from(*at))).collect();
    let found: Vec<(usize, usize)> = sources.iter().filter_map(|(at, from)| Some((*at, (*from)?))).collect();
    let lost = sources.len() - found.len();
    let distance = |(at, from): &(usize, usize)| (from.checked_sub(*at), at.checked_sub(*from));
    let shift = distance(found.first()?);
    if found.len() > 1 && lost <= 1 && found.iter().all(|pair| distance(pair) == shift) {
        let by = match shift {
            (Some(after), _) => format!("{after} after"),
            (None, before) => format!("{} before", before.unwrap_or_default()),
        };
        return Some(format!("The {word} hold what belongs {by} them."));
    }
    if lost > 0 {
        return None;
    }
    let list: Vec<String> = found.iter().take(8).map(|(at, from)| format!("{at} holds {from}")).collect();
    let more = if found.len() > list.len() { ", …" } else { "" };
    Some(format!("The {word} are in another order: {}{more}.", list.join(", ")))
}

/// Whether the captured values at one place are the replayed ones at another.
fn same(values: &[f64], axis: Axis, at: usize, other: usize, seen: &Seen) -> bool {
    let pairs = || axis.slice(at).zip(axis.slice(other)).map(|(c, r)| (values[c], seen.replayed[r]));
    let alike = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        let (mut left, mut size) = (0.0, 0.0);
        for (c, r) in pairs.filter(|(c, r)| c.is_finite() || r.is_finite()) {
            left += (c - r) * (c - r);
            size += r * r;
        }
        left <= SAME * SAME * size && size > 0.0
    };
    // Most pairs differ at once.
    alike(&mut pairs().take(16)) && alike(&mut pairs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64], right: &[f64], shape: &[usize]) -> Option<String> {
        let beyond = values.iter().zip(right).map(|(c, r)| c != r).collect();
        let names: Vec<String> =
            ["tokens", "heads", "head_dim"].map(str::to_owned)[3 - shape.len()..].to_vec();
        relation(values, shape, &names, &Seen { replayed: right.to_vec(), beyond })
    }

    const RIGHT: [f64; 8] = [1.0, -2.0, 3.5, 4.0, 0.25, 7.0, -1.5, 9.0];

    #[test]
    fn a_factor_a_sign_an_offset_and_zeros_are_told() {
        let text = |change: fn(f64) -> f64| of(&RIGHT.map(change), &RIGHT, &[2, 4]).unwrap();
        assert_eq!(text(|x| 1.01 * x), "These are 1.010000 times what they should be.");
        assert_eq!(text(|x| -x), "These have the wrong sign.");
        assert_eq!(text(|x| x + 0.5), "5.000000e-1 is added to these.");
        assert_eq!(text(|_| 0.0), "All of these are 0.");
        assert_eq!(of(&RIGHT.map(|x| x * x), &RIGHT, &[2, 4]), None);
    }

    #[test]
    fn an_exchange_of_heads_and_a_delay_of_tokens_are_told() {
        let [a, b, c, d] = [0, 2, 4, 6].map(|i| [RIGHT[i], RIGHT[i + 1]]);
        let exchanged = [c, b, a, d].concat();
        assert_eq!(
            of(&exchanged, &RIGHT, &[1, 4, 2]).unwrap(),
            "The heads are in another order: 0 holds 2, 2 holds 0."
        );
        let late = [a, a, b, c].concat();
        assert_eq!(of(&late, &RIGHT, &[4, 1, 2]).unwrap(), "The tokens hold what belongs 1 before them.");
    }
}
