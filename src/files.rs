//! Files that appear whole or not at all.

use crate::error::{Error, Result};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

/// Directories that are of no use unless the command ends well.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Has `dir` removed when the command is interrupted; a directory that has been renamed by then stays.
pub fn remove_on_interrupt(dir: &Path) {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(dir.to_path_buf());
}

/// Removes what [`remove_on_interrupt`] was told of: for the handler of an interrupt.
pub fn remove_unfinished() {
    for dir in UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // It may be gone already; an interrupted command has nobody to tell.
        let _ = std::fs::remove_dir_all(dir);
    }
}

fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Directories that were made for an output, the deepest first; those that are empty when this is
/// dropped are removed.
#[derive(Debug)]
struct MadeDirs(Vec<PathBuf>);

impl MadeDirs {
    /// Makes `path` and the parents that it lacks.
    fn make(path: &Path) -> Result<Self> {
        let missing = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists());
        let made = Self(missing.map(Path::to_path_buf).collect());
        std::fs::create_dir_all(path).map_err(|e| Error::io("create the output's directory", path, &e))?;
        Ok(made)
    }
}

impl Drop for MadeDirs {
    fn drop(&mut self) {
        for dir in &self.0 {
            // Fails, as it should, for a directory that is in use.
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// A hidden directory; dropped, it is removed with the parents that were made for it.
#[derive(Debug)]
pub struct StagedDir {
    dir: TempDir,
    made: MadeDirs,
}

impl StagedDir {
    /// Where to write.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A hidden directory beside `target`, which must not exist.
pub fn staging_dir(target: &Path) -> Result<StagedDir> {
    if target.symlink_metadata().is_ok() {
        return Err(Error::new("the output already exists")
            .at(target)
            .hint("it is not overwritten: choose another name, or remove it first"));
    }
    let staged = stage_beside(target)?;
    remove_on_interrupt(staged.path());
    Ok(staged)
}

fn stage_beside(target: &Path) -> Result<StagedDir> {
    let parent = parent(target);
    let name = target.file_name().ok_or_else(|| {
        Error::new("the output has no name").at(target).hint("name a directory that does not exist yet")
    })?;
    let made = MadeDirs::make(parent)?;
    let dir = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .tempdir_in(parent)
        .map_err(|e| Error::io("create the output", target, &e))?;
    Ok(StagedDir { dir, made })
}

/// Gives a staged directory its name.
pub fn publish_dir(staged: StagedDir, target: &Path) -> Result<()> {
    let StagedDir { dir, made } = staged;
    open_permissions(dir.path());
    std::fs::rename(dir.path(), target).map_err(|e| {
        Error::io("put the output in place", target, &e).hint("did another run write there meanwhile?")
    })?;
    let _moved = dir.keep();
    drop(made);
    Ok(())
}

/// Temporary directories and what is in them may be private to their owner; a result is as readable as any other file.
fn open_permissions(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Failure leaves the stricter permissions, which is no reason to lose the result.
        let set = |path: &Path, mode| {
            let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        };
        set(path, 0o755);
        // safetensors makes files that only their owner may read.
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                set(&entry.path(), 0o644);
            }
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Writes a file that may take the place of an earlier one of the same kind, known by how it starts. `write` is
/// given a path beside it, of the same ending.
pub fn replace_file(
    target: &Path,
    is_kind: impl Fn(&[u8]) -> bool,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if target.symlink_metadata().is_ok() && !is_kind(&start_of(target)) {
        return Err(Error::new("the output exists and is no earlier one of the same kind")
            .at(target)
            .hint("only such a one is replaced: choose another place with --out, or remove it"));
    }
    let name = target.file_name().ok_or_else(|| {
        Error::new("the output has no name").at(target).hint("name a file, in a directory or without one")
    })?;
    let made = MadeDirs::make(parent(target))?;
    let ending = target.extension().map_or_else(String::new, |e| format!(".{}", e.to_string_lossy()));
    let file = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .suffix(&ending)
        .tempfile_in(parent(target))
        .map_err(|e| Error::io("create the output", target, &e))?;
    write(file.path()).map_err(|e| e.moved(file.path(), target))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Failure leaves the stricter permissions, which is no reason to lose the result.
        let _ = std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644));
    }
    file.persist(target).map_err(|e| Error::io("put the output in place", target, &e.error))?;
    drop(made);
    Ok(())
}

/// The first bytes of a file; none of what is no file, such as a pipe that would have to be waited for, or
/// cannot be read.
fn start_of(file: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    if !file.is_file() {
        return start;
    }
    let read = std::fs::File::open(file).and_then(|file| file.take(4096).read_to_end(&mut start));
    read.map_or_else(|_| Vec::new(), |_| start)
}

/// A staged directory that may take the place of an earlier one of the same kind, known by `mark`.
///
/// A directory without a file `mark` is not ours and is left alone.
#[derive(Debug)]
pub struct ReplacedDir {
    dir: StagedDir,
    target: PathBuf,
}

impl ReplacedDir {
    /// Prepares the replacement.
    pub fn stage(target: &Path, mark: &str) -> Result<Self> {
        if target.symlink_metadata().is_ok() && !target.join(mark).is_file() {
            let empty = std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
            if !empty {
                return Err(Error::new(format!("the output exists and holds no {mark}"))
                    .at(target)
                    .hint("only an earlier report is replaced: choose another directory with --out"));
            }
        }
        let dir = stage_beside(target)?;
        remove_on_interrupt(dir.path());
        Ok(Self { dir, target: target.to_path_buf() })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Has something written into it; an error names the place where it would have been.
    pub fn write<T>(&self, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        write(self.path()).map_err(|e| e.moved(self.path(), &self.target))
    }

    /// Puts the new directory in place; the old one is there until then.
    pub fn publish(self) -> Result<()> {
        if self.target.symlink_metadata().is_err() {
            return publish_dir(self.dir, &self.target);
        }
        let old = stage_beside(&self.target)?;
        let aside = old.path().join("old");
        std::fs::rename(&self.target, &aside)
            .map_err(|e| Error::io("move the earlier output aside", &self.target, &e))?;
        publish_dir(self.dir, &self.target).inspect_err(|_| {
            // The old one goes back. If that fails too, it stays where it is, and the first error is
            // the one to report.
            if std::fs::rename(&aside, &self.target).is_err() {
                let _kept = old.dir.keep();
            }
        })
    }
}

/// Writes a file whole or not at all, in place of an earlier one of whatever kind; `what` it is for the error.
pub fn write_whole(what: &str, path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |e: &std::io::Error| Error::io(&format!("write {what}"), path, e);
    // `.tmpXXXXXX`: by this name a run that clears up behind a killed one knows it.
    let mut builder = tempfile::Builder::new();
    // A temporary file is private; what is written here is for all to read.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(parent(path)).map_err(|e| io(&e))?;
    file.write_all(bytes).map_err(|e| io(&e))?;
    file.persist(path).map_err(|e| io(&e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_directory_that_is_dropped_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        drop(staging_dir(&root.path().join("out")).unwrap());
        drop(staging_dir(&root.path().join("a/b/out")).unwrap());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_published_directory_keeps_the_parents_that_were_made_for_it() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a/b/out");
        publish_dir(staging_dir(&target).unwrap(), &target).unwrap();
        assert!(target.is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn a_published_directory_and_its_files_are_readable_by_all() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let staged = staging_dir(&target).unwrap();
        let file = staged.path().join("private");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        publish_dir(staged, &target).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&target), mode(&target.join("private"))), (0o755, 0o644));
    }

