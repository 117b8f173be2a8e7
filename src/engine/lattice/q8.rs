//! lattice on 8-bit weights with one scale a row; embedding, head, norms and activations in f32.

use super::frame::Frame;
use super::pass::{Model, Path};
use super::probe::{self, Way};
use super::self_check::{GdnTap, beside, evidence, greedy_evidence};
use super::text::text_for;
use super::weights::{Attention, Gdn, Layer, Matrix, Mixer, Weights};
use super::{engine_error, greedy_config, provenance};
use crate::checkpoint::{Head, ModelDir};
use crate::engine::Engine;
use crate::error::Result;
use crate::hook::{Chain, Hook};
use crate::model::Graph;
use crate::trace::{Evidence, Provenance};
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_compute::attention::gdn::GatedDeltaNetState;
use lattice_compute::attention::gdn_fused::GatedDeltaNetFusedScratch;
use lattice_compute::forward::cpu::matmul_bt;
use lattice_model_qwen35::forward::cpu_q8::{
    gated_delta_net_step_fused_q8, generate_q8, quantize_from_model,
};
use lattice_model_qwen35::model::qwen35::Qwen35Model;
use lattice_model_qwen35::weights::q8_weights::{Q8AttentionWeights, Q8CommonLayerWeights, Q8ModelWeights};
use std::path::Path as FilePath;

/// Tokens that the self-check lets the engine generate.
pub(super) const GREEDY: usize = 16;

/// The longest prompt, decode steps included, after which the engine is asked for its hidden state: each
/// of two questions costs a whole run.
const PROBED: usize = 128;

/// The Q8 engine with a model loaded.
pub struct Q8Engine {
    frame: Frame,
    weights: Q8ModelWeights,
    graph: Graph,
}

impl Q8Engine {
    /// Loads a model's directory and quantizes it with lattice's own quantizer.
    pub fn open(model_dir: &FilePath, graph: &Graph) -> Result<Self> {
        let load = |e| engine_error("load the model into 8-bit weights", &e).at(model_dir);
        let model = Qwen35Model::from_safetensors(model_dir).map_err(load)?;
        let weights = quantize_from_model(&model).map_err(load)?;
        let frame = Frame::new(model.config().clone()).map_err(|e| e.at(model_dir))?;
        Ok(Self { frame, weights, graph: graph.clone() })
    }

    /// The `GatedDeltaNet` layers of the engine on the inputs that the pass showed.
    fn gdn_layers(&self, seen: &GdnTap) -> Vec<Evidence> {
        let mut found = Vec::new();
        for (i, (mixer, _)) in self.weights.layers.iter().enumerate() {
            let Q8AttentionWeights::Linear(weights) = mixer else { continue };
            let Some((input, output)) = seen.layer(i) else { continue };
            let Frame { config, geometry, .. } = &self.frame;
            let mut state = GatedDeltaNetState::from_geometry(geometry);
            let mut scratch = GatedDeltaNetFusedScratch::default();
            let mut engine = vec![0.0; output.len()];
            let hidden = config.hidden_size;
            for (x, out) in input.chunks_exact(hidden).zip(engine.chunks_exact_mut(hidden)) {
                gated_delta_net_step_fused_q8(x, &mut state, weights, config, &mut scratch, out);
            }
            let what = "outputs of the GatedDeltaNet layers, all positions, each on the pass's own input";
            found.push(evidence(what, "gated_delta_net_step_fused_q8", &engine, output));
        }
        found
    }

    /// Asks the engine which component of its final hidden state, after the last of `tokens`, is larger
    /// or smaller than the pass's, `hidden`.
    fn probes(&mut self, tokens: &[u32], hidden: &[f32]) -> Result<Evidence> {
        let (tokenizer, text) = text_for(tokens)?;
        let (real, vocab) = (self.weights.embed_tokens.len(), self.frame.config.vocab_size);
        let mut mismatches = 0;
        for way in [Way::Larger, Way::Smaller] {
            let rows = probe::rows(hidden, way);
            let n = rows.len() / hidden.len();
            let mut logits = vec![0.0; n];
            matmul_bt(hidden, &rows, &mut logits, 1, hidden.len(), n);
            let expected = (0..n).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            let config = Qwen35Config { vocab_size: vocab + n, ..self.frame.config.clone() };
            self.weights.embed_tokens.extend_from_slice(&rows);
            let greedy = greedy_config(1);
            let answer = generate_q8(&self.weights, &config, &tokenizer, &self.frame.rope, &text, &greedy);
            self.weights.embed_tokens.truncate(real);
            let answer = answer.map_err(|e| engine_error("answer a probe", &e))?.token_ids;
            let expected: Vec<u32> = expected.map(|row| (vocab + row) as u32).into_iter().collect();
            mismatches += u64::from(answer != expected);
        }
        Ok(Evidence {
            what: format!(
                "argmax over probe rows, which would name a component of the final hidden state (of {}, last position) that is larger or smaller by a few units in the last place",
                hidden.len()
            ),
            entry_point: "generate_q8".to_owned(),
            elements: 2,
            mismatches,
            rel_l2: None,
        })
    }

    /// Runs `work` with the model as the pass sees it.
    fn with_model<T>(&self, work: impl FnOnce(&Model<'_>) -> Result<T>) -> Result<T> {
        self.frame.with(&weights(&self.weights), Path::Serial, work)
    }
}

impl Engine for Q8Engine {
    fn provenance(&self) -> Provenance {
        Provenance {
            quantized: true,
            ..provenance("lattice-q8", Path::Serial, "int8 weights by row, float32 activations")
        }
    }

    fn max_tokens(&self) -> usize {
        self.frame.rope.max_positions() - GREEDY
    }

    fn write_dequantized(&self, source: &ModelDir, out: &FilePath) -> Result<bool> {
        // The engine ignores a head of its own, which is its error and not its format's: the
        // checkpoint's stays, in f32 as the engine would keep it.
        let weights = weights(&self.weights);
        source.write_replaced(Head::AsInSource, |param, _| Ok(weights.dequantized(param)), out)?;
        Ok(true)
    }

    super::pass::runs_of_the_model!();

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let mut layers = GdnTap::new(&self.graph);
        let Frame { config, rope, .. } = &self.frame;
        let (tokenizer, text) = text_for(tokens)?;
        let mut hook = Chain(vec![hook, &mut layers]);
        let ours = || {
            let pass = self.with_model(|model| model.run(tokens, forced, &mut hook))?;
            Ok((pass, self.greedy(tokens, GREEDY)?))
        };
        let theirs = || {
            generate_q8(&self.weights, config, &tokenizer, rope, &text, &greedy_config(GREEDY))
                .map_err(|e| engine_error("generate un-instrumented", &e))
        };
        let ((pass, ours), generated) = beside(ours, theirs)?;
        let greedy = greedy_evidence("generate_q8", &generated.token_ids, &ours, config.eos_token_id);
        let mut found = self.gdn_layers(&layers);
        if tokens.len() + forced.len() <= PROBED {
            let last = &pass.hidden[pass.hidden.len() - self.frame.config.hidden_size..];
            found.push(self.probes(&[tokens, forced].concat(), last)?);
        }
        found.push(greedy);
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
