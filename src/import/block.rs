//! A tensor on its way from a dump to a point: only the order of its elements changes, never a value.

use crate::tensor::{DType, TensorView};

/// A tensor in memory: row-major, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// As many bytes as these say.
    pub bytes: Vec<u8>,
}

impl Block {
    /// To be read as numbers.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }

    /// The same elements, with the axes in another order.
    pub fn transposed(&self, axes: &[usize]) -> Self {
        let bytes = transposed(&self.bytes, self.dtype.size(), &self.shape, axes);
        Self { dtype: self.dtype, shape: axes.iter().map(|a| self.shape[*a]).collect(), bytes }
    }

    /// Of one axis these places, in this order.
    pub fn chosen(&self, axis: usize, places: impl ExactSizeIterator<Item = usize> + Clone) -> Self {
        let inner = self.shape[axis + 1..].iter().product::<usize>() * self.dtype.size();
        let outer: usize = self.shape[..axis].iter().product();
        let mut bytes = Vec::with_capacity(outer * places.len() * inner);
        for block in 0..outer {
            for place in places.clone() {
                let start = (block * self.shape[axis] + place) * inner;
                bytes.extend_from_slice(&self.bytes[start..start + inner]);
            }
        }
        let mut shape = self.shape.clone();
        shape[axis] = places.len();
        Self { dtype: self.dtype, shape, bytes }
    }
}

/// Row-major elements of `size` bytes with their axes in another order.
pub(super) fn transposed(bytes: &[u8], size: usize, shape: &[usize], axes: &[usize]) -> Vec<u8> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let new_shape: Vec<usize> = axes.iter().map(|a| shape[*a]).collect();
    let new_strides: Vec<usize> = axes.iter().map(|a| strides[*a]).collect();
    gathered(bytes, size, &new_shape, &new_strides)
}

/// The elements of a strided view, row-major. Strides are in elements, and the view lies within `bytes`.
pub(super) fn gathered(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let n: usize = shape.iter().product();
    let mut out = Vec::with_capacity(n * size);
    let mut index = vec![0usize; shape.len()];
    let mut at = 0usize;
    for _ in 0..n {
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(shape: &[usize]) -> Block {
        let n: usize = shape.iter().product();
        Block { dtype: DType::U8, shape: shape.to_vec(), bytes: (0..n as u8).collect() }
    }

    #[test]
    fn a_transposition_moves_elements_and_sizes() {
        let turned = block(&[2, 3]).transposed(&[1, 0]);
        assert_eq!((turned.shape, turned.bytes), (vec![3, 2], vec![0, 3, 1, 4, 2, 5]));
        let turned = block(&[2, 2, 2]).transposed(&[1, 0, 2]);
        assert_eq!(turned.bytes, [0, 1, 4, 5, 2, 3, 6, 7]);
    }

    #[test]
    fn places_of_an_axis_are_taken_in_the_order_asked_for() {
        let part = block(&[2, 3, 1]).chosen(1, [2, 0].into_iter());
        assert_eq!((part.shape, part.bytes), (vec![2, 2, 1], vec![2, 0, 5, 3]));
    }
}
