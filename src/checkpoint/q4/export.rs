//! The weights of a quantized directory as an f32 checkpoint.
//!
//! Two forms, for two questions:
//!
//! - [`Q4Dir::write_dequantized`]: the numbers as they are, in whatever basis they are. This is what
//!   the quantized engine computes with, for lattice's f32 engine.
//! - [`Q4Dir::write_unrotated`]: QuaRot's numbers brought back to the original basis, for PyTorch as
//!   the arm that shows what quantization costs. The folded gains are taken out of the linears again
//!   (`W = W' / (1 + g)`, column by column) and the norms get the original ones, so that every point
//!   of a run on it, those after norms included, means what it means in the original. Rotation and
//!   gains are undone in f64 and rounded once to f32.

use super::{IndexEntry, Q4Dir};
use crate::basis::{Gains, Rotation};
use crate::checkpoint::write::{CheckpointWriter, as_f32};
use crate::error::{Error, Result};
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_quant::quarot::QuarotTensorReader;
use lattice_quant::quarot::lm_head::qwen35_final_norm_fusion_target;
use lattice_quant::quarot::plan::{AbsorptionSide, RotationPlan, qwen35_residual_stream_linear_layers};
use lattice_quant::quarot::rmsnorm_fusion::qwen35_per_layer_fusion_plan;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

impl Q4Dir {
    /// Writes the dequantized weights, tensor by tensor, as an f32 checkpoint that must not exist yet.
    pub fn write_dequantized(&self, out: &Path) -> Result<()> {
        let mut writer = CheckpointWriter::create(out)?;
        for entry in self.entries() {
            writer.push(&entry.name, &entry.shape, self.dequantize(entry)?)?;
        }
        writer.finish(&as_f32(self.config(), self.section(), true), self.path())
    }

    /// Writes the dequantized weights in the original basis as an f32 checkpoint that must not exist
    /// yet; `gains` are those of the original checkpoint. The same as [`Q4Dir::write_dequantized`] for
    /// weights that are not rotated.
    pub fn write_unrotated(&self, gains: &Gains, out: &Path) -> Result<()> {
        let Some(undo) = Undo::new(self, gains)? else { return self.write_dequantized(out) };
        let mut writer = CheckpointWriter::create(out)?;
        for entry in self.entries() {
            let values: Vec<f32> =
                undo.apply(entry, &self.dequantize(entry)?)?.iter().map(|v| *v as f32).collect();
            writer.push(&entry.name, &entry.shape, values)?;
        }
        writer.finish(&as_f32(self.config(), self.section(), false), self.path())
    }

    /// Relative L2 error of each parameter against the checkpoint in `source`, in the original basis.
    pub fn parameter_error(&self, source: &Path, gains: &Gains) -> Result<BTreeMap<String, f64>> {
        let lattice = |e| Error::new(format!("cannot read the original weights: {e}")).at(source);
        let reader = QuarotTensorReader::open(source).map_err(lattice)?;
        let undo = Undo::new(self, gains)?;
        let embedding = self.entries().iter().find(|e| e.name.ends_with("embed_tokens.weight"));
        let mut errors = BTreeMap::new();
        for entry in self.entries() {
            // A head that QuaRot made is a copy of the embedding.
            let name = match embedding {
                Some(embedding) if !reader.has_tensor(&entry.name) => &embedding.name,
                _ => &entry.name,
            };
            let (original, shape) = reader.read_tensor_f64(name).map_err(lattice)?;
            if shape != entry.shape {
                return Err(Error::new(format!("`{}` has another shape in the original", entry.name))
                    .expected(format!("{shape:?}"), format!("{:?}", entry.shape))
                    .at(source)
                    .hint("is this the model that was quantized?"));
            }
            let values = self.dequantize(entry)?;
            let values = match &undo {
                Some(undo) => undo.apply(entry, &values)?,
                None => values.into_iter().map(f64::from).collect(),
            };
            let sum = |f: &dyn Fn(f64, f64) -> f64| {
                values.iter().zip(&original).map(|(v, o)| f(*v, *o)).sum::<f64>()
            };
            let (error, norm) = (sum(&|v, o| (v - o).powi(2)), sum(&|_, o| o * o));
            if error != 0.0 {
                errors.insert(self.parameter(&entry.name), (error / norm).sqrt());
            }
        }
        Ok(errors)
    }

