//! What Transformers' `model_addition_debugger_context` writes with `use_repr=False`.
//!
//! Beside two JSON trees it writes one safetensors file for each tensor, called by what it is:
//! `CLASS.MODULE_outputs`, `CLASS.MODULE_outputs_0`, `CLASS.MODULE_inputs_args_0`,
//! `CLASS.MODULE_inputs_kwargs_hidden_states`. The files have what the tree leaves out to be short (layers in
//! the middle), so they are what is read; no path in the tree is followed. Items are named `MODULE`,
//! `MODULE.output.0` and `MODULE.input`.

use super::safe::Safe;
use super::{Item, Source, plain};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

const TREE: &str = "_debug_tree_FULL_TENSORS.json";

/// The name of the model's class, if the files of a directory are of this kind.
pub(super) fn class_of(files: &[PathBuf]) -> Option<String> {
    let names = files.iter().filter_map(|f| f.file_name()?.to_str());
    names.filter_map(|name| name.strip_suffix(TREE)).map(str::to_owned).next()
}

/// True for what the debugger wrote itself: what else lies in the directory is a dump like any other.
pub(super) fn is_own(file: &Path, class: &str) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let Some(rest) = stem.strip_prefix(class) else { return false };
    match file.extension().and_then(|e| e.to_str()) {
        Some("json") => rest.starts_with("_debug_tree"),
        Some("safetensors") => {
            rest.starts_with(['.', '_']) && (rest.contains("_inputs") || rest.contains("_outputs"))
        }
        _ => false,
    }
}

/// A directory of that kind.
#[derive(Debug)]
pub(super) struct Debugger {
    items: Vec<Item>,
    files: Vec<Safe>,
    others: usize,
}

impl Debugger {
    /// The dump in `dir` of a model of that class, made of those of its `files` that are [its own](is_own).
    pub fn open<'a>(dir: &Path, class: &str, files: impl Iterator<Item = &'a PathBuf>) -> Result<Self> {
        let mut debugger = Self { items: Vec::new(), files: Vec::new(), others: 0 };
        for path in files.filter(|f| f.extension().is_some_and(|e| e == "safetensors")) {
            let stem = plain(&path.file_stem().unwrap_or_default().to_string_lossy());
            let Some(name) = stem.strip_prefix(class).and_then(|s| s.strip_prefix('.')).and_then(item_name)
            else {
                debugger.others += 1;
                continue;
            };
            let file = Safe::open(path)?;
            let [item] = file.items() else {
                return Err(Error::new("a file of Transformers' debugger holds more than a tensor")
                    .expected(1, file.items().len())
                    .at(path)
                    .hint("write the dump again"));
            };
            debugger.items.push(Item { name, ..item.clone() });
            debugger.files.push(file);
        }
        if debugger.items.is_empty() {
            return Err(Error::new("the dump has the tensors as text only, most of it as dots")
                .at(dir)
                .hint(
                    "dump again with `model_addition_debugger_context(model, debug_path=…, use_repr=False)`",
                ));
        }
        Ok(debugger)
    }
}

/// `MODULE.input` for `MODULE_inputs_args_0`.
fn item_name(stem: &str) -> Option<String> {
    let inputs =
        ["_inputs_args_0", "_inputs_kwargs_hidden_states", "_inputs_kwargs_input", "_inputs_kwargs_x"];
    if let Some(module) = inputs.iter().find_map(|end| stem.strip_suffix(end)) {
        return Some(format!("{module}.input"));
    }
    let (module, rest) = stem.rsplit_once("_outputs")?;
    match rest.strip_prefix('_') {
        None if rest.is_empty() => Some(module.to_owned()),
        Some(n) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
            Some(format!("{module}.output.{n}"))
        }
        _ => None,
    }
}

impl Source for Debugger {
    fn format(&self) -> &'static str {
        "Transformers' debugging dump"
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        self.files[index].read(0)
    }

    fn remarks(&self) -> Vec<String> {
        match self.others {
            0 => Vec::new(),
            n => {
                vec![format!("{n} further arguments and outputs, such as masks and positions, were left out")]
            }
        }
    }

    fn name_is_given(&self, _index: usize) -> bool {
        true
    }
}
