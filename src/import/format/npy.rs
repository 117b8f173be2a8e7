//! NumPy's `.npy`, and `.npz`, which is a zip archive of them.
//!
//! The header is a Python literal of three keys (NEP 1). candle-core's reader, which the crate has already,
//! allocates what a header claims before it looks whether that is there, and takes no Fortran order.

use super::archive::Archive;
use super::{Item, Kind, Source, damaged, elements, plain};
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// A header longer than that describes a structured array, which is no tensor.
const LONGEST_HEADER: usize = 1 << 16;

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    kind: Kind,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
    /// Where the values begin.
    start: u64,
}

impl Header {
    /// Reads the header at the start of a file of which `head` is the beginning.
    fn parse(head: &[u8]) -> std::result::Result<Self, String> {
        let version = *head.get(MAGIC.len()).ok_or("it ends within its header")?;
        let wide = match version {
            1 => 2,
            2 | 3 => 4,
            other => return Err(format!("version {other} of the .npy format is not known")),
        };
        let at = MAGIC.len() + 2;
        let length = head.get(at..at + wide).ok_or("it ends within its header")?;
        let length = length.iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
        if length > LONGEST_HEADER {
            return Err(format!("its header claims {length} bytes"));
        }
        let text = head.get(at + wide..at + wide + length).ok_or("it ends within its header")?;
        let text = std::str::from_utf8(text).map_err(|_| "its header is no text")?;
        let value = |key: &str| {
            let quoted = [format!("'{key}':"), format!("\"{key}\":")];
            let found = quoted.iter().find_map(|q| text.split_once(q.as_str()));
            found.map(|(_, rest)| rest.trim_start()).ok_or(format!("its header lacks `{key}`"))
        };
        let descr = value("descr")?;
        if descr.starts_with('[') {
            return Err("it holds a structured array".into());
        }
        let descr = descr.trim_start_matches(['\'', '"']);
        let descr = &descr[..descr.find(['\'', '"']).ok_or("its header has a bad `descr`")?];
        let fortran = match value("fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => return Err("its header has a bad `fortran_order`".into()),
        };
        let shape = value("shape")?.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(s, _)| s);
        let sizes = shape.ok_or("its header has a bad `shape`")?.split(',').map(str::trim);
        let shape = sizes.filter(|s| !s.is_empty()).map(|s| s.trim_end_matches('L').parse::<usize>());
        let shape =
            shape.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| "its header has a bad `shape`")?;
        let (kind, big_endian) = kind(descr);
        Ok(Self { kind, big_endian, fortran, shape, start: (at + wide + length) as u64 })
    }

    /// Bytes of all values.
    fn bytes(&self) -> std::result::Result<u64, String> {
        let size = self.kind.size().unwrap_or(1);
        elements(&self.shape)
            .map(|n| (n * size) as u64)
            .ok_or(format!("its shape {:?} is impossible", self.shape))
    }

    /// Values as they lie in the file, brought to row-major little-endian.
    fn arrange(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let size = self.kind.size().unwrap_or(1);
        if self.big_endian {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        // Without elements, axes may have sizes that cannot be multiplied.
        if !self.fortran || self.shape.len() < 2 || bytes.is_empty() {
            return bytes;
        }
        let reversed: Vec<usize> = self.shape.iter().rev().copied().collect();
        let axes: Vec<usize> = (0..self.shape.len()).rev().collect();
        super::super::block::transposed(&bytes, size, &reversed, &axes)
    }
}

/// What NumPy calls `<f4`, and whether it is big-endian.
fn kind(descr: &str) -> (Kind, bool) {
    let (order, name) = descr.split_at_checked(1).unwrap_or(("", descr));
    let kind = match name {
        "f4" => Kind::Known(DType::F32),
        "f8" => Kind::Known(DType::F64),
        "f2" => Kind::Known(DType::F16),
        "b1" | "u1" => Kind::Known(DType::U8),
        // NumPy has no bfloat16 of its own: ml_dtypes' is saved as two bytes of nothing known.
        "V2" => Kind::Assumed(DType::BF16),
        "i1" => Kind::Integer(1),
        "i2" | "u2" => Kind::Integer(2),
        "i4" | "u4" => Kind::Integer(4),
        "i8" | "u8" => Kind::Integer(8),
        _ => Kind::Other(format!("NumPy's {}", plain(descr))),
    };
    (kind, order == ">")
}

fn item(header: &Header, name: String, path: &Path, there: u64) -> std::result::Result<Item, String> {
    let bytes = header.bytes()?;
    if header.kind.size().is_some() && there != header.start + bytes {
        return Err(format!(
            "its header promises {bytes} bytes of values, and {} follow",
            there - header.start.min(there)
        ));
    }
    let (kind, shape) = (header.kind.clone(), Some(header.shape.clone()));
    Ok(Item { name, path: path.to_path_buf(), kind, shape, bytes })
}

/// One array.
#[derive(Debug)]
pub(super) struct Npy {
    item: Item,
    header: Header,
}

impl Npy {
    pub fn open(path: &Path, name: String) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("read a dump", path, &e);
        let file = File::open(path).map_err(io)?;
        let there = file.metadata().map_err(io)?.len();
        let mut head = Vec::new();
        file.take(LONGEST_HEADER as u64 + 16).read_to_end(&mut head).map_err(io)?;
        let header = Header::parse(&head).map_err(|why| damaged(why, path))?;
        let item = item(&header, name, path, there).map_err(|why| damaged(why, path))?;
        Ok(Self { item, header })
    }
}

impl Source for Npy {
    fn format(&self) -> &'static str {
        "NumPy arrays"
    }

    fn items(&self) -> &[Item] {
        std::slice::from_ref(&self.item)
    }

    fn read(&self, _index: usize) -> Result<Vec<u8>> {
        let io = |e: std::io::Error| Error::io("read a dump", &self.item.path, &e);
        let mut file = File::open(&self.item.path).map_err(io)?;
        file.seek(SeekFrom::Start(self.header.start)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(self.item.bytes).read_to_end(&mut bytes).map_err(io)?;
        Ok(self.header.arrange(bytes))
    }
}

/// An archive of arrays.
#[derive(Debug)]
pub(super) struct Npz {
    archive: Archive,
    items: Vec<Item>,
    headers: Vec<Header>,
    entries: Vec<String>,
}

impl Npz {
    pub fn open(archive: Archive) -> Result<Self> {
        let path: PathBuf = archive.path().to_path_buf();
        let (mut items, mut headers, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for (entry, size) in archive.entries() {
            let fail = |why: String| damaged(format!("`{entry}`: {why}"), &path);
            let head = archive.read(entry, 0, LONGEST_HEADER as u64 + 16)?;
            if !head.starts_with(MAGIC) {
                return Err(fail("it is no NumPy array".into()));
            }
            let header = Header::parse(&head).map_err(fail)?;
            let name = plain(entry.strip_suffix(".npy").unwrap_or(entry));
            items.push(item(&header, name, &path, *size).map_err(fail)?);
            headers.push(header);
            entries.push(entry.clone());
        }
        Ok(Self { archive, items, headers, entries })
    }
}

impl Source for Npz {
    fn format(&self) -> &'static str {
        "a NumPy archive"
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        let (header, bytes) = (&self.headers[index], self.items[index].bytes);
        Ok(header.arrange(self.archive.read(&self.entries[index], header.start, bytes)?))
    }
}
