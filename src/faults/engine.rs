//! An engine with a fault in it: what a whole job makes of a bug.

use super::{Fault, Plant, Planted, Weights, sites};
use crate::checkpoint::{AdapterDir, ModelDir};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::{Chain, Hook};
use crate::model::{Graph, ModelConfig};
use crate::parameters::Parameters;
use crate::trace::{Evidence, Provenance};
use std::path::Path;
use tempfile::TempDir;

/// A running engine in which one component computes a wrong formula.
///
/// The un-instrumented engine has no such fault, so that there is no self-check.
pub struct FaultyEngine {
    engine: Box<dyn Engine>,
    bug: Bug,
}

/// A fault with all that its formulas read.
struct Bug {
    fault: &'static Fault,
    /// The layer that has it; none for all layers where it can live.
    layer: Option<usize>,
    graph: Graph,
    config: ModelConfig,
    held: Parameters,
    source: Parameters,
    /// Where the weights lie that the engine made for itself.
    _held_dir: TempDir,
}

impl FaultyEngine {
    /// Puts `fault` into `engine`, which runs `model`.
    pub fn new(
        engine: Box<dyn Engine>,
        model: &ModelDir,
        fault: &'static Fault,
        layer: Option<usize>,
    ) -> Result<Self> {
        let graph = model.graph().clone();
        if engine.rotation().is_some() || (fault.quantized && !engine.provenance().quantized) {
            let what = if fault.quantized { "quantized weights" } else { "weights that are not rotated" };
            return Err(
                Error::new(format!("`{}` is a fault of {what}", fault.name)).hint("try --engine lattice-q4")
            );
        }
        if !sites(fault, &graph).iter().any(|site| layer.is_none() || site.layer == layer) {
            let living: Vec<String> =
                sites(fault, &graph).iter().filter_map(|s| Some(s.layer?.to_string())).collect();
            return Err(Error::new(format!("`{}` cannot live there", fault.name))
                .expected(format!("one of the layers {}", living.join(", ")), layer.unwrap_or_default()));
        }
        let dir = tempfile::tempdir()
            .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
        crate::files::remove_on_interrupt(dir.path());
        let held = dir.path().join("held");
        let held = if engine.write_held(model, &held)? { held.as_path() } else { model.path() };
        let description = graph.description();
        let bug = Bug {
            held: Parameters::open(held, description)?,
            source: Parameters::open(model.path(), description)?,
            config: model.config().clone(),
            fault,
            layer,
            graph,
            _held_dir: dir,
        };
        Ok(Self { engine, bug })
    }
}

impl Bug {
    /// Calls `run` with the fault's hook before `hook`.
    fn planted<T>(
        &self,
        tokens: usize,
        hook: &mut dyn Hook,
        run: impl FnOnce(&mut dyn Hook) -> Result<T>,
    ) -> Result<T> {
        let weights = Weights { held: &self.held, source: &self.source, config: &self.config };
        let sites = sites(self.fault, &self.graph);
        let here = sites.iter().filter(|site| self.layer.is_none() || site.layer == self.layer);
        let planted: Vec<Planted<'_>> =
            here.map(|site| Planted { fault: self.fault, site, size: 1.0 }).collect();
        let mut plant = Plant::new(&planted, &self.graph, weights, tokens);
        run(&mut Chain(vec![&mut plant, hook]))
    }
}

impl Engine for FaultyEngine {
    fn provenance(&self) -> Provenance {
        let mut provenance = self.engine.provenance();
        let place = self.bug.layer.map_or_else(String::new, |layer| format!(" in layer {layer}"));
        provenance
            .notes
            .push(format!("planted: {}{place}; the self-check is not taken", self.bug.fault.name));
        provenance
    }

    fn max_tokens(&self) -> usize {
        self.engine.max_tokens()
    }

    fn rotation(&self) -> Option<u64> {
        self.engine.rotation()
    }

    fn activation_bits(&self) -> Option<u32> {
        self.engine.activation_bits()
    }

    fn write_dequantized(&self, source: &ModelDir, out: &Path) -> Result<bool> {
        self.engine.write_dequantized(source, out)
    }

    fn write_held(&self, source: &ModelDir, out: &Path) -> Result<bool> {
        self.engine.write_held(source, out)
    }

    fn adapt(&mut self, adapter: &AdapterDir) -> Result<bool> {
        self.engine.adapt(adapter)
    }

    fn generate(
        &self,
        tokens: &[u32],
        count: usize,
        choose: &mut dyn FnMut(&[f32], usize) -> u32,
        hook: &mut dyn Hook,
    ) -> Result<Vec<u32>> {
        self.bug.planted(tokens.len(), hook, |hook| self.engine.generate(tokens, count, choose, hook))
    }

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let Self { engine, bug } = self;
        bug.planted(tokens.len(), hook, |hook| engine.run_unchecked(tokens, forced, hook))
            .map(|()| Vec::new())
    }
}
