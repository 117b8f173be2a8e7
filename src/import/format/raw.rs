//! Raw numbers: little-endian, one after the other, nothing else. The extension says what they are.

use super::{Item, Kind, Source};
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::path::Path;

/// What the extension of raw numbers says of them; none for another extension.
pub(super) fn kind(path: &Path) -> Option<Kind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "f32" => Kind::Known(DType::F32),
        "f16" => Kind::Known(DType::F16),
        "bf16" => Kind::Known(DType::BF16),
        "f64" => Kind::Known(DType::F64),
        "u8" => Kind::Known(DType::U8),
        "bin" | "raw" => Kind::Assumed(DType::F32),
        _ => return None,
    })
}

/// A file of raw numbers.
#[derive(Debug)]
pub(super) struct Raw(Item);

impl Raw {
    pub fn open(path: &Path, name: String, kind: Kind) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_err(|e| Error::io("read a dump", path, &e))?.len();
        Ok(Self(Item { name, path: path.to_path_buf(), kind, shape: None, bytes }))
    }
}

impl Source for Raw {
    fn format(&self) -> &'static str {
        "raw numbers"
    }

    fn items(&self) -> &[Item] {
        std::slice::from_ref(&self.0)
    }

    fn read(&self, _index: usize) -> Result<Vec<u8>> {
        std::fs::read(&self.0.path).map_err(|e| Error::io("read a dump", &self.0.path, &e))
    }
}
