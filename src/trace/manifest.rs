//! `manifest.json` as types, and the rules that it must keep by itself.

use super::entry::{Entry, Incoming};
use super::{Parallel, WriteOptions};
use crate::error::{Error, Result};
use crate::model::Adapter;
use crate::prompt::{PLAIN_ID, Prompt, is_plain_id};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

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

/// Whether the capture disturbed the engine, and how that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// The outcome over all evidence.
    pub status: Status,
    /// What was compared.
    pub evidence: Vec<Evidence>,
}

/// Outcome of a self-check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All evidence agrees bit for bit.
    BitEqual,
    /// Some evidence does not: the trace says nothing about the real engine.
    Different,
    /// Nothing was compared.
    Unmeasured,
}

/// One comparison of the instrumented engine with the un-instrumented one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was compared, in words.
    pub what: String,
    /// The engine's own entry point that gave the other side.
    pub entry_point: String,
    /// How many numbers were compared.
    pub elements: u64,
    /// How many of them differ in any bit; in a cross-check, how many are in tensors that differ by
    /// more than the order of summation explains.
    pub mismatches: u64,
    /// Only in a cross-check with other kernels, which is not bit-equal by nature: the largest relative
    /// L2 difference of a tensor. It can spoil a self-check; bit-equality rests on the other evidence.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::number::option")]
    pub rel_l2: Option<f64>,
}

/// A file with tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Shard {
    pub file: String,
    pub bytes: u64,
}

impl SelfCheck {
    /// That of several runs: evidence of the same kind is added up.
    pub fn over(found: impl IntoIterator<Item = Evidence>) -> Self {
        let mut all: Vec<Evidence> = Vec::new();
        for new in found {
            match all.iter_mut().find(|e| e.what == new.what && e.entry_point == new.entry_point) {
                Some(old) => {
                    old.elements += new.elements;
                    old.mismatches += new.mismatches;
                    // A NaN is larger than anything.
                    old.rel_l2 = match (old.rel_l2, new.rel_l2) {
                        (Some(a), Some(b)) if a.is_nan() || a >= b => Some(a),
                        (a, b) => b.or(a),
                    };
                }
                None => all.push(new),
            }
        }
        Self::new(all)
    }

    /// The status that follows from the evidence: all of it must have been measured. A cross-check can
    /// spoil it, also by a distance that is no number, but adds nothing to it.
    pub fn new(evidence: Vec<Evidence>) -> Self {
        let spoilt =
            |e: &Evidence| e.mismatches > 0 || e.rel_l2.is_some_and(|d| !(0.0..=f64::MAX).contains(&d));
        let bits: Vec<&Evidence> = evidence.iter().filter(|e| e.rel_l2.is_none()).collect();
        let status = if evidence.iter().any(spoilt) {
            Status::Different
        } else if !bits.is_empty() && bits.iter().all(|e| e.elements > 0) {
            Status::BitEqual
        } else {
            Status::Unmeasured
        };
        Self { status, evidence }
    }
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

    /// Checks every rule that needs no file but the manifest.
    pub fn validate(&self) -> Result<()> {
        if self.format != "layerdiff-trace" {
            return Err(Error::new("not a layerdiff trace")
                .expected("format `layerdiff-trace`", format!("`{}`", self.format))
                .hint("a trace is made by `layerdiff capture` or by layerdiff_hooks"));
        }
        if self.version != 1 {
            return Err(Error::new("unknown version of the trace format")
                .expected(1, self.version)
                .hint("a newer layerdiff wrote this trace; update, or capture it again"));
        }
        if !self.config.is_object() {
            return Err(Error::new("the trace's `config` is not the model's configuration")
                .expected("an object", &self.config));
        }
        if let Some(adapter) = &self.adapter {
            adapter.validate()?;
        }
        self.validate_shards()?;
        self.validate_run()?;
        self.validate_places()
    }

    /// Checks what is said of the run, wherever its tensors are.
    pub(super) fn validate_run(&self) -> Result<()> {
        self.validate_self_check()?;
        self.validate_prompts()?;
        self.validate_generated()?;
        self.validate_tensors()?;
        self.provenance.parallel.as_ref().map_or(Ok(()), |parallel| parallel.validate(&self.tensors))
    }

