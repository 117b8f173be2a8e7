//! lattice on blocks of 32 8-bit weights with a scale each ("Q8 NEON", which runs everywhere):
//! activations are rounded to 8 bits before every product.

use super::frame::Frame;
use super::pass::{Model, Path};
use super::q8::GREEDY;
use super::self_check::{beside, greedy_evidence};
use super::text::text_for;
use super::weights::{Attention, Gdn, Layer, Matrix, Mixer, Weights};
use super::{engine_error, greedy_config, provenance};
use crate::checkpoint::{Head, ModelDir};
use crate::engine::Engine;
use crate::error::Result;
use crate::hook::Hook;
use crate::trace::{Evidence, Provenance};
use lattice_model_qwen35::forward::neon_forward::{
    Q8NeonAttentionWeights, Q8NeonCommonWeights, Q8NeonModel, generate_q8_neon, quantize_model,
};
use lattice_model_qwen35::model::qwen35::Qwen35Model;
use std::path::Path as FilePath;

/// The Q8_0 engine with a model loaded.
pub struct Q8_0Engine {
    frame: Frame,
    model: Q8NeonModel,
}

impl Q8_0Engine {
    /// Loads a model's directory and quantizes it with lattice's own quantizer.
    pub fn open(model_dir: &FilePath) -> Result<Self> {
        let load = |e| engine_error("load the model into Q8_0 weights", &e).at(model_dir);
        let model = Qwen35Model::from_safetensors(model_dir).map_err(load)?;
        let config = model.config().clone();
        let packed = quantize_model(model.weights(), &config).map_err(load)?;
        Ok(Self { frame: Frame::new(config).map_err(|e| e.at(model_dir))?, model: packed })
    }

    /// Runs `work` with the model as the pass sees it.
    fn with_model<T>(&self, work: impl FnOnce(&Model<'_>) -> Result<T>) -> Result<T> {
        self.frame.with(&weights(&self.model), Path::Scalar, work)
    }
}

impl Engine for Q8_0Engine {
    fn provenance(&self) -> Provenance {
        let dtype = "int8 weights in blocks of 32, int8 activations in products";
        Provenance {
            quantized: true,
            activation_bits: self.activation_bits(),
            ..provenance("lattice-q8_0", Path::Scalar, dtype)
        }
    }

    fn activation_bits(&self) -> Option<u32> {
        Some(8)
    }

    fn max_tokens(&self) -> usize {
        self.frame.rope.max_positions() - GREEDY
    }

    fn write_dequantized(&self, source: &ModelDir, out: &FilePath) -> Result<bool> {
        // The embedding is looked up in f32 and the head is in blocks, also where they are one tensor.
        let weights = weights(&self.model);
        source.write_replaced(Head::Own, |param, _| Ok(weights.dequantized(param)), out)?;
        Ok(true)
    }

    super::pass::runs_of_the_model!();

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let (tokenizer, text) = text_for(tokens)?;
        let greedy = greedy_config(GREEDY);
        let Frame { config, rope, .. } = &self.frame;
        let ours = || {
            self.with_model(|model| model.run(tokens, forced, hook).map(drop))?;
            self.greedy(tokens, GREEDY)
        };
        let theirs = || {
            generate_q8_neon(&self.model, config, &tokenizer, rope, &text, &greedy)
                .map_err(|e| engine_error("generate un-instrumented", &e))
        };
        let (ours, generated) = beside(ours, theirs)?;
        Ok(vec![greedy_evidence("generate_q8_neon", &generated.token_ids, &ours, config.eos_token_id)])
    }
}

fn weights(model: &Q8NeonModel) -> Weights<'_> {
    Weights {
        embed_tokens: Matrix::F32(&model.embed_tokens),
        norm: &model.final_norm,
        head: Matrix::Q8_0 { bytes: &model.lm_head_packed, rows: model.lm_head_rows },
        layers: model.layers.iter().map(layer).collect(),
    }
}

fn layer((mixer, common): &(Q8NeonAttentionWeights, Q8NeonCommonWeights)) -> Layer<'_> {
    let m = |bytes, rows| Matrix::Q8_0 { bytes, rows };
    let mixer = match mixer {
        Q8NeonAttentionWeights::Full(w) => Mixer::Full(Attention {
            q_proj: m(&w.q_proj_packed, w.q_proj_rows),
            k_proj: m(&w.k_proj_packed, w.k_proj_rows),
            v_proj: m(&w.v_proj_packed, w.v_proj_rows),
            o_proj: m(&w.o_proj_packed, w.o_proj_rows),
            q_norm: &w.q_norm,
            k_norm: &w.k_norm,
        }),
        Q8NeonAttentionWeights::Linear(w) => Mixer::Linear(Gdn {
            in_proj_qkv: m(&w.in_proj_qkv_packed, w.in_proj_qkv_rows),
            in_proj_z: m(&w.in_proj_z_packed, w.in_proj_z_rows),
            in_proj_b: m(&w.in_proj_b_packed, w.in_proj_b_rows),
            in_proj_a: m(&w.in_proj_a_packed, w.in_proj_a_rows),
            out_proj: m(&w.out_proj_packed, w.out_proj_rows),
            a_log: &w.a_log,
            dt_bias: &w.dt_bias,
            conv1d: &w.conv1d_weight,
            norm: &w.norm_weight,
        }),
    };
    Layer {
        input_layernorm: &common.input_layernorm,
        post_attention_layernorm: &common.post_attention_layernorm,
        mixer,
        gate_proj: m(&common.gate_proj_packed, common.gate_proj_rows),
        up_proj: m(&common.up_proj_packed, common.up_proj_rows),
        down_proj: m(&common.down_proj_packed, common.down_proj_rows),
    }
}
