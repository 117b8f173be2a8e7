//! The trace: what an engine leaves behind, and all that the two halves of layerdiff share.
//!
//! # Format, version 1
//!
//! A trace is a directory. It holds `manifest.json` and the shards that the manifest names,
//! and a reader ignores nothing: a sentence below that does not hold makes the trace invalid.
//!
//! ## `manifest.json`
//!
//! One JSON object, UTF-8.
//!
//! | key | value |
//! |---|---|
//! | `format` | the string `layerdiff-trace` |
//! | `version` | the number `1` |
//! | `architecture` | name of the architecture description, for example `qwen3_5` |
//! | `config` | the model's `config.json`, as an object |
//! | `provenance` | who wrote the trace; see [`Provenance`] |
//! | `adapter` | may be absent: `{modules: {POINT: {rank, scale}, …}}`, the low-rank adapter that the trace was asked to run with; see [`Adapter`](crate::model::Adapter) |
//! | `self_check` | `null`, or what the engine proved about its capture; see [`SelfCheck`] |
//! | `prompts` | array of `{id, category, text, token_ids, step_token_ids}`; `category` and `text` may be null, `step_token_ids` may be absent |
//! | `shards` | array of `{file, bytes}` |
//! | `tensors` | array of entries, see below |
//! | `left_out` | may be absent: array of `{step, point}`, points that the run cannot show in that step |
//! | `generated` | may be absent: `{token_ids, text, seconds}`, what the engine goes on with by itself after the only prompt; see [`Generated`] |
//!
//! Keys that are not listed are ignored, so that a later version can add some.
//!
//! A self-check's `status` follows from its `evidence`: `different` if anything differs, `unmeasured`
//! if there is none or some of it has no elements, else `bit-equal`. No `parameter_error` is negative
//! or not finite.
//!
//! An `adapter` changes at least one module. Each is a linear of the architecture, with a rank of at least
//! 1 and a finite scale, and has the points `POINT.base_layer`, `POINT.lora_A` (`[tokens, rank]`) and
//! `POINT.lora_B` (not scaled) beside `POINT`, which is `base_layer + scale · lora_B`. An engine that cannot
//! run the adapter states it all the same, and says so in `notes`, in one that
//! ends in `the adapter was not applied`.
//!
//! `provenance` may have `parallel`: `{processes, backend, split: {POINT: {axis, shares: [SIZE, …]}, …}}`, where several
//! processes ran the model, each a share of it. The tensors are whole all the same. `split` names points of the
//! trace of which each process had a share along `axis`; there are as many `shares` as processes, and in each tensor of
//! the point they add up to the size of that axis.
//!
//! A trace with `generated` has one prompt. Its `text` may be null; `seconds` is finite and not negative.
//!
//! A prompt's `id` is not empty and consists of ASCII letters, digits, `-`, `_` and `.`; it is not `.` or
//! `..`, and no two prompts share one. `token_ids` is not empty; `step_token_ids` are the tokens that the decode steps were
//! given, the first by step 1.
//!
//! A shard's `file` is a plain file name in the trace's directory: no separator, no colon, no `..`,
//! not hidden, ending in `.safetensors`. `bytes` is the file's exact size.
//!
//! An entry of `tensors`:
//!
//! | key | value |
//! |---|---|
//! | `order` | position in the order of execution: 0, 1, 2, … without a gap |
//! | `prompt` | a prompt's `id` |
//! | `step` | 0 is the prefill, then one for each decoded token |
//! | `point` | the point's name, for example `model.layers.3.self_attn.k_rope` |
//! | `dtype` | `F64`, `F32`, `F16`, `BF16` or `U8` |
//! | `shape` | array of sizes, row-major; the batch dimension is dropped |
//! | `basis` | `original`, or the name of the rotated basis that the values are in: `quarot:SEED` for QuaRot's |
//! | `derived` | true when the engine goes on with other numbers, from which this was computed |
//! | `shard` | index into `shards` |
//! | `rows` | may be absent: array of positions in the step of the query tokens whose rows were captured |
//!
//! Of a point with an axis of `tokens` and one of `context`, such as attention's scores, a writer may keep the rows
//! of some of the step's query tokens: `rows` lists them, ascending, each once, and the shape's axis of `tokens`
//! counts them. There is at least one and at most one fewer than the step has tokens: an entry with all rows has no
//! `rows`, and a decode step, of one token, never has.
//!
//! No two entries share prompt, step and point. No entry has a step and point that are `left_out`: those
//! are not expected, as long as the other side leaves them out too.
//!
//! ## Shards
//!
//! A shard is a safetensors file. The entry's tensor is stored in its shard under the name
//! `prompt/step/point`, for example `code-01/0/model.norm`, with the dtype and shape that the
//! entry states. A shard holds no tensor without an entry. No shard is without a tensor.
//! The header's length is at most 100 MB, as safetensors demands.
//!
//! ## Values
//!
//! Values are as the engine had them, NaN and infinity included. Masks are `U8`, 1 where a token
//! may look and 0 elsewhere. Scores that the mask forbids are minus infinity.
//!
//! ## Writing
//!
//! A writer keeps at most a few shards in memory: one that is filled, one that waits, and one that is written; a
//! shard ends with the tensor, in Python with the layer, that makes it large enough. It writes into a hidden sibling directory and
//! renames that to the trace's name when it is complete: a trace is there whole or not at all,
//! and an existing one is never touched.

mod adapter;
mod entry;
pub(crate) mod hash;
mod live;
mod manifest;
mod parallel;
mod read;
mod rules;
mod self_check;
mod shards;
mod sink;
mod write;

pub use adapter::StatedAdapter;
pub use entry::{Entry, Incoming};
pub use manifest::{
    ADAPTER_NOT_APPLIED, Generated, Hashes, LeftOut, Manifest, Provenance, Shard, activations,
};
pub use parallel::{Parallel, Split};
pub use read::Trace;
pub use self_check::{Evidence, SelfCheck, Status};
pub use sink::Sink;
pub use write::{TraceWriter, WriteOptions};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
