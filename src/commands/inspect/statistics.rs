//! What a tensor's values are like.

use crate::tensor::TensorView;
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

/// Values in memory at a time.
const BLOCK: usize = 1 << 16;

impl Statistics {
    /// Of a tensor of any size: it is read twice, block by block.
    pub fn of(view: &TensorView<'_>) -> Self {
        let (mut nan, mut inf, mut zeros, mut count) = (0, 0, 0, 0usize);
        let (mut min, mut max, mut sum, mut squares) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0);
        each(view, |v| {
            nan += usize::from(v.is_nan());
            inf += usize::from(v.is_infinite());
            zeros += usize::from(v == 0.0);
            if v.is_finite() {
                count += 1;
                (min, max) = (min.min(v), max.max(v));
                sum += v;
                squares += v * v;
            }
        });
        let width = (max - min) / BINS as f64;
        let mut counts = [0; BINS];
        each(view, |v| {
            if v.is_finite() {
                let bin = if width > 0.0 { ((v - min) / width) as usize } else { 0 };
                counts[bin.min(BINS - 1)] += 1;
            }
        });
        let bound = |i: usize| min + width * i as f64;
        let used = match count {
            0 => 0,
            _ if width > 0.0 => BINS,
            _ => 1,
        };
        let mut ends = [vec![0.0; SHOWN.min(view.len())], vec![0.0; SHOWN.min(view.len())]];
        view.read_into(0, &mut ends[0]);
        view.read_into(view.len() - ends[1].len(), &mut ends[1]);
        let [first, last] = ends;
        let finite = count.max(1) as f64;
        Self {
            elements: view.len(),
            nan,
            inf,
            zeros,
            min,
            max,
            mean: sum / finite,
            rms: (squares / finite).sqrt(),
            first,
            last,
            histogram: (0..used).map(|i| (bound(i), bound(i + 1), counts[i])).collect(),
        }
    }
}

/// Shows every value to `look`, in order.
fn each(view: &TensorView<'_>, mut look: impl FnMut(f64)) {
    let mut block = vec![0.0; BLOCK.min(view.len())];
    for start in (0..view.len()).step_by(BLOCK) {
        let values = &mut block[..BLOCK.min(view.len() - start)];
        view.read_into(start, values);
        values.iter().copied().for_each(&mut look);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn a_tensor_of_several_blocks_is_counted_to_its_end() {
        let n = 2 * BLOCK + 7;
        let mut values: Vec<f32> = (0..n).map(|i| i as f32).collect();
        // In the second block, and in the last.
        (values[BLOCK], values[BLOCK + 1], values[n - 7]) = (f32::NAN, f32::INFINITY, 0.0);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let found = Statistics::of(&TensorView { dtype: DType::F32, shape: &[n], bytes: &bytes });
        assert_eq!((found.elements, found.nan, found.inf, found.zeros), (n, 1, 1, 2));
        assert_eq!((found.min, found.max), (0.0, (n - 1) as f64));
        let finite: Vec<f64> = values.iter().map(|v| f64::from(*v)).filter(|v| v.is_finite()).collect();
        assert_eq!(found.mean, finite.iter().sum::<f64>() / finite.len() as f64);
        assert_eq!(found.last, [n - 6, n - 5, n - 4, n - 3, n - 2, n - 1].map(|v| v as f64));
        assert_eq!(found.first, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(found.histogram.iter().map(|(.., count)| count).sum::<usize>(), finite.len());
        assert!(found.histogram.iter().all(|(.., count)| *count >= n / BINS - 3), "{:?}", found.histogram);
    }

    #[test]
    fn of_nothing_and_of_nan_alone_there_is_no_histogram() {
        for values in [&[][..], &[f32::NAN; 3]] {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let found =
                Statistics::of(&TensorView { dtype: DType::F32, shape: &[values.len()], bytes: &bytes });
            assert_eq!(
                (found.elements, found.nan, found.last.len()),
                (values.len(), values.len(), values.len())
            );
            assert_eq!((found.min, found.max, found.mean), (f64::INFINITY, f64::NEG_INFINITY, 0.0));
            assert!(found.histogram.is_empty());
        }
    }
}
