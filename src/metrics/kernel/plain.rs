//! The loop for any processor.

use super::number::{Number, eights};
use super::{LANES, Run, Sums, Table};

pub(super) fn run<R: Number, C: Number>(
    reference: &[u8],
    candidate: &[u8],
    masked: bool,
    mut table: Option<&mut Table>,
) -> Run {
    let mut sums = Sums::default();
    let ((r8, r_rest), (c8, c_rest)) = (eights::<R>(reference), eights::<C>(candidate));
    for (r, c) in r8.iter().zip(c8) {
        let (r, c) = (widen::<R>(bytemuck::bytes_of(r)), widen::<C>(bytemuck::bytes_of(c)));
        eight(&mut sums, &r, &c, masked, table.as_deref_mut());
    }
    rest::<R, C>(&mut sums, r_rest, c_rest, masked, table);
    sums.finish()
}

/// Adds fewer than eight places to the lanes, the first to lane 0.
pub(super) fn rest<R: Number, C: Number>(
    sums: &mut Sums,
    reference: &[u8],
    candidate: &[u8],
    masked: bool,
    table: Option<&mut Table>,
) {
    let (r, c) = (widen::<R>(reference), widen::<C>(candidate));
    let n = reference.len() / R::SIZE;
    eight(sums, &r[..n], &c[..n], masked, table);
}

fn eight(sums: &mut Sums, r: &[f32], c: &[f32], masked: bool, table: Option<&mut Table>) {
    for (lane, (r, c)) in r.iter().zip(c).enumerate() {
        sums.add(lane, f64::from(*r), f64::from(*c), masked);
    }
    let Some(table) = table else { return };
    for (lane, (r, c)) in r.iter().zip(c).enumerate() {
        sums.count(lane, *r, *c, table);
    }
}

/// At most eight numbers; 0 for those that are not there.
#[inline]
fn widen<T: Number>(bytes: &[u8]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(T::SIZE)) {
        *value = T::widen(bytes);
    }
    out
}

pub(super) fn run_f64(reference: &[f64], candidate: &[f64], masked: bool) -> Run {
    let mut sums = Sums::default();
    for (r, c) in reference.chunks(LANES).zip(candidate.chunks(LANES)) {
        for (lane, (r, c)) in r.iter().zip(c).enumerate() {
            sums.add(lane, *r, *c, masked);
        }
    }
    sums.finish()
}
