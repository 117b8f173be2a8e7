//! lattice on 16-bit weights: serial only, activations in f32.

use super::dequantize::HEAD;
use super::frame::Frame;
use super::pass::{Model, Path};
use super::self_check::{beside, evidence, greedy_evidence};
use super::text::text_for;
use super::weights::Weights;
use super::{engine_error, greedy_config, provenance};
use crate::checkpoint::{Head, ModelDir, Values, merge_shards};
use crate::engine::{Engine, likeliest};
use crate::error::{Error, Result};
use crate::hook::Hook;
use crate::model::{Graph, Op};
use crate::trace::{Evidence, Provenance};
use half::f16;
use half::slice::HalfFloatSliceExt;
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_model_qwen35::forward::cpu_f16::{generate_f16, prefill_hidden_states_f16};
use lattice_model_qwen35::vision::multimodal::Qwen35VisionRequest;
use lattice_model_qwen35::weights::f16_weights::load_f16_weights;
use lattice_weights::f16_weights::F16ModelWeights;
use lattice_weights::f32_weights::SafetensorsFile;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

/// Numbers that are rounded at a time where all are looked at.
const PIECE: usize = 1 << 16;

/// The F16 engine with a model loaded.
pub struct F16Engine {
    frame: Frame,
    weights: F16ModelWeights,
    storage: Storage,
    merged: bool,
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
    /// Loads a model's directory. lattice's F16 loader reads one file: shards are merged into one first,
    /// which is there only while it loads.
    pub fn open(model_dir: &FilePath, graph: &Graph) -> Result<Self> {
        let load = |e| engine_error("load the model into 16-bit weights", &e).at(model_dir);
        let file = model_dir.join("model.safetensors");
        let merged = !file.exists() && model_dir.join("model.safetensors.index.json").exists();
        let config = Qwen35Config::from_model_dir_validated(model_dir).map_err(load)?.into_inner();
        let work = tempfile::tempdir()
            .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
        let tensors = if merged {
            crate::files::remove_on_interrupt(work.path());
            let one = work.path().join("model.safetensors");
            merge_shards(model_dir, &one)?;
            SafetensorsFile::open(&one)
        } else {
            SafetensorsFile::open(&file)
        };
        let tensors = tensors.map_err(load)?;
        let weights = load_f16_weights(&tensors, &config).map_err(load)?;
        let storage = storage(&tensors, graph)?;
        Ok(Self { frame: Frame::new(config).map_err(|e| e.at(model_dir))?, weights, storage, merged })
    }

    /// Runs `work` with the model as the pass sees it.
    fn with_model<T>(&self, work: impl FnOnce(&Model<'_>) -> Result<T>) -> Result<T> {
        self.frame.with(&Weights::of_f16(&self.weights)?, Path::Serial, work)
    }

    /// The un-instrumented engine's hidden states after the final norm, of all positions.
    fn hidden_states(&self, all: &[u32]) -> Result<Vec<f32>> {
        let request = Qwen35VisionRequest {
            input_ids: all.to_vec(),
            image_grids: Vec::new(),
            post_merger_rows: Vec::new(),
            image_token_id: u32::MAX,
            spatial_merge_size: 2,
            decoder_hidden_size: self.frame.config.hidden_size,
        };
        prefill_hidden_states_f16(&self.weights, &self.frame.config, &request).map_err(|e| {
            engine_error("run its un-instrumented pass", &e)
                .hint("config.json needs rope_parameters with rope_theta and mrope_section")
        })
    }
}

impl Engine for F16Engine {
    fn provenance(&self) -> Provenance {
        let merged = "lattice's F16 loader reads one file: the shards were merged into one first";
        let notes = self.merged.then(|| merged.to_owned()).into_iter();
        Provenance {
            parameter_error: self.storage.error.clone(),
            notes: notes.chain(self.storage.overflows.iter().cloned()).collect(),
            ..provenance("lattice-f16", Path::Serial, "float16 weights, float32 activations")
        }
    }

    fn max_tokens(&self) -> usize {
        // The self-check generates one more token.
        self.frame.rope.max_positions() - 1
    }

    fn write_dequantized(&self, source: &ModelDir, out: &FilePath) -> Result<bool> {
        if self.storage.error.is_empty() && self.storage.overflows.is_empty() {
            return Ok(false);
        }
        let weights = Weights::of_f16(&self.weights)?;
        // The engine ignores a head of its own. That is its error, not its format's, and is to be seen
        // as one: the checkpoint's head is what it should have rounded.
        let rounded = |param: &str, source: Values<'_>| match param {
            HEAD => Ok(Some(narrow(&source()?).into_iter().map(f16::to_f32).collect())),
            _ => Ok(weights.dequantized(param)),
        };
        source.write_replaced(Head::AsInSource, rounded, out)?;
        Ok(true)
    }

    super::pass::runs_of_the_model!();

    fn run_alone(&mut self, tokens: &[u32], forced: &[u32]) -> Result<bool> {
        self.hidden_states(&[tokens, forced].concat()).map(|_| true)
    }

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let Frame { config, rope, .. } = &self.frame;
        let all = [tokens, forced].concat();
        let (tokenizer, text) = text_for(&all)?;
        let ours = || self.with_model(|model| model.run(tokens, forced, hook));
        let generate = || {
            generate_f16(&self.weights, config, &tokenizer, rope, &text, &greedy_config(1))
                .map_err(|e| engine_error("generate un-instrumented", &e))
        };
        let theirs = || beside(|| self.hidden_states(&all), generate);
        let (pass, (hidden, generated)) = beside(ours, theirs)?;
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
                &[likeliest(pass.last())],
                config.eos_token_id,
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
        let mut names = graph.description().stored_names(param);
        let Some(name) = names.find(|name| tensors.has_tensor(name)) else { continue };
        let (values, _) =
            tensors.get_f32_tensor(&name).map_err(|e| engine_error(&format!("read `{name}`"), &e))?;
        let (mut error, mut norm, mut beyond) = (0.0, 0.0, 0);
        // In pieces: an embedding may be as large as all the rest.
        let pairs = values.chunks(PIECE).flat_map(|piece| piece.iter().zip(narrow(piece)));
        for (wide, narrow) in pairs {
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

/// The nearest 16-bit floats, ties to even, as lattice's loader takes them.
fn narrow(values: &[f32]) -> Vec<f16> {
    let mut narrow = vec![f16::ZERO; values.len()];
    narrow.convert_from_f32_slice(values);
    narrow
}
