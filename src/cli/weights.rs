//! The command lines of `quantize` and `dequantize`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `quantize`.
#[derive(Debug, Args)]
#[command(after_help = "\
OUT holds config.json, quantize_index.json, .q4 and .f16 files under the names that lattice looks
for, and tokenizer.json.

Examples:
  layerdiff quantize --format q4 MODEL OUT
  layerdiff quantize --format quarot-q4 --seed 7 MODEL OUT
  layerdiff capture --engine lattice-quarot-q4 --model OUT --out trace")]
pub struct QuantizeArgs {
    /// Plain Q4, or Q4 of weights whose residual stream QuaRot has rotated.
    #[arg(long, value_name = "NAME")]
    pub format: QuantizeFormat,
    /// Chooses QuaRot's rotation, decimal or as 0xC0FFEE, which is the default.
    #[arg(long, value_name = "N", value_parser = seed)]
    pub seed: Option<u64>,
    /// The model's directory.
    pub model: PathBuf,
    /// Where the quantized directory goes; must not exist.
    pub out: PathBuf,
}

/// What `quantize` can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantizeFormat {
    /// Plain Q4.
    Q4,
    /// Q4 of rotated weights.
    QuarotQ4,
}

/// Arguments of `dequantize`.
#[derive(Debug, Args)]
#[command(after_help = "\
OUT is a checkpoint for PyTorch, in the original basis: what it computes differs from the original by the
price of the format, and from the engine by what the engine adds.

Examples:
  layerdiff dequantize --engine lattice-q8 MODEL OUT
  layerdiff dequantize --engine lattice-quarot-q4 --seed 7 MODEL OUT
  layerdiff dequantize --engine lattice-quarot-q4 --original MODEL QUANTIZED OUT")]
pub struct DequantizeArgs {
    /// lattice-f16, lattice-q8, lattice-q8_0, lattice-q4 or lattice-quarot-q4.
    #[arg(long, value_name = "NAME")]
    pub engine: String,
    /// Chooses QuaRot's rotation, decimal or as 0xC0FFEE, which is the default.
    #[arg(long, value_name = "N", value_parser = seed)]
    pub seed: Option<u64>,
    /// The checkpoint that MODEL was quantized from: it has the gains that a rotation folds away.
    #[arg(long, value_name = "DIR")]
    pub original: Option<PathBuf>,
    /// The model's directory; for the Q4 engines it may be quantized already.
    pub model: PathBuf,
    /// Where the checkpoint goes; must not exist.
    pub out: PathBuf,
}

/// A seed, decimal or hexadecimal.
fn seed(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}
