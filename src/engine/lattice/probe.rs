//! What an engine that only gives tokens says about its final hidden state.
//!
//! A row `c / h_i` at component `i`, put into the head, has the logit `c` up to rounding if the engine's
//! hidden state `h` is the pass's. Of a row for each component, the likeliest token is the one whose
//! component the engine has largest, measured by the pass's: it is known beforehand, and another one
//! wins as soon as a component is larger by a few units in the last place. Rows
//! `2c / h_k − c / h_i` with one fixed `k` find in the same way a component that is smaller.

/// Larger than any logit of a real token.
const LEVEL: f32 = 16_777_216.0;

/// Which way a component must be off to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Larger,
    Smaller,
}

/// A row as wide as `hidden` for each of its components that is not 0.
pub fn rows(hidden: &[f32], way: Way) -> Vec<f32> {
    let width = hidden.len();
    let usable: Vec<usize> = (0..width).filter(|i| hidden[*i].is_normal()).collect();
    let Some((&fixed, rest)) = usable.split_first() else { return Vec::new() };
    let mut rows = Vec::new();
    for &i in if way == Way::Larger { &usable } else { rest } {
        let mut row = vec![0.0; width];
        match way {
            Way::Larger => row[i] = LEVEL / hidden[i],
            Way::Smaller => {
                row[fixed] = 2.0 * LEVEL / hidden[fixed];
                row[i] = -LEVEL / hidden[i];
            }
        }
        rows.extend(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use lattice_compute::forward::cpu::matmul_bt;

    fn winner(hidden: &[f32], rows: &[f32]) -> usize {
        let n = rows.len() / hidden.len();
        let mut logits = vec![0.0; n];
        matmul_bt(hidden, rows, &mut logits, 1, hidden.len(), n);
        (0..n).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
    }

    #[test]
    fn a_component_that_is_off_by_a_millionth_wins() {
        let hidden: Vec<f32> = (1..=64u8).map(|i| (f32::from(i) * 0.37).sin()).collect();
        for (way, factor) in [(Way::Larger, 1.0 + 1e-6), (Way::Smaller, 1.0 - 1e-6)] {
            let rows = rows(&hidden, way);
            let expected = winner(&hidden, &rows);
            for i in 1..64 {
                let mut other = hidden.clone();
                other[i] *= factor;
                let row = if way == Way::Larger { i } else { i - 1 };
                assert_eq!(winner(&other, &rows), row, "{way:?} {i}");
                // The other way it stays hidden, unless it was the winner itself.
                other[i] = hidden[i] / factor;
                assert!(winner(&other, &rows) == expected || row == expected, "{way:?} {i}");
            }
        }
    }

    #[test]
    fn a_component_of_zero_has_no_row() {
        assert_eq!(rows(&[0.0, 2.0], Way::Larger), [0.0, LEVEL / 2.0]);
        assert!(rows(&[0.0], Way::Smaller).is_empty());
    }
}
