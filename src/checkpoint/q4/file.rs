//! `.q4` and `.f16` files, checked to the last byte.
//!
//! | part | `.q4` | `.f16` |
//! |---|---|---|
//! | magic | `KHQ4` | `KHF1` |
//! | version | u32 2 | u32 1 |
//! | sizes | u32 count, then u64 each | the same |
//! | elements | u64 | u64 |
//! | payload | 20 bytes for each 32 elements | u16 each |
//!
//! All numbers are little-endian. A block is a scale and a bias in 16-bit floats and 32 four-bit
//! codes, the lower half of a byte first; an element is `code · scale + bias`. Blocks run over the
//! flattened tensor: a row may begin inside one, and the last may be filled up.
//!
//! lattice's quantizers give a block without a range the scale 1, so that no scale is ever zero; a
//! negative one comes from repacking other formats and is as good as any.

use super::index::{AGAIN, IndexEntry};
use crate::error::{Error, Result};
use lattice_weights::q4_weights::{Q4_BLOCK_BYTES, Q4_BLOCK_WEIGHTS, Q4Block, q4_f16_to_f32};
use std::path::Path;

/// A tensor as it lies in its file.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// Blocks of 32 codes.
    Q4(Vec<Q4Block>),
    /// 16-bit floats.
    F16(Vec<u16>),
}

impl Stored {
    /// The first `len` elements as f32, as lattice computes them.
    pub fn to_f32(&self, len: usize) -> Vec<f32> {
        match self {
            Self::Q4(blocks) => {
                let mut values: Vec<f32> = blocks.iter().flat_map(decode).collect();
                values.truncate(len);
                values
            }
            Self::F16(bits) => bits.iter().take(len).map(|b| q4_f16_to_f32(*b)).collect(),
        }
    }
}

/// The 32 elements of a block: a product and a sum in f32, each rounded.
pub fn decode(block: &Q4Block) -> [f32; Q4_BLOCK_WEIGHTS] {
    let (scale, bias) = (q4_f16_to_f32(block.scale), q4_f16_to_f32(block.bias));
    std::array::from_fn(|i| {
        let byte = block.packed[i / 2];
        f32::from(if i % 2 == 0 { byte & 0x0f } else { byte >> 4 }) * scale + bias
    })
}

/// Reads the file of `entry` in `dir`.
pub fn read(dir: &Path, entry: &IndexEntry) -> Result<Stored> {
    let path = dir.join(&entry.file);
    let kind = path.symlink_metadata().map_err(|e| {
        Error::io(&format!("find `{}`, which the index lists,", entry.name), &path, &e).hint(AGAIN)
    })?;
    if !kind.is_file() {
        return Err(Error::new(format!("`{}` is not a regular file", entry.name)).at(&path).hint(AGAIN));
    }
    let bytes = std::fs::read(&path).map_err(|e| Error::io("read a quantized tensor", &path, &e))?;
    parse(&bytes, entry).map_err(|e| e.at(&path).hint(AGAIN))
}

/// Takes the fields of a header off the front of a file.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| Error::new(format!("the file ends within its header, before its {what}")))?;
        self.0 = rest;
        Ok(*head)
    }

    fn size(&mut self, what: &str) -> Result<usize> {
        let value = u64::from_le_bytes(self.take(what)?);
        usize::try_from(value).map_err(|_| Error::new(format!("the file has an absurd {what}: {value}")))
    }
}

fn parse(bytes: &[u8], entry: &IndexEntry) -> Result<Stored> {
    let (magic, version) = if entry.quantized { (b"KHQ4", 2) } else { (b"KHF1", 1) };
    let mut reader = Reader(bytes);
    let got: [u8; 4] = reader.take("magic")?;
    if got != *magic {
        let show = |bytes: &[u8]| format!("{:?}", String::from_utf8_lossy(bytes));
        return Err(Error::new("the file does not begin with its magic").expected(show(magic), show(&got)));
    }
    let got = u32::from_le_bytes(reader.take("version")?);
    if got != version {
        return Err(Error::new("the file is of another version of its format").expected(version, got));
    }
    let rank = u32::from_le_bytes(reader.take("number of sizes")?) as usize;
    if rank != entry.shape.len() {
        return Err(Error::new("the file has another number of sizes than the index says")
            .expected(entry.shape.len(), rank));
    }
    let shape = (0..rank).map(|_| reader.size("shape")).collect::<Result<Vec<_>>>()?;
    if shape != entry.shape {
        return Err(Error::new("the file has another shape than the index says")
            .expected(format!("{:?}", entry.shape), format!("{shape:?}")));
    }
    let len = reader.size("number of elements")?;
    if len != entry.numel {
        return Err(
            Error::new("the file has another number of elements than its shape").expected(entry.numel, len)
        );
    }
    let payload = reader.0;
    let expected = if entry.quantized { len.div_ceil(Q4_BLOCK_WEIGHTS) * Q4_BLOCK_BYTES } else { len * 2 };
    if payload.len() != expected {
        let what = if payload.len() < expected { "is truncated" } else { "goes on after its last element" };
        let show = |n: usize| {
            let blocks =
                if entry.quantized { format!(", {} blocks", n / Q4_BLOCK_BYTES) } else { String::new() };
            format!("{n} bytes{blocks}")
        };
        return Err(Error::new(format!("the file {what}")).expected(show(expected), show(payload.len())));
    }
    if entry.quantized { blocks(payload) } else { floats(payload) }
}

fn blocks(payload: &[u8]) -> Result<Stored> {
    let (chunks, _) = payload.as_chunks::<Q4_BLOCK_BYTES>();
    let blocks = chunks.iter().enumerate().map(|(i, bytes)| {
        let mut packed = [0; 16];
        packed.copy_from_slice(&bytes[4..]);
        let scale = u16::from_le_bytes([bytes[0], bytes[1]]);
        let bias = u16::from_le_bytes([bytes[2], bytes[3]]);
        let (s, b) = (q4_f16_to_f32(scale), q4_f16_to_f32(bias));
        if s == 0.0 || !s.is_finite() {
            return Err(Error::new(format!("block {i} has an impossible scale"))
                .expected("a finite number other than 0", s));
        }
        if !b.is_finite() {
            return Err(
                Error::new(format!("block {i} has an impossible bias")).expected("a finite number", b)
            );
        }
        Ok(Q4Block { scale, bias, packed })
    });
    Ok(Stored::Q4(blocks.collect::<Result<_>>()?))
}

fn floats(payload: &[u8]) -> Result<Stored> {
    let bits: Vec<u16> = payload.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
    match bits.iter().position(|b| !q4_f16_to_f32(*b).is_finite()) {
        Some(i) => Err(Error::new(format!("element {i} is not finite"))
            .expected("a finite number", q4_f16_to_f32(bits[i]))),
        None => Ok(Stored::F16(bits)),
    }
}
