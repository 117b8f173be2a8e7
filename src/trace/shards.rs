//! A trace's shards, written by a thread of their own while the engine goes on.

use super::Shard;
use crate::error::{Error, Result};
use crate::tensor::DType;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Shards that wait for the one that is being written. Beyond that the engine waits: a disk that is slower than it
/// does not fill the memory.
const WAITING: usize = 1;

/// A tensor that waits to be written.
#[derive(Debug)]
pub(super) struct Block {
    /// Its name in the shard.
    pub key: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

/// The thread, and what it is given.
#[derive(Debug)]
struct Writing {
    queue: SyncSender<Vec<Block>>,
    thread: JoinHandle<Result<Vec<Shard>>>,
}

impl Writing {
    /// Waits for the thread: what it wrote, or why it stopped.
    fn end(self) -> Result<Vec<Shard>> {
        drop(self.queue);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The shards of a trace, in order.
///
/// Dropped, it waits until nothing is written any more, so that the directory can be removed.
#[derive(Debug)]
pub(super) struct Shards {
    dir: PathBuf,
    /// What errors name.
    target: PathBuf,
    count: usize,
    writing: Option<Writing>,
    /// Why one of them could not be written; then there are no more.
    failed: Option<Error>,
}

impl Shards {
    /// Of the trace `target`, in the directory where it is made.
    pub fn new(dir: &Path, target: &Path) -> Self {
        Self { dir: dir.to_path_buf(), target: target.to_path_buf(), count: 0, writing: None, failed: None }
    }

    /// How many there are by now.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Has the next one written; an error is that of this shard or of an earlier one.
    pub fn write(&mut self, blocks: Vec<Block>) -> Result<()> {
        if self.writing.is_none() && self.failed.is_none() {
            self.writing = Some(self.start()?);
        }
        self.count += 1;
        match &self.writing {
            Some(writing) if writing.queue.send(blocks).is_ok() => Ok(()),
            // Nobody listens any more, and the reason is the thread's.
            _ => self.finish().map(drop),
        }
    }

    /// Waits until all of them are written.
    pub fn finish(&mut self) -> Result<Vec<Shard>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let written = self.writing.take().map_or_else(|| Ok(Vec::new()), Writing::end);
        written.inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn start(&self) -> Result<Writing> {
        let (queue, blocks) = sync_channel(WAITING);
        let (dir, target) = (self.dir.clone(), self.target.clone());
        let thread = std::thread::Builder::new().name("trace".into());
        let thread = thread
            .spawn(move || write_all(&blocks, &dir, &target))
            .map_err(|e| Error::io("start a thread for the trace", &self.target, &e))?;
        Ok(Writing { queue, thread })
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        // An unfinished trace is given up, and with it the reason why it could not be written.
        let _given_up = self.finish();
    }
}

fn write_all(queue: &Receiver<Vec<Block>>, dir: &Path, target: &Path) -> Result<Vec<Shard>> {
    let mut shards = Vec::new();
    for blocks in queue {
        let file = format!("shard-{:05}.safetensors", shards.len());
        let bytes = write_one(&blocks, &dir.join(&file), target)?;
        shards.push(Shard { file, bytes });
    }
    Ok(shards)
}

/// Writes a shard and returns the size of its file.
fn write_one(blocks: &[Block], path: &Path, target: &Path) -> Result<u64> {
    let views = blocks
        .iter()
        .map(|Block { key, dtype, shape, bytes }| {
            let view = TensorView::new(stored(*dtype), shape.clone(), bytes)
                .map_err(|e| Error::new(format!("cannot store `{key}`: {e}")).at(target))?;
            Ok((key.as_str(), view))
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    serialize_to_file(views, None, path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => Error::io("write the trace", target, &e),
        e => Error::new(format!("cannot write the trace: {e}")).at(target),
    })?;
    Ok(std::fs::metadata(path).map_err(|e| Error::io("read back the trace", path, &e))?.len())
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U8 => Dtype::U8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(key: &str) -> Vec<Block> {
        vec![Block { key: key.to_owned(), dtype: DType::U8, shape: vec![3], bytes: vec![1, 2, 3] }]
    }

    #[test]
    fn shards_are_written_in_the_order_in_which_they_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let mut shards = Shards::new(dir.path(), Path::new("t"));
        for i in 0..20 {
            assert_eq!(shards.count(), i);
            shards.write(block(&format!("key-{i}"))).unwrap();
        }
        let written = shards.finish().unwrap();
        assert_eq!(written.len(), 20);
        for (i, shard) in written.iter().enumerate() {
            let bytes = std::fs::read(dir.path().join(&shard.file)).unwrap();
            assert_eq!(bytes.len() as u64, shard.bytes);
            let names = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(names.names(), [format!("key-{i}").as_str()]);
        }
    }

    #[test]
    fn what_cannot_be_written_is_said_by_a_later_call_and_by_all_after_it() {
        let gone = tempfile::tempdir().unwrap().path().join("gone");
        let mut shards = Shards::new(&gone, Path::new("my.trace"));
        let said = (0..20).find_map(|_| shards.write(block("key")).err()).expect("the thread has ended");
        assert!(said.to_string().contains("cannot write the trace"), "{said}");
        assert!(said.to_string().contains("my.trace"), "{said}");
        assert_eq!(shards.write(block("key")).unwrap_err(), said);
        assert_eq!(shards.finish().unwrap_err(), said);
        let mut one = Shards::new(&gone, Path::new("my.trace"));
        one.write(block("key")).unwrap();
        assert!(one.finish().unwrap_err().to_string().contains("cannot write the trace"));
    }
}
