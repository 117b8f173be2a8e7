//! What a tensor's values are like.

use crate::trace::{Entry, Trace};
use serde::Serialize;

/// What a tensor's values are like.
#[derive(Debug, Serialize)]
pub(super) struct Statistics {
    pub elements: usize,
    pub nan: usize,
    pub inf: usize,
    pub zeros: usize,
    #[serde(with = "crate::number")]
    pub min: f64,
    #[serde(with = "crate::number")]
    pub max: f64,
    #[serde(with = "crate::number")]
    pub mean: f64,
    #[serde(with = "crate::number")]
    pub rms: f64,
    #[serde(with = "crate::number::list")]
    pub first: Vec<f64>,
    #[serde(with = "crate::number::list")]
    pub last: Vec<f64>,
    /// Bounds of equal bins from `min` to `max`, and the count in each.
    pub histogram: Vec<(f64, f64, usize)>,
}

const BINS: usize = 16;
const SHOWN: usize = 6;

impl Statistics {
    pub fn of(trace: &Trace, entry: &Entry) -> Self {
        let values = trace.view(entry).to_f64();
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let min = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let max = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let count = finite.len().max(1) as f64;
        let width = (max - min) / BINS as f64;
        let mut counts = [0; BINS];
        for value in &finite {
            let bin = if width > 0.0 { ((value - min) / width) as usize } else { 0 };
            counts[bin.min(BINS - 1)] += 1;
        }
        let bound = |i: usize| min + width * i as f64;
        let used = if finite.is_empty() {
            0
        } else if width > 0.0 {
            BINS
        } else {
            1
        };
        Self {
            elements: values.len(),
            nan: values.iter().filter(|v| v.is_nan()).count(),
            inf: values.iter().filter(|v| v.is_infinite()).count(),
            zeros: values.iter().filter(|v| **v == 0.0).count(),
            min,
            max,
            mean: finite.iter().sum::<f64>() / count,
            rms: (finite.iter().map(|v| v * v).sum::<f64>() / count).sqrt(),
            first: values.iter().copied().take(SHOWN).collect(),
            last: values[values.len().saturating_sub(SHOWN)..].to_vec(),
            histogram: (0..used).map(|i| (bound(i), bound(i + 1), counts[i])).collect(),
        }
    }
}
