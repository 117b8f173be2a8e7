//! Zip archives that strangers made: checked before a byte of them is inflated.

use super::{damaged, plain};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// More entries than that are no dump of a model.
const MOST_ENTRIES: usize = 200_000;

/// Deflate can make a thousand bytes of one; numbers that say something never shrink to a hundredth.
const MOST_RATIO: u64 = 200;

/// What inflates to no more than this is no danger, however well it shrinks: a mask of ones is such.
const HARMLESS: u64 = 16 << 20;

/// An archive whose entries have plain names and believable sizes.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    zip: RefCell<ZipArchive<BufReader<File>>>,
    /// Name, and size when inflated, of each entry that is a file.
    entries: Vec<(String, u64)>,
    /// Place in the archive, and size, by name.
    index: HashMap<String, (usize, u64)>,
}

impl Archive {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("read a dump", path, &e))?;
        let length = file.metadata().map_err(|e| Error::io("read a dump", path, &e))?.len();
        let broken = |e: zip::result::ZipError| damaged(e, path);
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        if zip.len() > MOST_ENTRIES {
            return Err(
                refused("too many entries", path).expected(format!("at most {MOST_ENTRIES}"), zip.len())
            );
        }
        let mut entries = Vec::new();
        let mut index = HashMap::new();
        for i in 0..zip.len() {
            let entry = zip.by_index_raw(i).map_err(broken)?;
            let name = entry.name().map_err(broken)?.into_owned();
            if !is_plain(&name) {
                return Err(refused("an entry whose name leads out of it", path)
                    .expected("a relative path without `..`", format!("{name:?}")));
            }
            if entry.encrypted() {
                return Err(Error::new(format!("an archive of dumps is encrypted: `{}`", plain(&name)))
                    .at(path)
                    .hint("write it without a password"));
            }
            let (size, packed) = (entry.size(), entry.compressed_size());
            // What is stored cannot be larger than the file; what is inflated must shrink believably.
            if size > HARMLESS && size / MOST_RATIO > packed.min(length) {
                return Err(refused("an entry that inflates beyond belief, as a zip bomb does", path)
                    .expected(
                        format!("at most {MOST_RATIO} times {packed} bytes"),
                        format!("{size} bytes in `{}`", plain(&name)),
                    ));
            }
            if entry.is_dir() {
                continue;
            }
            if index.insert(name.clone(), (i, size)).is_some() {
                return Err(
                    refused("two entries of one name", path).expected("one", format!("{name:?} twice"))
                );
            }
            entries.push((name, size));
        }
        if zip.has_overlapping_entries().map_err(broken)? {
            return Err(refused("entries that lie on top of each other, as a zip bomb's do", path));
        }
        Ok(Self { path: path.to_path_buf(), zip: RefCell::new(zip), entries, index })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name and inflated size of each file in it, in the archive's order.
    pub fn entries(&self) -> &[(String, u64)] {
        &self.entries
    }

    /// The inflated size of an entry.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.index.get(name).map(|(_, size)| *size)
    }

    /// `length` bytes of an entry from `start` on, or all that is there when it ends before.
    pub fn read(&self, name: &str, start: u64, length: u64) -> Result<Vec<u8>> {
        let fail = |e: &dyn std::fmt::Display| damaged(format!("`{name}`: {e}"), &self.path);
        let (at, _) = *self.index.get(name).ok_or_else(|| fail(&"no such entry"))?;
        let mut zip = self.zip.borrow_mut();
        let mut entry = zip.by_index(at).map_err(|e| fail(&e))?;
        std::io::copy(&mut entry.by_ref().take(start), &mut std::io::sink()).map_err(|e| fail(&e))?;
        let mut bytes = Vec::new();
        entry.take(length).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
        Ok(bytes)
    }
}

fn refused(what: &str, path: &Path) -> Error {
    Error::new(format!("an archive of dumps is refused: it has {what}"))
        .at(path)
        .hint("do not use this file: it was made by a broken or a hostile writer")
}

/// True for a relative path that stays where it is, on every system.
fn is_plain(name: &str) -> bool {
    // `C:…` begins with a drive; elsewhere a colon is a letter like another.
    let drive = name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic();
    !drive
        && !name.starts_with('/')
        && !name.contains(['\\', '\0'])
        && !name.split('/').any(|part| part == "..")
        && !name.is_empty()
}
