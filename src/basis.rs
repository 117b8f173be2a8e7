//! The rotated basis of a QuaRot checkpoint, and the way back from it.
//!
//! QuaRot turns the residual stream `x` into `R x`, where `R = H D` is one randomized Hadamard
//! matrix: `D` a diagonal of signs that a seed gives, `H` the orthonormal Walsh–Hadamard matrix. The
//! gain `1 + g` of each norm of the stream is folded into the linears that follow, so that such a
//! norm gives `R x̂` where the original gives `(1 + g) x̂`. The way back, by the basis that the
//! architecture's description states for a point:
//!
//! | basis | original values |
//! |---|---|
//! | `original` | as they are |
//! | `residual` | `Rᵀ y` |
//! | `residual_normed`, `residual_final_normed` | `(1 + g) · Rᵀ y`, with the gain of the original checkpoint |
//!
//! A trace names the basis `quarot:SEED`. All of it is computed in f64, one row at a time.

use crate::elements::Elements;
use crate::error::{Error, Result};
use crate::model::{Basis, Component, ModelConfig};
use crate::tensor::TensorView;
use lattice_quant::quarot::hadamard::RandomizedHadamard;
use std::collections::BTreeMap;

/// The basis of an unrotated point, as a trace names it.
pub const ORIGINAL: &str = "original";

const KIND: &str = "quarot";

/// The key in a rotated checkpoint's `config.json` under which lattice's converter states the seed.
pub const CONFIG_SEED: &str = "quarot_rotation_seed";

/// The name that a trace gives to the basis that `seed` makes.
pub fn name(seed: u64) -> String {
    format!("{KIND}:{seed}")
}

/// The seed in a basis's name; none for a basis that is not QuaRot's, an error where the seed is missing.
pub fn seed(basis: &str) -> Result<Option<u64>> {
    let Some(rest) = basis.strip_prefix(KIND) else { return Ok(None) };
    rest.strip_prefix(':').and_then(|seed| seed.parse().ok()).map(Some).ok_or_else(|| {
        Error::new("a rotated basis without its seed")
            .expected(format!("{KIND}:SEED, such as {}", name(0x00C0_FFEE)), format!("{basis:?}"))
            .hint("without the seed nothing can be brought back: capture the trace again, from a directory whose quantize_index.json has quarot_seed")
    })
}

/// The seed of the rotation that a model's configuration states, if it does.
pub fn config_seed(config: &ModelConfig, section: &str) -> Result<Option<u64>> {
    match config.get(section, CONFIG_SEED) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| {
            Error::new(format!("config.json has a bad {CONFIG_SEED}")).expected("a number from 0 on", value)
        }),
    }
}

/// The gains `g` of the original checkpoint's norms, by parameter: `model.norm.weight`.
///
/// QuaRot folds them away, so that a rotated checkpoint no longer has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gains(BTreeMap<String, Vec<f64>>);

impl Gains {
    /// A table of these gains.
    pub fn new(gains: BTreeMap<String, Vec<f64>>) -> Self {
        Self(gains)
    }

    /// The gain of a parameter.
    pub fn get(&self, param: &str) -> Option<&[f64]> {
        self.0.get(param).map(Vec::as_slice)
    }
}

/// The rotation of a residual stream.
#[derive(Debug, Clone)]
pub struct Rotation(RandomizedHadamard);

impl Rotation {
    /// The one that `seed` makes for a stream of this width.
    pub fn new(seed: u64, width: usize) -> Result<Self> {
        RandomizedHadamard::new(seed, width).map(Self).map_err(|_| {
            Error::new("this width cannot be rotated")
                .expected("a power of two", width)
                .hint("a Hadamard matrix as QuaRot uses it exists for powers of two only")
        })
    }

    /// How wide the stream is.
    pub fn width(&self) -> usize {
        self.0.dim()
    }

    /// `x ← R x`.
    ///
    /// # Panics
    /// When `x` is not as long as the stream is wide.
    pub fn apply(&self, x: &mut [f64]) {
        self.0.apply_f64(x).expect("as long as the stream is wide");
    }

    /// `x ← Rᵀ x`.
    ///
    /// # Panics
    /// As [`Rotation::apply`].
    pub fn apply_inverse(&self, x: &mut [f64]) {
        self.0.apply_inverse_f64(x).expect("as long as the stream is wide");
    }
}

/// How the rows of one tensor go back to the original basis.
#[derive(Debug, Clone)]
pub struct Restore {
    rotation: Rotation,
    /// `1 + g` of the norm whose output this is.
    factor: Option<Vec<f64>>,
}

impl Restore {
    /// The way back for a component's output, rows of `width` numbers, from the basis that `seed` makes.
    ///
    /// The inner error says why there is none that can be measured.
    pub fn new(
        component: &Component,
        width: usize,
        seed: u64,
        gains: &Gains,
    ) -> Result<std::result::Result<Self, String>> {
        let normed = match component.basis {
            Basis::Original => return Ok(Err("rotated, though a rotation does not touch this point".into())),
            Basis::Residual => false,
            Basis::ResidualNormed | Basis::ResidualFinalNormed => true,
        };
        let rotation = Rotation::new(seed, width)?;
        if !normed {
            return Ok(Ok(Self { rotation, factor: None }));
        }
        let Some(gain) = component.params.first().and_then(|param| gains.get(param)) else {
            return Ok(Err(
                "the norm's gain is folded away and the original one is unknown: name the original model with --model"
                    .into(),
            ));
        };
        if gain.len() != width {
            return Ok(Err(format!("the original model's gain is {} wide, the point {width}", gain.len())));
        }
        let factor = gain.iter().map(|g| 1.0 + g).collect();
        Ok(Ok(Self { rotation, factor: Some(factor) }))
    }

    fn apply(&self, row: &mut [f64]) {
        self.rotation.apply_inverse(row);
        if let Some(factor) = &self.factor {
            row.iter_mut().zip(factor).for_each(|(value, factor)| *value *= factor);
        }
    }
}

/// A tensor of a trace as it is in the original basis.
#[derive(Debug)]
pub struct Restored<'a> {
    /// As it lies in the trace.
    pub view: TensorView<'a>,
    /// The way back; none for what needs none.
    pub restore: Option<Restore>,
}

impl Elements for Restored<'_> {
    fn shape(&self) -> &[usize] {
        self.view.shape
    }

    fn as_it_lies(&self) -> Option<TensorView<'_>> {
        // What is brought back is of 64 bits.
        if self.restore.is_some() { None } else { Some(self.view) }
    }

    /// A row that is read in two pieces is brought back twice, so that nothing has to be kept.
    fn read_into(&self, start: usize, out: &mut [f64]) {
        let Some(restore) = &self.restore else { return self.view.read_into(start, out) };
        let width = self.view.shape.last().copied().unwrap_or(1);
        let mut row = vec![0.0; width];
        let mut at = start;
        while at < start + out.len() {
            self.view.read_into(at / width * width, &mut row);
            restore.apply(&mut row);
            let n = (width - at % width).min(start + out.len() - at);
            out[at - start..at - start + n].copy_from_slice(&row[at % width..at % width + n]);
            at += n;
        }
    }
}

#[cfg(test)]
mod tests;
