//! What the integration tests share: tiny traces, ways to damage them, and the command itself.

// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod changed;
pub mod planted;

use half::{bf16, f16};
use lattice_quant::quarot::QuarotTensorReader;
use layerdiff::hook::{At, Hook};
use layerdiff::model::{Adapter, Component, Description, Graph, LowRank, ModelConfig, Op};
use layerdiff::prompt::Prompt;
use layerdiff::tensor::{DType, Tensor, Values};
use layerdiff::trace::{Hashes, MANIFEST, Provenance, SelfCheck, TraceWriter, WriteOptions};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The configuration of a model with three GatedDeltaNet layers and one of full attention.
pub fn config() -> Value {
    json!({
        "model_type": "qwen3_5", "hidden_size": 8, "vocab_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 12,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
        "linear_value_head_dim": 10, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25}
    })
}

/// The components of that model.
pub fn graph() -> Graph {
    Graph::new(Description::named("qwen3_5").unwrap(), &ModelConfig::new(config()).unwrap()).unwrap()
}

/// The model that the binary carries.
pub fn bundled_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/model")
}

/// A form in which a checkpoint may come.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub dtype: Dtype,
    /// More than one come with an index.
    pub shards: usize,
    /// The decoder's keys at the top of `config.json`.
    pub flat: bool,
    /// A head of its own: the embedding upside down.
    pub untied: bool,
}

impl Form {
    /// That of the bundled model, but in f32.
    pub const F32: Self = Self { dtype: Dtype::F32, shards: 1, flat: false, untied: false };

