//! lattice on 16-bit weights: serial only, activations in f32.

use super::pass::{Model, Path};
use super::self_check::{evidence, greedy_evidence};
use super::text::text_for;
use super::weights::{Sizes, Weights};
use super::{engine_error, greedy_config, provenance};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::Hook;
use crate::model::{Graph, Op};
use crate::trace::{Evidence, Provenance};
use half::f16;
use half::slice::HalfFloatSliceExt;
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_compute::rope::RopeTable;
use lattice_model_qwen35::attention::gdn::qwen35_gdn_geometry;
use lattice_model_qwen35::forward::cpu_f16::{generate_f16, prefill_hidden_states_f16};
use lattice_model_qwen35::vision::multimodal::Qwen35VisionRequest;
use lattice_model_qwen35::weights::f16_weights::load_f16_weights;
use lattice_weights::f16_weights::F16ModelWeights;
use lattice_weights::f32_weights::SafetensorsFile;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

/// The longest rotary table that the f32 engine makes; the F16 engine is held to it too.
const MAX_POSITIONS: usize = 8192;

/// The F16 engine with a model loaded.
pub struct F16Engine {
    config: Qwen35Config,
    weights: F16ModelWeights,
    rope: RopeTable,
    storage: Storage,
}

/// What 16 bits do to the checkpoint.
#[derive(Debug, Default)]
struct Storage {
    /// Relative L2 error of each parameter that they cannot hold exactly.
    error: BTreeMap<String, f64>,
    /// Parameters with values beyond their range, in words.
    overflows: Vec<String>,
}

impl F16Engine {
    /// Loads a model's directory, which must keep its weights in one file: lattice's F16 loader
    /// reads no sharded checkpoint.
    pub fn open(model_dir: &FilePath, graph: &Graph) -> Result<Self> {
        let load = |e| engine_error("load the model into 16-bit weights", &e).at(model_dir);
        let file = model_dir.join("model.safetensors");
        if !file.exists() && model_dir.join("model.safetensors.index.json").exists() {
            return Err(Error::new("lattice's F16 engine reads no sharded checkpoint")
                .at(model_dir)
                .hint("merge the shards into one model.safetensors, or use --engine lattice-f32"));
        }
        let config = Qwen35Config::from_model_dir_validated(model_dir).map_err(load)?.into_inner();
        let tensors = SafetensorsFile::open(&file).map_err(load)?;
        let weights = load_f16_weights(&tensors, &config).map_err(load)?;
        let storage = storage(&tensors, graph)?;
        let positions = config.max_position_embeddings.min(MAX_POSITIONS);
        let rope = RopeTable::new(config.rope_dim(), positions, config.rope_theta);
        Ok(Self { config, weights, rope, storage })
    }

    /// Runs `work` with the model as the pass sees it.
    fn with_model<T>(&self, work: impl FnOnce(&Model<'_>) -> Result<T>) -> Result<T> {
        let weights = Weights::of_f16(&self.weights)?;
        let geometry =
            qwen35_gdn_geometry(&self.config).map_err(|e| engine_error("use this geometry", &e))?;
        let sizes = Sizes::new(&self.config);
        work(&Model {
            weights: &weights,
            sizes,
            geometry: &geometry,
            rope: &self.rope,
            path: Path::Serial,
            adapter: None,
        })
    }
}

impl Engine for F16Engine {
    fn provenance(&self) -> Provenance {
        Provenance {
            parameter_error: self.storage.error.clone(),
            notes: self.storage.overflows.clone(),
            ..provenance("lattice-f16", Path::Serial, "float16 weights, float32 activations")
        }
    }

    fn max_tokens(&self) -> usize {
        // The self-check generates one more token.
        self.rope.max_positions() - 1
    }

    fn greedy(&self, tokens: &[u32], count: usize) -> Result<Vec<u32>> {
        self.with_model(|model| model.greedy(tokens, count))
    }

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let pass = self.with_model(|model| model.run(tokens, forced, hook))?;
        let all = [tokens, forced].concat();
        let request = Qwen35VisionRequest {
            input_ids: all.clone(),
            image_grids: Vec::new(),
            post_merger_rows: Vec::new(),
            image_token_id: u32::MAX,
            spatial_merge_size: 2,
            decoder_hidden_size: self.config.hidden_size,
        };
        let hidden = prefill_hidden_states_f16(&self.weights, &self.config, &request).map_err(|e| {
            engine_error("run its un-instrumented pass", &e)
                .hint("config.json needs rope_parameters with rope_theta and mrope_section")
        })?;
        let (tokenizer, text) = text_for(&all)?;
        let generated =
            generate_f16(&self.weights, &self.config, &tokenizer, &self.rope, &text, &greedy_config(1))
                .map_err(|e| engine_error("generate un-instrumented", &e))?;
        Ok(vec![
            evidence(
                "hidden states after the final norm, all positions (the engine exposes no logits)",
                "prefill_hidden_states_f16",
                &hidden,
                &pass.hidden,
            ),
            greedy_evidence(
                "generate_f16",
                &generated.token_ids,
                &[pass.likeliest()],
                self.config.eos_token_id,
            ),
        ])
    }
}

/// Compares every parameter that the engine keeps in 16 bits with the checkpoint's.
fn storage(tensors: &SafetensorsFile, graph: &Graph) -> Result<Storage> {
    let rounded = graph.components().iter().filter(|c| matches!(c.op, Op::Linear | Op::Embedding));
    let mut storage = Storage::default();
    let params: BTreeSet<&String> = rounded.flat_map(|c| &c.params).collect();
    for param in params {
        // The engine takes the embedding for the head, so that an untied head is never read.
        let Some(name) = stored_name(tensors, graph, param) else { continue };
        let (values, _) =
            tensors.get_f32_tensor(&name).map_err(|e| engine_error(&format!("read `{name}`"), &e))?;
        let mut narrow = vec![f16::ZERO; values.len()];
        narrow.convert_from_f32_slice(values);
        let (mut error, mut norm, mut beyond) = (0.0, 0.0, 0);
        for (wide, narrow) in values.iter().zip(&narrow) {
            let wide = f64::from(*wide);
            if narrow.is_finite() {
                error += (narrow.to_f64() - wide).powi(2);
                norm += wide * wide;
            } else {
                beyond += 1;
            }
        }
        if error > 0.0 {
            storage.error.insert(param.clone(), (error / norm).sqrt());
        }
        if beyond > 0 {
            let what = format!(
                "{beyond} values of {param} are beyond the range of 16-bit floats and became infinite"
            );
            storage.overflows.push(what);
        }
    }
    Ok(storage)
}

fn stored_name(tensors: &SafetensorsFile, graph: &Graph, param: &str) -> Option<String> {
    let local = param.strip_prefix("model.").unwrap_or(param);
    let prefixes = graph.description().weight_prefixes.iter();
    let mut names = prefixes.map(|prefix| format!("{prefix}{local}")).chain([param.to_owned()]);
    names.find(|name| tensors.has_tensor(name))
}
