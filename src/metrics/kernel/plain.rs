//! The loop for any processor.

use super::{LANES, NARROW_SHIFT, Run, Sums};

pub(super) fn run<T: Copy + Into<f64>>(reference: &[T], candidate: &[T], masked: bool) -> Run {
    let mut sums = Sums::default();
    rest(&mut sums, reference, candidate, masked);
    sums.finish()
}

/// Adds places to the lanes in turn, the first to lane 0.
pub(super) fn rest<T: Copy + Into<f64>>(sums: &mut Sums, reference: &[T], candidate: &[T], masked: bool) {
    for (r, c) in reference.chunks(LANES).zip(candidate.chunks(LANES)) {
        for (lane, (r, c)) in r.iter().zip(c).enumerate() {
            sums.add(lane, (*r).into(), (*c).into(), masked);
        }
    }
}

pub(super) fn bins(reference: &[f32], candidate: &[f32], out: &mut [u16]) -> u32 {
    let mut zeros = 0;
    for ((r, c), bin) in reference.iter().zip(candidate).zip(out) {
        let d = c - r;
        zeros += u32::from(d == 0.0);
        *bin = (d.abs().to_bits() >> NARROW_SHIFT) as u16;
    }
    zeros
}
