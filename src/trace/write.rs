//! Writing a trace: a few shards in memory, then a rename.

use super::shards::{Block, Shards};
use super::{Entry, Generated, Incoming, LeftOut, MANIFEST, Manifest, Provenance, SelfCheck};
use crate::error::{Error, Result};
use crate::files::StagedDir;
use crate::model::Adapter;
use crate::prompt::Prompt;
use crate::tensor::DType;
use serde_json::Value;
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

/// Writes a trace in a stream, on a thread of its own.
///
/// What cannot be written is said by a later call: a disk that is full by [`TraceWriter::finish`] at the latest. Dropped without [`TraceWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct TraceWriter {
    target: PathBuf,
    /// Before the directory: dropped, it waits for what is being written there.
    shards: Shards,
    dir: StagedDir,
    manifest: Manifest,
    shard_bytes: usize,
    pending: Vec<Block>,
    pending_bytes: usize,
}

impl TraceWriter {
    /// Prepares to write to `target`, which must not exist yet.
    pub fn create(target: &Path, options: WriteOptions) -> Result<Self> {
        let dir = crate::files::staging_dir(target)?;
        Ok(Self {
            target: target.to_path_buf(),
            shards: Shards::new(dir.path(), target),
            dir,
            shard_bytes: options.shard_bytes,
            manifest: Manifest::new(options),
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
        self.take(Incoming { step, point, dtype, shape, rows: None, basis, derived }, bytes)
    }

    /// As [`TraceWriter::push`], of a tensor of which perhaps not all rows were captured.
    pub fn take(&mut self, tensor: Incoming<'_>, bytes: Vec<u8>) -> Result<()> {
        let entry = Entry { shard: self.shards.count(), ..self.manifest.entry(tensor) };
        debug_assert_eq!(entry.byte_len(), Some(bytes.len()));
        self.pending_bytes += bytes.len();
        self.pending.push(Block { key: entry.key(), dtype: entry.dtype, shape: entry.shape.clone(), bytes });
        self.manifest.tensors.push(entry);
        if self.pending_bytes >= self.shard_bytes { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.pending_bytes = 0;
        self.shards.write(std::mem::take(&mut self.pending))
    }

    /// Writes the rest and puts the trace in place.
    pub fn finish(mut self, self_check: Option<SelfCheck>) -> Result<()> {
        if !self.pending.is_empty() {
            self.flush()?;
        }
        self.manifest.shards = self.shards.finish()?;
        self.manifest.self_check = self_check;
        self.manifest.validate().map_err(|e| e.at(&self.target))?;
        let path = self.dir.path().join(MANIFEST);
        let json = serde_json::to_vec(&self.manifest).expect("a manifest has string keys only");
        std::fs::write(&path, json).map_err(|e| Error::io("write the manifest", &self.target, &e))?;
        crate::files::publish_dir(self.dir, &self.target)
    }
}
