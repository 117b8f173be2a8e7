//! The command line of `import`.

use super::PromptArg;
use crate::import::map::Precision;
use clap::Args;
use std::path::PathBuf;

/// What both kinds of help say.
macro_rules! dumps {
    () => {
        "\
DUMPS is a directory of .f32 (.f16, .bf16, .f64, .bin: raw little-endian
numbers), .npy, .npz, .pt or .safetensors files, one such file, or what
Transformers' model_addition_debugger_context(…, use_repr=False) wrote. Known
names: the points' own (model.layers.3.mlp.act), module paths, and embed,
layer_<i>, final_norm, logits. Dumps of decode steps lie in directories
step_<n>, those of several prompts in directories named by their ids.
"
    };
}

macro_rules! examples {
    () => {
        "
Examples:
  layerdiff import dumps --reference TRACE --prompt code-01 --out mine
  layerdiff import dumps.npz --reference TRACE --suggest > map.toml
  layerdiff import dumps.npz --reference TRACE --map map.toml --out mine
  layerdiff compare TRACE mine --only-captured"
    };
}

/// A map, and every key of it: who has only the program has no other place to read of them.
macro_rules! map {
    () => {
        r#"
What the names do not say, a map says, a TOML file; `--suggest` prints one
to start from:
  engine = "mine"
  [[tensor]]
  file = "blk.{i}.attn_q"
  point = "model.layers.{i}.self_attn.q_proj"
  transpose = [1, 0]
  [[tensor]]
  file = "blk.{i}.gate_up"
  [tensor.split]
  axis = -1
  points = [
    "model.layers.{i}.mlp.gate_proj",
    "model.layers.{i}.mlp.up_proj",
  ]
  [[tensor]]
  file = "blk.{i}.k_rope"
  point = "model.layers.{i}.self_attn.k_rope"
  shape = ["tokens", "kv_heads", "head_dim"]  # how raw numbers lie
  pairs = { axis = -1, width = "head_dim" }   # rotary pairs side by side
  [[tensor]]
  file = "scratch.*"
  ignore = true

Keys of a map:
  engine, version  of the engine that wrote the dumps
  quantized        true when its weights have fewer than 16 bits
  precision        what it computed in, where the files are wider: bfloat16,
                   float16, float32 or float64
  [[tensor]]       one for each kind of file; the first that fits counts

Keys of a [[tensor]]; it has `point`, `split` or `ignore`:
  file          the name without extension, `/` between directories. {i} is a
                layer's number, {step} a step's, {prompt} a prompt's id, * is
                anything
  point         where it belongs, with {i}
  layer_offset  added to the number in the name: -1 where layers count from 1
  ignore        true: left out, and said to be
  dtype         of raw numbers: F64, F32, F16, BF16 or U8
  precision     as above, of these files alone
  shape         how the values lie: numbers, and names of sizes (tokens,
                context, heads, head_dim …)
  crop          { axis, keep, start }: only `keep` places, from `start` on
  transpose     the axes in the order in which the point has them
  split         { axis, points, sizes }: cut into one part for each point,
                each as wide as its point where `sizes` does not say it
  reorder       { axis, order }: place j of the point is place order[j]
  pairs         { axis, width }: in groups of `width`, x0 y0 x1 y1 … becomes
                x0 x1 … y0 y1 …
They are done in this order, from `shape` to `pairs`. A negative axis counts
from the end. Axes of size 1 fall away, and neighbouring axes are joined or
cut as the point has them.
"#
    };
}

/// Arguments of `import`.
// Each is a flag of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Args)]
#[command(
    after_help = concat!(
        dumps!(),
        "\nWhat the names do not say, a map says: `--suggest` prints one to start from,\nand `layerdiff import --help` has an example and all keys.\n",
        examples!()
    ),
    after_long_help = concat!(dumps!(), map!(), examples!())
)]
pub struct ImportArgs {
    /// The dumps: a directory or a file.
    pub dumps: PathBuf,
    /// The trace that they will be compared with: it gives the model, the prompts and their tokens, and the
    /// values that the names are checked by.
    #[arg(long, value_name = "TRACE")]
    pub reference: Option<PathBuf>,
    /// Without a reference: the model's directory, with --prompts.
    #[arg(long, value_name = "DIR", requires = "prompts", conflicts_with = "reference")]
    pub model: Option<PathBuf>,
    /// Without a reference: JSONL file of the prompts, or a trace.
    #[arg(long, value_name = "FILE|TRACE", requires = "model")]
    pub prompts: Option<PathBuf>,
    /// Which prompt the dumps are of.
    #[command(flatten)]
    pub prompt: PromptArg,
    /// The step of dumps whose name has none: 0 is the prefill.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub step: u32,
    /// What the files are, where their names do not say it.
    #[arg(long, value_name = "FILE")]
    pub map: Option<PathBuf>,
    /// The engine that wrote the dumps [default: the map's, else `imported`].
    #[arg(long, value_name = "NAME")]
    pub engine: Option<String>,
    /// Its version [default: the map's, else `unknown`].
    #[arg(long, value_name = "TEXT")]
    pub engine_version: Option<String>,
    /// Its weights have fewer than 16 bits: the price of that is told apart from its errors, see --quantized of
    /// compare.
    #[arg(long)]
    pub quantized: bool,
    /// What the engine computed in, where the files are wider, as of a bfloat16 engine that saves f32: the values
    /// are stored as that, and held against its roundings [default: the map's, else what the files hold].
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<Precision>,
    /// Leave out what has no known name, and say so.
    #[arg(long)]
    pub ignore_unknown: bool,
    /// Import also where the values are another point's: for an engine that itself mixes points up.
    #[arg(long)]
    pub trust_map: bool,
    /// Print a map for what has no known name, and import nothing.
    #[arg(long)]
    pub suggest: bool,
    /// Where the trace goes; must not exist.
    #[arg(long, value_name = "TRACE", required_unless_present = "suggest")]
    pub out: Option<PathBuf>,
}
