//! Tensors as they lie in a trace: a dtype, a shape, row-major values.

use crate::error::{Error, Result};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Element types that a trace may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    /// Masks: 1 allowed, 0 blocked.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
        }
    }

    /// Unit roundoff u, half the distance from 1 to the next number; 0 for masks.
    pub fn unit_roundoff(self) -> f64 {
        match self {
            Self::F64 => f64::EPSILON / 2.0,
            Self::F32 => f64::from(f32::EPSILON) / 2.0,
            Self::F16 => 2f64.powi(-11),
            Self::BF16 => 2f64.powi(-8),
            Self::U8 => 0.0,
        }
    }

    /// True for floating-point types.
    pub fn is_float(self) -> bool {
        self != Self::U8
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An owned f32 or mask tensor, as an engine's pass hands it to a hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Values,
}

/// The values of a [`Tensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Numbers.
    F32(Vec<f32>),
    /// A mask.
    U8(Vec<u8>),
}

impl Tensor {
    /// A tensor of numbers.
    ///
    /// # Panics
    /// When the shape's product is not the number of values: that is a bug of the caller.
    pub fn new(shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        Self { shape: shape.to_vec(), values: Values::F32(values) }
    }

    /// A mask.
    ///
    /// # Panics
    /// As [`Tensor::new`].
    pub fn mask(shape: &[usize], values: Vec<u8>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        Self { shape: shape.to_vec(), values: Values::U8(values) }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self.values {
            Values::F32(_) => DType::F32,
            Values::U8(_) => DType::U8,
        }
    }

    /// The numbers; an error for a mask.
    pub fn into_f32(self) -> Result<Vec<f32>> {
        match self.values {
            Values::F32(values) => Ok(values),
            Values::U8(_) => {
                Err(Error::new("a hook returned a mask for a tensor of numbers").expected("F32", "U8"))
            }
        }
    }

    /// The mask's values; an error for numbers.
    pub fn into_mask(self) -> Result<Vec<u8>> {
        match self.values {
            Values::U8(values) => Ok(values),
            Values::F32(_) => Err(Error::new("a hook returned numbers for a mask").expected("U8", "F32")),
        }
    }

    /// The part within a range of each axis.
    ///
    /// # Panics
    /// When there is not one range within bounds for each axis: that is a bug of the caller.
    pub fn part(&self, ranges: &[Range<usize>]) -> Self {
        assert_eq!(ranges.len(), self.shape.len(), "shape {:?}", self.shape);
        let shape = ranges.iter().map(Range::len).collect();
        let values = match &self.values {
            Values::F32(values) => {
                let mut part = Vec::new();
                copy_part(values, &self.shape, ranges, &mut part);
                Values::F32(part)
            }
            Values::U8(values) => {
                let mut part = Vec::new();
                copy_part(values, &self.shape, ranges, &mut part);
                Values::U8(part)
            }
        };
        Self { shape, values }
    }

    /// The places `kept` of one axis, in their order.
    ///
    /// # Panics
    /// When the axis or a place is out of bounds: that is a bug of the caller.
    pub fn kept(&self, axis: usize, kept: &[usize]) -> Self {
        let mut shape = self.shape.clone();
        shape[axis] = kept.len();
        let axis = (self.shape[axis], self.shape[axis + 1..].iter().product());
        let values = match &self.values {
            Values::F32(values) => Values::F32(keep(values, axis, kept)),
            Values::U8(values) => Values::U8(keep(values, axis, kept)),
        };
        Self { shape, values }
    }

    /// The values as little-endian bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match &self.values {
            Values::F32(values) => {
                // In chunks it is one copy of memory where the machine is little-endian.
                let mut bytes = vec![0; 4 * values.len()];
                for (chunk, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *chunk = value.to_le_bytes();
                }
                bytes
            }
            Values::U8(values) => values.clone(),
        }
    }
}

/// Appends the part of `values` within `ranges`; axes that are whole are copied in one piece.
fn copy_part<T: Copy>(values: &[T], shape: &[usize], ranges: &[Range<usize>], out: &mut Vec<T>) {
    let ([_, shape @ ..], [range, ranges @ ..]) = (shape, ranges) else {
        out.extend_from_slice(values);
        return;
    };
    let stride: usize = shape.iter().product();
    if ranges.iter().zip(shape).all(|(range, n)| *range == (0..*n)) {
        out.extend_from_slice(&values[range.start * stride..range.end * stride]);
    } else {
        for i in range.clone() {
            copy_part(&values[i * stride..(i + 1) * stride], shape, ranges, out);
        }
    }
}

