//! The command line, as typed.

mod doctor;
mod faults;
mod import;
mod output;
mod plot;
mod run;
mod tokens;
mod traces;
mod weights;

pub use doctor::{CompletionsArgs, DoctorArgs, ManArgs};
pub use faults::{FaultsArgs, FaultsCommand, FaultsListArgs, FaultsRunArgs};
pub use import::ImportArgs;
pub use output::{Format, FormatArg, ShowArgs, ShowFormat};
pub use plot::{PlotArgs, PlotKind, PlotValue};
pub use run::{Keep, RunArgs};
pub use tokens::{Part, ReleaseArgs, TokenArgs, TokensArgs};
pub use traces::{CaptureArgs, CompareArgs, InspectArgs};
pub use weights::{DequantizeArgs, QuantizeArgs, QuantizeFormat};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Names the first component of an inference engine that computes something else than PyTorch.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 pass · 1 fault · 2 invalid input, failed self-check, or less measured than asked for.

Examples:
  layerdiff run                                   the bundled model, lattice F16 against PyTorch
  layerdiff run --model DIR --reference torch     your model, PyTorch captured live
  layerdiff compare REFERENCE CANDIDATE           any two traces
  layerdiff import DUMPS --reference TRACE --out NEW    files of tensors, from any engine, as a trace
  layerdiff inspect TRACE                         what is in a trace
  layerdiff quantize --format q4 MODEL OUT        Q4 weights, as lattice makes them
  layerdiff dequantize --engine NAME MODEL OUT    the weights that an engine computes with, in float32
  layerdiff faults run                            known bugs planted one by one, and what is named
  layerdiff show reports/latest --format github   a report as Markdown for an issue
  layerdiff plot reports/latest --kind heatmap    one picture of a report"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// One JSON document on stdout instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bars and no talk but errors: the result alone.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say on stderr what is done and how long it took; twice, also what Python says.
    #[arg(long, short, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole job: capture the candidate, compare it with the reference, write the report.
    Run(RunArgs),
    /// Capture one engine's run of some prompts into a trace.
    Capture(CaptureArgs),
    /// Compare two traces, whoever wrote them.
    Compare(CompareArgs),
    /// Make a trace of the dumps of any engine: raw numbers, NumPy, PyTorch, safetensors.
    Import(ImportArgs),
    /// Show what is in a trace, or one point of it.
    Inspect(InspectArgs),
    /// Make a directory of Q4 weights with lattice's own quantizers.
    Quantize(QuantizeArgs),
    /// Write the weights that an engine computes with as a float32 checkpoint.
    Dequantize(DequantizeArgs),
    /// Plant known bugs into a running engine, and score what is named.
    Faults(FaultsArgs),
    /// Compare the tokens and their distributions end to end, with a gate for a release.
    Tokens(TokensArgs),
    /// Layers and tokens of every engine in one report, which passes or fails the release.
    Release(ReleaseArgs),
    /// Show a report that was written before: in the terminal, as Markdown for GitHub, or as a page.
    Show(ShowArgs),
    /// Draw one picture of a report: a curve, a heatmap, errors by value, head or token.
    Plot(PlotArgs),
    /// What works here: engines, Python, disk, and how to mend what does not.
    Doctor(DoctorArgs),
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
    /// Print the manual.
    Man(ManArgs),
}

impl Command {
    /// How the result is printed, where that can be chosen.
    pub fn format(&self) -> Format {
        match self {
            Self::Run(args) => args.format.name,
            Self::Compare(args) => args.format.name,
            Self::Tokens(args) => args.format.name,
            Self::Release(args) => args.format.name,
            _ => Format::Terminal,
        }
    }
}

/// The model of most commands.
#[derive(Debug, Clone, Args)]
pub struct ModelArg {
    /// The model's directory: config.json, model.safetensors, tokenizer.json [default: the bundled model].
    #[arg(id = "model", long = "model", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A choice among prompts.
#[derive(Debug, Clone, Args)]
pub struct PromptArg {
    /// Only this prompt; may be given several times.
    #[arg(id = "prompt", long = "prompt", value_name = "ID")]
    pub ids: Vec<String>,
}

/// Where PyTorch runs.
#[derive(Debug, Clone, Args)]
pub struct PythonArg {
    /// The Python with layerdiff_hooks [default: $LAYERDIFF_PYTHON, the active or the local .venv, python3].
    #[arg(id = "python", long = "python", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What to run the engines on.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// JSONL file of prompts: {"id": …, "text": …} a line; or a trace, for its prompts and all its tokens
    /// [default: capture, the bundled standard set of 60; run, the stored reference's prompts, or code-01 of
    /// the standard set where the reference is captured now].
    #[arg(long, value_name = "FILE|TRACE")]
    pub prompts: Option<PathBuf>,
    /// Which of them.
    #[command(flatten)]
    pub prompt: PromptArg,
    /// Decode steps after the prefill, on the reference's tokens [default: 4, or those of the stored reference].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// A PEFT adapter to put on the model on both sides: adapter_config.json and adapter_model.safetensors.
    #[arg(long, value_name = "DIR")]
    pub lora: Option<PathBuf>,
    /// Only points that this glob accepts, such as '*.self_attn.*'; `embed` and `logits` as in reports.
    #[arg(long, value_name = "GLOB", default_value = "*")]
    pub points: String,
    /// Rows of attention's scores, probabilities and masks to keep of a prefill: all; rows:N for those of N query
    /// tokens, evenly chosen, with the first and the last; or auto, all up to a context of 2048 tokens and 64
    /// rows beyond it.
    #[arg(long, value_name = "all|rows:N|auto", default_value = "auto")]
    pub scores: String,
    /// Where PyTorch runs.
    #[command(flatten)]
    pub python: PythonArg,
}

impl InputArgs {
    /// Every point of these prompts, without an adapter.
    pub fn every_point(prompts: Option<PathBuf>, prompt: PromptArg, steps: usize, python: PythonArg) -> Self {
        let (points, scores) = ("*".to_owned(), "auto".to_owned());
        Self { prompts, prompt, steps: Some(steps), lora: None, points, scores, python }
    }
}
