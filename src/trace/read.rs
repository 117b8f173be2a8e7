//! Reading a trace: memory-mapped, checked before the first value is used.

use super::live::Values;
use super::{Entry, MANIFEST, Manifest, SelfCheck, Status};
use crate::error::{Error, Result, nearest_point};
use crate::prompt::Prompt;
use crate::tensor::{DType, TensorView};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A trace that has passed every check of the [format](super).
#[derive(Debug)]
pub struct Trace {
    pub(super) path: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) values: Values,
    /// Places in the manifest's list, by prompt, step and point.
    pub(super) index: Vec<u32>,
}

const AGAIN: &str = "the trace is damaged or incomplete: capture it again";

impl Trace {
    /// Opens and checks a trace.
    pub fn open(path: &Path) -> Result<Self> {
        let manifest = read_manifest(path)?;
        let mut shards = Vec::new();
        let mut ranges = vec![0..0; manifest.tensors.len()];
        let mut held: Vec<Vec<&Entry>> = vec![Vec::new(); manifest.shards.len()];
        manifest.tensors.iter().for_each(|entry| held[entry.shard].push(entry));
        for (shard, entries) in manifest.shards.iter().zip(held) {
            let file = path.join(&shard.file);
            let map = map_shard(&file, shard.bytes)?;
            locate(&map, &entries, &mut ranges).map_err(|e| e.at(&file).hint(AGAIN))?;
            shards.push(map);
        }
        let index = index(&manifest);
        Ok(Self { path: path.to_path_buf(), manifest, values: Values::Shards(shards, ranges), index })
    }

    /// The trace's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The entries, in order of execution.
    pub fn entries(&self) -> &[Entry] {
        &self.manifest.tensors
    }

    /// Refuses a trace whose capture disturbed its engine: nothing can be held against it.
    pub fn refuse_failed_self_check(&self) -> Result<()> {
        let failed = |check: &SelfCheck| check.status == Status::Different;
        if self.manifest.self_check.as_ref().is_some_and(failed) {
            return Err(Error::new("the trace's self-check failed: its capture disturbed the engine")
                .at(&self.path)
                .hint("capture it again; it says nothing about the engine"));
        }
        Ok(())
    }

    /// The trace as if it held no other prompts than these, and no more than `steps` decode steps.
    pub fn restricted_to(mut self, prompts: &[Prompt], steps: usize) -> Self {
        let keep = |id: &str| prompts.iter().any(|p| p.id == id);
        self.manifest.prompts.retain(|p| keep(&p.id));
        self.manifest.prompts.iter_mut().for_each(|p| p.step_token_ids.truncate(steps));
        self.manifest.tensors.retain(|e| keep(&e.prompt) && e.step as usize <= steps);
        self.index = index(&self.manifest);
        self
    }

    /// The entry for a point of a step of a prompt.
    pub fn find(&self, prompt: &str, step: u32, point: &str) -> Option<&Entry> {
        let entry = |i: &u32| &self.manifest.tensors[*i as usize];
        let found = self.index.binary_search_by(|i| key(entry(i)).cmp(&(prompt, step, point)));
        found.ok().map(|at| entry(&self.index[at]))
    }

    /// The values of an entry of this trace.
    ///
    /// # Panics
    /// When they were released: that is a bug of whoever released them.
    pub fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        let bytes = match &self.values {
            Values::Shards(shards, ranges) => &shards[entry.shard][ranges[entry.order as usize].clone()],
            Values::Live(values) => {
                values.get(&entry.order).unwrap_or_else(|| panic!("`{}` was released", entry.key()))
            }
        };
        TensorView { dtype: entry.dtype, shape: &entry.shape, bytes }
    }
}

/// No two entries share it.
pub(super) fn key(entry: &Entry) -> (&str, u32, &str) {
    (&entry.prompt, entry.step, &entry.point)
}

