//! What an installed binary carries: a small trained model, traces and floors of `PyTorch` on it and on its
//! quantized weights, a small adapter, and the standard prompts.

use crate::error::{Error, Result};
use include_dir::{Dir, include_dir};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/bundle");

/// The standard prompts, as JSONL.
pub const PROMPTS: &str = include_str!("../prompts/standard.jsonl");

/// The prompt that `run` uses when none is named.
pub const DEFAULT_PROMPT: &str = "code-01";

/// The bundled files, unpacked until dropped.
#[derive(Debug)]
pub struct Bundle(TempDir);

impl Bundle {
    /// Unpacks the files into a temporary directory.
    pub fn unpack() -> Result<Self> {
        let temporary = std::env::temp_dir();
        let unpack = |e: std::io::Error| Error::io("unpack the bundled model", &temporary, &e);
        let dir = tempfile::Builder::new().prefix("layerdiff-").tempdir().map_err(unpack)?;
        crate::files::remove_on_interrupt(dir.path());
        FILES.extract(dir.path()).map_err(unpack)?;
        Ok(Self(dir))
    }

    /// The model's directory.
    pub fn model(&self) -> PathBuf {
        self.0.path().join("model")
    }

    /// The `PyTorch` trace of the default prompt and of a short one.
    pub fn reference(&self) -> PathBuf {
        self.0.path().join("reference")
    }

    /// The floors: `PyTorch` in 64 bits against that trace, and then in each coarser precision.
    pub fn floors(&self) -> Result<Vec<PathBuf>> {
        let coarser = self.list("floors", |path| path.file_stem().is_some_and(|name| name != "float64"))?;
        Ok([self.0.path().join("floors/float64.json")].into_iter().chain(coarser).collect())
    }

    /// Traces of `PyTorch` on the weights that each quantizing engine computes with.
    pub fn arms(&self) -> Result<Vec<PathBuf>> {
        self.list("quantized", Path::is_dir)
    }

    /// What is in one of the directories, sorted by name.
    fn list(&self, dir: &str, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
        let dir = self.0.path().join(dir);
        let list = |e: std::io::Error| Error::io("list the bundled files", &dir, &e);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(list)? {
            paths.push(entry.map_err(list)?.path());
        }
        paths.retain(|path| wanted(path));
        paths.sort();
        Ok(paths)
    }
}
