//! lattice on Q4 blocks, rotated by QuaRot or not: serial only, activations in f32.
//!
//! lattice has no such engine for the processor. This pass puts the linears of its Metal decode
//! kernel ([`super::q4`]) into the order of operations of its f32 serial engine. It is checked
//! against that engine on the dequantized weights in two steps: the instrumented f32 pass bit for bit
//! against the un-instrumented engine, and the pass on blocks against the f32 pass, which differ in
//! the order of summation.

use super::f32::F32Engine;
use super::frame::Frame;
use super::pass::{Model, Path};
use super::q4_weights::Q4Weights;
use super::self_check::beside;
use super::weights::Weights;
use super::{engine_error, provenance};
use crate::checkpoint::ModelDir;
use crate::checkpoint::q4::Q4Dir;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::{At, Chain, Hook};
use crate::model::Graph;
use crate::quantize::{DEFAULT_SEED, Format, quantize};
use crate::tensor::{Tensor, Values};
use crate::trace::{Evidence, Provenance};
use lattice_arch::qwen35_config::Qwen35Config;
use std::collections::BTreeMap;
use std::path::Path as FilePath;
use tempfile::TempDir;

/// The relative L2 difference that another order of summation may make even in an ill-conditioned
/// model; a wrong code, scale or bias makes tens of per cent.
const CROSS_CHECK: f64 = 1e-2;

/// The Q4 engine with a model loaded.
pub struct Q4Engine {
    name: &'static str,
    weights: Q4Weights,
    frame: Frame,
    dir: Q4Dir,
    /// What was made for this engine, the quantized directory among it: removed with the engine.
    _work: TempDir,
    parameter_error: BTreeMap<String, f64>,
    /// The same weights in f32.
    oracle: F32Engine,
}

impl Q4Engine {
    /// Loads a quantized directory, or quantizes a checkpoint first, in a temporary directory.
    pub fn open(model_dir: &FilePath, graph: &Graph, rotated: bool) -> Result<Self> {
        let name = if rotated { "lattice-quarot-q4" } else { "lattice-q4" };
        let work = tempfile::tempdir()
            .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
        crate::files::remove_on_interrupt(work.path());
        let mut parameter_error = BTreeMap::new();
        let dir = if Q4Dir::is_at(model_dir) {
            Q4Dir::open(model_dir)?
        } else {
            let model = ModelDir::open(model_dir)?;
            let target = work.path().join("quantized");
            let format = if rotated { Format::QuarotQ4 { seed: DEFAULT_SEED } } else { Format::Q4 };
            quantize(&model, format, &target, true)?;
            let dir = Q4Dir::open(&target)?;
            parameter_error = dir.parameter_error(model_dir, &model.gains()?)?;
            dir
        };
        if dir.seed().is_some() != rotated {
            let [is, other] =
                if rotated { ["not rotated", "lattice-q4"] } else { ["rotated", "lattice-quarot-q4"] };
            return Err(Error::new(format!("{name} cannot run this directory: it is {is}"))
                .at(model_dir)
                .hint(format!("use --engine {other}")));
        }
        let weights = Q4Weights::load(&dir)?;
        let dequantized = work.path().join("dequantized");
        dir.write_dequantized(&dequantized)?;
        let load = |e| engine_error("load the dequantized model", &e).at(model_dir);
        let config = Qwen35Config::from_model_dir_validated(&dequantized).map_err(load)?.into_inner();
        let oracle = F32Engine::open(&dequantized, graph, Path::Serial).map_err(|e| e.at(model_dir))?;
        let frame = Frame::new(config).map_err(|e| e.at(model_dir))?;
        // The oracle holds it in memory by now, and it is by far the largest.
        std::fs::remove_dir_all(&dequantized)
            .map_err(|e| Error::io("remove the dequantized model", &dequantized, &e))?;
        Ok(Self { name, weights, frame, dir, _work: work, parameter_error, oracle })
    }

