//! lattice on 32-bit weights: the serial step path, and the batched prefill of `generate`.

use super::adapter::Slot;
use super::pass::{Model, Output, Path};
use super::self_check::{LinearTap, PointTap, evidence};
use super::weights::{Sizes, Weights};
use super::{engine_error, greedy_config, provenance};
use crate::checkpoint::AdapterDir;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::{Chain, Hook};
use crate::model::Graph;
use crate::trace::{Evidence, Provenance};
use lattice_arch::decoder::{AcceptedToken, DecoderModel, SelectOutcome, SelectionRequest, SessionRequest};
use lattice_compute::rope::RopeTable;
use lattice_model_qwen35::attention::gdn::qwen35_gdn_geometry;
use lattice_model_qwen35::family::Qwen35CpuDecoder;
use lattice_model_qwen35::model::qwen35::Qwen35Model;
use std::cell::RefCell;
use std::path::Path as FilePath;

/// The f32 engine with a model loaded.
pub struct F32Engine {
    decoder: Qwen35CpuDecoder,
    /// The model's, without an adapter.
    plain: Graph,
    graph: Graph,
    /// Shared with the un-instrumented engine, as is the tap.
    adapter: Slot,
    tap: LinearTap,
    rope: RopeTable,
    path: Path,
}

impl F32Engine {
    /// Loads a model's directory.
    pub fn open(model_dir: &FilePath, graph: &Graph, path: Path) -> Result<Self> {
        let mut model = Qwen35Model::from_safetensors(model_dir)
            .map_err(|e| engine_error("load the model", &e).at(model_dir))?;
        let adapter = Slot::default();
        let tap = LinearTap::behind(adapter.clone());
        model.set_lora(Box::new(tap.clone())).map_err(|e| engine_error("take a hook", &e))?;
        let config = model.config();
        let rope = RopeTable::new(config.rope_dim(), model.max_context(), config.rope_theta);
        let decoder = Qwen35CpuDecoder::new(model);
        Ok(Self { decoder, plain: graph.clone(), graph: graph.clone(), adapter, tap, rope, path })
    }

    /// Runs `work` with the model as the pass sees it.
    fn with_model<T>(&self, work: impl FnOnce(&Model<'_>) -> Result<T>) -> Result<T> {
        let model = self.decoder.model();
        let weights = Weights::of_f32(model)?;
        let geometry =
            qwen35_gdn_geometry(model.config()).map_err(|e| engine_error("use this geometry", &e))?;
        let sizes = Sizes::new(model.config());
        work(&Model {
            weights: &weights,
            sizes,
            geometry: &geometry,
            rope: &self.rope,
            path: self.path,
            adapter: self.adapter.get().as_deref(),
        })
    }

    /// The un-instrumented engine's logits after a batched prefill and after each step.
    fn session_logits(&mut self, tokens: &[u32], forced: &[u32]) -> Result<Vec<f32>> {
        let run = |e| engine_error("run its un-instrumented session", &e);
        let config = greedy_config(forced.len() + 1);
        let eos = self.decoder.model().config().eos_token_id;
        let request = SessionRequest::new(tokens.to_vec(), config.clone(), eos);
        let mut session = self.decoder.session(&request).map_err(run)?;
        session.prefill(&|| false).map_err(run)?;
        // The mask of a grammar sees the logits before anything else touches them.
        let logits = RefCell::new(Vec::new());
        let mask = |values: &mut [f32]| {
            logits.borrow_mut().extend_from_slice(values);
            Ok(())
        };
        let mut history = tokens.to_vec();
        for next in forced.iter().copied().map(Some).chain([None]) {
            let request = SelectionRequest::new(&config, &history).with_grammar_mask(&mask);
            let SelectOutcome::Candidate(candidate) = session.select(&request).map_err(run)? else {
                return Err(Error::new("lattice's session ended before its last step"));
            };
            if let Some(id) = next {
                session.decode(&AcceptedToken::new(id, candidate.prediction), &|| false).map_err(run)?;
                history.push(id);
            }
        }
        drop(session);
        Ok(logits.into_inner())
    }

    fn check(
        &mut self,
        tokens: &[u32],
        forced: &[u32],
        pass: &Output,
        points: &PointTap,
    ) -> Result<Vec<Evidence>> {
        let run = |e| engine_error("run its un-instrumented pass", &e);
        let all = [tokens, forced].concat();
        let tap = self.tap.clone();
        match self.path {
            Path::Batched => {
                let entry = "DecoderSession";
                let (logits, linears) = tap.record(|| self.session_logits(tokens, forced));
                let what = "logits after the prefill and after each step";
                Ok(vec![evidence(what, entry, &logits?, &pass.logits), points.compare(&linears, entry)])
            }
            Path::Serial | Path::Scalar => {
                let entry = "Qwen35Model::forward_prompt_debug";
                let model = self.decoder.model();
                let (logits, linears) = tap.record(|| model.forward_prompt_debug(&all));
                let mut found = vec![
                    evidence("logits, last position", entry, &logits.map_err(run)?, pass.last()),
                    points.compare(&linears, entry),
                ];
                // This entry point refuses a single token, whose logits say it all anyway.
                if all.len() > 1 {
                    let hidden = model.forward_final_hidden(&all).map_err(run)?.concat();
                    found.push(evidence(
                        "hidden states after the final norm, all positions",
                        "Qwen35Model::forward_final_hidden",
                        &hidden,
                        &pass.hidden,
                    ));
                }
                Ok(found)
            }
        }
    }
}

impl Engine for F32Engine {
    fn provenance(&self) -> Provenance {
        provenance("lattice-f32", self.path, "float32")
    }

    fn max_tokens(&self) -> usize {
        // A batched prefill is checked through `generate`, which wants room for one more token.
        self.decoder.model().max_context() - usize::from(self.path == Path::Batched)
    }

    fn adapt(&mut self, adapter: &AdapterDir) -> Result<bool> {
        self.graph = self.plain.adapted(adapter.description())?;
        self.adapter.fill(adapter.weights());
        Ok(true)
    }

    super::pass::runs_of_the_model!();

    fn run_alone(&mut self, tokens: &[u32], forced: &[u32]) -> Result<bool> {
        match self.path {
            Path::Batched => self.session_logits(tokens, forced).map(drop)?,
            Path::Serial | Path::Scalar => {
                let all = [tokens, forced].concat();
                let logits = self.decoder.model().forward_prompt_debug(&all);
                logits.map_err(|e| engine_error("run its un-instrumented pass", &e))?;
            }
        }
        Ok(true)
    }

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let mut points = PointTap::new(&self.graph);
        let pass = self.with_model(|model| model.run(tokens, forced, &mut Chain(vec![hook, &mut points])))?;
        self.check(tokens, forced, &pass, &points)
    }
}
