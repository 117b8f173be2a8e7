//! lattice on 8-bit weights with one scale a row; embedding, head, norms and activations in f32.

use super::pass::{Model, Path};
use super::self_check::{GdnTap, evidence, greedy_evidence};
use super::text::text_for;
use super::weights::{Attention, Gdn, Layer, Matrix, Mixer, Sizes, Weights};
use super::{engine_error, greedy_config, provenance};
use crate::engine::Engine;
use crate::error::Result;
use crate::hook::{Chain, Hook};
use crate::model::Graph;
use crate::trace::{Evidence, Provenance};
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_compute::attention::gdn::{GatedDeltaNetState, GdnGeometry};
use lattice_compute::attention::gdn_fused::GatedDeltaNetFusedScratch;
use lattice_compute::rope::RopeTable;
use lattice_model_qwen35::attention::gdn::qwen35_gdn_geometry;
use lattice_model_qwen35::forward::cpu_q8::{
    gated_delta_net_step_fused_q8, generate_q8, quantize_from_model,
};
use lattice_model_qwen35::model::qwen35::Qwen35Model;
use lattice_model_qwen35::weights::q8_weights::{Q8AttentionWeights, Q8CommonLayerWeights, Q8ModelWeights};
use std::path::Path as FilePath;

/// Tokens that the self-check lets the engine generate.
pub(super) const GREEDY: usize = 16;

/// The Q8 engine with a model loaded.
pub struct Q8Engine {
    config: Qwen35Config,
    weights: Q8ModelWeights,
    geometry: GdnGeometry,
    rope: RopeTable,
    graph: Graph,
}

impl Q8Engine {
    /// Loads a model's directory and quantizes it with lattice's own quantizer.
    pub fn open(model_dir: &FilePath, graph: &Graph) -> Result<Self> {
        let load = |e| engine_error("load the model into 8-bit weights", &e).at(model_dir);
        let model = Qwen35Model::from_safetensors(model_dir).map_err(load)?;
        let weights = quantize_from_model(&model).map_err(load)?;
        let config = model.config().clone();
        let geometry = qwen35_gdn_geometry(&config).map_err(load)?;
        let rope = RopeTable::new(config.rope_dim(), model.max_context(), config.rope_theta);
        Ok(Self { config, weights, geometry, rope, graph: graph.clone() })
    }

    /// The `GatedDeltaNet` layers of the engine on the inputs that the pass showed.
    fn gdn_layers(&self, seen: &GdnTap) -> Vec<Evidence> {
        let mut found = Vec::new();
        for (i, (mixer, _)) in self.weights.layers.iter().enumerate() {
            let Q8AttentionWeights::Linear(weights) = mixer else { continue };
            let Some((input, output)) = seen.layer(i) else { continue };
            let mut state = GatedDeltaNetState::from_geometry(&self.geometry);
            let mut scratch = GatedDeltaNetFusedScratch::default();
            let mut engine = vec![0.0; output.len()];
            let hidden = self.config.hidden_size;
            for (x, out) in input.chunks_exact(hidden).zip(engine.chunks_exact_mut(hidden)) {
                gated_delta_net_step_fused_q8(x, &mut state, weights, &self.config, &mut scratch, out);
            }
            let what = "outputs of the GatedDeltaNet layers, all positions, each on the pass's own input";
            found.push(evidence(what, "gated_delta_net_step_fused_q8", &engine, output));
        }
        found
    }
}

impl Q8Engine {
    /// Runs `work` with the model as the pass sees it.
    fn with_model<T>(&self, work: impl FnOnce(&Model<'_>) -> Result<T>) -> Result<T> {
        let weights = weights(&self.weights);
        let sizes = Sizes::new(&self.config);
        work(&Model {
            weights: &weights,
            sizes,
            geometry: &self.geometry,
            rope: &self.rope,
            path: Path::Serial,
            adapter: None,
        })
    }
}

impl Engine for Q8Engine {
    fn provenance(&self) -> Provenance {
        provenance("lattice-q8", Path::Serial, "int8 weights by row, float32 activations")
    }

    fn max_tokens(&self) -> usize {
        self.rope.max_positions() - GREEDY
    }

    fn greedy(&self, tokens: &[u32], count: usize) -> Result<Vec<u32>> {
        self.with_model(|model| model.greedy(tokens, count))
    }

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let mut layers = GdnTap::new(&self.graph);
        self.with_model(|model| model.run(tokens, forced, &mut Chain(vec![hook, &mut layers])).map(drop))?;
        let mut found = self.gdn_layers(&layers);
        let (tokenizer, text) = text_for(tokens)?;
        let generated =
            generate_q8(&self.weights, &self.config, &tokenizer, &self.rope, &text, &greedy_config(GREEDY))
                .map_err(|e| engine_error("generate un-instrumented", &e))?;
        let ours = self.greedy(tokens, GREEDY)?;
        found.push(greedy_evidence("generate_q8", &generated.token_ids, &ours, self.config.eos_token_id));
        Ok(found)
    }
}

/// The engine's parameters as the pass reads them. Its head is always the embedding.
fn weights(weights: &Q8ModelWeights) -> Weights<'_> {
    let embed_tokens = Matrix::F32(&weights.embed_tokens);
    Weights {
        embed_tokens,
        norm: &weights.final_norm,
        head: embed_tokens,
        layers: weights.layers.iter().map(layer).collect(),
    }
}

fn layer((mixer, common): &(Q8AttentionWeights, Q8CommonLayerWeights)) -> Layer<'_> {
    let mixer = match mixer {
        Q8AttentionWeights::Full(w) => Mixer::Full(Attention {
            q_proj: Matrix::Q8(&w.q_proj),
            k_proj: Matrix::Q8(&w.k_proj),
            v_proj: Matrix::Q8(&w.v_proj),
            o_proj: Matrix::Q8(&w.o_proj),
            q_norm: &w.q_norm,
            k_norm: &w.k_norm,
        }),
        Q8AttentionWeights::Linear(w) => Mixer::Linear(Gdn {
            in_proj_qkv: Matrix::Q8(&w.in_proj_qkv),
            in_proj_z: Matrix::Q8(&w.in_proj_z),
            in_proj_b: Matrix::Q8(&w.in_proj_b),
            in_proj_a: Matrix::Q8(&w.in_proj_a),
            out_proj: Matrix::Q8(&w.out_proj),
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
        gate_proj: Matrix::Q8(&common.gate_proj),
        up_proj: Matrix::Q8(&common.up_proj),
        down_proj: Matrix::Q8(&common.down_proj),
    }
}
