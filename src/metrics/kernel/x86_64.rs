//! The loop for AVX-512 and for AVX2.

use super::plain;
use super::{LANES, NARROW_SHIFT, Run, Sums};
use bytemuck::cast;
#[allow(clippy::wildcard_imports)] // Some forty names, all of which begin with `_mm`.
use std::arch::x86_64::*;

/// Numbers whose bins are made at once.
const BINS: usize = 16;

/// None where the processor has neither.
pub(super) fn run<const MASKED: bool>(reference: &[f32], candidate: &[f32]) -> Option<Run> {
    if has_avx512() {
        // SAFETY: the processor has what the function is compiled for.
        Some(unsafe { avx512::<MASKED>(reference, candidate) })
    } else if has_avx2() {
        // SAFETY: as above.
        Some(unsafe { avx2::<MASKED>(reference, candidate) })
    } else {
        None
    }
}

/// The same from each of the loops that this processor can run.
#[cfg(test)]
pub(super) fn each<const MASKED: bool>(reference: &[f32], candidate: &[f32]) -> Vec<Run> {
    let mut runs = Vec::new();
    if has_avx512() {
        // SAFETY: the processor has what the function is compiled for.
        runs.push(unsafe { avx512::<MASKED>(reference, candidate) });
    }
    if has_avx2() {
        // SAFETY: as above.
        runs.push(unsafe { avx2::<MASKED>(reference, candidate) });
    }
    runs
}

pub(super) fn bins(reference: &[f32], candidate: &[f32], out: &mut [u16]) -> Option<u32> {
    if has_avx512() {
        // SAFETY: the processor has what the function is compiled for.
        Some(unsafe { bins_avx512(reference, candidate, out) })
    } else if has_avx2() {
        // SAFETY: as above.
        Some(unsafe { bins_avx2(reference, candidate, out) })
    } else {
        None
    }
}

fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && has_avx2()
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")
}

#[target_feature(enable = "avx512f,avx2,popcnt")]
fn avx512<const MASKED: bool>(reference: &[f32], candidate: &[f32]) -> Run {
    let ((r8, r_rest), (c8, c_rest)) = (reference.as_chunks::<LANES>(), candidate.as_chunks::<LANES>());
    let infinity = _mm512_set1_pd(f64::INFINITY);
    let [mut rr, mut cc, mut rc, mut dd, mut max] = [_mm512_setzero_pd(); 5];
    for (r, c) in r8.iter().zip(c8) {
        let (mut r, mut c) = (_mm512_cvtps_pd(cast(*r)), _mm512_cvtps_pd(cast(*c)));
        let mut d = _mm512_sub_pd(c, r);
        if MASKED {
            let finite = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(_mm512_abs_pd(d), infinity);
            [r, c, d] = [r, c, d].map(|v| _mm512_maskz_mov_pd(finite, v));
        }
        rr = _mm512_add_pd(rr, _mm512_mul_pd(r, r));
        cc = _mm512_add_pd(cc, _mm512_mul_pd(c, c));
        rc = _mm512_add_pd(rc, _mm512_mul_pd(r, c));
        dd = _mm512_add_pd(dd, _mm512_mul_pd(d, d));
        max = _mm512_max_pd(_mm512_abs_pd(d), max);
    }
    let mut sums = Sums { rr: cast(rr), cc: cast(cc), rc: cast(rc), dd: cast(dd), max: cast(max) };
    plain::rest(&mut sums, r_rest, c_rest, MASKED);
    sums.finish()
}

