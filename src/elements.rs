//! Numbers as the metrics read them: piece by piece, or as they lie in a trace.

use crate::tensor::TensorView;
use std::ops::Range;

/// Numbers that can be read in order, piece by piece.
pub trait Elements {
    /// Sizes, outermost first.
    fn shape(&self) -> &[usize];

    /// Writes the elements from `start` on into `out`, as f64.
    ///
    /// # Panics
    /// When fewer than `out.len()` elements are left.
    fn read_into(&self, start: usize, out: &mut [f64]);

    /// The tensor as it lies in a trace, where its elements are just those.
    fn as_it_lies(&self) -> Option<TensorView<'_>> {
        None
    }
}

/// Some places of one axis of other numbers, as if there were no others.
#[derive(Debug)]
pub struct Picked<E> {
    of: E,
    shape: Vec<usize>,
    axis: usize,
    /// None for all.
    places: Option<Vec<usize>>,
}

impl<E: Elements> Picked<E> {
    /// These places of an axis, in their order; all where none are given.
    pub fn new(of: E, axis: usize, places: Option<Vec<usize>>) -> Self {
        let mut shape = of.shape().to_vec();
        if let (Some(places), Some(size)) = (&places, shape.get_mut(axis)) {
            *size = places.len();
        }
        Self { of, shape, axis, places }
    }

    /// Calls `take` with the runs of `len` elements from `start` on: where each lies, and its range among them.
    fn runs(&self, places: &[usize], start: usize, len: usize, mut take: impl FnMut(usize, Range<usize>)) {
        let inner = self.shape[self.axis + 1..].iter().product::<usize>().max(1);
        let size = self.of.shape()[self.axis];
        let mut done = 0;
        while done < len {
            let at = start + done;
            let (row, offset) = (at / inner, at % inner);
            let n = (inner - offset).min(len - done);
            let (block, place) = (row / places.len(), places[row % places.len()]);
            take((block * size + place) * inner + offset, done..done + n);
            done += n;
        }
    }
}

impl<E: Elements> Elements for Picked<E> {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read_into(&self, start: usize, out: &mut [f64]) {
        match &self.places {
            None => self.of.read_into(start, out),
            Some(places) => {
                let len = out.len();
                self.runs(places, start, len, |at, range| self.of.read_into(at, &mut out[range]));
            }
        }
    }

    fn as_it_lies(&self) -> Option<TensorView<'_>> {
        if self.places.is_none() { self.of.as_it_lies() } else { None }
    }
}

impl Elements for TensorView<'_> {
    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn read_into(&self, start: usize, out: &mut [f64]) {
        TensorView::read_into(self, start, out);
    }

    fn as_it_lies(&self) -> Option<TensorView<'_>> {
        Some(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn picked_places_read_as_the_places_themselves_in_any_pieces() {
        let values: Vec<f32> = (0u8..24).map(f32::from).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView { dtype: DType::F32, shape: &[2, 4, 3], bytes: &bytes };
        let picked = Picked::new(view, 1, Some(vec![0, 3]));
        assert_eq!(picked.shape(), [2, 2, 3]);
        let wanted = [0, 1, 2, 9, 10, 11, 12, 13, 14, 21, 22, 23].map(f64::from);
        for start in 0..12 {
            for len in 0..=12 - start {
                let mut wide = vec![0.0; len];
                picked.read_into(start, &mut wide);
                assert_eq!(wide, wanted[start..start + len]);
            }
        }
        assert!(picked.as_it_lies().is_none() && Picked::new(view, 1, None).as_it_lies().is_some());
        assert_eq!(Picked::new(view, 1, None).shape(), view.shape);
    }
}
