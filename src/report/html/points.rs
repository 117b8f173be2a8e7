//! The points as rows of values: names of keys, and texts in each row anew, would be more than half of the page.

use super::super::{PointReport, PromptError};
use crate::metrics::{Metrics, NonFinite, Place};
use serde_json::{Value, json};
use std::collections::HashMap;

/// What the values of a row are.
pub(super) const COLUMNS: [&str; 30] = [
    "point",
    "step",
    "prompt",
    "layer",
    "family",
    "shape",
    "state",
    "note",
    "replay",
    "elements",
    "rel_l2",
    "max_abs",
    "rms",
    "at",
    "cosine",
    "norm_ratio",
    "quantiles",
    "tokens",
    "nonfinite",
    "histogram",
    "floors",
    "floor",
    "explained",
    "quantization",
    "adds",
    "engine_rel_l2",
    "engine_max_abs",
    "engine_at",
    "engine_tokens",
    "ratio",
];

/// Digits of an error.
const DIGITS: usize = 4;
/// Digits of an error that only becomes a colour.
const FEW: usize = 3;
/// Digits of an element: all that 32 bits hold.
const ELEMENT: usize = 9;

/// Texts that rows share, each once: a row has their places.
#[derive(Default)]
pub(super) struct Texts {
    places: HashMap<String, usize>,
    /// In the order of their places.
    pub list: Vec<String>,
}

impl Texts {
    fn place(&mut self, text: &str) -> usize {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        self.places.insert(text.to_owned(), self.list.len());
        self.list.push(text.to_owned());
        self.list.len() - 1
    }
}

/// One point of one step.
pub(super) fn row(point: &PointReport, texts: &mut Texts) -> Value {
    let total = point.metrics.as_ref();
    // Beside arm Q; where Q is T there is nothing more to say.
    let engine = point.engine_metrics.as_ref().filter(|_| point.armed);
    let of = |figure: fn(&Metrics) -> f64| total.map(|m| short(figure(m), DIGITS));
    let option = |value: Option<f64>| value.map(|v| short(v, DIGITS));
    let floors = point.floors.iter().map(|(dtype, error)| json!([texts.place(dtype), short(*error, DIGITS)]));
    let floors: Vec<Value> = floors.collect();
    json!([
        texts.place(&point.point),
        point.step,
        texts.place(&point.prompt),
        point.layer,
        texts.place(&point.family),
        point.shape,
        point.state,
        point.note.as_deref().map(|note| texts.place(note)),
        point.replay_unmeasured.as_deref().map(|why| texts.place(why)),
        total.map(|m| m.elements),
        of(|m| m.rel_l2),
        of(|m| m.max_abs),
        of(|m| m.rms_reference),
        total.and_then(place),
        total.map(|m| short(m.cosine, ELEMENT)),
        total.map(|m| short(m.norm_ratio, ELEMENT)),
        total.map(|m| {
            let q = &m.quantiles;
            [q.p50, q.p90, q.p99, q.p999].map(|v| short(v, DIGITS))
        }),
        total.map(tokens),
        total.map(|m| &m.non_finite).filter(|n| **n != NonFinite::default()),
        total.map(|m| &m.magnitudes),
        floors,
        option(point.floor),
        option(point.explained),
        option(point.quantization),
        option(point.engine_error),
        engine.map(|m| short(m.rel_l2, DIGITS)),
        engine.map(|m| short(m.max_abs, DIGITS)),
        engine.and_then(place),
        engine.map(tokens),
        option(point.local_ratio),
    ])
}

/// The errors by token of a prompt at one point: of C − T, and of C − Q where arm Q was run.
pub(super) fn tokens_of_prompt(error: &PromptError) -> Value {
    let list = |all: &[Option<f64>]| all.iter().map(|v| v.map(|v| short(v, FEW))).collect::<Vec<_>>();
    match error.engine_per_token.as_slice() {
        [] if error.per_token.is_empty() => Value::Null,
        [] => json!([list(&error.per_token)]),
        engine => json!([list(&error.per_token), list(engine)]),
    }
}

/// The worst element: where, and both values.
fn place(metrics: &Metrics) -> Option<Value> {
    let Place { index, reference, candidate } = metrics.max_abs_at.as_ref()?;
    Some(json!([index, short(*reference, ELEMENT), short(*candidate, ELEMENT)]))
}

fn tokens(metrics: &Metrics) -> Vec<Option<Value>> {
    metrics.per_token.iter().map(|error| error.map(|error| short(error, FEW))).collect()
}

/// The number with so many digits; one that JSON cannot hold as text, as in report.json.
fn short(value: f64, digits: usize) -> Value {
    if !value.is_finite() {
        return Value::String(value.to_string());
    }
    let rounded = format!("{value:.*e}", digits - 1).parse::<f64>();
    json!(rounded.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_what_is_not_finite() {
        assert_eq!(short(1.234_567e-6, 4), json!(1.235e-6));
        assert_eq!(short(0.0, 3), json!(0.0));
        assert_eq!(short(f64::INFINITY, 3), json!("inf"));
        assert_eq!(short(f64::NAN, 3), json!("NaN"));
    }
}
