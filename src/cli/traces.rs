//! The command lines of `capture`, `compare` and `inspect`.

use super::{FormatArg, InputArgs, ModelArg, PromptArg};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `capture`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerdiff capture --engine lattice-f32 --out trace       the bundled model
  layerdiff capture --engine lattice-f32 --model DIR --prompts prompts.jsonl --out trace
  layerdiff capture --engine torch --dtype bfloat16 --model DIR --prompts prompts.jsonl --out arm")]
pub struct CaptureArgs {
    /// lattice-f32, lattice-f16, lattice-q8, lattice-q8_0, lattice-q4, lattice-quarot-q4 or torch.
    #[arg(long, value_name = "NAME")]
    pub engine: String,
    /// The engine's numeric path: batched (default) or serial for lattice-f32.
    #[arg(long, value_name = "NAME")]
    pub path: Option<String>,
    /// The precision of --engine torch: float32, float64, bfloat16 or float16.
    #[arg(long, value_name = "NAME")]
    pub dtype: Option<String>,
    /// Have --engine torch round what each linear reads to 8 bits, as lattice-q8_0 does.
    #[arg(long, value_name = "8")]
    pub activation_bits: Option<u32>,
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Where the trace goes; must not exist.
    #[arg(long, value_name = "TRACE")]
    pub out: PathBuf,
    /// What to run on.
    #[command(flatten)]
    pub input: InputArgs,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerdiff compare reference candidate
  layerdiff compare reference candidate --floor arm --out report
  layerdiff compare reference imported --only-captured")]
pub struct CompareArgs {
    /// The trace to believe in.
    pub reference: PathBuf,
    /// The trace to judge.
    pub candidate: PathBuf,
    /// The model's directory: both traces must be of it, or the candidate of its rotated weights. Switches
    /// replay on where the candidate computes with these weights as they are.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// The weights that the candidate computes with, as `layerdiff dequantize` writes them: switches replay
    /// on for other engines.
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// What errors are held against: a trace of the reference's engine in another precision, or the
    /// report.json of its comparison; of several the finest, and all are shown [default: customary tolerances].
    #[arg(long, value_name = "TRACE|FILE")]
    pub floor: Vec<PathBuf>,
    /// Arm Q of a quantized candidate: a trace of the reference's engine on its dequantized weights.
    #[arg(long, value_name = "TRACE")]
    pub quantized: Option<PathBuf>,
    /// Which of them.
    #[command(flatten)]
    pub prompt: PromptArg,
    /// Compare although the two sides ran on different weights.
    #[arg(long)]
    pub other_weights: bool,
    /// Only points that this glob accepts, such as '*.self_attn.*'; `embed` and `logits` as in reports.
    #[arg(long, value_name = "GLOB", default_value = "*")]
    pub points: String,
    /// Ask only for the points, steps and prompts that the candidate has, where it cannot have all: for
    /// dumps that were imported and kernels that were tapped. The verdict says how much of the model that is.
    #[arg(long)]
    pub only_captured: bool,
    /// Where the report goes [default: only stdout].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How the result is printed.
    #[command(flatten)]
    pub format: FormatArg,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerdiff inspect trace
  layerdiff inspect trace model.layers.3.self_attn.k_rope --prompt code-01
  layerdiff inspect trace '*.k_rope' --step 2     one line for each layer that has it
  layerdiff inspect trace logits")]
pub struct InspectArgs {
    /// The trace.
    pub trace: PathBuf,
    /// A point of it, in full; or a glob such as '*.self_attn.*', for a table of all that it accepts.
    pub point: Option<String>,
    /// Of this prompt [default: the first].
    #[arg(long, value_name = "ID")]
    pub prompt: Option<String>,
    /// Of this step: 0 is the prefill.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub step: u32,
}
