//! Dumps as files: what is in them, whatever their format.
//!
//! A format is known by its content; a file's extension only tells raw numbers from other bytes. Nothing in
//! a dump is ever executed, extracted or followed: an archive's entries are read where they lie. A reader
//! says what there is before it reads it, and so the importer asks only for as many bytes as the model's
//! point has.

mod archive;
mod debugger;
mod folder;
mod npy;
mod open;
mod pickle;
mod raw;
mod safe;
mod torch;

pub use open::open;

use crate::error::{Error, Result, plain};
use crate::tensor::DType;
use std::path::{Path, PathBuf};

/// What the elements of a dump are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The file says so, or its extension does.
    Known(DType),
    /// Nothing says so, and this is customary.
    Assumed(DType),
    /// Integers of so many bytes, which can only be a mask.
    Integer(usize),
    /// What a trace cannot hold, in the file's own words.
    Other(String),
}

impl Kind {
    /// Bytes of one element; none where they cannot be read.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Known(dtype) | Self::Assumed(dtype) => Some(dtype.size()),
            Self::Integer(size) => Some(*size),
            Self::Other(_) => None,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(dtype) | Self::Assumed(dtype) => dtype.fmt(f),
            Self::Integer(size) => write!(f, "I{}", 8 * size),
            Self::Other(words) => words.fmt(f),
        }
    }
}

/// A tensor in a dump, before it is read.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its name: path in the directory without extension, or the name in the archive, `/` between the parts.
    /// Characters that a terminal or a map would obey are written as escapes, here and in a map.
    pub name: String,
    /// The file that it lies in.
    pub path: PathBuf,
    /// Element type.
    pub kind: Kind,
    /// Sizes, outermost first; none for raw numbers.
    pub shape: Option<Vec<usize>>,
    /// Bytes of all elements.
    pub bytes: u64,
}

impl Item {
    /// How many elements there are; none where that is not known.
    pub fn elements(&self) -> Option<usize> {
        let size = self.kind.size()? as u64;
        (self.bytes.is_multiple_of(size)).then(|| (self.bytes / size) as usize)
    }

    /// Shape and element type in words: `[4, 128] F32`.
    pub fn form(&self) -> String {
        match (&self.shape, self.elements()) {
            (Some(shape), _) => format!("{shape:?} {}", self.kind),
            (None, Some(n)) => format!("{n} × {}", self.kind),
            (None, None) => format!("{} bytes, {}", self.bytes, self.kind),
        }
    }
}

/// Where dumps lie.
pub trait Source: std::fmt::Debug {
    /// The format's name, for people.
    fn format(&self) -> &'static str;

    /// What there is, in the order of the files.
    fn items(&self) -> &[Item];

    /// The values of an item: row-major, little-endian, exactly as many bytes as it says.
    fn read(&self, index: usize) -> Result<Vec<u8>>;

    /// What there is beside tensors and is left out, in words.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// True where the item's name is a program's own, so that it is left out where the model has no point for it,
    /// and is no error of the user's.
    fn name_is_given(&self, _index: usize) -> bool {
        false
    }
}

/// The number of elements, if it is one that a file could hold.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|n| *n <= isize::MAX as usize / 16)
}

fn damaged(what: impl std::fmt::Display, path: &Path) -> Error {
    Error::new(format!("a dump is damaged: {}", plain(&what.to_string())))
        .at(path)
        .hint("write the dump again")
}
