//! Products with a weight matrix, and the embedding.

use super::{Hypothesis, exact};
use crate::replay::ops::linear::{embedding, embedding_by, linear};
use crate::replay::{Edits, Judge, Replayed, Step, Stop};

/// A weight of more elements than this is not copied.
const LARGEST: usize = 1 << 24;

/// Weights in a block of a 4-bit format.
const BLOCK: usize = 32;

/// What a probe of a weight may err to be worth a second look.
const PROBE: f64 = 4.0;

/// Pairs of linears that are taken for each other.
const SIBLINGS: [(&str, &str); 6] = [
    ("k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("in_proj_a", "in_proj_b"),
    ("q_proj", "o_proj"),
    ("in_proj_z", "out_proj"),
    ("lm_head", "model.embed_tokens"),
];

pub(super) const LINEAR: &[Hypothesis] = &[
    exact("weight-transposed", "the weight is read as if it were stored transposed", |s, j| {
        if s.parameter(0)?.len() > LARGEST {
            return Err(Stop::Missing("the weight is too large".into()));
        }
        let edits = Edits::of_parameter(s, 0, |shape, w| {
            let (old, n, k) = (w.clone(), shape[0], w.len() / shape[0]);
            w.iter_mut().enumerate().for_each(|(i, w)| *w = old[i % k * n + i / k]);
        })?;
        linear(&s.edited(&edits), j)
    }),
    exact("q4-nibble-order", "the two weights of each byte exchanged: the high nibble first", |s, j| {
        permuted(s, j, |i| i ^ 1)
    }),
    exact(
        "q4-nibble-halves",
        "low nibbles first, then high ones: the order of another 4-bit format",
        |s, j| {
            permuted(s, j, |i| {
                let (block, i) = (i / BLOCK * BLOCK, i % BLOCK);
                block + i % 2 * (BLOCK / 2) + i / 2
            })
        },
    ),
    exact("q4-nibble-pairs", "nibbles taken in pairs where they lie in halves", |s, j| {
        permuted(s, j, |i| {
            let (block, i) = (i / BLOCK * BLOCK, i % BLOCK);
            block + i % (BLOCK / 2) * 2 + i / (BLOCK / 2)
        })
    }),
    exact("weight-of-another-layer", "the weight of another layer", |s, j| {
        let Some(layer) = s.component.layer else {
            return Err(Stop::Missing("it belongs to no layer".into()));
        };
        let name = &s.component.params[0];
        let others = (0..s.graph.layer_types().len()).filter(|other| *other != layer);
        let named = |other| name.replace(&format!("layers.{layer}."), &format!("layers.{other}."));
        first_of(s, j, others.map(named))
    }),
    exact("weight-of-a-sibling", "the weight of another linear of the layer", |s, j| {
        let name = &s.component.params[0];
        let others = SIBLINGS.iter().flat_map(|(a, b)| {
            let swap = |from: &str, to: &str| name.contains(from).then(|| name.replace(from, to));
            [swap(a, b), swap(b, a)]
        });
        first_of(s, j, others.flatten())
    }),
    exact("activations-int8", "the inputs rounded to 8 bits", |s, j| {
        linear(&Step { activation_bits: Some(8), ..*s }, j)
    }),
    exact("activations-exact", "the inputs not rounded to the bits that are declared", |s, j| {
        linear(&Step { activation_bits: None, ..*s }, j)
    }),
    exact("linear-late", "the input of the token before", |s, j| {
        let width = s.input(0)?.len() / s.tokens().max(1);
        let edits = Edits::of_input(s, 0, |x| super::one_row_late(x, width))?;
        linear(&s.edited(&edits), j)
    }),
];

pub(super) const EMBEDDING: &[Hypothesis] = &[
    exact("embedding-plus-one", "the row after the token's", |s, j| embedding_by(s, j, |id, n| (id + 1) % n)),
    exact("embedding-minus-one", "the row before the token's", |s, j| {
        embedding_by(s, j, |id, n| (id + n - 1) % n)
    }),
    exact("embedding-row-zero", "the row of token 0 for all", |s, j| embedding_by(s, j, |_, _| 0)),
    exact("embedding-scaled", "multiplied by √hidden", |s, j| {
        let scale = (s.dim("hidden") as f64).sqrt();
        let unit = 2.0 * s.precision()?.unit;
        j.then(move |_, y, bound| (y * scale, (bound + unit * y.abs()) * scale));
        embedding(s, j)
    }),
];

/// The product with the inputs in another order, which is that with the weight's columns in another order.
fn permuted(step: &Step<'_>, judge: &mut Judge<'_>, from: fn(usize) -> usize) -> Replayed<()> {
    let width = step.parameter(0)?.shape.last().copied().unwrap_or(0);
    if width == 0 || !width.is_multiple_of(BLOCK) {
        return Err(Stop::Missing("its rows are no blocks".into()));
    }
    let edits = Edits::of_input(step, 0, |x| {
        for row in x.chunks_exact_mut(width) {
            let old = row.to_vec();
            row.iter_mut().enumerate().for_each(|(i, x)| *x = old[from(i)]);
        }
    })?;
    linear(&step.edited(&edits), judge)
}

/// The product with the first of these weights that reproduces it.
fn first_of(step: &Step<'_>, judge: &mut Judge<'_>, names: impl Iterator<Item = String>) -> Replayed<()> {
    for name in names {
        let edits = Edits::of_name(0, name);
        let mut probe = Judge::new(step.output()?).until(PROBE);
        if linear(&step.edited(&edits), &mut probe).is_ok() && probe.finish().ratio <= PROBE {
            return linear(&step.edited(&edits), judge);
        }
    }
    Err(Stop::Missing("no such weight reproduces it".into()))
}
