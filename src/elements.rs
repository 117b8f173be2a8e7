//! Numbers as the metrics read them: piece by piece, in 32 bits where these hold them.

use crate::tensor::{DType, TensorView, fill};
use half::f16;
use half::slice::HalfFloatSliceExt;
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

    /// The `len` elements from `start` on as f32, where all of them are numbers of at most 32 bits: as they lie
    /// there if they are f32, else widened into `buffer`. None where an f32 does not hold them.
    ///
    /// # Panics
    /// When fewer than `len` elements are left, or `buffer` is shorter.
    fn narrow<'a>(&'a self, _start: usize, _len: usize, _buffer: &'a mut [f32]) -> Option<&'a [f32]> {
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

    fn narrow<'a>(&'a self, start: usize, len: usize, buffer: &'a mut [f32]) -> Option<&'a [f32]> {
        let Some(places) = &self.places else { return self.of.narrow(start, len, buffer) };
        let mut whole = true;
        let mut run = Vec::new();
        self.runs(places, start, len, |at, range| {
            run.resize(range.len(), 0.0);
            let read = self.of.narrow(at, range.len(), &mut run);
            whole &= read.is_some();
            read.into_iter().for_each(|read| buffer[range.clone()].copy_from_slice(read));
        });
        if whole { Some(&buffer[..len]) } else { None }
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

#[cfg(test)]
mod tests {
    use super::*;

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
                let (mut wide, mut buffer) = (vec![0.0; len], vec![0.0; 16]);
                picked.read_into(start, &mut wide);
                assert_eq!(wide, wanted[start..start + len]);
                let narrow: Vec<f64> =
                    picked.narrow(start, len, &mut buffer).unwrap().iter().map(|v| f64::from(*v)).collect();
                assert_eq!(narrow, wide);
            }
        }
        assert_eq!(Picked::new(view, 1, None).shape(), view.shape);
    }
}
