//! Engines: what computes the candidate.

pub mod lattice;
pub mod torch;

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

    /// One instrumented prefill of `tokens`; every point is offered to `hook`.
    ///
    /// The pass is compared with the un-instrumented engine bit for bit; the evidence is returned.
    /// It says something about the engine only if `hook` changes nothing.
    fn prefill(&mut self, tokens: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>>;
}

/// The engines that can be asked for.
pub const ENGINES: [&str; 2] = ["lattice-f32", "lattice-f16"];

/// Loads a model into the engine called `name`; `path` chooses one of its numeric paths.
pub fn open(name: &str, model_dir: &Path, graph: &Graph, path: Option<&str>) -> Result<Box<dyn Engine>> {
    match name {
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
            let list = ENGINES.join(", ");
            Err(Error::new(format!("unknown engine `{name}`")).hint(match nearest(name, ENGINES) {
                Some(near) => format!("did you mean `{near}`? known: {list}"),
                None => format!("known: {list}"),
            }))
        }
    }
}

fn unknown_path(engine: &str, path: &str, known: &str) -> Error {
    Error::new(format!("{engine} has no path `{path}`")).hint(format!("known: {known}"))
}