fn index(manifest: &Manifest) -> Vec<u32> {
    let mut index: Vec<u32> = (0..).take(manifest.tensors.len()).collect();
    index.sort_unstable_by(|a, b| {
        key(&manifest.tensors[*a as usize]).cmp(&key(&manifest.tensors[*b as usize]))
    });
    index
}

fn read_manifest(path: &Path) -> Result<Manifest> {
    let file = path.join(MANIFEST);
    let text = std::fs::read_to_string(&file).map_err(|e| {
        if path.exists() {
            Error::new(format!("not a trace: cannot read its manifest: {e}")).at(&file).hint(
                "a trace is a directory with manifest.json, made by `layerdiff capture` or by layerdiff_hooks",
            )
        } else {
            Error::io("read the trace", path, &e)
        }
    })?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|e| Error::new(format!("the manifest is malformed: {e}")).at(&file).hint(AGAIN))?;
    manifest.validate().map_err(|e| e.at(&file).hint(AGAIN))?;
    Ok(manifest)
}

fn map_shard(path: &Path, expected: u64) -> Result<Mmap> {
    let open = |e: std::io::Error| Error::io("read a shard of the trace", path, &e).hint(AGAIN);
    let kind = path.symlink_metadata().map_err(open)?;
    if !kind.is_file() {
        return Err(Error::new("a shard of the trace is not a regular file").at(path).hint(AGAIN));
    }
    let file = File::open(path).map_err(open)?;
    if kind.len() != expected {
        return Err(Error::new("a shard of the trace has the wrong size")
            .expected(format!("{expected} bytes"), format!("{} bytes", kind.len()))
            .at(path)
            .hint(AGAIN));
    }
    // SAFETY: the map is read-only. A file that another process shortens while it is mapped
    // would raise SIGBUS; traces are written once and renamed into place, never changed.
    unsafe { Mmap::map(&file) }.map_err(open)
}

/// Finds the tensors of a shard in its bytes and checks them against the manifest's entries for it.
fn locate(map: &Mmap, entries: &[&Entry], ranges: &mut [Range<usize>]) -> Result<()> {
    let (header_len, metadata) = SafeTensors::read_metadata(map)
        .map_err(|e| Error::new(format!("a shard of the trace is malformed: {e}")))?;
    let data_start = header_len + size_of::<u64>();
    let stored = metadata.tensors();
    let mut expected = HashSet::new();
    for entry in entries {
        // The manifest has been found to count them from 0 on.
        let i = entry.order as usize;
        let key = entry.key();
        let info = stored.get(&key).ok_or_else(|| {
            Error::new(format!("a shard of the trace lacks `{key}`, which the manifest lists"))
        })?;
        if dtype(info.dtype) != Some(entry.dtype) {
            return Err(Error::new(format!("`{key}` is stored with another dtype than the manifest says"))
                .expected(entry.dtype, format!("{:?}", info.dtype)));
        }
        if info.shape != entry.shape {
            return Err(Error::new(format!("`{key}` is stored with another shape than the manifest says"))
                .expected(format!("{:?}", entry.shape), format!("{:?}", info.shape)));
        }
        ranges[i] = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
        if entry.dtype == DType::U8
            && let Some(value) = map[ranges[i].clone()].iter().find(|value| **value > 1)
        {
            return Err(Error::new(format!("`{key}` is not a mask")).expected("0 and 1 only", value));
        }
        expected.insert(key);
    }
    match stored.keys().find(|key| !expected.contains(*key)) {
        Some(extra) => {
            Err(Error::new(format!("a shard of the trace holds `{extra}`, which the manifest does not list")))
        }
        None => Ok(()),
    }
}

fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::U8 => Some(DType::U8),
        _ => None,
    }
}

impl Trace {
    /// An error that says that `point` is not in the trace, and what is.
    pub fn unknown_point(&self, point: &str) -> Error {
        let error = Error::new(format!("the trace holds no point `{point}`")).at(&self.path);
        match nearest_point(point, self.entries().iter().map(|e| e.point.as_str())) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`layerdiff inspect TRACE` lists the points"),
        }
    }
}