    /// The bundled model in this form, after a change of its tensors.
    pub fn write(self, change: impl Fn(&str, &mut Vec<f32>)) -> TempDir {
        const EMBEDDING: &str = "model.language_model.embed_tokens.weight";
        const HEAD: &str = "lm_head.weight";
        let root = tempfile::tempdir().unwrap();
        let reader = QuarotTensorReader::open(&bundled_model()).unwrap();
        let mut names = reader.tensor_names();
        names.extend(self.untied.then(|| HEAD.to_owned()));
        names.sort();
        let mut tensors = Vec::new();
        for name in names {
            let stored = if name == HEAD { EMBEDDING } else { &name };
            let (wide, shape) = reader.read_tensor_f64(stored).unwrap();
            let mut values: Vec<f32> = wide.into_iter().map(|v| v as f32).collect();
            if name == HEAD {
                values.reverse();
            }
            change(&name, &mut values);
            tensors.push((name, shape, self.encode(&values)));
        }
        let file = |i: usize| match self.shards {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{i}-of-{n}.safetensors"),
        };
        let map: BTreeMap<_, _> =
            tensors.iter().enumerate().map(|(i, (name, ..))| (name, file(i % self.shards))).collect();
        if self.shards > 1 {
            let index = json!({"metadata": {}, "weight_map": map}).to_string();
            std::fs::write(root.path().join("model.safetensors.index.json"), index).unwrap();
        }
        for shard in 0..self.shards {
            let views = tensors.iter().skip(shard).step_by(self.shards).map(|(name, shape, bytes)| {
                (name, TensorView::new(self.dtype, shape.clone(), bytes).unwrap())
            });
            serialize_to_file(views, None, &root.path().join(file(shard))).unwrap();
        }
        std::fs::write(root.path().join("config.json"), self.config().to_string()).unwrap();
        std::fs::copy(bundled_model().join("tokenizer.json"), root.path().join("tokenizer.json")).unwrap();
        root
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self.dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn config(self) -> Value {
        let text = std::fs::read_to_string(bundled_model().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        if self.flat {
            config = config["text_config"].take();
        } else {
            config["text_config"]["tie_word_embeddings"] = (!self.untied).into();
        }
        config["tie_word_embeddings"] = (!self.untied).into();
        config
    }
}

/// An adapter on one linear.
pub fn adapter(point: &str, rank: usize, scale: f64) -> Adapter {
    Adapter { modules: BTreeMap::from([(point.to_owned(), LowRank { rank, scale })]) }
}

/// The small trained adapter of that model.
pub fn bundled_adapter() -> PathBuf {
    bundled_model().with_file_name("adapter")
}

/// Shape and values of an adapter's tensors, by name.
pub type Factors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Writes the bundled adapter, its configuration and its tensors changed, into a directory.
pub fn copy_adapter(
    target: &Path,
    change_config: impl FnOnce(&mut Value),
    change_tensors: impl FnOnce(&mut Factors),
) {
    let bundled = bundled_adapter();
    let bytes = std::fs::read(bundled.join("adapter_model.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    // The file holds bfloat16, which is the upper half of an f32.
    let wide = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    let read = |view: TensorView<'_>| {
        (view.shape().to_vec(), view.data().as_chunks().0.iter().map(wide).collect::<Vec<f32>>())
    };
    let mut tensors: Factors = stored.tensors().into_iter().map(|(name, view)| (name, read(view))).collect();
    change_tensors(&mut tensors);
    let written: BTreeMap<_, (Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, (shape, values))| (name, (shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())))
        .collect();
    let views = written
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, &target.join("adapter_model.safetensors")).unwrap();
    let mut config =
        serde_json::from_slice(&std::fs::read(bundled.join("adapter_config.json")).unwrap()).unwrap();
    change_config(&mut config);
    std::fs::write(target.join("adapter_config.json"), config.to_string()).unwrap();
}

/// The values at one point, of all steps.
pub struct Seen(pub &'static str, pub Vec<f32>);

impl Hook for Seen {
    fn wants(&self, point: &str) -> bool {
        point == self.0
    }

    fn call(&mut self, _at: At<'_>, tensor: Tensor) -> layerdiff::error::Result<Tensor> {
        let Values::F32(values) = &tensor.values else { unreachable!() };
        self.1.extend(values);
        Ok(tensor)
    }
}

/// A tensor before it is written.
#[derive(Debug, Clone)]
pub struct Captured {
    pub prompt: String,
    pub step: u32,
    pub point: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
    pub basis: String,
    pub derived: bool,
}

impl Captured {
    /// Its values, which must be F32.
    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, DType::F32);
        self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// Replaces the values of an F32 tensor by a function of index and value.
    pub fn map(&mut self, change: impl Fn(usize, f32) -> f32) {
        self.bytes =
            self.values().iter().enumerate().flat_map(|(i, v)| change(i, *v).to_le_bytes()).collect();
    }
}

/// A trace before it is written: change it, then [`Draft::write`].
#[derive(Debug, Clone)]
pub struct Draft {
    pub options: WriteOptions,
    pub self_check: Option<SelfCheck>,
    pub prompts: Vec<Prompt>,
    pub tensors: Vec<Captured>,
}

/// A prompt of these tokens.
pub fn prompt(id: &str, token_ids: &[u32]) -> Prompt {
    Prompt {
        id: id.into(),
        category: None,
        text: None,
        token_ids: token_ids.to_vec(),
        step_token_ids: Vec::new(),
    }
}

/// Numbers between -1 and 1 that depend on `name` and on nothing else.
pub fn noise(name: &str, n: usize) -> Vec<f32> {
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// All points of a step of `n` tokens that come after `past` others.
fn all_points(prompt: &str, step: u32, n: usize, past: usize) -> Vec<Captured> {
    let graph = graph();
    let context = past + n;
    let forbidden = |i: usize| i % context > i / context % n + past;
    let tensor = |component: &Component| {
        let shape = graph.shape(component, n, context);
        let len = shape.iter().product();
        let mask = component.op == Op::CausalMask;
        let mut values = noise(&format!("{prompt}/{step}/{}", component.point), len);
        if component.op == Op::AttentionScores {
            (0..len).filter(|i| forbidden(*i)).for_each(|i| values[i] = f32::NEG_INFINITY);
        }
        Captured {
            prompt: prompt.to_owned(),
            step,
            point: component.point.clone(),
            dtype: if mask { DType::U8 } else { DType::F32 },
            bytes: if mask {
                (0..len).map(|i| u8::from(!forbidden(i))).collect()
            } else {
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            },
            shape,
            basis: "original".into(),
            derived: mask,
        }
    };
    graph.components().iter().map(tensor).collect()
}

impl Draft {
    /// All points of the tiny model for one prompt of five tokens, F32 and in one shard.
    pub fn tiny() -> Self {
        Self::of(&[prompt("p-01", &[1, 2, 3, 4, 5])])
    }

    /// The same for these prompts.
    pub fn of(prompts: &[Prompt]) -> Self {
        let tensors = prompts.iter().flat_map(|p| all_points(&p.id, 0, p.token_ids.len(), 0)).collect();
        Self {
            options: WriteOptions {
                architecture: "qwen3_5".into(),
                config: config(),
                provenance: Provenance {
                    engine: "test".into(),
                    engine_version: "1".into(),
                    path: "serial".into(),
                    dtype: "float32".into(),
                    hashes: Hashes {
                        weights: Some("w".into()),
                        tokenizer: Some("t".into()),
                        config: Some("c".into()),
                        dequantized: None,
                        adapter: None,
                    },
                    ..Provenance::default()
                },
                adapter: None,
                shard_bytes: 1 << 20,
            },
            self_check: None,
            prompts: prompts.to_vec(),
            tensors,
        }
    }

    /// Adds one decoded token to the first prompt.
    pub fn with_step(mut self, step: u32) -> Self {
        let prompt = &self.prompts[0];
        self.tensors.extend(all_points(&prompt.id, step, 1, prompt.token_ids.len() + step as usize - 1));
        self
    }

    /// Three tensors in two shards: the least that has all parts of the format.
    pub fn minimal() -> Self {
        let mut draft = Self::tiny();
        let keep = ["model.embed_tokens", "model.layers.3.self_attn.attention_mask", "model.norm"];
        draft.tensors.retain(|t| keep.contains(&t.point.as_str()));
        draft.options.shard_bytes = 100;
        draft
    }

    /// The tensor at a point of the first prompt.
    pub fn at(&mut self, point: &str) -> &mut Captured {
        self.tensors.iter_mut().find(|t| t.point == point).unwrap_or_else(|| panic!("no {point}"))
    }

    /// Writes the trace.
    pub fn write(&self, target: &Path) {
        let mut writer = TraceWriter::create(target, self.options.clone()).unwrap();
        for prompt in &self.prompts {
            writer.start_prompt(prompt);
            for t in self.tensors.iter().filter(|t| t.prompt == prompt.id) {
                writer
                    .push(t.step, &t.point, t.dtype, &t.shape, t.bytes.clone(), &t.basis, t.derived)
                    .unwrap();
            }
        }
        writer.finish(self.self_check.clone()).unwrap();
    }
}

/// Reads, changes and writes a trace's manifest.
pub fn edit_manifest(trace: &Path, change: impl FnOnce(&mut Value)) {
    let path = trace.join(MANIFEST);
    let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(&path, manifest.to_string()).unwrap();
}

/// Replaces a shard's bytes and makes the manifest state their number.
pub fn replace_shard(trace: &Path, number: usize, bytes: &[u8]) {
    edit_manifest(trace, |manifest| {
        let shard = &mut manifest["shards"][number];
        std::fs::write(trace.join(shard["file"].as_str().unwrap()), bytes).unwrap();
        shard["bytes"] = bytes.len().into();
    });
}

/// The bytes of a shard.
pub fn shard(trace: &Path, number: usize) -> Vec<u8> {
    std::fs::read(trace.join(format!("shard-{number:05}.safetensors"))).unwrap()
}

/// Reads, changes and writes a shard's header; the data behind it stay as they are.
pub fn edit_header(trace: &Path, number: usize, change: impl FnOnce(&mut Value)) {
    let bytes = shard(trace, number);
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    change(&mut header);
    let header = header.to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.bytes());
    out.extend(&bytes[8 + len..]);
    replace_shard(trace, number, &out);
}

/// Every path below `root`, with the contents of files; `None` for what is not a file.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap();
            if kind.is_dir() {
                open.push(path.clone());
            }
            let contents = kind.is_file().then(|| std::fs::read(&path).unwrap());
            found.insert(path, contents);
        }
    }
    found
}

/// What a run of the command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Standard output, which must be one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// The command, in an environment that says nothing.
pub fn command<S: AsRef<OsStr>>(args: &[S]) -> assert_cmd::Command {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("layerdiff");
    command.args(args).env_remove("LAYERDIFF_PYTHON").env_remove("VIRTUAL_ENV").env("NO_COLOR", "1");
    command
}

/// Runs the command to its end.
pub fn layerdiff<S: AsRef<OsStr>>(args: &[S]) -> Run {
    finished(&mut command(args))
}

/// Runs a prepared command to its end.
pub fn finished(command: &mut assert_cmd::Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let run = Run {
        code: output.status.code().expect("no signal"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!run.stderr.contains("panicked"), "{run:#?}");
    run
}
