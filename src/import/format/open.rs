//! Which format a file has, by its first bytes.

use super::archive::Archive;
use super::folder::Folder;
use super::npy::{self, Npy, Npz};
use super::raw::{self, Raw};
use super::safe::Safe;
use super::torch::{self, Torch};
use super::{Item, Kind, Source, plain};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Opens a file or a directory of dumps.
pub fn open(path: &Path) -> Result<Box<dyn Source>> {
    if path.is_dir() {
        return Ok(Box::new(Folder::open(path)?));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let source = open_file(path, &name)?;
    match source.items() {
        [only] if matches!(only.kind, Kind::Other(_)) && only.shape.is_none() => {
            Err(Error::new("the file has no known format of dumps").at(path).hint(
                "dumps are .f32, .npy, .npz, .pt, .safetensors files, directories of them, or what Transformers' debugger writes",
            ))
        }
        _ => Ok(source),
    }
}

/// Opens a file; a tensor that has no name in it is called `name`.
pub(super) fn open_file(path: &Path, name: &str) -> Result<Box<dyn Source>> {
    let name = &*plain(name);
    let io = |e: std::io::Error| Error::io("read a dump", path, &e);
    let about = std::fs::metadata(path).map_err(io)?;
    // A pipe would be waited for without end.
    if !about.is_file() {
        return Err(Error::new("a dump is no regular file").at(path).hint("write it to a file first"));
    }
    let (file, length) = (File::open(path).map_err(io)?, about.len());
    let mut head = Vec::new();
    file.take(16).read_to_end(&mut head).map_err(io)?;
    let has_extension =
        |names: &[&str]| path.extension().and_then(|e| e.to_str()).is_some_and(|e| names.contains(&e));
    if head.starts_with(npy::MAGIC) {
        return Ok(Box::new(Npy::open(path, name.to_owned())?));
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        let archive = Archive::open(path)?;
        return Ok(match torch::pickle_of(&archive) {
            Some(_) => Box::new(Torch::open(archive, name)?),
            None => Box::new(Npz::open(archive)?),
        });
    }
    // The magic number of torch.save before version 1.6, as a pickle.
    let legacy = head.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
    if legacy || has_extension(&["pt", "pth", "pkl", "pickle"]) {
        return Err(Error::new(if legacy { "a dump is in the old format of torch.save" } else { "a dump is a bare pickle, or damaged" })
            .at(path)
            .hint("a bare pickle can run any code when it is loaded, and is not read: save it again with `torch.save` of PyTorch 1.6 or later"));
    }
    if let Some(kind) = raw::kind(path) {
        return Ok(Box::new(Raw::open(path, name.to_owned(), kind)?));
    }
    let header = head.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    if has_extension(&["safetensors"]) || (header < length && head.get(8) == Some(&b'{')) {
        return Ok(Box::new(Safe::open(path)?));
    }
    if has_extension(&["npy", "npz"]) {
        return Err(super::damaged("it is no NumPy file", path));
    }
    let name = plain(&path.file_name().unwrap_or_default().to_string_lossy());
    Ok(Box::new(Unknown(Item {
        name,
        path: path.to_path_buf(),
        kind: Kind::Other("no format of dumps".into()),
        shape: None,
        bytes: length,
    })))
}

/// A file that is no dump: a name that the user has to account for.
#[derive(Debug)]
struct Unknown(Item);

impl Source for Unknown {
    fn format(&self) -> &'static str {
        "no format of dumps"
    }

    fn items(&self) -> &[Item] {
        std::slice::from_ref(&self.0)
    }

    fn read(&self, _index: usize) -> Result<Vec<u8>> {
        Err(Error::new("the file has no known format of dumps")
            .at(&self.0.path)
            .hint("`ignore = true` in a map leaves it out"))
    }
}
