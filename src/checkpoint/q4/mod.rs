//! A directory of Q4 tensors, as lattice's quantizers write it.
//!
//! It holds `config.json`, `quantize_index.json`, a `.q4` file for each linear and embedding, a
//! `.f16` file for each other tensor, and `tokenizer.json`. Plain Q4 keeps the checkpoint's numbers
//! where they are; QuaRot turns the residual stream (see [`crate::basis`]), folds the gains of its
//! norms away, and makes an untied head.

mod export;
mod file;
mod index;

pub use file::{Stored, decode};
pub use index::{INDEX, Index, IndexEntry};

use crate::basis::CONFIG_SEED;
use crate::error::{Error, Result};
use crate::model::{Graph, ModelConfig};
use crate::trace::hash::is_cache;
use index::AGAIN;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A quantized directory, every file of which has been checked against the index.
#[derive(Debug, Clone)]
pub struct Q4Dir {
    path: PathBuf,
    config: ModelConfig,
    graph: Graph,
    index: Index,
}

impl Q4Dir {
    /// True for a directory with an index: quantized, be it sound or not.
    pub fn is_at(path: &Path) -> bool {
        path.join(INDEX).symlink_metadata().is_ok()
    }

    /// Opens a directory and checks all that it holds.
    pub fn open(path: &Path) -> Result<Self> {
        let index = Index::read(path)?;
        let config = ModelConfig::read(path)?;
        let graph = Graph::for_config(&config).map_err(|e| e.at(path.join("config.json")))?;
        let dir = Self { path: path.to_path_buf(), config, graph, index };
        dir.check_seed().map_err(|e| e.at(path.join(INDEX)).hint(AGAIN))?;
        dir.check_names().map_err(|e| e.at(path).hint(AGAIN))?;
        for entry in &dir.index.entries {
            file::read(path, entry)?;
        }
        Ok(dir)
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

    /// The seed of the rotation; none for plain Q4.
    pub fn seed(&self) -> Option<u64> {
        self.index.seed
    }

    /// The tensors.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.index.entries
    }

    /// A tensor as it is stored.
    pub fn read(&self, entry: &IndexEntry) -> Result<Stored> {
        file::read(&self.path, entry)
    }

    /// A tensor as f32, as lattice computes it.
    pub fn dequantize(&self, entry: &IndexEntry) -> Result<Vec<f32>> {
        Ok(self.read(entry)?.to_f32(entry.numel))
    }

    /// The parameter that a tensor's name in the checkpoint stands for: `model.norm.weight`.
    pub fn parameter(&self, name: &str) -> String {
        let prefixes = &self.graph.description().weight_prefixes;
        let local =
            prefixes.iter().filter(|p| p.as_str() != "model.").find_map(|p| name.strip_prefix(p.as_str()));
        local.map_or_else(|| name.to_owned(), |local| format!("model.{local}"))
    }

    fn check_seed(&self) -> Result<()> {
        let section = self.graph.description().config_section.as_str();
        let root = self.config.as_json();
        let stated = [root.get(CONFIG_SEED), root.get(section).and_then(|s| s.get(CONFIG_SEED))];
        for stated in stated.into_iter().flatten().filter(|stated| !stated.is_null()) {
            if self.seed().is_none() || stated.as_u64() != self.seed() {
                let show = self.seed().map_or_else(|| "none".to_owned(), |seed| seed.to_string());
                return Err(Error::new("config.json and the index do not agree about the rotation's seed")
                    .expected(format!("{stated}, as config.json has it"), show));
            }
        }
        Ok(())
    }

    /// What the architecture needs is listed, and what lies there is listed.
    fn check_names(&self) -> Result<()> {
        let listed: HashSet<String> = self.entries().iter().map(|e| self.parameter(&e.name)).collect();
        for component in self.graph.components() {
            if let Some(missing) = component.params.iter().find(|p| !listed.contains(*p)) {
                return Err(Error::new(format!("the index lists no `{missing}`, which the model needs")));
            }
        }
        let head = self.graph.components().last().expect("an architecture has components");
        if listed.contains("lm_head.weight") && !head.params.iter().any(|p| p == "lm_head.weight") {
            return Err(Error::new(
                "the index lists lm_head.weight, and config.json ties the head to the embedding",
            )
            .hint("lattice refuses such a directory: set tie_word_embeddings to false, or remove the head"));
        }
        let files: HashSet<&str> = self.entries().iter().map(|e| e.file.as_str()).collect();
        let list = |e: std::io::Error| Error::io("list the quantized directory", &self.path, &e);
        for found in std::fs::read_dir(&self.path).map_err(list)? {
            let name = found.map_err(list)?.file_name().to_string_lossy().into_owned();
            let tensor = Path::new(&name).extension().is_some_and(|e| e == "q4" || e == "f16");
            if tensor && !is_cache(&name) && !files.contains(name.as_str()) {
                return Err(Error::new(format!(
                    "the directory holds {name:?}, which the index does not list"
                )));
            }
        }
        Ok(())
    }
}
