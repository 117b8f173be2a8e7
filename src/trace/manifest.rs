//! `manifest.json` as types.

use super::entry::{Entry, Incoming};
use super::self_check::SelfCheck;
use super::{Parallel, WriteOptions};
use crate::model::Adapter;
use crate::prompt::Prompt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Everything about a trace but the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Manifest {
    pub format: String,
    pub version: u32,
    pub architecture: String,
    pub config: Value,
    pub provenance: Provenance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    // Without this attribute a missing key would read as null.
    #[serde(deserialize_with = "Option::deserialize")]
    pub self_check: Option<SelfCheck>,
    pub prompts: Vec<Prompt>,
    pub shards: Vec<Shard>,
    pub tensors: Vec<Entry>,
    /// Points that cannot be there by the nature of the run, and whose absence is no gap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// What the engine said by itself; only in a trace of one prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Generated>,
}

/// What an engine goes on with after a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// The tokens, each after the engine's own. The steps of the trace may have been given others.
    pub token_ids: Vec<u32>,
    /// Their text; none where there is no tokenizer.
    pub text: Option<String>,
    /// Wall time of the passes that gave them, without hooks.
    pub seconds: f64,
}

/// A point of a step that no prompt has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LeftOut {
    pub step: u32,
    pub point: String,
}

/// Who computed the values, with what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The engine's name, as `--engine` takes it: `torch`, `lattice-f16`, ….
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// Which of the engine's numeric paths ran: `serial`, `batched`, `prefill`, ….
    pub path: String,
    /// Precision of the computation: for example `float32`.
    pub dtype: String,
    /// Which attention implementation ran, where there is a choice.
    #[serde(default)]
    pub attention_implementation: Option<String>,
    /// SIMD features of the processor that change the engine's numbers.
    #[serde(default)]
    pub cpu_features: Vec<String>,
    /// Operating system and processor.
    #[serde(default)]
    pub host: String,
    /// Number of threads.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Hashes of what the model's directory held.
    #[serde(default)]
    pub hashes: Hashes,
    /// Versions of the libraries used.
    #[serde(default)]
    pub libraries: BTreeMap<String, String>,
    /// What a reader should know about this run, such as parameters that the storage format cannot hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// True when the weights are not the checkpoint's, but what a format of fewer than 16 bits left of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quantized: bool,
    /// How many bits activations are rounded to before they are multiplied, 2 to 16; none where they stay
    /// floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_bits: Option<u32>,
    /// How the run was split, where several processes made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Parallel>,
    /// Relative L2 error that this engine's storage format adds to each parameter of the
    /// checkpoint; parameters that it holds exactly are not listed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "crate::number::map")]
    pub parameter_error: BTreeMap<String, f64>,
}

/// What activations are when they are multiplied: `floats`, `8 bits`.
pub fn activations(bits: Option<u32>) -> String {
    bits.map_or_else(|| "floats".to_owned(), |bits| format!("{bits} bits"))
}

/// How the note of an engine ends that ran without the adapter that its trace states.
pub const ADAPTER_NOT_APPLIED: &str = "the adapter was not applied";

impl Provenance {
    /// The note of an engine that ran without the adapter.
    pub fn ignored_adapter(&self) -> Option<&str> {
        self.notes.iter().map(String::as_str).find(|note| note.ends_with(ADAPTER_NOT_APPLIED))
    }
}

/// SHA-256 of a model's files, as `sha256:` and hex digits; none where unknown.
///
/// `weights` is the hash over the lines `NAME HASH\n` of all `*.safetensors` files, sorted by name; of
/// all `*.q4` and `*.f16` files where there are none of those. `adapter` is the same over the two files of
/// an adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Hashes {
    pub weights: Option<String>,
    pub tokenizer: Option<String>,
    pub config: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Of the f32 checkpoint with the weights that a quantizing engine computes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dequantized: Option<String>,
}

/// A file with tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Shard {
    pub file: String,
    pub bytes: u64,
}

impl Manifest {
    /// That of a run that begins.
    pub(super) fn new(options: WriteOptions) -> Self {
        Self {
            format: "layerdiff-trace".into(),
            version: 1,
            architecture: options.architecture,
            config: options.config,
            provenance: options.provenance,
            adapter: options.adapter,
            self_check: None,
            prompts: Vec::new(),
            shards: Vec::new(),
            tensors: Vec::new(),
            left_out: Vec::new(),
            generated: None,
        }
    }

    /// What is said of the next tensor; in which shard it lies is for the writer to say.
    ///
    /// # Panics
    /// When there is no prompt yet.
    pub(super) fn entry(&self, tensor: Incoming<'_>) -> Entry {
        let Incoming { step, point, dtype, shape, rows, basis, derived } = tensor;
        Entry {
            order: self.tensors.len() as u64,
            prompt: self.prompts.last().expect("a prompt was started").id.clone(),
            step,
            point: point.to_owned(),
            dtype,
            shape: shape.to_vec(),
            basis: basis.to_owned(),
            derived,
            shard: 0,
            rows,
        }
    }

    /// True for a point that cannot be in this step.
    pub fn leaves_out(&self, step: u32, point: &str) -> bool {
        self.left_out.iter().any(|l| l.step == step && l.point == point)
    }
}
