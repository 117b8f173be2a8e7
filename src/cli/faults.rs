//! The command line of `faults`.

use super::{ModelArg, PromptArg};
use crate::faults::Weight;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `faults`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerdiff faults list
  layerdiff faults run --fault rope-interleaved")]
pub struct FaultsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: FaultsCommand,
}

/// What can be done with faults.
#[derive(Debug, Subcommand)]
pub enum FaultsCommand {
    /// The catalogue: name, what is right, what was written, where it lives, where it is known from.
    List(FaultsListArgs),
    /// Plant each in every layer where it can live, and score what is named.
    Run(FaultsRunArgs),
}

/// Arguments of `faults list`.
#[derive(Debug, Args)]
#[command(after_help = format!("\
{}.

Examples:
  layerdiff faults list
  layerdiff faults list --model DIR --json", Weight::LEGEND))]
pub struct FaultsListArgs {
    /// The model whose components are named [default: the bundled model].
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

/// Arguments of `faults run`.
#[derive(Debug, Args)]
#[command(after_help = format!("\
{}.
Below each fault are the points that were named for it, and what the diagnosis called them.

Exit code 0: every fault that this input can show is located exactly, none is called by a wrong name, not even
where the right one is taken to be unknown, and nothing harmless is reported. Exit code 2: no more is amiss than
that some faults could not be judged.

Examples:
  layerdiff faults run
  layerdiff faults run --engine lattice-q4 --fault q4-floor
  layerdiff faults run --fault rope-interleaved --layer 3 --json
  layerdiff faults run --engine all --pairs 60 --out reports/faults", Weight::LEGEND))]
pub struct FaultsRunArgs {
    /// lattice-f32, lattice-f16, lattice-q8, lattice-q4; or all: lattice-f32 on both paths, lattice-f16 and
    /// lattice-q4.
    #[arg(long, value_name = "NAME", default_value = "lattice-f32")]
    pub engine: String,
    /// The engine's numeric path: serial (default), or batched for lattice-f32.
    #[arg(long, value_name = "NAME")]
    pub path: Option<String>,
    /// Only this fault; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub fault: Vec<String>,
    /// Only in this layer.
    #[arg(long, value_name = "N")]
    pub layer: Option<usize>,
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// JSONL file of prompts, or a trace [default: the bundled trace's prompts].
    #[arg(long, value_name = "FILE|TRACE")]
    pub prompts: Option<PathBuf>,
    /// Which of them.
    #[command(flatten)]
    pub prompt: PromptArg,
    /// Decode steps after the prefill.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub steps: usize,
    /// Then plant so many pairs of faults that are found alone, half of them in one layer, one feeding the other.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub pairs: usize,
    /// Where the score by fault goes, as faults.json, faults.md and junit.xml [default: only stdout, where --json has every
    /// planting].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
