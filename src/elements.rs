//! Numbers as the metrics read them: piece by piece, or as they lie in a trace.

use crate::tensor::TensorView;

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
