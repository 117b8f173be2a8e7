//! A model's directory: configuration, components, and hashes of what it holds.

mod hash;

use crate::error::{Error, Result};
use crate::model::{Graph, ModelConfig};
use crate::trace::Hashes;
use std::path::{Path, PathBuf};

/// A model's directory, checked for what every engine needs.
#[derive(Debug, Clone)]
pub struct ModelDir {
    path: PathBuf,
    config: ModelConfig,
    graph: Graph,
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
        if hash::weight_files(path)?.is_empty() {
            return Err(Error::new("the model's directory holds no weights")
                .at(path)
                .expected("model.safetensors, or shards with an index", "no *.safetensors file")
                .hint("was the checkpoint downloaded without its large files?"));
        }
        Ok(Self { path: path.to_path_buf(), config, graph })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The components.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Hashes of weights, tokenizer and configuration. Reads all of the weights.
    pub fn hashes(&self) -> Result<Hashes> {
        hash::hashes(&self.path)
    }
}
