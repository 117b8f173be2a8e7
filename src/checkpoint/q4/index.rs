//! `quantize_index.json`: which tensors a quantized directory holds, and whether they are rotated.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;

/// The index's file name.
pub const INDEX: &str = "quantize_index.json";

/// A tensor of a quantized directory, under the keys that lattice's quantizers write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Name in the checkpoint.
    pub name: String,
    /// File in the directory.
    pub file: String,
    /// True for `.q4`, false for `.f16`.
    pub quantized: bool,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Their product.
    pub numel: usize,
}

/// An index that agrees with itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Seed of the rotation; none for an unrotated directory.
    pub seed: Option<u64>,
    /// The tensors, in the index's order.
    pub entries: Vec<IndexEntry>,
}

/// What QuaRot's converter writes. Its `promotion` says nothing about the numbers.
#[derive(Deserialize)]
struct Rotated {
    quarot_seed: Option<u64>,
    tensors: Vec<IndexEntry>,
    #[serde(default)]
    artifact_version: Option<Value>,
    #[serde(default)]
    online: Option<Value>,
}

/// What to do about a directory that cannot be trusted.
pub(super) const AGAIN: &str =
    "the directory is damaged or was changed: make it again with `layerdiff quantize`";

/// The only artifact version whose rotation is all in the weights.
const OFFLINE: &str = "v0-residual";

impl Index {
    /// Reads and checks the index of a directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX);
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::io("read the index of the quantized directory", &path, &e)
                .hint("a quantized directory is made with `layerdiff quantize`")
        })?;
        Self::parse(&text).map_err(|e| e.at(&path).hint(AGAIN))
    }

    /// Parses an array (plain Q4) or an object with a seed (QuaRot).
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |e: serde_json::Error| Error::new(format!("the index is malformed: {e}"));
        let index = match serde_json::from_str(text).map_err(malformed)? {
            value @ Value::Array(_) => {
                Self { seed: None, entries: serde_json::from_value(value).map_err(malformed)? }
            }
            value => Self::rotated(serde_json::from_value(value).map_err(malformed)?)?,
        };
        index.validate()?;
        Ok(index)
    }

    fn rotated(index: Rotated) -> Result<Self> {
        let online = index.online.as_ref().and_then(|online| online.get("version"));
        for version in [index.artifact_version.as_ref(), online].into_iter().flatten() {
            if version != OFFLINE && !version.is_null() {
                return Err(Error::new("the directory wants rotations at run time")
                    .expected(OFFLINE, version)
                    .hint(
                        "lattice 0.15 runs no such directory either: quantize again without online rotations",
                    ));
            }
        }
        let seed = index.quarot_seed.ok_or_else(|| {
            Error::new("the index is of a rotated directory and has no seed")
                .expected("a number under quarot_seed", "none")
        })?;
        Ok(Self { seed: Some(seed), entries: index.tensors })
    }

    fn validate(&self) -> Result<()> {
        if self.entries.is_empty() {
            return Err(Error::new("the index lists no tensor"));
        }
        let (mut names, mut files) = (HashSet::new(), HashSet::new());
        for entry in &self.entries {
            let IndexEntry { name, file, .. } = entry;
            if !names.insert(name) || !files.insert(file) {
                return Err(Error::new(format!("the index lists `{name}` or its file twice")));
            }
            let suffix = if entry.quantized { ".q4" } else { ".f16" };
            if file.contains(['/', '\\', ':', '\0']) || file.starts_with('.') || !file.ends_with(suffix) {
                return Err(Error::new(format!("the index names an unfit file for `{name}`"))
                    .expected(format!("a plain file name ending in {suffix}"), format!("{file:?}")));
            }
            let product = entry.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
            if product != Some(entry.numel) || entry.numel == 0 {
                return Err(Error::new(format!("the index contradicts itself about `{name}`"))
                    .expected(format!("the product of {:?}, not 0", entry.shape), entry.numel));
            }
        }
        Ok(())
    }
}