    fn section(&self) -> &str {
        &self.graph().description().config_section
    }
}

/// How the tensors of a rotated directory go back to the original basis.
struct Undo<'a> {
    rotation: Rotation,
    plan: RotationPlan,
    /// The original gain that was folded into each linear, by the linear's name in the checkpoint.
    folded: HashMap<String, &'a [f64]>,
    /// The original gains of the norms that were zeroed, by name in the checkpoint.
    zeroed: HashMap<String, &'a [f64]>,
}

impl<'a> Undo<'a> {
    /// None for a directory that is not rotated.
    fn new(dir: &Q4Dir, gains: &'a Gains) -> Result<Option<Self>> {
        let Some(seed) = dir.seed() else { return Ok(None) };
        let config = Qwen35Config::from_config_json_str(&dir.config().as_json().to_string());
        let fusions = config.and_then(|config| qwen35_per_layer_fusion_plan(&config));
        let mut fusions = fusions.map_err(|e| {
            Error::new(format!("lattice cannot say which gains were folded: {e}")).at(dir.path())
        })?;
        fusions.push(qwen35_final_norm_fusion_target());
        let (mut folded, mut zeroed) = (HashMap::new(), HashMap::new());
        for fusion in fusions {
            let param = dir.parameter(&fusion.norm_tensor);
            let gain = gains.get(&param).ok_or_else(|| {
                Error::new(format!("the original gain `{param}` is unknown"))
                    .hint("QuaRot folds the gains away: they have to come from the original checkpoint")
            })?;
            folded.extend(fusion.downstream_weights.into_iter().map(|weight| (weight, gain)));
            zeroed.insert(fusion.norm_tensor, gain);
        }
        let rotation = Rotation::new(seed, dir.graph().dim("hidden")).map_err(|e| e.at(dir.path()))?;
        Ok(Some(Self { rotation, plan: qwen35_residual_stream_linear_layers(), folded, zeroed }))
    }

    fn apply(&self, entry: &IndexEntry, values: &[f32]) -> Result<Vec<f64>> {
        if let Some(gain) = self.zeroed.get(&entry.name) {
            return fits(entry, entry.shape == [gain.len()]).map(|()| gain.to_vec());
        }
        let mut values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        // What was kept in 16 bits was never rotated, whatever it is called.
        let side = self.plan.for_tensor(&entry.name).filter(|_| entry.quantized).map(|r| r.side);
        let width = self.rotation.width();
        match side {
            None => {}
            Some(AbsorptionSide::InputSide) => {
                fits(entry, entry.shape.len() == 2 && entry.shape[1] == width)?;
                values.chunks_exact_mut(width).for_each(|row| self.rotation.apply_inverse(row));
            }
            Some(AbsorptionSide::OutputSide) => {
                fits(entry, entry.shape.len() == 2 && entry.shape[0] == width)?;
                let columns = entry.shape[1];
                let mut column = vec![0.0; width];
                for c in 0..columns {
                    column.iter_mut().zip(values[c..].iter().step_by(columns)).for_each(|(x, v)| *x = *v);
                    self.rotation.apply_inverse(&mut column);
                    values[c..].iter_mut().step_by(columns).zip(&column).for_each(|(v, x)| *v = *x);
                }
            }
        }
        if let Some(gain) = self.folded.get(&entry.name) {
            fits(entry, entry.shape.len() == 2 && entry.shape[1] == gain.len())?;
            for row in values.chunks_exact_mut(gain.len()) {
                // A gain of exactly −1 lets nothing through, whatever the weight is.
                let factors = gain.iter().map(|g| if *g == -1.0 { 0.0 } else { 1.0 / (1.0 + g) });
                row.iter_mut().zip(factors).for_each(|(w, factor)| *w *= factor);
            }
        }
        Ok(values)
    }
}

fn fits(entry: &IndexEntry, fits: bool) -> Result<()> {
    if fits {
        return Ok(());
    }
    Err(Error::new(format!("`{}` has a shape that was never rotated: {:?}", entry.name, entry.shape))
        .hint("does config.json belong to this directory?"))
}
