//! The parameters of a quantized directory, linears in blocks and the rest as f32.

use super::q4::Q4Matrix;
use super::weights::{Attention, Gdn, Layer, Matrix, Mixer, Weights};
use crate::checkpoint::q4::{Q4Dir, Stored};
use crate::error::{Error, Result};
use lattice_arch::qwen35_config::Qwen35Config;
use std::collections::HashMap;

/// All tensors, by parameter: `model.norm.weight`.
#[derive(Debug)]
pub struct Q4Weights {
    linears: HashMap<String, Q4Matrix>,
    vectors: HashMap<String, Vec<f32>>,
    tied: bool,
}

impl Q4Weights {
    /// Loads those that the architecture names; vision and the like stay on disk.
    pub fn load(dir: &Q4Dir) -> Result<Self> {
        let graph = dir.graph();
        let wanted: Vec<&String> = graph.components().iter().flat_map(|c| &c.params).collect();
        let tied = !wanted.iter().any(|param| *param == "lm_head.weight");
        let mut weights = Self { linears: HashMap::new(), vectors: HashMap::new(), tied };
        for entry in dir.entries() {
            let param = dir.parameter(&entry.name);
            if !wanted.iter().any(|wanted| **wanted == param) {
                continue;
            }
            match (dir.read(entry)?, entry.shape.as_slice()) {
                (Stored::Q4(blocks), [rows, cols]) => {
                    weights.linears.insert(param, Q4Matrix::new(blocks, *rows, *cols));
                }
                (Stored::Q4(_), shape) => {
                    return Err(Error::new(format!("`{}` is quantized and no matrix", entry.name))
                        .expected("two sizes", format!("{shape:?}"))
                        .at(dir.path()));
                }
                (stored @ Stored::F16(_), _) => {
                    weights.vectors.insert(param, stored.to_f32(entry.numel));
                }
            }
        }
        Ok(weights)
    }

    fn linear(&self, param: &str) -> Result<Matrix<'_>> {
        let matrix = self.linears.get(param).map(Matrix::Q4);
        matrix.ok_or_else(|| Error::new(format!("the quantized directory holds no blocks for `{param}`")))
    }

    fn vector(&self, param: &str) -> Result<&[f32]> {
        let vector = self.vectors.get(param).map(Vec::as_slice);
        vector.ok_or_else(|| Error::new(format!("the quantized directory holds no 16-bit `{param}`")))
    }
}

impl<'a> Weights<'a> {
    /// Those of the Q4 engine. A tied head is the embedding's blocks.
    pub fn of_q4(weights: &'a Q4Weights, config: &Qwen35Config) -> Result<Self> {
        let embed_tokens = weights.linear("model.embed_tokens.weight")?;
        let head = if weights.tied { embed_tokens } else { weights.linear("lm_head.weight")? };
        let layers =
            (0..config.num_hidden_layers).map(|i| layer(weights, config, i)).collect::<Result<_>>()?;
        Ok(Self { embed_tokens, norm: weights.vector("model.norm.weight")?, head, layers })
    }
}

fn layer<'a>(weights: &'a Q4Weights, config: &Qwen35Config, i: usize) -> Result<Layer<'a>> {
    let name = |local: &str| format!("model.layers.{i}.{local}");
    let m = |local: &str| weights.linear(&name(&format!("{local}.weight")));
    let v = |local: &str| weights.vector(&name(local));
    let mixer = if config.is_full_attention(i) {
        Mixer::Full(Attention {
            q_proj: m("self_attn.q_proj")?,
            k_proj: m("self_attn.k_proj")?,
            v_proj: m("self_attn.v_proj")?,
            o_proj: m("self_attn.o_proj")?,
            q_norm: v("self_attn.q_norm.weight")?,
            k_norm: v("self_attn.k_norm.weight")?,
        })
    } else {
        Mixer::Linear(Gdn {
            in_proj_qkv: m("linear_attn.in_proj_qkv")?,
            in_proj_z: m("linear_attn.in_proj_z")?,
            in_proj_b: m("linear_attn.in_proj_b")?,
            in_proj_a: m("linear_attn.in_proj_a")?,
            out_proj: m("linear_attn.out_proj")?,
            a_log: v("linear_attn.A_log")?,
            dt_bias: v("linear_attn.dt_bias")?,
            conv1d: v("linear_attn.conv1d.weight")?,
            norm: v("linear_attn.norm.weight")?,
        })
    };
    Ok(Layer {
        input_layernorm: v("input_layernorm.weight")?,
        post_attention_layernorm: v("post_attention_layernorm.weight")?,
        mixer,
        gate_proj: m("mlp.gate_proj")?,
        up_proj: m("mlp.up_proj")?,
        down_proj: m("mlp.down_proj")?,
    })
}