    #[test]
    fn an_existing_output_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(staging_dir(root.path()).unwrap_err().to_string().contains("already exists"));
    }

    #[test]
    fn a_file_replaces_an_earlier_one_of_its_kind_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a/picture.svg");
        let replace = |text: &'static str| {
            let write = |path: &Path| {
                assert_eq!(path.extension(), target.extension());
                std::fs::write(path, text).map_err(|e| Error::io("write", path, &e))
            };
            replace_file(&target, |start| start.starts_with(b"<svg"), write)
        };
        replace("<svg 1").unwrap();
        replace("<svg 2").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "<svg 2");
        std::fs::write(&target, "a poem").unwrap();
        assert!(replace("<svg 3").unwrap_err().to_string().contains("no earlier one"));
        let fails = |_: &Path| Err(Error::new("no"));
        assert!(replace_file(&root.path().join("b/x.svg"), |_| true, fails).is_err());
        assert!(!root.path().join("b").exists());
        assert_eq!(std::fs::read_dir(root.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_report_replaces_an_earlier_report_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("latest");
        for text in ["one", "two"] {
            let staged = ReplacedDir::stage(&target, "report.json").unwrap();
            std::fs::write(staged.path().join("report.json"), text).unwrap();
            staged.publish().unwrap();
            assert_eq!(std::fs::read_to_string(target.join("report.json")).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        std::fs::remove_file(target.join("report.json")).unwrap();
        std::fs::write(target.join("thesis.tex"), "years").unwrap();
        assert!(ReplacedDir::stage(&target, "report.json").is_err());
    }
}
