//! Writing a trace: one shard in memory, then a rename.

use super::{Entry, Generated, LeftOut, MANIFEST, Manifest, Provenance, SelfCheck, Shard};
use crate::error::{Error, Result};
use crate::files::StagedDir;
use crate::model::Adapter;
use crate::prompt::Prompt;
use crate::tensor::DType;
use safetensors::tensor::{Dtype, TensorView as SafeView, serialize_to_file};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known before the first tensor.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Name of the architecture description.
    pub architecture: String,
    /// The model's configuration.
    pub config: Value,
    /// Who writes.
    pub provenance: Provenance,
    /// The adapter that was asked for.
    pub adapter: Option<Adapter>,
    /// Bytes after which a shard is written out.
    pub shard_bytes: usize,
}

/// Writes a trace in a stream.
///
/// Dropped without [`TraceWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct TraceWriter {
    target: PathBuf,
    dir: StagedDir,
    manifest: Manifest,
    shard_bytes: usize,
    pending: Vec<(String, DType, Vec<usize>, Vec<u8>)>,
    pending_bytes: usize,
}

impl TraceWriter {
    /// Prepares to write to `target`, which must not exist yet.
    pub fn create(target: &Path, options: WriteOptions) -> Result<Self> {
        let dir = crate::files::staging_dir(target)?;
        Ok(Self {
            target: target.to_path_buf(),
            dir,
            manifest: Manifest {
                format: "layerdiff-trace".into(),
                version: 1,
                architecture: options.architecture,
                config: options.config,
                provenance: options.provenance,
                adapter: options.adapter,
                self_check: None,
                prompts: Vec::new(),
                shards: Vec::new(),
                tensors: Vec::new(),
                left_out: Vec::new(),
                generated: None,
            },
            shard_bytes: options.shard_bytes,
            pending: Vec::new(),
            pending_bytes: 0,
        })
    }

    /// Announces the prompt that the tensors belong to from now on.
    pub fn start_prompt(&mut self, prompt: &Prompt) {
        self.manifest.prompts.push(prompt.clone());
    }

    /// Says that this run cannot show `point` in `step`.
    pub fn leave_out(&mut self, step: u32, point: &str) {
        self.manifest.left_out.push(LeftOut { step, point: point.to_owned() });
    }

    /// Says what the engine goes on with after the only prompt.
    pub fn generated(&mut self, said: Generated) {
        self.manifest.generated = Some(said);
    }

    /// Takes the next tensor in the order of execution, as little-endian bytes.
    ///
    /// # Panics
    /// When no prompt has been started.
    pub fn push(
        &mut self,
        step: u32,
        point: &str,
        dtype: DType,
        shape: &[usize],
        bytes: Vec<u8>,
        basis: &str,
        derived: bool,
    ) -> Result<()> {
        self.push_rows(step, point, dtype, (shape, None), bytes, basis, derived)
    }

    /// As [`TraceWriter::push`], of a tensor of which only these rows were captured, if not all were.
    pub fn push_rows(
        &mut self,
        step: u32,
        point: &str,
        dtype: DType,
        (shape, rows): (&[usize], Option<Vec<usize>>),
        bytes: Vec<u8>,
        basis: &str,
        derived: bool,
    ) -> Result<()> {
        let entry = Entry {
            order: self.manifest.tensors.len() as u64,
            prompt: self.manifest.prompts.last().expect("a prompt was started").id.clone(),
            step,
            point: point.to_owned(),
            dtype,
            shape: shape.to_vec(),
            basis: basis.to_owned(),
            derived,
            shard: self.manifest.shards.len(),
            rows,
        };
        debug_assert_eq!(entry.byte_len(), Some(bytes.len()));
        self.pending_bytes += bytes.len();
        self.pending.push((entry.key(), dtype, shape.to_vec(), bytes));
        self.manifest.tensors.push(entry);
        if self.pending_bytes >= self.shard_bytes { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let file = format!("shard-{:05}.safetensors", self.manifest.shards.len());
        let path = self.dir.path().join(&file);
        let views = self
            .pending
            .iter()
            .map(|(key, dtype, shape, bytes)| {
                let view = SafeView::new(safe_dtype(*dtype), shape.clone(), bytes)
                    .map_err(|e| Error::new(format!("cannot store `{key}`: {e}")).at(&self.target))?;
                Ok((key.as_str(), view))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        serialize_to_file(views, None, &path).map_err(|e| match e {
            safetensors::SafeTensorError::IoError(e) => Error::io("write the trace", &self.target, &e),
            e => Error::new(format!("cannot write the trace: {e}")).at(&self.target),
        })?;
        let bytes = std::fs::metadata(&path).map_err(|e| Error::io("read back the trace", &path, &e))?.len();
        self.manifest.shards.push(Shard { file, bytes });
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    /// Writes the rest and puts the trace in place.
    pub fn finish(mut self, self_check: Option<SelfCheck>) -> Result<()> {
        self.flush()?;
        self.manifest.self_check = self_check;
        self.manifest.validate().map_err(|e| e.at(&self.target))?;
        let path = self.dir.path().join(MANIFEST);
        let json = serde_json::to_vec(&self.manifest).expect("a manifest has string keys only");
        std::fs::write(&path, json).map_err(|e| Error::io("write the manifest", &self.target, &e))?;
        crate::files::publish_dir(self.dir, &self.target)
    }
}

fn safe_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U8 => Dtype::U8,
    }
}
