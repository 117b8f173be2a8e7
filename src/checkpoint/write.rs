//! Writing a checkpoint of f32 weights: one shard in memory, then a rename.

use crate::basis::CONFIG_SEED;
use crate::error::{Error, Result};
use crate::files::{StagedDir, publish_dir, staging_dir};
use crate::model::ModelConfig;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Bytes of tensors that are kept before a shard is written.
const SHARD_BYTES: usize = 1 << 30;

/// Writes a checkpoint's directory in a stream; dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(super) struct CheckpointWriter {
    target: PathBuf,
    dir: StagedDir,
    shard_bytes: usize,
    pending: Vec<(String, Vec<usize>, Vec<f32>)>,
    pending_bytes: usize,
    total_bytes: usize,
    /// The tensors' names in each shard that has been written.
    shards: Vec<Vec<String>>,
}

impl CheckpointWriter {
    /// Prepares to write to `target`, which must not exist yet.
    pub fn create(target: &Path) -> Result<Self> {
        Ok(Self {
            target: target.to_path_buf(),
            dir: staging_dir(target)?,
            shard_bytes: SHARD_BYTES,
            pending: Vec::new(),
            pending_bytes: 0,
            total_bytes: 0,
            shards: Vec::new(),
        })
    }

    /// Writes a shard as soon as it holds this many bytes.
    #[cfg(test)]
    pub fn with_shards_of(mut self, bytes: usize) -> Self {
        self.shard_bytes = bytes;
        self
    }

    /// Takes a tensor.
    pub fn push(&mut self, name: &str, shape: &[usize], mut values: Vec<f32>) -> Result<()> {
        if cfg!(target_endian = "big") {
            values.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits().to_le()));
        }
        let bytes = size_of_val(values.as_slice());
        self.pending_bytes += bytes;
        self.total_bytes += bytes;
        // They are bytes as they lie: a copy of an embedding would be a large one.
        self.pending.push((name.to_owned(), shape.to_vec(), values));
        if self.pending_bytes >= self.shard_bytes { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let path = self.dir.path().join(shard_name(self.shards.len()));
        let views = self
            .pending
            .iter()
            .map(|(name, shape, values)| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))
                    .map_err(|e| Error::new(format!("cannot store `{name}`: {e}")))?;
                Ok((name.as_str(), view))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        serialize_to_file(views, Some(metadata), &path).map_err(|e| match e {
            safetensors::SafeTensorError::IoError(e) => Error::io("write the checkpoint", &self.target, &e),
            e => Error::new(format!("cannot write the checkpoint: {e}")).at(&self.target),
        })?;
        self.shards.push(self.pending.drain(..).map(|(name, ..)| name).collect());
        self.pending_bytes = 0;
        Ok(())
    }

    /// Writes the rest with `config`, copies the tokenizer of `source`, and puts the directory in place.
    pub fn finish(mut self, config: &Value, source: &Path) -> Result<()> {
        self.flush()?;
        let dir = self.dir.path();
        let write = |e: std::io::Error| Error::io("write the checkpoint", &self.target, &e);
        if self.shards.len() == 1 {
            std::fs::rename(dir.join(shard_name(0)), dir.join("model.safetensors")).map_err(write)?;
        } else {
            let names = (0..).zip(&self.shards).flat_map(|(i, names)| names.iter().map(move |n| (n, i)));
            let map: BTreeMap<&String, String> = names.map(|(name, i)| (name, shard_name(i))).collect();
            let index = json!({"metadata": {"total_size": self.total_bytes}, "weight_map": map});
            std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).map_err(write)?;
        }
        std::fs::write(dir.join("config.json"), format!("{config:#}\n")).map_err(write)?;
        copy_tokenizer(source, dir)?;
        publish_dir(self.dir, &self.target)
    }
}

fn shard_name(number: usize) -> String {
    format!("model-{:05}.safetensors", number + 1)
}

/// Copies `tokenizer.json`; a model without one can still be run on token ids by some engines.
pub(crate) fn copy_tokenizer(source: &Path, target: &Path) -> Result<()> {
    let from = source.join("tokenizer.json");
    if !from.is_file() {
        return Ok(());
    }
    // Read and written, not copied: a copy would take a read-only file's permissions along.
    let bytes = std::fs::read(&from).map_err(|e| Error::io("read the tokenizer", &from, &e))?;
    std::fs::write(target.join("tokenizer.json"), bytes)
        .map_err(|e| Error::io("write the tokenizer", target, &e))
}

/// `config.json` for the same weights in f32.
pub(super) fn as_f32(config: &ModelConfig, section: &str, rotated: bool) -> Value {
    let mut root = config.as_json().clone();
    let edit = |object: &mut Value| {
        if let Some(object) = object.as_object_mut() {
            for key in ["dtype", "torch_dtype"] {
                if let Some(dtype) = object.get_mut(key) {
                    *dtype = "float32".into();
                }
            }
            if !rotated {
                object.remove(CONFIG_SEED);
            }
        }
    };
    edit(&mut root);
    if let Some(section) = root.get_mut(section) {
        edit(section);
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use lattice_quant::quarot::QuarotTensorReader;

    #[test]
    fn several_shards_read_back_as_one_checkpoint() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let mut writer = CheckpointWriter::create(&target).unwrap().with_shards_of(16);
        for (name, start) in [("a", 0.0), ("b", 10.0), ("c", 20.0)] {
            writer.push(name, &[1, 3], vec![start, start + 1.0, start + 2.0]).unwrap();
        }
        writer.finish(&json!({"x": 1}), root.path()).unwrap();
        assert!(target.join("model-00002.safetensors").is_file());
        let reader = QuarotTensorReader::open(&target).unwrap();
        assert_eq!(reader.read_tensor_f64("b").unwrap(), (vec![10.0, 11.0, 12.0], vec![1, 3]));
        assert_eq!(reader.tensor_names().len(), 3);
    }
}
