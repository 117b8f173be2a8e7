//! The loop for AVX-512 and for AVX2.

use super::number::{Number, eights};
use super::plain;
use super::{COPIES, LAG, LANES, PLACE_SHIFT, PLACES, Run, Sums, Table};
use bytemuck::cast;
#[allow(clippy::wildcard_imports)] // Some forty names, all of which begin with `_mm`.
use std::arch::x86_64::*;

/// What a processor has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Level {
    Avx512,
    Avx2,
}

impl Level {
    /// The best that this processor has; none where it has neither.
    pub(super) fn here() -> Option<Self> {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        avx2.then_some(if avx512 { Self::Avx512 } else { Self::Avx2 })
    }
}

/// # Panics
/// When the processor has less than `level`.
pub(super) fn run<R: Number, C: Number, const MASKED: bool>(
    level: Level,
    reference: &[u8],
    candidate: &[u8],
    table: Option<&mut Table>,
) -> Run {
    let here = Level::here();
    match level {
        Level::Avx512 => {
            assert_eq!(here, Some(Level::Avx512));
            // SAFETY: the processor has what the function is compiled for.
            unsafe { avx512::<R, C, MASKED>(reference, candidate, table) }
        }
        Level::Avx2 => {
            assert!(here.is_some());
            // SAFETY: as above.
            unsafe { avx2::<R, C, MASKED>(reference, candidate, table) }
        }
    }
}

/// The places of bins that are still to be counted, eight by eight.
struct Waiting {
    places: [[u16; LANES]; 2 * LAG],
    written: usize,
}

impl Waiting {
    const fn new() -> Self {
        Self { places: [[0; LANES]; 2 * LAG], written: 0 }
    }

    /// Writes eight down, and counts those that were written down [`LAG`] before.
    #[inline]
    fn push(&mut self, places: [u16; LANES], table: &mut Table) {
        self.places[self.written % (2 * LAG)] = places;
        if self.written >= LAG {
            count(&self.places[(self.written - LAG) % (2 * LAG)], table);
        }
        self.written += 1;
    }

    /// Counts what is left.
    fn finish(&self, table: &mut Table) {
        for i in self.written.saturating_sub(LAG)..self.written {
            count(&self.places[i % (2 * LAG)], table);
        }
    }
}

