//! Numbers as the metrics read them: piece by piece, in 32 bits where these hold them.

use crate::tensor::{DType, TensorView, fill};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Numbers that can be read in order, piece by piece.
pub trait Elements {
    /// Sizes, outermost first.
    fn shape(&self) -> &[usize];

    /// Writes the elements from `start` on into `out`, as f64.
    ///
    /// # Panics
    /// When fewer than `out.len()` elements are left.
    fn read_into(&self, start: usize, out: &mut [f64]);

    /// The `len` elements from `start` on as f32, where all of them are numbers of at most 32 bits: as they lie
    /// there if they are f32, else widened into `buffer`. None where an f32 does not hold them.
    ///
    /// # Panics
    /// When fewer than `len` elements are left, or `buffer` is shorter.
    fn narrow<'a>(&'a self, _start: usize, _len: usize, _buffer: &'a mut [f32]) -> Option<&'a [f32]> {
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

    fn narrow<'a>(&'a self, start: usize, len: usize, buffer: &'a mut [f32]) -> Option<&'a [f32]> {
        let size = self.dtype.size();
        let bytes = &self.bytes[start * size..(start + len) * size];
        let buffer = &mut buffer[..len];
        match self.dtype {
            DType::F64 => return None,
            DType::F32 => match bytemuck::try_cast_slice(bytes) {
                Ok(values) if cfg!(target_endian = "little") => return Some(values),
                _ => fill(buffer, bytes, f32::from_le_bytes),
            },
            // The slices of the library use the processor's conversion.
            DType::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(values) if cfg!(target_endian = "little") => values.convert_to_f32_slice(buffer),
                _ => fill(buffer, bytes, |b| f16::from_le_bytes(b).to_f32()),
            },
            DType::BF16 => fill(buffer, bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            DType::U8 => fill(buffer, bytes, |[b]| f32::from(b)),
        }
        Some(buffer)
    }
}
