//! A PEFT adapter's directory: `adapter_config.json` and `adapter_model.safetensors`.

use crate::error::{Error, Result};
use crate::model::{Adapter, Component, Graph, LowRank, Op};
use crate::trace::hash::files_hash;
use lattice_tune::lora::{LoraAdapter, LoraLayer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of an adapter, in the order in which they are hashed.
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// An adapter that fits a model, as lattice's own loader reads it.
#[derive(Debug, Clone)]
pub struct AdapterDir {
    path: PathBuf,
    weights: Arc<LoraAdapter>,
    description: Adapter,
    hash: String,
}

impl AdapterDir {
    /// Reads an adapter and checks that it fits the model that `graph` is of.
    ///
    /// What lattice's loader does not support (rsLoRA, DoRA, biases, ranks by pattern, …) it refuses.
    pub fn open(path: &Path, graph: &Graph) -> Result<Self> {
        let files = FILES.map(|name| path.join(name));
        if !path.is_dir() {
            return Err(Error::new("no such adapter directory").at(path).hint(format!(
                "--lora wants a directory with {} and {}, as PEFT saves them",
                FILES[0], FILES[1]
            )));
        }
        // Without the configuration lattice would take the rank for alpha, and say nothing.
        if let Some(missing) = files.iter().find(|file| !file.is_file()) {
            return Err(Error::new("the adapter lacks a file")
                .at(missing)
                .hint("save it with PEFT's `save_pretrained`; weights in .bin are not read"));
        }
        let weights = LoraAdapter::from_safetensors(&files[1])
            .map_err(|e| Error::new(format!("lattice cannot load the adapter: {e}")).at(path).hint(
                "layerdiff compares what both sides can run: plain LoRA on linears of the layers, one rank, alpha in adapter_config.json",
            ))?;
        let description = describe(&weights, graph).map_err(|e| e.at(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            description,
            hash: files_hash(&files)?,
            weights: Arc::new(weights),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its weights, as the engine applies them.
    pub fn weights(&self) -> &Arc<LoraAdapter> {
        &self.weights
    }

    /// Which linears it changes.
    pub fn description(&self) -> &Adapter {
        &self.description
    }

    /// SHA-256 over both files.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// Finds the adapter's modules in the model. lattice knows them by layer and last name only.
fn describe(weights: &LoraAdapter, graph: &Graph) -> Result<Adapter> {
    if let Some(skipped) = weights.skipped_factor_keys().first() {
        let path = skipped.strip_prefix("base_model.model.").unwrap_or(skipped);
        return Err(graph.no_such_linear(path.split(".lora_").next().unwrap_or(path)));
    }
    let mut adapter = Adapter::default();
    // In a fixed order, so that of several faults the same one is reported every time.
    let mut layers: Vec<_> = weights.layers().iter().collect();
    layers.sort_by_key(|(key, _)| *key);
    for ((layer, module), factors) in layers {
        let named = |c: &&Component| c.op == Op::Linear && c.local.rsplit('.').next() == Some(module);
        let mut of_layer = graph.components().iter().filter(|c| c.layer == Some(*layer));
        let linear = of_layer
            .find(named)
            .ok_or_else(|| graph.no_such_linear(&format!("model.layers.{layer}.{module}")))?;
        check_shape(graph, linear, factors)?;
        let scale = f64::from(weights.config().alpha) / factors.rank as f64;
        adapter.modules.insert(linear.point.clone(), LowRank { rank: factors.rank, scale });
    }
    adapter.validate()?;
    Ok(adapter)
}

fn check_shape(graph: &Graph, linear: &Component, factors: &LoraLayer) -> Result<()> {
    let width = graph.shape(linear, 1, 1).iter().product::<usize>();
    let expected = (graph.summands(linear, 1, 1), width);
    let got = (factors.d_in, factors.d_out);
    if got == expected {
        return Ok(());
    }
    let words = |(from, to): (usize, usize)| format!("a linear from {from} to {to}");
    Err(Error::new(format!("the adapter does not fit `{}`", linear.point))
        .expected(words(expected), words(got))
        .hint("the adapter belongs to another model"))
}
