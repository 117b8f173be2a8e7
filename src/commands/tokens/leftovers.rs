//! What a killed run leaves in a directory of dumps: files and traces that never got their names.

use crate::prompt::is_plain_id;
use crate::trace::Trace;
use std::fs::{DirEntry, File};
use std::path::Path;

/// Removes what killed runs have left in `dirs`, unless another run is at work with these dumps; while the
/// file that is returned is open, no other run removes anything. `file` is there as long as the dumps are.
///
/// None where the file system has no locks; then everything stays.
pub(super) fn sweep(file: &Path, dirs: &[&Path]) -> Option<File> {
    let lock = File::open(file).ok()?;
    if lock.try_lock().is_ok() {
        dirs.iter().for_each(|dir| clear(dir));
        lock.unlock().ok()?;
    }
    lock.lock_shared().ok()?;
    Some(lock)
}

fn clear(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // What cannot be removed disturbs nobody: the next run tries again.
        let _ = match entry.file_type() {
            Ok(kind) if kind.is_file() && is_file_of_ours(&entry) => std::fs::remove_file(entry.path()),
            Ok(kind) if kind.is_dir() && is_trace_of_ours(&entry) => std::fs::remove_dir_all(entry.path()),
            _ => Ok(()),
        };
    }
}

/// `.tmpXXXXXX`, as [`tempfile`] calls a file.
fn is_file_of_ours(entry: &DirEntry) -> bool {
    entry.file_name().to_str().and_then(|name| name.strip_prefix(".tmp")).is_some_and(is_random)
}

/// `.ID.XXXXXX`, as [`crate::files`] calls a trace that is being written, or `.ID.XXXXXXXX.partial`, as
/// `layerdiff_hooks` does. A prompt may have such an id too: its trace is complete, and of that very name.
fn is_trace_of_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let Some(name) = name.to_str() else { return false };
    let hidden = name.strip_prefix('.').unwrap_or_default();
    let parts = match hidden.strip_suffix(".partial") {
        Some(rest) => rest.rsplit_once('.').filter(|(_, hex)| is_hex(hex)),
        None => hidden.rsplit_once('.').filter(|(_, random)| is_random(random)),
    };
    let of_prompt = || {
        Trace::open(&entry.path()).is_ok_and(|trace| trace.manifest().prompts.iter().any(|p| p.id == name))
    };
    parts.is_some_and(|(id, _)| is_plain_id(id)) && !of_prompt()
}

fn is_random(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn is_hex(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use tempfile::TempDir;

    const LEFT: [&str; 3] = [".tmpAb12xY", ".code-01.0123abcd.partial/shard", ".code-01.Ab12xY/shard"];
    const KEPT: [&str; 6] = [
        ".git/config",
        ".tmp",
        "code-01/manifest.json",
        ".notes.partial/a",
        ".env.production",
        "a.record.json",
    ];

    fn dumps() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in LEFT.into_iter().chain(KEPT).chain(["settings.json"]) {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        dir
    }

    fn swept(dir: &Path) -> Option<File> {
        sweep(&dir.join("settings.json"), &[dir, &dir.join("is not there")])
    }

    fn names(dir: &Path) -> BTreeSet<String> {
        let all = std::fs::read_dir(dir).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let dir = dumps();
        let kept = swept(dir.path());
        assert!(kept.is_some());
        let first = |path: &str| path.split('/').next().unwrap().to_owned();
        let expected: BTreeSet<String> = KEPT.into_iter().chain(["settings.json"]).map(first).collect();
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn nothing_is_removed_under_another_run() {
        let dir = dumps();
        let other = swept(dir.path());
        std::fs::write(dir.path().join(LEFT[0]), "").unwrap();
        let second = swept(dir.path());
        assert!(dir.path().join(LEFT[0]).exists());
        drop((other, second));
        assert!(swept(dir.path()).is_some() && !dir.path().join(LEFT[0]).exists());
    }
}