    fn validate_self_check(&self) -> Result<()> {
        if let Some(check) = &self.self_check {
            let follows = SelfCheck::new(check.evidence.clone()).status;
            if check.status != follows {
                return Err(Error::new("the trace's self-check contradicts its own evidence")
                    .expected(format!("{follows:?}"), format!("{:?}", check.status))
                    .hint("do not use this trace: it was changed by hand, or made by a broken writer"));
            }
        }
        if let Some(bits) = self.provenance.activation_bits.filter(|bits| !(2..=16).contains(bits)) {
            return Err(Error::new("the trace states an impossible number of bits for activations")
                .expected("2 to 16", bits));
        }
        let bad = self.provenance.parameter_error.iter().find(|(_, e)| !e.is_finite() || **e < 0.0);
        match bad {
            Some((name, error)) => {
                Err(Error::new(format!("the trace states an impossible storage error for `{name}`"))
                    .expected("a finite number, not negative", error))
            }
            None => Ok(()),
        }
    }

    fn validate_prompts(&self) -> Result<()> {
        let mut ids = HashSet::new();
        for prompt in &self.prompts {
            if !is_plain_id(&prompt.id) {
                return Err(Error::new("bad prompt id in the manifest")
                    .expected(PLAIN_ID, format!("{:?}", prompt.id)));
            }
            if !ids.insert(&prompt.id) {
                return Err(Error::new(format!("two prompts of the trace share the id `{}`", prompt.id)));
            }
            if prompt.token_ids.is_empty() {
                return Err(Error::new(format!("prompt `{}` of the trace has no tokens", prompt.id)));
            }
        }
        Ok(())
    }

    fn validate_generated(&self) -> Result<()> {
        match &self.generated {
            Some(_) if self.prompts.len() != 1 => {
                Err(Error::new("the trace does not say after which prompt its text was generated")
                    .expected("one prompt", self.prompts.len()))
            }
            Some(said) if !(said.seconds.is_finite() && said.seconds >= 0.0) => {
                Err(Error::new("the trace states an impossible time")
                    .expected("seconds, finite and not negative", said.seconds))
            }
            _ => Ok(()),
        }
    }

    fn validate_shards(&self) -> Result<()> {
        let mut files = HashSet::new();
        for shard in &self.shards {
            let name = &shard.file;
            if name.contains(['/', '\\', ':', '\0'])
                || name.starts_with('.')
                || !name.ends_with(".safetensors")
            {
                return Err(Error::new("the manifest names a shard outside the trace's directory")
                    .expected("a plain file name ending in .safetensors", format!("{name:?}"))
                    .hint("do not use this trace: it was made by a broken or a hostile writer"));
            }
            if !files.insert(name) {
                return Err(Error::new(format!("the manifest lists the shard {name:?} twice")));
            }
        }
        Ok(())
    }

    fn validate_tensors(&self) -> Result<()> {
        let prompts: HashMap<&str, &Prompt> = self.prompts.iter().map(|p| (p.id.as_str(), p)).collect();
        let mut seen = HashSet::new();
        for (i, entry) in self.tensors.iter().enumerate() {
            let name = || entry.named();
            if entry.order != i as u64 {
                return Err(Error::new(format!(
                    "the order of execution has a gap or a repeat at {}",
                    name()
                ))
                .expected(i, entry.order));
            }
            let Some(prompt) = prompts.get(entry.prompt.as_str()) else {
                return Err(Error::new(format!("{} belongs to no prompt of the trace", name())));
            };
            entry.validate_rows(prompt).map_err(|e| e.about(name()))?;
            if entry.point.is_empty() || entry.basis.is_empty() {
                let what = if entry.point.is_empty() { "point" } else { "basis" };
                return Err(Error::new(format!("tensor {i} of the trace has no {what}")));
            }
            if self.leaves_out(entry.step, &entry.point) {
                return Err(Error::new(format!("the trace holds {}, which it says is left out", name())));
            }
            if entry.byte_len().is_none_or(|bytes| bytes > isize::MAX as usize) {
                return Err(Error::new(format!("{} is impossibly large", name()))
                    .expected("a shape that fits in memory", format!("{:?}", entry.shape)));
            }
            if !seen.insert((entry.prompt.as_str(), entry.step, entry.point.as_str())) {
                return Err(Error::new(format!("the trace holds {} twice", name()))
                    .hint("a warm-up pass or a graph replay may have been captured too; capture one pass"));
            }
        }
        Ok(())
    }

    /// Each tensor is in a shard, and each shard has one.
    fn validate_places(&self) -> Result<()> {
        let mut used = vec![false; self.shards.len()];
        for entry in &self.tensors {
            *used.get_mut(entry.shard).ok_or_else(|| {
                Error::new(format!("{} is in a shard that is not listed", entry.named()))
                    .expected(format!("an index below {}", self.shards.len()), entry.shard)
            })? = true;
        }
        match self.shards.iter().zip(used).find(|(_, used)| !used) {
            Some((shard, _)) => {
                Err(Error::new(format!("no tensor of the manifest is in shard {:?}", shard.file)))
            }
            None => Ok(()),
        }
    }
}
