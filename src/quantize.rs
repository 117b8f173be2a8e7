//! Making quantized directories with lattice's own quantizers.
//!
//! Plain Q4 follows upstream's `quantize_q4`: tensor by tensor, linears and embeddings by
//! `quantize_f32_to_q4` (a block's minimum is its bias), all others as 16-bit floats. QuaRot is
//! `convert_quarot_qwen35` (blocks symmetric around 0). Both leave the files and the index that
//! lattice reads; `tokenizer.json` is put beside them, as every engine wants one.

use crate::checkpoint::q4::{INDEX, IndexEntry};
use crate::checkpoint::{ModelDir, copy_tokenizer};
use crate::error::{Error, Result};
use crate::files::{publish_dir, staging_dir};
use crate::progress;
use lattice_quant::quarot::QuarotTensorReader;
use lattice_quant::quarot::convert::{ConversionOptions, convert_quarot_qwen35};
use lattice_weights::q4_weights::{q4_f32_to_finite_f16, quantize_f32_to_q4, save_q4_file};
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

/// The seed of a rotation, where none is chosen.
pub const DEFAULT_SEED: u64 = 0x00C0_FFEE;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The weights as they are.
    Q4,
    /// The weights with a rotated residual stream.
    QuarotQ4 {
        /// Chooses the rotation.
        seed: u64,
    },
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Tensors in four bits.
    pub quantized: usize,
    /// Tensors in 16 bits.
    pub kept: usize,
    /// Elements of all of them.
    pub elements: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// The keys by which a configuration shows its experts.
const MOE_KEYS: [&str; 4] =
    ["num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size"];

/// Quantizes a model into `out`, which must not exist yet.
pub fn quantize(model: &ModelDir, format: Format, out: &Path, quiet: bool) -> Result<Summary> {
    check(model, format)?;
    let staged = staging_dir(out)?;
    let dir = staged.path();
    let summary = match format {
        Format::Q4 => plain(model, dir, quiet)?,
        Format::QuarotQ4 { seed } => rotated(model, seed, dir, quiet)?,
    };
    copy_tokenizer(model.path(), dir)?;
    publish_dir(staged, out)?;
    Ok(summary)
}

fn check(model: &ModelDir, format: Format) -> Result<()> {
    if model.is_quantized() {
        return Err(Error::new("the model is quantized already")
            .at(model.path())
            .hint("quantize the original checkpoint: quantizing twice loses twice"));
    }
    if model.rotation()?.is_some() {
        return Err(Error::new("the model is rotated already")
            .at(model.path())
            .hint("quantize the original checkpoint"));
    }
    let section = &model.graph().description().config_section;
    if let Some(key) = MOE_KEYS.iter().find(|key| model.config().get(section, key).is_some()) {
        return Err(Error::new("mixture-of-experts models are not supported")
            .expected("a dense model", format!("`{key}` in config.json"))
            .at(model.path())
            .hint("the passes that layerdiff instruments are those of dense models"));
    }
    let hidden = model.graph().dim("hidden");
    if matches!(format, Format::QuarotQ4 { .. }) && !hidden.is_power_of_two() {
        return Err(Error::new("QuaRot cannot rotate a model of this hidden size")
            .expected("a power of two", hidden)
            .at(model.path())
            .hint("use `--format q4`, which rotates nothing"));
    }
    Ok(())
}

/// An error of lattice's, with a hint for the causes that a user can mend.
fn failed(what: &str, model: &ModelDir, error: impl Display) -> Error {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let error = Error::new(format!("lattice cannot {what}: {text}")).at(model.path());
    if ["non-finite", "nan", "inf"].iter().any(|word| lower.contains(word)) {
        error.hint(
            "the weights hold NaN, infinity, or a number that 16 bits cannot hold: is the checkpoint sound?",
        )
    } else {
        error.hint("is the checkpoint complete? download it again")
    }
}

fn plain(model: &ModelDir, dir: &Path, quiet: bool) -> Result<Summary> {
    let open = |e: lattice_inference_core::InferenceError| failed("read the weights", model, e);
    let reader = QuarotTensorReader::open(model.path()).map_err(open)?;
    let mut names = reader.tensor_names();
    names.sort();
    let bar = progress::bar("quantizing", names.len() as u64, quiet);
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        bar.set_message(name.clone());
        let (values, shape) = reader.read_tensor_f64(&name).map_err(open)?;
        let quantized = is_quantized(&name);
        let file = format!("{}.{}", file_stem(&name), if quantized { "q4" } else { "f16" });
        let path = dir.join(&file);
        let write = |e: std::io::Error| Error::io("write a quantized tensor", &path, &e);
        if quantized {
            let narrow: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            let tensor = quantize_f32_to_q4(&narrow, &shape)
                .map_err(|e| failed(&format!("quantize `{name}`"), model, e))?;
            save_q4_file(&path, &tensor).map_err(write)?;
        } else {
            let bytes = f16_file(&values, &shape).map_err(|value| {
                failed(&format!("keep `{name}` in 16 bits"), model, format!("non-finite in 16 bits: {value}"))
            })?;
            std::fs::write(&path, bytes).map_err(write)?;
        }
        entries.push(IndexEntry { name, file, quantized, numel: values.len(), shape });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let write = |e: std::io::Error| Error::io("write the quantized directory", dir, &e);
    let index = serde_json::to_string_pretty(&entries).expect("an index has string keys only");
    std::fs::write(dir.join(INDEX), index).map_err(write)?;
    let config = std::fs::read(model.path().join("config.json")).map_err(write)?;
    std::fs::write(dir.join("config.json"), config).map_err(write)?;
    summary(dir, &entries)
}