/// Each in the copy of its lane.
#[inline]
fn count(places: &[u16; COPIES], table: &mut Table) {
    for (copy, place) in places.iter().enumerate() {
        let at = usize::from(*place) + copy;
        table[at] = table[at].wrapping_add(1);
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx2,fma,f16c")]
fn avx512<R: Number, C: Number, const MASKED: bool>(
    reference: &[u8],
    candidate: &[u8],
    table: Option<&mut Table>,
) -> Run {
    let ((r8, r_rest), (c8, c_rest)) = (eights::<R>(reference), eights::<C>(candidate));
    let infinity = _mm512_set1_pd(f64::INFINITY);
    let [mut rr, mut cc, mut rc, mut dd, mut max] = [_mm512_setzero_pd(); 5];
    let mut add = |r: __m256, c: __m256| {
        let (mut r, mut c) = (_mm512_cvtps_pd(r), _mm512_cvtps_pd(c));
        let mut d = _mm512_sub_pd(c, r);
        if MASKED {
            let finite = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(_mm512_abs_pd(d), infinity);
            [r, c, d] = [r, c, d].map(|v| _mm512_maskz_mov_pd(finite, v));
        }
        rr = _mm512_fmadd_pd(r, r, rr);
        cc = _mm512_fmadd_pd(c, c, cc);
        rc = _mm512_fmadd_pd(r, c, rc);
        let square = _mm512_mul_pd(d, d);
        dd = _mm512_add_pd(dd, square);
        max = _mm512_max_pd(square, max);
    };
    // SAFETY of both: AVX2 and F16C are among what this function is compiled for.
    let widen = |(r, c): (&R::Eight, &C::Eight)| unsafe { (R::widen_eight(*r), C::widen_eight(*c)) };
    let mut table = table;
    let mut least = u32::MAX;
    if let Some(table) = table.as_deref_mut() {
        let (mut waiting, mut lows) = (Waiting::new(), _mm256_set1_epi32(-1));
        for (i, eight) in r8.iter().zip(c8).enumerate() {
            fetch(i, eight.0);
            fetch(i, eight.1);
            let (r, c) = widen(eight);
            add(r, c);
            let (places, low) = places(r, c);
            lows = _mm256_min_epu32(lows, low);
            waiting.push(cast(_mm256_cvtepi32_epi16(places)), table);
        }
        waiting.finish(table);
        least = cast::<_, [u32; LANES]>(lows).into_iter().fold(least, u32::min);
    } else {
        for eight in r8.iter().zip(c8) {
            let (r, c) = widen(eight);
            add(r, c);
        }
    }
    let max = cast(_mm512_sqrt_pd(max));
    let mut sums = Sums { rr: cast(rr), cc: cast(cc), rc: cast(rc), dd: cast(dd), max, least };
    plain::rest::<R, C>(&mut sums, r_rest, c_rest, MASKED, table);
    sums.finish()
}

/// Two halves of four lanes each.
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<R: Number, C: Number, const MASKED: bool>(
    reference: &[u8],
    candidate: &[u8],
    table: Option<&mut Table>,
) -> Run {
    let ((r8, r_rest), (c8, c_rest)) = (eights::<R>(reference), eights::<C>(candidate));
    let (infinity, sign) = (_mm256_set1_pd(f64::INFINITY), _mm256_set1_pd(-0.0));
    let [mut rr, mut cc, mut rc, mut dd, mut max] = [[_mm256_setzero_pd(); 2]; 5];
    let mut add = |r: __m256, c: __m256| {
        let halves = |v: __m256| [_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)];
        for (half, (r, c)) in halves(r).into_iter().zip(halves(c)).enumerate() {
            let (mut r, mut c) = (_mm256_cvtps_pd(r), _mm256_cvtps_pd(c));
            let mut d = _mm256_sub_pd(c, r);
            if MASKED {
                let finite = _mm256_cmp_pd::<_CMP_LT_OQ>(_mm256_andnot_pd(sign, d), infinity);
                [r, c, d] = [r, c, d].map(|v| _mm256_and_pd(finite, v));
            }
            rr[half] = _mm256_fmadd_pd(r, r, rr[half]);
            cc[half] = _mm256_fmadd_pd(c, c, cc[half]);
            rc[half] = _mm256_fmadd_pd(r, c, rc[half]);
            let square = _mm256_mul_pd(d, d);
            dd[half] = _mm256_add_pd(dd[half], square);
            max[half] = _mm256_max_pd(square, max[half]);
        }
    };
    // SAFETY of both: AVX2 and F16C are among what this function is compiled for.
    let widen = |(r, c): (&R::Eight, &C::Eight)| unsafe { (R::widen_eight(*r), C::widen_eight(*c)) };
    let mut table = table;
    let mut least = u32::MAX;
    if let Some(table) = table.as_deref_mut() {
        let (mut waiting, mut lows) = (Waiting::new(), _mm256_set1_epi32(-1));
        for (i, eight) in r8.iter().zip(c8).enumerate() {
            fetch(i, eight.0);
            fetch(i, eight.1);
            let (r, c) = widen(eight);
            add(r, c);
            let (places, low) = places(r, c);
            lows = _mm256_min_epu32(lows, low);
            let [a, b] = [_mm256_castsi256_si128(places), _mm256_extracti128_si256::<1>(places)];
            waiting.push(cast(_mm_packus_epi32(a, b)), table);
        }
        waiting.finish(table);
        least = cast::<_, [u32; LANES]>(lows).into_iter().fold(least, u32::min);
    } else {
        for eight in r8.iter().zip(c8) {
            let (r, c) = widen(eight);
            add(r, c);
        }
    }
    let max = cast(max.map(|half| _mm256_sqrt_pd(half)));
    let mut sums = Sums { rr: cast(rr), cc: cast(cc), rc: cast(rc), dd: cast(dd), max, least };
    plain::rest::<R, C>(&mut sums, r_rest, c_rest, MASKED, table);
    sums.finish()
}

/// Bytes that are fetched ahead. Counting fills the processor's queues with so much that it looks less far ahead
/// by itself than memory takes.
const AHEAD: usize = 2048;

/// Fetches what lies ahead of an eight, once for each of the cache's lines.
#[inline]
fn fetch<T>(number: usize, eight: &T) {
    const LINE: usize = 64;
    if number.is_multiple_of(LINE / size_of::<T>()) {
        let ahead = std::ptr::from_ref(eight).cast::<i8>().wrapping_add(AHEAD);
        // SAFETY: nothing is read; a place that is not there is passed over.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
    }
}

/// The places of the bins of eight differences, and the bits of their sizes less one.
#[inline]
#[target_feature(enable = "avx2")]
fn places(r: __m256, c: __m256) -> (__m256i, __m256i) {
    let bits = _mm256_castps_si256(_mm256_sub_ps(c, r));
    let shifted = _mm256_srli_epi32::<{ PLACE_SHIFT.cast_signed() }>(bits);
    let size = _mm256_and_si256(bits, _mm256_set1_epi32(i32::MAX));
    let low = _mm256_sub_epi32(size, _mm256_set1_epi32(1));
    (_mm256_and_si256(shifted, _mm256_set1_epi32(PLACES.cast_signed())), low)
}
