//! The parameters of a checkpoint, read in pieces.

use crate::error::{Error, Result};
use crate::model::Description;
use crate::tensor::{DType, TensorView};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Place {
    file: usize,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// The tensors of a directory of safetensors files, memory-mapped.
#[derive(Debug)]
pub struct Parameters {
    files: Vec<Mmap>,
    tensors: HashMap<String, Place>,
    description: Description,
}

impl Parameters {
    /// Opens all `*.safetensors` of a directory; `description` says under which names parameters are kept.
    pub fn open(dir: &Path, description: &Description) -> Result<Self> {
        let read = |e: std::io::Error| Error::io("read the weights", dir, &e);
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(read)? {
            paths.push(entry.map_err(read)?.path());
        }
        paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
        paths.sort();
        let mut all = Self { files: Vec::new(), tensors: HashMap::new(), description: description.clone() };
        for path in paths {
            all.add(&path)?;
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|e| Error::io("read the weights", path, &e))?;
        // SAFETY: the map is read-only; a file that another process shortens while it is mapped would raise
        // SIGBUS, as with any program that maps its weights.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("read the weights", path, &e))?;
        let malformed = |e| Error::new(format!("the weights are malformed: {e}")).at(path);
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(malformed)?;
        let data = header + size_of::<u64>();
        for (name, info) in metadata.tensors() {
            let dtype = match info.dtype {
                Dtype::F64 => DType::F64,
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                // No parameter that is replayed is of another type; whoever asks is told that it is missing.
                _ => continue,
            };
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            let place = Place { file: self.files.len(), dtype, shape: info.shape.clone(), bytes };
            self.tensors.insert(name, place);
        }
        self.files.push(map);
        Ok(())
    }

    /// The tensor of a parameter, named with `model.` as prefix; none where the files do not have it as
    /// floating-point numbers.
    pub fn view(&self, parameter: &str) -> Option<TensorView<'_>> {
        let place = self.description.stored_names(parameter).find_map(|name| self.tensors.get(&name))?;
        let bytes = &self.files[place.file][place.bytes.clone()];
        Some(TensorView { dtype: place.dtype, shape: &place.shape, bytes })
    }
}
