//! The parameters of a lattice model, borrowed in the form in which the engine holds them.

use super::q4::Q4Matrix;
use crate::error::{Error, Result};
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_compute::forward::cpu::f16_matmul::matmul_bt_f16;
use lattice_compute::forward::cpu::matmul_bt;
use lattice_compute::forward::cpu::q8_matmul::matmul_bt_q8;
use lattice_compute::forward::cpu::q8_neon::matmul_q8_neon_into;
use lattice_model_qwen35::model::qwen35::Qwen35Model;
use lattice_weights::f16_weights::{
    F16AttentionWeights, F16FeedForwardWeights, F16ModelWeights, f16_to_f32_slice,
};
use lattice_weights::q8_weights::Q8Matrix;

/// A linear's weight `[n, k]`, as the engine stores it.
#[derive(Debug, Clone, Copy)]
pub enum Matrix<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 16-bit floats, widened product by product.
    F16(&'a [u16]),
    /// 8-bit integers with one scale a row.
    Q8(&'a Q8Matrix),
    /// Blocks of 32 8-bit integers with a scale each; the activations are rounded to 8 bits too.
    Q8_0 {
        /// The blocks.
        bytes: &'a [u8],
        /// Number of rows.
        rows: usize,
    },
    /// Blocks of four-bit codes.
    Q4(&'a Q4Matrix),
}

impl Matrix<'_> {
    /// `x Wᵀ` for `x` of `m` rows of `k`, in one call of lattice's kernel.
    pub fn rows(&self, x: &[f32], m: usize, k: usize) -> Vec<f32> {
        let n = match self {
            Self::F32(w) => w.len() / k,
            Self::F16(w) => w.len() / k,
            Self::Q8(w) => w.rows,
            Self::Q8_0 { rows, .. } => *rows,
            Self::Q4(w) => w.height(),
        };
        let mut out = vec![0.0; m * n];
        match self {
            Self::F32(w) => matmul_bt(x, w, &mut out, m, k, n),
            Self::F16(w) => matmul_bt_f16(x, w, &mut out, m, k, n),
            Self::Q8(w) => matmul_bt_q8(x, w, &mut out, m, k, n),
            Self::Q8_0 { bytes, .. } => {
                let mut rounded = Vec::new();
                for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
                    matmul_q8_neon_into(x, bytes, n, k, out, &mut rounded);
                }
            }
            Self::Q4(w) => return w.rows(x, m, k),
        }
        out
    }

    /// Row `i` as f32: how the engine looks up an embedding.
    ///
    /// # Panics
    /// For 8-bit weights: no engine keeps its embedding in them.
    pub fn row(&self, i: usize, k: usize) -> Vec<f32> {
        let range = i * k..(i + 1) * k;
        match self {
            Self::F32(w) => w[range].to_vec(),
            Self::F16(w) => {
                let mut out = vec![0.0; k];
                f16_to_f32_slice(&w[range], &mut out);
                out
            }
            Self::Q4(w) => w.row(i),
            Self::Q8(_) | Self::Q8_0 { .. } => panic!("no engine keeps its embedding in 8 bits"),
        }
    }
}

/// One layer.
#[derive(Debug)]
pub struct Layer<'a> {
    pub input_layernorm: &'a [f32],
    pub post_attention_layernorm: &'a [f32],
    pub mixer: Mixer<'a>,
    pub gate_proj: Matrix<'a>,
    pub up_proj: Matrix<'a>,
    pub down_proj: Matrix<'a>,
}

/// The token mixer of a layer.
#[derive(Debug)]
pub enum Mixer<'a> {
    Full(Attention<'a>),
    Linear(Gdn<'a>),
}

/// Gated full attention.
#[derive(Debug)]
pub struct Attention<'a> {
    pub q_proj: Matrix<'a>,
    pub k_proj: Matrix<'a>,
    pub v_proj: Matrix<'a>,
    pub o_proj: Matrix<'a>,
    pub q_norm: &'a [f32],
    pub k_norm: &'a [f32],
}

/// `GatedDeltaNet`.
#[derive(Debug)]
pub struct Gdn<'a> {
    pub in_proj_qkv: Matrix<'a>,
    pub in_proj_z: Matrix<'a>,
    pub in_proj_b: Matrix<'a>,
    pub in_proj_a: Matrix<'a>,
    pub out_proj: Matrix<'a>,
    pub a_log: &'a [f32],
    pub dt_bias: &'a [f32],
    pub conv1d: &'a [f32],
    pub norm: &'a [f32],
}

/// All parameters of a model.
#[derive(Debug)]
pub struct Weights<'a> {
    pub embed_tokens: Matrix<'a>,
    pub norm: &'a [f32],
    pub head: Matrix<'a>,
    pub layers: Vec<Layer<'a>>,
}

