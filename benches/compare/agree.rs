//! The metrics of the first tensor of two traces, held against formulas that are written down plainly.

use layerdiff::metrics::{Metrics, compare, rel_l2_along};
use layerdiff::trace::Trace;
use serde_json::Value;
use std::path::PathBuf;

/// Of sums of so many numbers as a tensor here has, in whatever order.
const SUMS: f64 = 1e-9;

/// Of a quantile: half a bin.
const QUANTILES: f64 = 1.0 / 64.0;

fn first(sides: &[PathBuf; 2]) -> (Metrics, [Vec<f64>; 2]) {
    let [reference, candidate] = [&sides[0], &sides[1]].map(|side| Trace::open(side).unwrap());
    let views = [&reference, &candidate].map(|side| side.view(&side.entries()[0]));
    let metrics = compare(views[0], views[1], Some(0));
    let along: Vec<_> = rel_l2_along(views[0], views[1], 0).into_iter().map(Some).collect();
    assert_eq!(along, metrics.per_token);
    (metrics, views.map(|view| view.to_f64()))
}

fn close(what: &str, found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within * expected.abs(), "{what}: {found}, expected {expected}");
}

/// Holds them against loops over f64.
pub fn with_formulas(sides: &[PathBuf; 2]) {
    let (metrics, [r, c]) = first(sides);
    let mut d: Vec<f64> = r.iter().zip(&c).map(|(r, c)| (c - r).abs()).collect();
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let product: f64 = r.iter().zip(&c).map(|(r, c)| r * c).sum();
    close("rel_l2", metrics.rel_l2, norm(&d) / norm(&r), SUMS);
    close("cosine", metrics.cosine, product / (norm(&r) * norm(&c)), SUMS);
    close("norm_ratio", metrics.norm_ratio, norm(&c) / norm(&r), SUMS);
    let width = d.len() / metrics.per_token.len();
    for (token, error) in metrics.per_token.iter().enumerate() {
        let of = |v: &[f64]| norm(&v[token * width..(token + 1) * width]);
        close("per_token", error.unwrap(), of(&d) / of(&r), SUMS);
    }
    d.sort_by(f64::total_cmp);
    assert_eq!(metrics.max_abs, d[d.len() - 1]);
    let q = metrics.quantiles;
    for (share, found) in [(0.5, q.p50), (0.9, q.p90), (0.99, q.p99), (0.999, q.p999)] {
        let rank = (share * d.len() as f64).ceil() as usize;
        // A difference is rounded to f32 before it is counted.
        close("quantile", found, d[rank - 1], QUANTILES + 1e-7);
    }
    let counted = metrics.magnitudes.zeros + metrics.magnitudes.counts.iter().sum::<u64>();
    assert_eq!(counted, d.len() as u64);
}

/// Holds them against what numpy said.
pub fn with_numpy(sides: &[PathBuf; 2], said: &Value) {
    let (metrics, _) = first(sides);
    let number = |key: &str| said[key].as_f64().unwrap();
    close("rel_l2", metrics.rel_l2, number("rel_l2"), SUMS);
    close("cosine", metrics.cosine, number("cosine"), SUMS);
    close("norm_ratio", metrics.norm_ratio, number("norm_ratio"), SUMS);
    assert_eq!(metrics.max_abs, number("max_abs"));
    assert_eq!(serde_json::json!(metrics.max_abs_at.unwrap().index), said["max_abs_at"]);
    assert_eq!(metrics.non_finite.mismatches, said["non_finite"].as_u64().unwrap());
    let list = |key: &str| said[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap());
    assert_eq!(list("per_token").len(), metrics.per_token.len());
    for (found, expected) in metrics.per_token.iter().zip(list("per_token")) {
        close("per_token", found.unwrap(), expected, SUMS);
    }
    if said["quantiles"].is_array() {
        let q = metrics.quantiles;
        for (found, expected) in [q.p50, q.p90, q.p99, q.p999].into_iter().zip(list("quantiles")) {
            close("quantile", found, expected, QUANTILES + 1e-7);
        }
    }
}