/// Which tensors upstream's `quantize_q4` stores in four bits: matrices, but not what is small or
/// delicate. An unknown `.weight` counts as a matrix there.
fn is_quantized(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".weight") else { return false };
    let projection = ["_proj", "_proj_a", "_proj_b", "_proj_qkv", "_proj_z", "lm_head", "embed_tokens"];
    projection.iter().any(|end| stem.ends_with(end))
        || !(stem.ends_with("norm")
            || name.contains("norm_")
            || name.contains("norm.weight")
            || stem.ends_with("conv1d"))
}

/// The name of a tensor's file, as lattice looks for it.
fn file_stem(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// A `.f16` file; the first value that 16 bits cannot hold is an error.
fn f16_file(values: &[f64], shape: &[usize]) -> Result<Vec<u8>, f64> {
    let mut bytes = b"KHF1".to_vec();
    bytes.extend(1u32.to_le_bytes());
    bytes.extend((shape.len() as u32).to_le_bytes());
    shape.iter().for_each(|size| bytes.extend((*size as u64).to_le_bytes()));
    bytes.extend((values.len() as u64).to_le_bytes());
    for value in values {
        bytes.extend(q4_f32_to_finite_f16(*value as f32).map_err(|_| *value)?.to_le_bytes());
    }
    Ok(bytes)
}

fn rotated(model: &ModelDir, seed: u64, dir: &Path, quiet: bool) -> Result<Summary> {
    // The converter tells nothing before it has finished.
    let bar = progress::bar("quantizing", 1, quiet);
    bar.set_message("rotating all weights");
    bar.enable_steady_tick(Duration::from_millis(200));
    let options =
        ConversionOptions { rotation_seed: seed, tolerance: 1e-5, num_probe_tokens: 4, dry_run: false };
    let converted = convert_quarot_qwen35(model.path(), dir, &options);
    bar.finish_and_clear();
    converted.map_err(|e| failed("rotate and quantize the model", model, e))?;
    summary(dir, &crate::checkpoint::q4::Index::read(dir)?.entries)
}

fn summary(dir: &Path, entries: &[IndexEntry]) -> Result<Summary> {
    let mut summary = Summary { quantized: 0, kept: 0, elements: 0, bytes: 0 };
    for entry in entries {
        let path = dir.join(&entry.file);
        let file =
            std::fs::metadata(&path).map_err(|e| Error::io("read back a quantized tensor", &path, &e))?;
        summary.quantized += usize::from(entry.quantized);
        summary.kept += usize::from(!entry.quantized);
        summary.elements += entry.numel as u64;
        summary.bytes += file.len();
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_quantized_and_delicate_tensors_are_kept() {
        let layer = "model.language_model.layers.0";
        for local in [
            "self_attn.q_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.down_proj",
            "linear_attn.in_proj_qkv",
            "linear_attn.in_proj_z",
            "linear_attn.in_proj_a",
            "linear_attn.in_proj_b",
            "linear_attn.out_proj",
        ] {
            assert!(is_quantized(&format!("{layer}.{local}.weight")), "{local}");
        }
        for name in ["lm_head.weight", "model.language_model.embed_tokens.weight", "mtp.fc.weight"] {
            assert!(is_quantized(name), "{name}");
        }
        for local in [
            "input_layernorm.weight",
            "self_attn.q_norm.weight",
            "linear_attn.norm.weight",
            "linear_attn.conv1d.weight",
            "linear_attn.A_log",
            "linear_attn.dt_bias",
            "x.bias",
        ] {
            assert!(!is_quantized(&format!("{layer}.{local}")), "{local}");
        }
    }

    #[test]
    fn a_file_is_named_as_lattice_looks_for_it() {
        assert_eq!(file_stem("model.layers.0.q-x.weight"), "model_layers_0_q-x_weight");
    }

    #[test]
    fn what_16_bits_cannot_hold_is_refused() {
        assert!(f16_file(&[1.0, 65504.0], &[2]).is_ok());
        assert_eq!(f16_file(&[1.0, 1e5], &[2]), Err(1e5));
    }
}