impl<'a> Weights<'a> {
    /// Those of the f32 engine.
    pub fn of_f32(model: &'a Qwen35Model) -> Result<Self> {
        let (head, norm, embed) = model.head_weights();
        let layers = (0..model.loaded_layer_count()).map(|i| f32_layer(model, i)).collect::<Result<_>>()?;
        Ok(Self { embed_tokens: Matrix::F32(embed), norm, head: Matrix::F32(head), layers })
    }

    /// Those of the F16 engine. Its head is always the embedding, whatever the checkpoint says.
    pub fn of_f16(weights: &'a F16ModelWeights) -> Result<Self> {
        let layers = weights.layers.iter().map(f16_layer).collect::<Result<_>>()?;
        let embed_tokens = Matrix::F16(&weights.embed_tokens);
        Ok(Self { embed_tokens, norm: &weights.final_norm, head: embed_tokens, layers })
    }
}

fn moe() -> Error {
    Error::new("mixture-of-experts layers are not supported")
        .expected("dense layers", "a router with experts")
}

fn f32_layer(model: &Qwen35Model, i: usize) -> Result<Layer<'_>> {
    let m = Matrix::F32;
    let (mixer, input, post, gate, up, down) = match model.gqa_layer_weights(i) {
        Some((q, k, v, o, q_norm, k_norm, input, post, gate, up, down)) => {
            let w = Attention { q_proj: m(q), k_proj: m(k), v_proj: m(v), o_proj: m(o), q_norm, k_norm };
            (Mixer::Full(w), input, post, gate, up, down)
        }
        None => {
            let (w, input, post, gate, up, down) = model.gdn_layer_weights(i).ok_or_else(moe)?;
            let w = Gdn {
                in_proj_qkv: m(&w.in_proj_qkv),
                in_proj_z: m(&w.in_proj_z),
                in_proj_b: m(&w.in_proj_b),
                in_proj_a: m(&w.in_proj_a),
                out_proj: m(&w.out_proj),
                a_log: &w.a_log,
                dt_bias: &w.dt_bias,
                conv1d: &w.conv1d_weight,
                norm: &w.norm_weight,
            };
            (Mixer::Linear(w), input, post, gate, up, down)
        }
    };
    Ok(Layer {
        input_layernorm: input,
        post_attention_layernorm: post,
        mixer,
        gate_proj: m(gate),
        up_proj: m(up),
        down_proj: m(down),
    })
}

fn f16_layer(
    (mixer, common): &(F16AttentionWeights, lattice_weights::f16_weights::F16CommonLayerWeights),
) -> Result<Layer<'_>> {
    let m = Matrix::F16;
    let F16FeedForwardWeights::Dense { gate_proj, up_proj, down_proj } = &common.ffn else {
        return Err(moe());
    };
    let mixer = match mixer {
        F16AttentionWeights::Full(w) => Mixer::Full(Attention {
            q_proj: m(&w.q_proj),
            k_proj: m(&w.k_proj),
            v_proj: m(&w.v_proj),
            o_proj: m(&w.o_proj),
            q_norm: &w.q_norm,
            k_norm: &w.k_norm,
        }),
        F16AttentionWeights::Linear(w) => Mixer::Linear(Gdn {
            in_proj_qkv: m(&w.in_proj_qkv),
            in_proj_z: m(&w.in_proj_z),
            in_proj_b: m(&w.in_proj_b),
            in_proj_a: m(&w.in_proj_a),
            out_proj: m(&w.out_proj),
            a_log: &w.a_log,
            dt_bias: &w.dt_bias,
            conv1d: &w.conv1d_weight,
            norm: &w.norm_weight,
        }),
    };
    Ok(Layer {
        input_layernorm: &common.input_layernorm,
        post_attention_layernorm: &common.post_attention_layernorm,
        mixer,
        gate_proj: m(gate_proj),
        up_proj: m(up_proj),
        down_proj: m(down_proj),
    })
}

/// The sizes that the passes need.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub rope_half: usize,
    pub key_heads: usize,
    pub value_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub conv_dim: usize,
    pub kernel: usize,
    pub eps: f32,
}

impl Sizes {
    /// Those of a configuration.
    pub fn new(config: &Qwen35Config) -> Self {
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            rope_half: config.rope_dim() / 2,
            key_heads: config.linear_num_key_heads,
            value_heads: config.linear_num_value_heads(),
            key_dim: config.linear_key_head_dim,
            value_dim: config.linear_value_head_dim,
            conv_dim: config.linear_qkv_dim(),
            kernel: config.linear_conv_kernel_dim,
            eps: config.rms_norm_eps,
        }
    }

    /// Width of all query heads.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads of full attention.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of all value heads of a `GatedDeltaNet`.
    pub fn linear_out(&self) -> usize {
        self.value_heads * self.value_dim
    }
}
