//! lattice on 32-bit weights: the serial step path, and the batched prefill of `generate`.

use super::pass::{Output, Pass, Path, State};
use super::self_check::{LinearTap, PointTap, evidence};
use super::weights::{Sizes, Weights};
use super::{engine_error, provenance};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::{Chain, Hook};
use crate::model::Graph;
use crate::trace::{Evidence, Provenance};
use lattice_arch::decoder::{DecoderModel, SelectionRequest, SessionRequest};
use lattice_arch::generation::GenerateConfig;
use lattice_compute::rope::RopeTable;
use lattice_model_qwen35::attention::gdn::qwen35_gdn_geometry;
use lattice_model_qwen35::family::Qwen35CpuDecoder;
use lattice_model_qwen35::model::qwen35::Qwen35Model;
use std::cell::RefCell;
use std::path::Path as FilePath;

/// The f32 engine with a model loaded.
pub struct F32Engine {
    decoder: Qwen35CpuDecoder,
    graph: Graph,
    tap: LinearTap,
    rope: RopeTable,
    path: Path,
}

impl F32Engine {
    /// Loads a model's directory.
    pub fn open(model_dir: &FilePath, graph: &Graph, path: Path) -> Result<Self> {
        let mut model = Qwen35Model::from_safetensors(model_dir)
            .map_err(|e| engine_error("load the model", &e).at(model_dir))?;
        let tap = LinearTap::default();
        model.set_lora(Box::new(tap.clone())).map_err(|e| engine_error("take a hook", &e))?;
        let config = model.config();
        let rope = RopeTable::new(config.rope_dim(), model.max_context(), config.rope_theta);
        Ok(Self { decoder: Qwen35CpuDecoder::new(model), graph: graph.clone(), tap, rope, path })
    }

    fn instrumented(&self, tokens: &[u32], hook: &mut dyn Hook) -> Result<Output> {
        let model = self.decoder.model();
        let weights = Weights::of_f32(model)?;
        let geometry =
            qwen35_gdn_geometry(model.config()).map_err(|e| engine_error("use this geometry", &e))?;
        let mut state = State::new(weights.layers.len(), &geometry);
        let sizes = Sizes::new(model.config());
        Pass { weights: &weights, sizes, rope: &self.rope, path: self.path, step: 0, hook }
            .run(tokens, &mut state)
    }

    /// The un-instrumented engine's logits of the last position after a batched prefill.
    fn session_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let run = |e| engine_error("run its un-instrumented prefill", &e);
        let mut config = GenerateConfig::default();
        config.temperature = 0.0;
        config.repetition_penalty = 1.0;
        config.max_new_tokens = 1;
        let eos = self.decoder.model().config().eos_token_id;
        let request = SessionRequest::new(tokens.to_vec(), config.clone(), eos);
        let mut session = self.decoder.session(&request).map_err(run)?;
        session.prefill(&|| false).map_err(run)?;
        // The mask of a grammar sees the logits before anything else touches them.
        let logits = RefCell::new(Vec::new());
        let mask = |values: &mut [f32]| {
            *logits.borrow_mut() = values.to_vec();
            Ok(())
        };
        session.select(&SelectionRequest::new(&config, tokens).with_grammar_mask(&mask)).map_err(run)?;
        drop(session);
        Ok(logits.into_inner())
    }

    fn check(&mut self, tokens: &[u32], pass: &Output, points: &PointTap) -> Result<Vec<Evidence>> {
        let run = |e| engine_error("run its un-instrumented pass", &e);
        let vocab = pass.logits.len() / tokens.len();
        let last = &pass.logits[pass.logits.len() - vocab..];
        let tap = self.tap.clone();
        match self.path {
            Path::Serial => {
                let entry = "Qwen35Model::forward_prompt_debug";
                let model = self.decoder.model();
                let (logits, linears) = tap.record(|| model.forward_prompt_debug(tokens));
                let mut found = vec![
                    evidence("logits, last position", entry, &logits.map_err(run)?, last),
                    points.compare(&linears, entry),
                ];
                // This entry point refuses a single token, whose logits say it all anyway.
                if tokens.len() > 1 {
                    let hidden = model.forward_final_hidden(tokens).map_err(run)?.concat();
                    found.push(evidence(
                        "hidden states after the final norm, all positions",
                        "Qwen35Model::forward_final_hidden",
                        &hidden,
                        &pass.hidden,
                    ));
                }
                Ok(found)
            }
            Path::Batched => {
                let entry = "DecoderSession::prefill";
                let (logits, linears) = tap.record(|| self.session_logits(tokens));
                Ok(vec![
                    evidence("logits, last position", entry, &logits?, last),
                    points.compare(&linears, entry),
                ])
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

    fn prefill(&mut self, tokens: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        if tokens.is_empty() {
            return Err(Error::new("the prompt has no tokens"));
        }
        let mut points = PointTap::new(&self.graph);
        let pass = self.instrumented(tokens, &mut Chain(vec![hook, &mut points]))?;
        self.check(tokens, &pass, &points)
    }
}
