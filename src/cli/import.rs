//! The command line of `import`.

use super::PromptArg;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `import`.
// Each is a flag of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Args)]
#[command(after_help = "\
DUMPS is a directory of .f32 (.f16, .bf16, .f64, .bin: raw little-endian numbers), .npy, .npz, .pt or .safetensors
files, one such file, or what Transformers' model_addition_debugger_context(…, use_repr=False) wrote. Known names:
the points' own (model.layers.3.mlp.act), module paths, and embed, layer_<i>, final_norm, logits. Dumps of decode
steps lie in directories step_<n>, those of several prompts in directories named by their ids.

What the names do not say, a map says, a TOML file; `--suggest` prints one to start from:
  engine = \"mine\"                                   # all keys: src/import/map.rs
  [[tensor]]
  file = \"blk.{i}.attn_q\"                           # {i} is the layer; {step}, {prompt} and * work too
  point = \"model.layers.{i}.self_attn.q_proj\"
  transpose = [1, 0]
  [[tensor]]
  file = \"blk.{i}.gate_up\"
  split = { axis = -1, points = [\"model.layers.{i}.mlp.gate_proj\", \"model.layers.{i}.mlp.up_proj\"] }
  [[tensor]]
  file = \"blk.{i}.k_rope\"
  point = \"model.layers.{i}.self_attn.k_rope\"
  shape = [\"tokens\", \"kv_heads\", \"head_dim\"]        # how raw numbers lie
  pairs = { axis = -1, width = \"head_dim\" }         # rotary pairs side by side
  [[tensor]]
  file = \"scratch.*\"
  ignore = true

Examples:
  layerdiff import dumps --reference TRACE --prompt code-01 --out mine
  layerdiff import dumps.npz --reference TRACE --prompt code-01 --suggest > map.toml
  layerdiff import dumps.npz --reference TRACE --prompt code-01 --map map.toml --out mine
  layerdiff compare TRACE mine --only-captured")]
pub struct ImportArgs {
    /// The dumps: a directory or a file.
    pub dumps: PathBuf,
    /// The trace that they will be compared with: it gives the model, the prompts and their tokens, and the
    /// values that the names are checked by.
    #[arg(long, value_name = "TRACE", required_unless_present = "model")]
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
