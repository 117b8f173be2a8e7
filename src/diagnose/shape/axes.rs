//! Which heads, tokens and channels an error is in.

use crate::replay::{Rows, Seen};

/// One axis of a tensor: `outer` times `size` times `inner` elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub outer: usize,
    pub size: usize,
    pub inner: usize,
}

impl Axis {
    /// The axis number `i` of a shape.
    pub fn of(shape: &[usize], i: usize) -> Self {
        Self { outer: shape[..i].iter().product(), size: shape[i], inner: shape[i + 1..].iter().product() }
    }

    /// Where an element lies on it.
    pub fn at(self, index: usize) -> usize {
        index / self.inner.max(1) % self.size.max(1)
    }

    /// The elements at one place of it.
    pub fn slice(self, at: usize) -> impl Iterator<Item = usize> {
        (0..self.outer).flat_map(move |o| (0..self.inner).map(move |i| (o * self.size + at) * self.inner + i))
    }
}

/// What an axis counts, in words.
pub(super) fn word(names: &[String], i: usize) -> &'static str {
    match names.get(i).map_or("", String::as_str) {
        "tokens" => "tokens",
        "context" => "positions",
        name if name.ends_with("heads") => "heads",
        _ if i + 1 == names.len() => "channels",
        _ => "rows",
    }
}

/// `: heads 1, 3 of 4, channels 32–63 of 64`; nothing where the error is everywhere.
///
/// `rows` are the tokens on the axis of tokens.
pub(super) fn places(shape: &[usize], names: &[String], rows: Rows<'_>, seen: &Seen) -> String {
    let mut parts = Vec::new();
    for i in 0..shape.len() {
        let axis = Axis::of(shape, i);
        let mut hit = vec![false; axis.size];
        for (index, _) in seen.beyond.iter().enumerate().filter(|(_, beyond)| **beyond) {
            hit[axis.at(index)] = true;
        }
        if hit.iter().any(|hit| !hit) {
            let is_rows = names.get(i).is_some_and(|name| name == "tokens");
            parts.push(match rows {
                Rows::Some(rows) if is_rows && rows.len() == axis.size => {
                    let mut tokens = vec![false; rows.last().map_or(0, |last| last + 1)];
                    rows.iter().zip(&hit).for_each(|(row, hit)| tokens[*row] = *hit);
                    format!("tokens {} of the {} whose rows were captured", ranges(&tokens), axis.size)
                }
                _ => format!("{} {} of {}", word(names, i), ranges(&hit), axis.size),
            });
        }
    }
    if parts.is_empty() { ", all over the tensor".into() } else { format!(": {}", parts.join(", ")) }
}

/// Most ranges that are listed.
const RANGES: usize = 8;

/// `1, 3, 5–9` of those that are set.
pub(super) fn ranges(set: &[bool]) -> String {
    let indices: Vec<usize> = set.iter().enumerate().filter(|(_, set)| **set).map(|(i, _)| i).collect();
    let runs: Vec<&[usize]> = indices.chunk_by(|a, b| a + 1 == *b).collect();
    let show = |run: &&[usize]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}–{last}"),
        [] => String::new(),
    };
    let mut list: Vec<String> = runs.iter().take(RANGES).map(show).collect();
    if runs.len() > RANGES {
        list.push(format!("… ({} in all)", indices.len()));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_listed_as_ranges_of_each_axis_that_is_not_hit_everywhere() {
        let names = ["tokens", "heads", "head_dim"].map(str::to_owned);
        let mut seen = Seen { replayed: vec![0.0; 24], beyond: vec![false; 24] };
        // Both tokens, the third of three heads, channels 1 to 3 of 4.
        for at in [9, 10, 11, 21, 22, 23] {
            seen.beyond[at] = true;
        }
        let places = |rows: Rows<'_>, seen: &Seen| places(&[2, 3, 4], &names, rows, seen);
        assert_eq!(places(Rows::All(2), &seen), ": heads 2 of 3, channels 1–3 of 4");
        seen.beyond[..12].fill(false);
        assert_eq!(
            places(Rows::Some(&[3, 9]), &seen),
            ": tokens 9 of the 2 whose rows were captured, heads 2 of 3, channels 1–3 of 4"
        );
        seen.beyond.fill(true);
        assert_eq!(places(Rows::All(2), &seen), ", all over the tensor");
        assert_eq!(ranges(&[true, false, true, true, true]), "0, 2–4");
    }
}
