//! The command lines of `tokens` and `release`.

use super::{FormatArg, ModelArg, PromptArg, PythonArg};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What token metrics are taken on.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// JSONL file of prompts, or a trace [default: the bundled standard set of 60].
    #[arg(long, value_name = "FILE|TRACE")]
    pub prompts: Option<PathBuf>,
    /// Which of them.
    #[command(flatten)]
    pub prompt: PromptArg,
    /// Tokens after each prompt.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub tokens: usize,
    /// Temperature of the tempered figures and of the sampled runs.
    #[arg(long, value_name = "T", default_value_t = 0.7)]
    pub temperature: f64,
    /// Seed of the sampled runs.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Questions in MMLU's format: a JSONL or CSV file, a directory of them, or MMLU's archive unpacked, with
    /// test and dev in it; `none` for no questions [default: 60 bundled ones].
    #[arg(long, value_name = "FILE|DIR|none")]
    pub choices: Option<String>,
    /// Examples of each subject before a question, from --shots-from [default: 5 where there are examples].
    #[arg(long, value_name = "N")]
    pub shots: Option<usize>,
    /// Where the examples are from, in the same format: MMLU's dev split [default: dev in --choices, else no
    /// examples].
    #[arg(long, value_name = "FILE|DIR")]
    pub shots_from: Option<PathBuf>,
    /// What must be reached: fp16, q4, or a TOML file [default: by engine].
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// Prompts to look into by layer, the worst first.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub worst: usize,
    /// Keep what both sides generate here, and go on with what is there already.
    #[arg(long, value_name = "DIR")]
    pub dumps: Option<PathBuf>,
    /// Where PyTorch runs.
    #[command(flatten)]
    pub python: PythonArg,
}

/// Arguments of `tokens`.
#[derive(Debug, Args)]
#[command(after_help = "\
PyTorch generates greedily; the candidate generates for itself, and is also given PyTorch's tokens, so that the
distributions are compared after the same history. Needs Python with layerdiff_hooks.

Examples:
  layerdiff tokens                                          lattice F16 on the bundled model, 60 prompts
  layerdiff tokens --model DIR --engine lattice-q4 --dumps dumps --out report
  layerdiff tokens --model DIR --choices mmlu --profile mine.toml      test, and five examples from dev
  layerdiff tokens --fault rope-interleaved --layer 3       what a planted bug does to the tokens")]
pub struct TokensArgs {
    /// lattice-f32, lattice-f16, lattice-q8, lattice-q8_0, lattice-q4 or lattice-quarot-q4.
    #[arg(long, value_name = "NAME", default_value = "lattice-f16")]
    pub engine: String,
    /// The engine's numeric path: batched (default) or serial for lattice-f32.
    #[arg(long, value_name = "NAME")]
    pub path: Option<String>,
    /// Plant this fault into the engine first; `layerdiff faults list` names them.
    #[arg(long, value_name = "NAME")]
    pub fault: Option<String>,
    /// In this layer [default: in all where it can live].
    #[arg(long, value_name = "N", requires = "fault")]
    pub layer: Option<usize>,
    /// Where the report goes; an earlier report there is replaced.
    #[arg(long, value_name = "DIR", default_value = "reports/tokens")]
    pub out: PathBuf,
    /// What the metrics are taken on.
    #[command(flatten)]
    pub on: TokenArgs,
    /// How the result is printed.
    #[command(flatten)]
    pub format: FormatArg,
}

/// A part of a release. Parts of the same command line, put together, are the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What there is to do: engines, prompts and questions, and what identifies the job.
    Plan,
    /// PyTorch's side of some prompts and questions, into --dumps.
    Reference,
    /// One engine on some prompts and questions: a row for each.
    Tokens,
    /// One engine by layer, on all prompts.
    Layers,
    /// The worst prompts of one engine by layer; needs its rows, in --parts.
    Worst,
}

/// Arguments of `release`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0: every engine's layers have no fault and its tokens pass the gate.

Examples:
  layerdiff release                                         every engine on the bundled model
  layerdiff release --fault rope-interleaved --layer 3      must fail, and name the component
  layerdiff release --model DIR --engine lattice-f16 --dumps dumps --out report")]
pub struct ReleaseArgs {
    /// An engine; may be given several times [default: all].
    #[arg(long, value_name = "NAME", default_value = "all", hide_default_value = true)]
    pub engine: Vec<String>,
    /// Plant this fault into each engine first, to see that the gate finds it; `layerdiff faults list` names them.
    #[arg(long, value_name = "NAME")]
    pub fault: Option<String>,
    /// In this layer [default: in all where it can live].
    #[arg(long, value_name = "N", requires = "fault")]
    pub layer: Option<usize>,
    /// Decode steps of the comparison by layer.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub steps: usize,
    /// Where the report goes; an earlier report there is replaced.
    #[arg(long, value_name = "DIR", default_value = "reports/release")]
    pub out: PathBuf,
    /// Make one part of the release alone and print it as JSON, for a scheduler; no report is written.
    #[arg(long, value_enum, value_name = "PART")]
    pub part: Option<Part>,
    /// A prompt or question that the part is of; may be given several times [default: all].
    #[arg(long, value_name = "ID", requires = "part")]
    pub only: Vec<String>,
    /// Make the report of parts that were made before, in this directory, and run nothing.
    #[arg(long, value_name = "DIR")]
    pub parts: Option<PathBuf>,
    /// What the metrics are taken on.
    #[command(flatten)]
    pub on: TokenArgs,
    /// How the result is printed.
    #[command(flatten)]
    pub format: FormatArg,
}
