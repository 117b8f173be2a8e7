//! A model's directory: configuration, components, and hashes of what it holds.

mod adapter;
mod merge;
pub mod q4;
mod replace;
mod write;

pub use adapter::AdapterDir;
pub(crate) use merge::merge_shards;
pub(crate) use replace::{Head, Values};
pub(crate) use write::copy_tokenizer;

use crate::basis::Gains;
use crate::error::{Error, Result};
use crate::model::{Basis, Graph, ModelConfig};
use crate::trace::{Hashes, hash};
use lattice_quant::quarot::QuarotTensorReader;
use q4::Q4Dir;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A model's directory, checked for what every engine needs.
#[derive(Debug, Clone)]
pub struct ModelDir {
    path: PathBuf,
    config: ModelConfig,
    /// Without the adapter.
    base: Graph,
    graph: Graph,
    adapter: Option<AdapterDir>,
    /// Read once: hashing reads all of the weights.
    hashes: OnceLock<Hashes>,
}

impl ModelDir {
    /// Reads the configuration and checks that there are weights.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Err(Error::new("the model is a file, and not a directory")
                .at(path)
                .hint("--model wants the directory of a Hugging Face checkpoint; GGUF files are not read"));
        }
        if !path.is_dir() {
            return Err(Error::new("no such model directory")
                .at(path)
                .hint("--model wants a directory with config.json, model.safetensors and tokenizer.json"));
        }
        let config = ModelConfig::read(path)?;
        let graph = Graph::for_config(&config).map_err(|e| {
            e.at(path.join("config.json")).hint("is config.json the one that belongs to this checkpoint?")
        })?;
        if !Q4Dir::is_at(path) && hash::weight_files(path)?.is_empty() {
            return Err(Error::new("the model's directory holds no weights")
                .at(path)
                .expected("model.safetensors, or shards with an index", "no *.safetensors file")
                .hint("was the checkpoint downloaded without its large files?"));
        }
        Ok(Self {
            path: path.to_path_buf(),
            config,
            base: graph.clone(),
            graph,
            adapter: None,
            hashes: OnceLock::new(),
        })
    }

    /// The same model with the adapter in `dir` on it, if there is one.
    pub fn adapted(self, dir: Option<&Path>) -> Result<Self> {
        let Some(dir) = dir else { return Ok(self) };
        let adapter = AdapterDir::open(dir, &self.base)?;
        let graph = self.base.adapted(adapter.description()).map_err(|e| e.at(dir))?;
        Ok(Self { graph, adapter: Some(adapter), hashes: OnceLock::new(), ..self })
    }

    /// The adapter on the model.
    pub fn adapter(&self) -> Option<&AdapterDir> {
        self.adapter.as_ref()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The components without those of the adapter: what the checkpoint holds parameters of.
    pub fn base_graph(&self) -> &Graph {
        &self.base
    }

    /// The components, those of the adapter included.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// True for a directory that lattice's quantizers made.
    pub fn is_quantized(&self) -> bool {
        Q4Dir::is_at(&self.path)
    }

    /// The seed of the rotation that the configuration states.
    pub fn rotation(&self) -> Result<Option<u64>> {
        crate::basis::config_seed(&self.config, &self.graph.description().config_section)
            .map_err(|e| e.at(self.path.join("config.json")))
    }

    /// The gains of the norms of the residual stream: what a rotation folds away.
    ///
    /// None of them in a directory that is itself rotated or quantized, where they are gone.
    pub fn gains(&self) -> Result<Gains> {
        if self.is_quantized() || self.rotation()?.is_some() {
            return Ok(Gains::default());
        }
        let read = |e| Error::new(format!("cannot read the gains of the norms: {e}")).at(&self.path);
        let reader = QuarotTensorReader::open(&self.path).map_err(read)?;
        let normed = |basis| matches!(basis, Basis::ResidualNormed | Basis::ResidualFinalNormed);
        let norms = self.graph.components().iter().filter(|c| normed(c.basis));
        let mut gains = std::collections::BTreeMap::new();
        for param in norms.flat_map(|c| &c.params) {
            let mut names = self.graph.description().stored_names(param);
            // A checkpoint that lacks a norm is refused by the engines, with better words.
            if let Some(name) = names.find(|name| reader.has_tensor(name)) {
                gains.insert(param.clone(), reader.read_tensor_f64(&name).map_err(read)?.0);
            }
        }
        Ok(Gains::new(gains))
    }

    /// How many tensors the weights are, and the bytes of their files.
    pub fn size(&self) -> Result<(usize, u64)> {
        let read = |e| Error::new(format!("cannot read the weights: {e}")).at(&self.path);
        let tensors = QuarotTensorReader::open(&self.path).map_err(read)?.tensor_names().len();
        let mut bytes = 0;
        for file in hash::weight_files(&self.path)? {
            let data = std::fs::metadata(&file).map_err(|e| Error::io("read the weights", &file, &e))?;
            bytes += data.len();
        }
        Ok((tensors, bytes))
    }

    /// Hashes of weights, tokenizer, configuration and adapter. Reads all of the weights, the first time.
    pub fn hashes(&self) -> Result<Hashes> {
        match self.hashes.get() {
            Some(known) => Ok(known.clone()),
            None => {
                let adapter = self.adapter.as_ref().map(|a| a.hash().to_owned());
                let read = Hashes { adapter, ..hash::hashes(&self.path)? };
                Ok(self.hashes.get_or_init(|| read).clone())
            }
        }
    }
}
