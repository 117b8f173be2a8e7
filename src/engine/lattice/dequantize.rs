//! The numbers that an engine multiplies by, out of the form in which it holds them.

use super::weights::{Attention, Gdn, Layer, Matrix, Mixer, Weights};
use lattice_weights::f16_weights::f16_to_f32_slice;

/// The parameter of a head that is not the embedding.
pub(super) const HEAD: &str = "lm_head.weight";

/// Bytes of a Q8_0 block's scale, an f32 in the machine's byte order.
const SCALE: usize = 4;
/// Bytes of a Q8_0 block: the scale and 32 weights.
const BLOCK: usize = SCALE + 32;

impl Matrix<'_> {
    /// The weight `[n, k]`, widened to f32; none for 32-bit floats, which are the checkpoint's own.
    ///
    /// lattice's 8-bit kernels take `scale · Σ code · x`; a weight is thus `code · scale`.
    pub fn dequantized(&self) -> Option<Vec<f32>> {
        match self {
            Self::F32(_) => None,
            Self::F16(bits) => {
                let mut wide = vec![0.0; bits.len()];
                f16_to_f32_slice(bits, &mut wide);
                Some(wide)
            }
            Self::Q8(w) => {
                let rows = w.data.chunks_exact(w.cols).zip(&w.scales);
                Some(rows.flat_map(|(row, scale)| row.iter().map(move |q| f32::from(*q) * scale)).collect())
            }
            Self::Q8_0 { bytes, .. } => {
                let (blocks, _) = bytes.as_chunks::<BLOCK>();
                Some(blocks.iter().flat_map(block).collect())
            }
            Self::Q4(w) => Some((0..w.height()).flat_map(|i| w.row(i)).collect()),
        }
    }
}

fn block(bytes: &[u8; BLOCK]) -> impl Iterator<Item = f32> {
    let (scale, codes) = bytes.split_first_chunk::<SCALE>().expect("a block is longer than its scale");
    let scale = f32::from_ne_bytes(*scale);
    codes.iter().map(move |code| f32::from(code.cast_signed()) * scale)
}

impl Weights<'_> {
    /// The values of a parameter that the engine does not keep as 32-bit floats.
    pub fn dequantized(&self, param: &str) -> Option<Vec<f32>> {
        self.matrix(param)?.dequantized()
    }

    /// The matrix that a parameter is: `model.layers.0.mlp.up_proj.weight`.
    fn matrix(&self, param: &str) -> Option<Matrix<'_>> {
        match param {
            "model.embed_tokens.weight" => Some(self.embed_tokens),
            HEAD => Some(self.head),
            _ => {
                let (number, local) = param.strip_prefix("model.layers.")?.split_once('.')?;
                self.layers.get(number.parse::<usize>().ok()?)?.matrix(local.strip_suffix(".weight")?)
            }
        }
    }
}

impl<'a> Layer<'a> {
    fn matrix(&self, module: &str) -> Option<Matrix<'a>> {
        match (module, &self.mixer) {
            ("mlp.gate_proj", _) => Some(self.gate_proj),
            ("mlp.up_proj", _) => Some(self.up_proj),
            ("mlp.down_proj", _) => Some(self.down_proj),
            (_, Mixer::Full(mixer)) => mixer.matrix(module.strip_prefix("self_attn.")?),
            (_, Mixer::Linear(mixer)) => mixer.matrix(module.strip_prefix("linear_attn.")?),
        }
    }
}

impl<'a> Attention<'a> {
    fn matrix(&self, module: &str) -> Option<Matrix<'a>> {
        match module {
            "q_proj" => Some(self.q_proj),
            "k_proj" => Some(self.k_proj),
            "v_proj" => Some(self.v_proj),
            "o_proj" => Some(self.o_proj),
            _ => None,
        }
    }
}

impl<'a> Gdn<'a> {
    fn matrix(&self, module: &str) -> Option<Matrix<'a>> {
        match module {
            "in_proj_qkv" => Some(self.in_proj_qkv),
            "in_proj_z" => Some(self.in_proj_z),
            "in_proj_b" => Some(self.in_proj_b),
            "in_proj_a" => Some(self.in_proj_a),
            "out_proj" => Some(self.out_proj),
            _ => None,
        }
    }
}
