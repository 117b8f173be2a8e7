//! A directory of dumps, of one format or several.

use super::open::open_file;
use super::{Item, Source, debugger, plain};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Directories for prompts and steps need two levels.
const DEEPEST: usize = 6;

/// More files than that are no dump of a model.
const MOST_FILES: usize = 200_000;

/// Everything in a directory and those below.
#[derive(Debug)]
pub(super) struct Folder {
    parts: Vec<Box<dyn Source>>,
    items: Vec<Item>,
    /// Part, and place in it, of each item.
    places: Vec<(usize, usize)>,
}

impl Folder {
    pub fn open(dir: &Path) -> Result<Self> {
        let mut folder = Self { parts: Vec::new(), items: Vec::new(), places: Vec::new() };
        let mut budget = MOST_FILES;
        let root = dir.canonicalize().map_err(|e| Error::io("list the dumps", dir, &e))?;
        folder.add(dir, &root, "", 0, &mut budget)?;
        if folder.items.is_empty() {
            return Err(Error::new("the directory holds no dumps").at(dir).hint(
                "dumps are .f32, .npy, .npz, .pt, .safetensors files, or what Transformers' debugger writes",
            ));
        }
        Ok(folder)
    }

    /// Adds what is in `dir`, which lies in `root`; names begin with `prefix`.
    fn add(&mut self, dir: &Path, root: &Path, prefix: &str, depth: usize, budget: &mut usize) -> Result<()> {
        let io = |e: std::io::Error| Error::io("list the dumps", dir, &e);
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            // `.DS_Store`, and what other programs hide.
            if path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')) {
                stays(&path, root)?;
                paths.push(path);
            }
            *budget = budget.checked_sub(1).ok_or_else(|| {
                Error::new("the directory holds too many files")
                    .at(dir)
                    .hint("name the directory of one run's dumps")
            })?;
        }
        paths.sort();
        let (dirs, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
        let class = debugger::class_of(&files);
        let own = |file: &&PathBuf| class.as_ref().is_some_and(|class| debugger::is_own(file, class));
        if let Some(class) = &class {
            let files = files.iter().filter(own);
            self.take(Box::new(debugger::Debugger::open(dir, class, files)?), prefix);
        }
        for file in files.iter().filter(|file| !own(file)) {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            self.take(open_file(file, &name)?, prefix);
        }
        for below in &dirs {
            if depth == DEEPEST {
                return Err(Error::new("directories of dumps are nested too deeply")
                    .at(below)
                    .hint("name the directory of one run's dumps"));
            }
            let name = plain(&below.file_name().unwrap_or_default().to_string_lossy());
            self.add(below, root, &format!("{prefix}{name}/"), depth + 1, budget)?;
        }
        Ok(())
    }

    fn take(&mut self, part: Box<dyn Source>, prefix: &str) {
        for (i, item) in part.items().iter().enumerate() {
            self.items.push(Item { name: format!("{prefix}{}", item.name), ..item.clone() });
            self.places.push((self.parts.len(), i));
        }
        self.parts.push(part);
    }
}

impl Source for Folder {
    fn format(&self) -> &'static str {
        self.parts.first().map_or("a directory", |part| part.format())
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        let (part, at) = self.places[index];
        self.parts[part].read(at)
    }

    fn remarks(&self) -> Vec<String> {
        self.parts.iter().flat_map(|part| part.remarks()).collect()
    }

    fn name_is_given(&self, index: usize) -> bool {
        let (part, at) = self.places[index];
        self.parts[part].name_is_given(at)
    }
}

/// Refuses a link to what lies outside: who unpacks a stranger's archive has not asked for his own files.
fn stays(path: &Path, root: &Path) -> Result<()> {
    let io = |e: std::io::Error| Error::io("read a dump", path, &e);
    if !path.symlink_metadata().map_err(io)?.is_symlink() {
        return Ok(());
    }
    let target = path.canonicalize().map_err(io)?;
    if target.starts_with(root) {
        return Ok(());
    }
    Err(Error::new("a link leads out of the directory of the dumps")
        .expected(format!("a file within {}", root.display()), target.display())
        .at(path)
        .hint("put the file itself there"))
}
