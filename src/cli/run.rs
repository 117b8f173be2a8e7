//! The command line of `run`.

use super::{FormatArg, InputArgs, ModelArg};
use clap::Args;
use std::path::PathBuf;

/// Which of the candidate's tensors are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Keep {
    None,
    Faulty,
    All,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without arguments: the bundled model and PyTorch trace; needs no Python and no download.

Examples:
  layerdiff run
  layerdiff run --engine lattice-f32 --path serial
  layerdiff run --engine all                      every engine, and what quantization costs each
  layerdiff run --model DIR --reference torch --prompts prompts.jsonl
  layerdiff run --model DIR --reference TRACE --floor ARM_TRACE
  layerdiff run --keep faulty                     leaves the tensors of faulty components in OUT/candidate
  layerdiff run --reference torch --lora ADAPTER --engine lattice-f32
  layerdiff run --model DIR --reference self      an engine against itself, its prefill against its decode
  layerdiff run --engine lattice-f32 --reference lattice-f32:serial")]
pub struct RunArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// A trace (`./NAME` where it is called as one of the following); `torch` to capture PyTorch now; an
    /// engine, on a path of it, to capture that now, such as `lattice-f32:serial`; or `self`: the candidate's
    /// own prefill of all tokens but the last and one decode step, against its prefill of all tokens. The last
    /// two need no PyTorch [default: the bundled trace].
    #[arg(long, value_name = "TRACE|torch|self|ENGINE[:PATH]")]
    pub reference: Option<String>,
    /// The candidate: lattice-f32, lattice-f16, lattice-q8, lattice-q8_0, lattice-q4, lattice-quarot-q4; or all.
    #[arg(long, value_name = "NAME", default_value = "lattice-f16")]
    pub engine: String,
    /// The engine's numeric path: batched (default) or serial for lattice-f32, serial for all others.
    #[arg(long, value_name = "NAME")]
    pub path: Option<String>,
    /// What errors are held against: a trace of PyTorch in another precision, or the report.json of its
    /// comparison; of several the finest, and all are shown [default: the bundled ones; with --reference
    /// torch, PyTorch in float64, bfloat16 and float16, captured now; with an engine or self, customary
    /// tolerances].
    #[arg(long, value_name = "TRACE|FILE")]
    pub floor: Vec<PathBuf>,
    /// Arm Q of a quantized engine: a trace of PyTorch on its dequantized weights [default: the bundled
    /// ones; with --reference torch, captured now].
    #[arg(long, value_name = "TRACE")]
    pub quantized: Vec<PathBuf>,
    /// The candidate's own weights, where it is not to make them from the model: a directory of Q4 weights.
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// What is kept of the candidate's tensors. They are compared and replayed while it runs, and only what is
    /// found is kept: it needs no disk. `faulty`: those of the components that are at fault, and of their
    /// inputs, in OUT/candidate. `all`: the whole trace. The verdict is the same, byte for byte.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Keep::None)]
    pub keep: Keep,
    /// Where the report goes; an earlier report there is replaced.
    #[arg(long, value_name = "DIR", default_value = "reports/latest")]
    pub out: PathBuf,
    /// What to run on.
    #[command(flatten)]
    pub input: InputArgs,
    /// How the result is printed.
    #[command(flatten)]
    pub format: FormatArg,
}

impl RunArgs {
    /// `engine` against PyTorch, captured now, for a command that writes the report itself.
    pub fn against_torch(model: ModelArg, engine: &str, path: Option<&str>, input: InputArgs) -> Self {
        Self {
            model,
            reference: Some("torch".to_owned()),
            engine: engine.to_owned(),
            path: path.map(str::to_owned),
            floor: Vec::new(),
            quantized: Vec::new(),
            weights: None,
            keep: Keep::None,
            out: PathBuf::new(),
            format: FormatArg::default(),
            input,
        }
    }
}
