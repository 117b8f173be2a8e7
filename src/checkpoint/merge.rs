//! The shards of a checkpoint in one file, for an engine that reads no more than one.

use crate::error::{Error, Result};
use lattice_weights::{contained_shard_path, parse_index};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::TensorInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where a header's length ends.
const LENGTH: usize = 8;

/// Writes the shards that the index in `dir` names as one safetensors file `out`.
///
/// A file is a header and the tensors' bytes one after the other, so that those of a shard are taken
/// over as they are, from the mapped file, and only their places in the header change.
pub(crate) fn merge_shards(dir: &Path, out: &Path) -> Result<()> {
    let index = parse_index(dir).map_err(|e| Error::new(format!("cannot read the index: {e}")).at(dir))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let shards = names.into_iter().map(|name| Shard::open(dir, name)).collect::<Result<Vec<_>>>()?;
    let mut tensors = BTreeMap::new();
    let mut start = 0;
    for shard in &shards {
        for (name, tensor) in &shard.tensors {
            let mut tensor = tensor.clone();
            tensor.data_offsets.0 += start;
            tensor.data_offsets.1 += start;
            if tensors.insert(name, tensor).is_some() {
                return Err(Error::new(format!("two shards hold `{name}`"))
                    .at(&shard.path)
                    .hint("the checkpoint contradicts itself: download it again"));
            }
        }
        start += shard.data().len();
    }
    let mut header = serde_json::to_vec(&tensors).expect("a header has string keys only");
    // The tensors begin at a multiple of eight, as the format recommends.
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    let write = |e: std::io::Error| {
        Error::io("merge the shards into one file", out, &e).hint("the merged file is as large as the model")
    };
    let mut file = File::create(out).map_err(write)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(write)?;
    file.write_all(&header).map_err(write)?;
    shards.iter().try_for_each(|shard| file.write_all(shard.data())).map_err(write)
}

/// A shard with its header read.
struct Shard {
    path: PathBuf,
    map: Mmap,
    data_start: usize,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Shard {
    fn open(dir: &Path, name: &str) -> Result<Self> {
        let unfit = |e| Error::new(format!("the index names an unfit file: {e}")).at(dir);
        let path = contained_shard_path(dir, name).map_err(unfit)?;
        let read = |e: std::io::Error| Error::io("read a shard of the checkpoint", &path, &e);
        let file = File::open(&path).map_err(read)?;
        // SAFETY: the file is only read; that nobody cuts it short meanwhile is what every reader of a
        // checkpoint takes for granted.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            Error::new(format!("a shard of the checkpoint is damaged: {e}"))
                .at(&path)
                .hint("download the checkpoint again")
        })?;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { data_start: LENGTH + header, path, map, tensors })
    }

    fn data(&self) -> &[u8] {
        &self.map[self.data_start..]
    }
}
