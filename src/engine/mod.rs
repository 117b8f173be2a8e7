//! Engines: what computes the candidate.

pub mod lattice;
pub mod torch;

use crate::checkpoint::q4::Q4Dir;
use crate::checkpoint::{AdapterDir, ModelDir};
use crate::error::{Error, Result, nearest};
use crate::hook::{Hook, NoHook};
use crate::model::Graph;
use crate::trace::{Evidence, Provenance};
use std::path::Path;

/// An engine with a model loaded.
pub trait Engine {
    /// Who computes, with what.
    fn provenance(&self) -> Provenance;

    /// The longest prompt that the engine takes.
    fn max_tokens(&self) -> usize;

    /// The seed of the rotation that the engine's residual stream is in; none for an unrotated one.
    fn rotation(&self) -> Option<u64> {
        None
    }

    /// How many bits an activation is rounded to before it is multiplied; none where it stays a float.
    fn activation_bits(&self) -> Option<u32> {
        None
    }

    /// Writes the weights that the engine computes with as an f32 checkpoint in the original basis, to
    /// `out`, which must not exist: what PyTorch runs on to show the price of the format alone.
    ///
    /// Writes nothing and returns false when they are bit for bit those of `source`.
    fn write_dequantized(&self, _source: &ModelDir, _out: &Path) -> Result<bool> {
        Ok(false)
    }

    /// Puts an adapter on the model, in place of an earlier one, from the next run on. Returns false, and
    /// changes nothing, when the engine cannot run one.
    fn adapt(&mut self, _adapter: &AdapterDir) -> Result<bool> {
        Ok(false)
    }

    /// As [`Engine::write_dequantized`], in the basis in which the engine computes: what its components are
    /// replayed with.
    fn write_held(&self, source: &ModelDir, out: &Path) -> Result<bool> {
        self.write_dequantized(source, out)
    }

    /// `count` tokens after `tokens`, one after the other: each is what `choose` takes of the logits of the
    /// last position, `[vocab]`, in step 0, 1, …. Every point of every step is offered to `hook`.
    fn generate(
        &self,
        tokens: &[u32],
        count: usize,
        choose: &mut dyn FnMut(&[f32], usize) -> u32,
        hook: &mut dyn Hook,
    ) -> Result<Vec<u32>>;

    /// The `count` likeliest tokens after `tokens`, one after the other.
    fn greedy(&self, tokens: &[u32], count: usize) -> Result<Vec<u32>> {
        self.generate(tokens, count, &mut |logits, _| likeliest(logits), &mut NoHook)
    }

    /// One instrumented run: a prefill of `tokens`, then one decode step for each of `forced`. Every
    /// point of every step is offered to `hook`.
    ///
    /// The run is compared with the un-instrumented engine bit for bit; the evidence is returned.
    /// It says something about the engine only if `hook` changes nothing.
    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>>;

    /// The un-instrumented engine alone on the same tokens, with nothing of ours in it: what an instrumented pass
    /// is timed against. False, and nothing is run, where the engine cannot be run so.
    fn run_alone(&mut self, _tokens: &[u32], _forced: &[u32]) -> Result<bool> {
        Ok(false)
    }

    /// The same run where `hook` changes what it sees on purpose: the un-instrumented engine is not run,
    /// since it has no part in the change.
    fn run_unchecked(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<()> {
        self.run(tokens, forced, hook).map(drop)
    }
}

/// The likeliest token; of equals the first.
pub fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(0, |(id, _): (u32, _)| id)
}

/// The engines that `run` can judge.
pub const CANDIDATES: [&str; 6] =
    ["lattice-f32", "lattice-f16", "lattice-q8", "lattice-q8_0", "lattice-q4", "lattice-quarot-q4"];

/// All that can be captured: the candidates, and `PyTorch`.
pub fn capturable() -> Vec<&'static str> {
    CANDIDATES.into_iter().chain([torch::NAME]).collect()
}

/// Refuses a name that is not among the `known` ones, and offers the nearest.
pub fn check_known(name: &str, known: &[&str]) -> Result<()> {
    if known.contains(&name) {
        return Ok(());
    }
    let list = known.join(", ");
    let full = format!("lattice-{}", name.to_lowercase());
    let near =
        known.iter().copied().find(|known| *known == full).or_else(|| nearest(name, known.iter().copied()));
    Err(Error::new(format!("unknown engine `{name}`")).hint(match near {
        Some(near) => format!("did you mean `{near}`? known: {list}"),
        None => format!("known: {list}"),
    }))
}

/// True for an engine whose weights are a directory of Q4 blocks.
pub fn reads_blocks(name: &str) -> bool {
    matches!(name, "lattice-q4" | "lattice-quarot-q4")
}

/// Loads a model into the engine called `name`; `path` chooses one of its numeric paths.
pub fn open(name: &str, model_dir: &Path, graph: &Graph, path: Option<&str>) -> Result<Box<dyn Engine>> {
    if Q4Dir::is_at(model_dir) && !reads_blocks(name) {
        return Err(Error::new(format!("{name} cannot run a quantized directory"))
            .at(model_dir)
            .hint("use --engine lattice-q4 or lattice-quarot-q4, or name the original checkpoint"));
    }
    let path = path_of(name, path)?;
    let architecture = graph.description();
    if architecture.name != lattice::ARCHITECTURE {
        return Err(Error::new(format!("{name} does not run a {}", architecture.title))
            .expected(format!("the architecture {}", lattice::ARCHITECTURE), &architecture.name)
            .hint(
                "capture it with --engine torch, and judge the trace with `compare REF CAND --model DIR`",
            ));
    }
    match name {
        "lattice-q4" | "lattice-quarot-q4" => {
            Ok(Box::new(lattice::Q4Engine::open(model_dir, graph, name == "lattice-quarot-q4")?))
        }
        "lattice-f32" => {
            let path = if path == "serial" { lattice::Path::Serial } else { lattice::Path::Batched };
            Ok(Box::new(lattice::F32Engine::open(model_dir, graph, path)?))
        }
        "lattice-f16" => Ok(Box::new(lattice::F16Engine::open(model_dir, graph)?)),
        "lattice-q8" => Ok(Box::new(lattice::Q8Engine::open(model_dir, graph)?)),
        "lattice-q8_0" => Ok(Box::new(lattice::Q8_0Engine::open(model_dir)?)),
        _ => {
            Err(Error::new(format!("`{name}` is no candidate"))
                .hint(format!("known: {}", CANDIDATES.join(", "))))
        }
    }
}

/// The numeric path of the engine called `name` that `path` chooses; its default when none is chosen.
pub fn path_of(name: &str, path: Option<&str>) -> Result<&'static str> {
    let known: &[&str] = if name == "lattice-f32" { &["batched", "serial"] } else { &["serial"] };
    let chosen = path.unwrap_or(known[0]);
    known.iter().copied().find(|path| *path == chosen).ok_or_else(|| {
        Error::new(format!("{name} has no path `{chosen}`")).hint(format!("known: {}", known.join(", ")))
    })
}
