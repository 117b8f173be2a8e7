//! Numbers as a kernel has them: borrowed, and copied as bytes only where a trace is written.

use crate::error::{Error, Result};
use crate::tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The values of a tensor.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Numbers of 64 bits.
    F64(&'a [f64]),
    /// Numbers of 32 bits.
    F32(&'a [f32]),
    /// The bits of IEEE half-precision numbers.
    F16(&'a [u16]),
    /// The bits of bfloat16 numbers.
    BF16(&'a [u16]),
    /// A mask: 1 where a token may look, 0 elsewhere.
    Mask(&'a [u8]),
}

/// What holds the values of a tensor: a slice, an array or a vector of numbers, or [`Values`].
pub trait Numbers {
    /// The values, row-major.
    fn values(&self) -> Values<'_>;
}

impl Numbers for Values<'_> {
    fn values(&self) -> Values<'_> {
        *self
    }
}

impl Numbers for [f64] {
    fn values(&self) -> Values<'_> {
        Values::F64(self)
    }
}

impl Numbers for [f32] {
    fn values(&self) -> Values<'_> {
        Values::F32(self)
    }
}

impl Numbers for [f16] {
    fn values(&self) -> Values<'_> {
        Values::F16(self.reinterpret_cast())
    }
}

impl Numbers for [bf16] {
    fn values(&self) -> Values<'_> {
        Values::BF16(self.reinterpret_cast())
    }
}

impl Numbers for [u8] {
    fn values(&self) -> Values<'_> {
        Values::Mask(self)
    }
}

impl<T> Numbers for Vec<T>
where
    [T]: Numbers,
{
    fn values(&self) -> Values<'_> {
        self.as_slice().values()
    }
}

impl<T, const N: usize> Numbers for [T; N]
where
    [T]: Numbers,
{
    fn values(&self) -> Values<'_> {
        self.as_slice().values()
    }
}

impl<T: Numbers + ?Sized> Numbers for &T {
    fn values(&self) -> Values<'_> {
        (**self).values()
    }
}

impl Values<'_> {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F64(_) => DType::F64,
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
            Self::Mask(_) => DType::U8,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F16(values) | Self::BF16(values) => values.len(),
            Self::Mask(values) => values.len(),
        }
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements that a tensor of this shape has, as little-endian bytes; `strides` are the distances, in
    /// elements, of neighbours along each axis. Without them the values must be the tensor's, row-major.
    pub(super) fn bytes(&self, shape: &[usize], strides: Option<&[usize]>) -> Result<Vec<u8>> {
        self.check(shape, strides)?;
        let row_major;
        let strides = match strides {
            Some(strides) => strides,
            None => {
                row_major = contiguous(shape);
                &row_major
            }
        };
        let mut out = Vec::with_capacity(shape.iter().product::<usize>() * self.dtype().size());
        match self {
            Self::F64(values) => gather(values, shape, strides, f64::to_le_bytes, &mut out),
            Self::F32(values) => gather(values, shape, strides, f32::to_le_bytes, &mut out),
            Self::F16(values) | Self::BF16(values) => {
                gather(values, shape, strides, u16::to_le_bytes, &mut out);
            }
            Self::Mask(values) => gather(values, shape, strides, u8::to_le_bytes, &mut out),
        }
        Ok(out)
    }

    fn check(&self, shape: &[usize], strides: Option<&[usize]>) -> Result<()> {
        if let Some(strides) = strides.filter(|strides| strides.len() != shape.len()) {
            return Err(Error::new("the strides do not belong to the shape")
                .expected("as many strides as sizes", format!("{strides:?} for {shape:?}")));
        }
        let (len, got) = (span(shape, strides), self.len());
        let fits = len.is_some_and(|len| if strides.is_some() { len <= got } else { len == got });
        if !fits {
            let at_least = if strides.is_some() { "at least " } else { "" };
            let wanted =
                len.map_or_else(|| "a shape that fits in memory".to_owned(), |n| format!("{at_least}{n}"));
            return Err(Error::new("another number of values than the shape says")
                .expected(format!("{wanted} for {shape:?}"), got));
        }
        Ok(())
    }
}

/// How many elements lie from a tensor's first to its last, both counted; none where that is no number.
pub(super) fn span(shape: &[usize], strides: Option<&[usize]>) -> Option<usize> {
    // Also the tensor itself must fit, which a stride of 0 would hide.
    let len = shape.iter().try_fold(size_of::<f64>(), |n, size| n.checked_mul(*size))? / size_of::<f64>();
    let Some(strides) = strides else { return Some(len) };
    if strides.len() != shape.len() {
        return None;
    }
    if len == 0 {
        return Some(0);
    }
    let steps = shape.iter().zip(strides).map(|(n, stride)| (n - 1).checked_mul(*stride));
    steps.into_iter().try_fold(1_usize, |sum, step| sum.checked_add(step?))
}

fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Appends the elements in row-major order; `values` starts at the first.
fn gather<T: Copy, const N: usize>(
    values: &[T],
    shape: &[usize],
    strides: &[usize],
    bytes: impl Fn(T) -> [u8; N] + Copy,
    out: &mut Vec<u8>,
) {
    match (shape, strides) {
        ([n], [1]) => values.iter().take(*n).for_each(|value| out.extend_from_slice(&bytes(*value))),
        ([n], [stride]) => {
            (0..*n).for_each(|i| out.extend_from_slice(&bytes(values[i * stride])));
        }
        ([n, shape @ ..], [stride, strides @ ..]) if !shape.contains(&0) => {
            for i in 0..*n {
                gather(&values[i * stride..], shape, strides, bytes, out);
            }
        }
        ([], []) => values.iter().take(1).for_each(|value| out.extend_from_slice(&bytes(*value))),
        _ => {}
    }
}
