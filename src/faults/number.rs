//! Roundings and functions that several wrong formulas use.

use half::{bf16, f16};

pub(super) fn to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

pub(super) fn to_f16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// The 10 bits of mantissa that a tensor core reads of a 32-bit float.
pub(super) fn to_tf32(x: f32) -> f32 {
    f32::from_bits(x.to_bits().wrapping_add(0x1000) & !0x1fff)
}

/// Rounds a row to multiples of its largest size divided by 127.
pub(super) fn to_int8(row: &mut [f32]) {
    let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if largest > 0.0 {
        let scale = largest / 127.0;
        row.iter_mut().for_each(|v| *v = (*v / scale).round() * scale);
    }
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// GELU by its tanh approximation.
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}

pub(super) fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_core_keeps_ten_bits() {
        assert_eq!(to_tf32(1.0 + f32::EPSILON), 1.0);
        assert_eq!(to_tf32(1.0 + 2f32.powi(-10)), 1.0 + 2f32.powi(-10));
    }

    #[test]
    fn the_largest_of_a_row_is_an_int8_code() {
        let mut row = [1.27, -0.012, 0.0];
        to_int8(&mut row);
        assert!((row[0] - 1.27).abs() < 1e-6 && (row[1] + 0.01).abs() < 1e-6, "{row:?}");
    }
}
