//! safetensors files.

use super::{Item, Kind, Source, damaged, plain};
use crate::error::{Error, Result};
use crate::tensor::DType;
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// One file of named tensors.
#[derive(Debug)]
pub(super) struct Safe {
    map: Mmap,
    items: Vec<Item>,
    ranges: Vec<Range<usize>>,
}

impl Safe {
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("read a dump", path, &e);
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only. A file that another process shortens meanwhile would raise SIGBUS;
        // dumps are complete before they are imported.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| damaged(e, path))?;
        let start = header + size_of::<u64>();
        let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let (mut items, mut ranges) = (Vec::new(), Vec::new());
        for (name, info) in tensors {
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            let (shape, bytes) = (Some(info.shape.clone()), range.len() as u64);
            let name = plain(&name);
            items.push(Item { name, path: path.to_path_buf(), kind: kind(info.dtype), shape, bytes });
            ranges.push(range);
        }
        Ok(Self { map, items, ranges })
    }
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Known(DType::F64),
        Dtype::F32 => Kind::Known(DType::F32),
        Dtype::F16 => Kind::Known(DType::F16),
        Dtype::BF16 => Kind::Known(DType::BF16),
        Dtype::U8 | Dtype::BOOL => Kind::Known(DType::U8),
        Dtype::I8 => Kind::Integer(1),
        Dtype::I16 | Dtype::U16 => Kind::Integer(2),
        Dtype::I32 | Dtype::U32 => Kind::Integer(4),
        Dtype::I64 | Dtype::U64 => Kind::Integer(8),
        other => Kind::Other(format!("{other:?}")),
    }
}

impl Source for Safe {
    fn format(&self) -> &'static str {
        "safetensors"
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        Ok(self.map[self.ranges[index].clone()].to_vec())
    }
}