/// The places `kept` of an axis of this size, of so many elements each.
fn keep<T: Copy>(values: &[T], (size, inner): (usize, usize), kept: &[usize]) -> Vec<T> {
    let blocks = values.chunks_exact((size * inner).max(1));
    blocks.flat_map(|block| kept.iter().flat_map(move |at| block[at * inner..][..inner].to_vec())).collect()
}

/// A tensor that lies in a trace: borrowed little-endian bytes, not necessarily aligned.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Row-major little-endian bytes.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes the elements from `start` on into `out`, widened to f64: exact for every dtype.
    ///
    /// # Panics
    /// When fewer than `out.len()` elements are left.
    pub fn read_into(&self, start: usize, out: &mut [f64]) {
        let size = self.dtype.size();
        let bytes = &self.bytes[start * size..(start + out.len()) * size];
        match self.dtype {
            DType::F64 => fill(out, bytes, f64::from_le_bytes),
            DType::F32 => fill(out, bytes, |b| f64::from(f32::from_le_bytes(b))),
            DType::F16 => fill(out, bytes, |b| f16::from_le_bytes(b).to_f64()),
            DType::BF16 => fill(out, bytes, |b| bf16::from_le_bytes(b).to_f64()),
            DType::U8 => fill(out, bytes, |[b]| f64::from(b)),
        }
    }

    /// All elements as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.len()];
        self.read_into(0, &mut out);
        out
    }
}

/// The numbers in little-endian bytes.
fn fill<const N: usize, T>(out: &mut [T], bytes: &[u8], convert: impl Fn([u8; N]) -> T) {
    for (value, chunk) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = convert(*chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_widens_to_the_same_number() {
        let cases: [(DType, Vec<u8>); 4] = [
            (DType::F64, 1.5f64.to_le_bytes().to_vec()),
            (DType::F32, 1.5f32.to_le_bytes().to_vec()),
            (DType::F16, f16::from_f32(1.5).to_le_bytes().to_vec()),
            (DType::BF16, bf16::from_f32(1.5).to_le_bytes().to_vec()),
        ];
        for (dtype, bytes) in cases {
            let view = TensorView { dtype, shape: &[1], bytes: &bytes };
            assert_eq!(view.to_f64(), [1.5], "{dtype}");
        }
    }

    #[test]
    fn unit_roundoff_is_where_one_plus_u_rounds_back_to_one() {
        assert_eq!(1.0f32 + DType::F32.unit_roundoff() as f32, 1.0);
        assert!(1.0f32 + 2.0 * DType::F32.unit_roundoff() as f32 > 1.0);
        assert_eq!(f16::from_f64(1.0 + DType::F16.unit_roundoff()), f16::ONE);
        assert_eq!(bf16::from_f64(1.0 + DType::BF16.unit_roundoff()), bf16::ONE);
    }

    #[test]
    fn a_part_of_a_tensor_is_what_lies_within_a_range_of_each_axis() {
        let tensor = Tensor::new(&[2, 3, 2], (0u8..12).map(f32::from).collect());
        assert_eq!(tensor.part(&[0..2, 1..3, 1..2]), Tensor::new(&[2, 2, 1], vec![3.0, 5.0, 9.0, 11.0]));
        assert_eq!(tensor.part(&[1..2, 0..3, 0..2]).values, Values::F32((6u8..12).map(f32::from).collect()));
        assert_eq!(tensor.part(&[0..2, 0..3, 0..2]), tensor);
        assert_eq!(
            Tensor::mask(&[2, 2], vec![1, 0, 1, 1]).part(&[1..2, 0..1]),
            Tensor::mask(&[1, 1], vec![1])
        );
    }

    #[test]
    fn places_of_an_axis_are_kept_in_their_order() {
        let tensor = Tensor::new(&[2, 3, 2], (0u8..12).map(f32::from).collect());
        let kept = Tensor::new(&[2, 2, 2], [0u8, 1, 4, 5, 6, 7, 10, 11].map(f32::from).to_vec());
        assert_eq!(tensor.kept(1, &[0, 2]), kept);
        assert_eq!(Tensor::mask(&[3, 1], vec![1, 0, 1]).kept(0, &[1]), Tensor::mask(&[1, 1], vec![0]));
    }

    #[test]
    fn a_view_reads_a_part_in_the_middle() {
        let bytes: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = [0.0; 2];
        TensorView { dtype: DType::F32, shape: &[4], bytes: &bytes }.read_into(1, &mut out);
        assert_eq!(out, [2.0, 3.0]);
    }
}
