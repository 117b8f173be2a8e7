//! Numbers of at most 32 bits as they lie in a trace, and how they become f32.

use bytemuck::Pod;
use half::f16;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, _mm_cvtsi64_si128, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_slli_epi32,
};

/// A type of numbers that f32 hold exactly.
pub(in crate::metrics) trait Number {
    /// Bytes of a number.
    const SIZE: usize;

    /// The bytes of eight numbers.
    type Eight: Pod;

    /// Widens one number.
    ///
    /// # Panics
    /// When there are not [`Number::SIZE`] bytes.
    fn widen(bytes: &[u8]) -> f32;

    /// Widens eight. Which bits a NaN has is left open.
    ///
    /// # Safety
    /// The processor has AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn widen_eight(eight: Self::Eight) -> __m256;
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the bytes of one number")
}

/// `DType::F32`.
#[derive(Debug, Clone, Copy)]
pub(in crate::metrics) struct F32;

impl Number for F32 {
    const SIZE: usize = 4;
    type Eight = [u8; 32];

    #[inline]
    fn widen(bytes: &[u8]) -> f32 {
        f32::from_le_bytes(array(bytes))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(eight: [u8; 32]) -> __m256 {
        bytemuck::cast(eight)
    }
}

/// `DType::BF16`: the upper half of an f32.
#[derive(Debug, Clone, Copy)]
pub(in crate::metrics) struct BF16;

impl Number for BF16 {
    const SIZE: usize = 2;
    type Eight = [u8; 16];

    #[inline]
    fn widen(bytes: &[u8]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(array(bytes))) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(eight: [u8; 16]) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bytemuck::cast(eight))))
    }
}

/// `DType::F16`.
#[derive(Debug, Clone, Copy)]
pub(in crate::metrics) struct F16;

impl Number for F16 {
    const SIZE: usize = 2;
    type Eight = [u8; 16];

    #[inline]
    fn widen(bytes: &[u8]) -> f32 {
        f16::from_le_bytes(array(bytes)).to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(eight: [u8; 16]) -> __m256 {
        _mm256_cvtph_ps(bytemuck::cast(eight))
    }
}

/// `DType::U8`.
#[derive(Debug, Clone, Copy)]
pub(in crate::metrics) struct U8;

impl Number for U8 {
    const SIZE: usize = 1;
    type Eight = [u8; 8];

    #[inline]
    fn widen(bytes: &[u8]) -> f32 {
        f32::from(array::<1>(bytes)[0])
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(eight: [u8; 8]) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(eight))))
    }
}

/// The bytes of whole eights, and of what is left.
pub(super) fn eights<T: Number>(bytes: &[u8]) -> (&[T::Eight], &[u8]) {
    let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % size_of::<T::Eight>());
    // Bytes are aligned to any.
    (bytemuck::cast_slice(whole), rest)
}
