//! SHA-256 of a model's files.

use super::Hashes;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What lattice's Metal engine leaves in a directory that it has loaded once: a copy of two tensors.
const METAL_CACHE: &str = "merged_qkvz_";

/// True for a file that lattice's Metal engine has added, and that says nothing new.
pub fn is_cache(name: &str) -> bool {
    name.starts_with(METAL_CACHE)
}

/// The `*.safetensors` files of a directory, sorted by name.
pub fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    files(dir, &["safetensors"])
}

/// The files of a directory with one of these extensions, sorted by name.
fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let list = |e: std::io::Error| Error::io("list the model's directory", dir, &e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// See [`Hashes`] for what is hashed.
pub fn hashes(dir: &Path) -> Result<Hashes> {
    let mut weights = weight_files(dir)?;
    if weights.is_empty() {
        weights = files(dir, &["q4", "f16"])?;
        weights.retain(|file| !is_cache(&file.file_name().unwrap_or_default().to_string_lossy()));
    }
    let optional = |name: &str| {
        let path = dir.join(name);
        if path.is_file() { file_hash(&path).map(|hash| Some(format!("sha256:{hash}"))) } else { Ok(None) }
    };
    Ok(Hashes {
        // The hash of no file would be that of any directory without weights.
        weights: if weights.is_empty() { None } else { Some(files_hash(&weights)?) },
        tokenizer: optional("tokenizer.json")?,
        config: optional("config.json")?,
        adapter: None,
        dequantized: None,
    })
}

/// One hash over the names and hashes of some files, in this order.
pub fn files_hash(files: &[PathBuf]) -> Result<String> {
    let mut lines = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let _infallible = writeln!(lines, "{name} {}", file_hash(file)?);
    }
    Ok(format!("sha256:{}", hex(Sha256::digest(lines.as_bytes()).as_slice())))
}

fn file_hash(path: &Path) -> Result<String> {
    let read = |e| Error::io("read a file of the model", path, &e);
    let mut file = File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(read)?;
    Ok(hex(hasher.finalize().as_slice()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_covers_every_shard_in_the_order_of_names() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.safetensors"), "two").unwrap();
        std::fs::write(dir.path().join("a.safetensors"), "one").unwrap();
        std::fs::write(dir.path().join("config.json"), "").unwrap();
        let h = |text: &str| hex(Sha256::digest(text).as_slice());
        let hashes = hashes(dir.path()).unwrap();
        let lines = format!("a.safetensors {}\nb.safetensors {}\n", h("one"), h("two"));
        assert_eq!(hashes.weights, Some(format!("sha256:{}", h(&lines))));
        assert_eq!(hashes.config, Some(format!("sha256:{}", h(""))));
        assert_eq!(hashes.tokenizer, None);
    }
}