    /// Runs `work` with the model as the pass sees it.
    fn with_model<T>(&self, work: impl FnOnce(&Model<'_>) -> Result<T>) -> Result<T> {
        with_model(&self.weights, &self.frame, work)
    }
}

/// Of the parts, so that the oracle may run meanwhile.
fn with_model<T>(
    weights: &Q4Weights,
    frame: &Frame,
    work: impl FnOnce(&Model<'_>) -> Result<T>,
) -> Result<T> {
    frame.with(&Weights::of_q4(weights, &frame.config)?, Path::Serial, work)
}

impl Engine for Q4Engine {
    fn provenance(&self) -> Provenance {
        Provenance {
            quantized: true,
            parameter_error: self.parameter_error.clone(),
            ..provenance(self.name, Path::Serial, "Q4 weights, float32 activations")
        }
    }

    fn max_tokens(&self) -> usize {
        self.oracle.max_tokens().min(self.frame.rope.max_positions())
    }

    fn rotation(&self) -> Option<u64> {
        self.dir.seed()
    }

    fn write_dequantized(&self, source: &ModelDir, out: &FilePath) -> Result<bool> {
        let gains = source.gains()?;
        if self.dir.seed().is_some() && source.is_quantized() {
            return Err(Error::new("the gains of a rotated directory's norms are unknown")
                .expected("the checkpoint that was quantized", "the rotated directory itself")
                .at(source.path())
                .hint("QuaRot folds them away: name the original checkpoint"));
        }
        self.dir.write_unrotated(&gains, out)?;
        Ok(true)
    }

    fn write_held(&self, _source: &ModelDir, out: &FilePath) -> Result<bool> {
        self.dir.write_dequantized(out)?;
        Ok(true)
    }

    super::pass::runs_of_the_model!();

    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        let (mut blocks, mut dense) = (Outputs::default(), Outputs::default());
        let (weights, frame, oracle) = (&self.weights, &self.frame, &mut self.oracle);
        let mut hook = Chain(vec![hook, &mut blocks]);
        let ours = || with_model(weights, frame, |model| model.run(tokens, forced, &mut hook).map(drop));
        let ((), mut found) = beside(ours, || oracle.run(tokens, forced, &mut dense))?;
        for evidence in &mut found {
            evidence.what += ", of lattice-f32 on the dequantized weights";
        }
        found.push(blocks.cross_check(&dense));
        Ok(found)
    }
}

/// The layers' outputs, the final norm and the logits of one pass.
#[derive(Debug, Default)]
struct Outputs(Vec<Vec<f32>>);

impl Outputs {
    /// The largest relative L2 distance to `dense`.
    fn cross_check(&self, dense: &Self) -> Evidence {
        let (mut elements, mut mismatches, mut largest) = (0, 0, 0.0f64);
        for (ours, theirs) in self.0.iter().zip(&dense.0) {
            let distance = rel_l2(ours, theirs);
            elements += ours.len() as u64;
            // A NaN is within no bound, and larger than any number.
            if distance.is_nan() || distance > CROSS_CHECK {
                mismatches += ours.len() as u64;
            }
            largest = if largest.is_nan() || distance <= largest { largest } else { distance };
        }
        Evidence {
            what: "layer outputs, final norm and logits on the blocks as stored, all positions".to_owned(),
            entry_point: "the instrumented lattice-f32 on the dequantized weights".to_owned(),
            elements,
            mismatches,
            rel_l2: Some(largest),
        }
    }
}

fn rel_l2(ours: &[f32], theirs: &[f32]) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (a, b) in ours.iter().zip(theirs) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        difference += (a - b).powi(2);
        norm += b * b;
    }
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

impl Hook for Outputs {
    fn wants(&self, point: &str) -> bool {
        let layer = point.strip_prefix("model.layers.").is_some_and(|rest| !rest.contains('.'));
        layer || point == "model.norm" || point == "lm_head"
    }

    fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        if let Values::F32(values) = &tensor.values {
            self.0.push(values.clone());
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cross_check_shows_the_worst_tensor_and_no_nan_hides_in_it() {
        let dense = Outputs(vec![vec![3.0, 4.0], vec![1.0]]);
        let check = |a: f32, b: f32| Outputs(vec![vec![3.0, a], vec![b]]).cross_check(&dense);
        assert_eq!((check(4.0, 1.0).mismatches, check(4.0, 1.0).rel_l2), (0, Some(0.0)));
        assert_eq!((check(4.0, 1.5).mismatches, check(4.0, 1.5).rel_l2), (1, Some(0.5)));
        let poisoned = check(f32::NAN, 1.0);
        assert_eq!(poisoned.mismatches, 2);
        assert!(poisoned.rel_l2.unwrap().is_nan());
    }
}