/// Two halves of four lanes each.
#[target_feature(enable = "avx2,popcnt")]
fn avx2<const MASKED: bool>(reference: &[f32], candidate: &[f32]) -> Run {
    let ((r8, r_rest), (c8, c_rest)) = (reference.as_chunks::<LANES>(), candidate.as_chunks::<LANES>());
    let (infinity, sign) = (_mm256_set1_pd(f64::INFINITY), _mm256_set1_pd(-0.0));
    let [mut rr, mut cc, mut rc, mut dd, mut max] = [[_mm256_setzero_pd(); 2]; 5];
    for (r, c) in r8.iter().zip(c8) {
        let (r4, c4): ([__m128; 2], [__m128; 2]) = (cast(*r), cast(*c));
        for half in 0..2 {
            let (mut r, mut c) = (_mm256_cvtps_pd(r4[half]), _mm256_cvtps_pd(c4[half]));
            let mut d = _mm256_sub_pd(c, r);
            if MASKED {
                let finite = _mm256_cmp_pd::<_CMP_LT_OQ>(_mm256_andnot_pd(sign, d), infinity);
                [r, c, d] = [r, c, d].map(|v| _mm256_and_pd(finite, v));
            }
            rr[half] = _mm256_add_pd(rr[half], _mm256_mul_pd(r, r));
            cc[half] = _mm256_add_pd(cc[half], _mm256_mul_pd(c, c));
            rc[half] = _mm256_add_pd(rc[half], _mm256_mul_pd(r, c));
            dd[half] = _mm256_add_pd(dd[half], _mm256_mul_pd(d, d));
            max[half] = _mm256_max_pd(_mm256_andnot_pd(sign, d), max[half]);
        }
    }
    let mut sums = Sums { rr: cast(rr), cc: cast(cc), rc: cast(rc), dd: cast(dd), max: cast(max) };
    plain::rest(&mut sums, r_rest, c_rest, MASKED);
    sums.finish()
}

#[target_feature(enable = "avx512f,avx2,popcnt")]
fn bins_avx512(reference: &[f32], candidate: &[f32], out: &mut [u16]) -> u32 {
    let ((r16, r_rest), (c16, c_rest)) = (reference.as_chunks::<BINS>(), candidate.as_chunks::<BINS>());
    let (out16, out_rest) = out.as_chunks_mut::<BINS>();
    let mut zeros = 0;
    for ((r, c), out) in r16.iter().zip(c16).zip(out16) {
        let d = _mm512_sub_ps(cast(*c), cast(*r));
        zeros += _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(d, _mm512_setzero_ps()).count_ones();
        let bins = _mm512_srli_epi32::<NARROW_SHIFT>(_mm512_castps_si512(_mm512_abs_ps(d)));
        *out = cast(_mm512_cvtepi32_epi16(bins));
    }
    zeros + plain::bins(r_rest, c_rest, out_rest)
}

#[target_feature(enable = "avx2,popcnt")]
fn bins_avx2(reference: &[f32], candidate: &[f32], out: &mut [u16]) -> u32 {
    let ((r16, r_rest), (c16, c_rest)) = (reference.as_chunks::<BINS>(), candidate.as_chunks::<BINS>());
    let (out16, out_rest) = out.as_chunks_mut::<BINS>();
    let (sign, mut zeros) = (_mm256_set1_ps(-0.0), 0);
    for ((r, c), out) in r16.iter().zip(c16).zip(out16) {
        let (r8, c8): ([__m256; 2], [__m256; 2]) = (cast(*r), cast(*c));
        let mut halves = [_mm256_setzero_si256(); 2];
        for half in 0..2 {
            let d = _mm256_sub_ps(c8[half], r8[half]);
            let equal = _mm256_cmp_ps::<_CMP_EQ_OQ>(d, _mm256_setzero_ps());
            zeros += _mm256_movemask_ps(equal).count_ones();
            let bits = _mm256_castps_si256(_mm256_andnot_ps(sign, d));
            halves[half] = _mm256_srli_epi32::<{ NARROW_SHIFT.cast_signed() }>(bits);
        }
        // The packing goes by halves of 128 bits, which are put in order after.
        let packed = _mm256_packus_epi32(halves[0], halves[1]);
        *out = cast(_mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
    }
    zeros + plain::bins(r_rest, c_rest, out_rest)
}
