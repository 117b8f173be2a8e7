//! Random numbers of the kinds on which sums go wrong.

use proptest::prelude::*;

/// What a row of numbers is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Of one size.
    Even,
    /// All of one sign.
    Positive,
    /// In pairs that nearly cancel.
    Cancelling,
    /// One is far larger than all others.
    Dominated,
    /// Of many sizes.
    Wide,
    /// Mostly zeros.
    Sparse,
    /// All the same.
    Alike,
}

/// Rows of numbers: what they are like, their size, and which ones.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    pub kind: Kind,
    pub scale: f32,
    pub seed: u64,
}

/// Rows whose size is a power of ten within the range.
pub fn rows(powers: std::ops::Range<i32>) -> impl Strategy<Value = Rows> {
    use Kind::{Alike, Cancelling, Dominated, Even, Positive, Sparse, Wide};
    let kinds = prop::sample::select(vec![Even, Positive, Cancelling, Dominated, Wide, Sparse, Alike]);
    (kinds, powers, any::<u64>()).prop_map(|(kind, power, seed)| Rows {
        kind,
        scale: 10f64.powi(power) as f32,
        seed,
    })
}

impl Rows {
    /// n numbers.
    pub fn take(self, n: usize) -> Vec<f32> {
        let mut state = self.seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((mixed ^ (mixed >> 32)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut out: Vec<f32> = (0..n).map(|_| next()).collect();
        for i in 0..n {
            out[i] = match self.kind {
                Kind::Even => out[i],
                Kind::Positive => out[i].abs(),
                Kind::Cancelling if i % 2 == 1 => -out[i - 1] * (1.0 + 1e-6 * out[i]),
                Kind::Cancelling => out[i],
                Kind::Dominated if i == (self.seed as usize) % n => 1e7 * out[i].abs().max(0.1),
                Kind::Dominated => out[i].abs(),
                Kind::Wide => out[i] * 10f32.powf(8.0 * next() - 4.0),
                Kind::Sparse if next() < 0.8 => 0.0,
                Kind::Sparse => out[i],
                Kind::Alike => out[0],
            };
        }
        out.iter_mut().for_each(|v| *v *= self.scale);
        out
    }

    /// The same with other numbers.
    pub fn again(self, salt: u64) -> Self {
        Self { seed: self.seed.rotate_left(17) ^ salt.wrapping_mul(0x2545_f491_4f6c_dd1d), ..self }
    }
}
