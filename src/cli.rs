//! The command line, as typed.

use crate::faults::Weight;
use clap::{Args, Parser, Subcommand, ValueEnum};
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
  layerdiff inspect TRACE                         what is in a trace
  layerdiff quantize --format q4 MODEL OUT        Q4 weights, as lattice makes them
  layerdiff dequantize --engine NAME MODEL OUT    the weights that an engine computes with, in float32
  layerdiff faults run                            known bugs planted one by one, and what is named"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// One JSON document on stdout instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bars.
    #[arg(long, short, global = true)]
    pub quiet: bool,
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
    /// Where PyTorch runs.
    #[command(flatten)]
    pub python: PythonArg,
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
    /// Where the report goes; an earlier report there is replaced.
    #[arg(long, value_name = "DIR", default_value = "reports/latest")]
    pub out: PathBuf,
    /// What to run on.
    #[command(flatten)]
    pub input: InputArgs,
}

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
    /// One engine [default: all].
    #[arg(long, value_name = "NAME", default_value = "all")]
    pub engine: String,
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
    /// What the metrics are taken on.
    #[command(flatten)]
    pub on: TokenArgs,
}

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
  layerdiff compare reference candidate --floor arm --out report")]
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
    /// Where the report goes [default: only stdout].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
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

/// Arguments of `faults`.
#[derive(Debug, Args)]
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
#[command(after_help = Weight::LEGEND)]
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
    /// Where the score by fault goes, as faults.json and faults.md [default: only stdout, where --json has every
    /// planting].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// A seed, decimal or hexadecimal.
fn seed(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}
