//! Engines: what computes the candidate.

pub mod lattice;
pub mod torch;

use crate::checkpoint::q4::Q4Dir;
use crate::error::{Error, Result, nearest};
use crate::hook::Hook;
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

    /// One instrumented prefill of `tokens`; every point is offered to `hook`.
    ///
    /// The pass is compared with the un-instrumented engine bit for bit; the evidence is returned.
    /// It says something about the engine only if `hook` changes nothing.
    fn prefill(&mut self, tokens: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>>;
}

/// The engines that can be a candidate.
pub const CANDIDATES: [&str; 4] = ["lattice-f32", "lattice-f16", "lattice-q4", "lattice-quarot-q4"];

/// All that can be captured.
pub const ENGINES: [&str; 5] = ["lattice-f32", "lattice-f16", "lattice-q4", "lattice-quarot-q4", "torch"];

/// Refuses a name that is not among the `known` ones, and offers the nearest.
pub fn check_known(name: &str, known: &[&str]) -> Result<()> {
    if known.contains(&name) {
        return Ok(());
    }
    let list = known.join(", ");
    Err(Error::new(format!("unknown engine `{name}`")).hint(match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? known: {list}"),
        None => format!("known: {list}"),
    }))
}

/// Loads a model into the engine called `name`; `path` chooses one of its numeric paths.
pub fn open(name: &str, model_dir: &Path, graph: &Graph, path: Option<&str>) -> Result<Box<dyn Engine>> {
    let blocks = matches!(name, "lattice-q4" | "lattice-quarot-q4");
    if Q4Dir::is_at(model_dir) && !blocks {
        return Err(Error::new(format!("{name} cannot run a quantized directory"))
            .at(model_dir)
            .hint("use --engine lattice-q4 or lattice-quarot-q4, or name the original checkpoint"));
    }
    match name {
        "lattice-q4" | "lattice-quarot-q4" => match path.unwrap_or("serial") {
            "serial" => Ok(Box::new(lattice::Q4Engine::open(model_dir, graph, name == "lattice-quarot-q4")?)),
            other => Err(unknown_path(name, other, "serial")),
        },
        "lattice-f32" => {
            let path = match path.unwrap_or("batched") {
                "batched" => lattice::Path::Batched,
                "serial" => lattice::Path::Serial,
                other => return Err(unknown_path(name, other, "batched, serial")),
            };
            Ok(Box::new(lattice::F32Engine::open(model_dir, graph, path)?))
        }
        "lattice-f16" => match path.unwrap_or("serial") {
            "serial" => Ok(Box::new(lattice::F16Engine::open(model_dir, graph)?)),
            other => Err(unknown_path(name, other, "serial")),
        },
        _ => {
            Err(Error::new(format!("`{name}` is no candidate"))
                .hint(format!("known: {}", CANDIDATES.join(", "))))
        }
    }
}

fn unknown_path(engine: &str, path: &str, known: &str) -> Error {
    Error::new(format!("{engine} has no path `{path}`")).hint(format!("known: {known}"))
}
