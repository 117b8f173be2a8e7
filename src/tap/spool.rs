//! Bytes that wait on disk until a trace is written.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file without a name: the system takes it back with the process, however that ends.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    len: u64,
    target: PathBuf,
}

impl Spool {
    /// On the disk where `target` will be.
    pub fn beside(target: &Path) -> Result<Self> {
        let there = target.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        let file =
            tempfile::tempfile_in(there).map_err(|e| Error::io("create a temporary file", there, &e))?;
        Ok(Self { file, len: 0, target: target.to_path_buf() })
    }

    /// Adds bytes and says where they begin.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        self.file.write_all(bytes).map_err(|e| Error::io("keep a tensor for the trace", &self.target, &e))?;
        let at = self.len;
        self.len += bytes.len() as u64;
        Ok(at)
    }

    /// Adds `len` bytes from `at` on to `out`.
    pub fn read(&mut self, at: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + len, 0);
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.read_exact(&mut out[start..]))
            .map_err(|e| Error::io("read back a tensor for the trace", &self.target, &e))
    }
}
