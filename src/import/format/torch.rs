//! PyTorch's `.pt` and `.pth`: a zip archive of one pickle and the storages that its tensors are views of.

use super::archive::Archive;
use super::pickle::{Id, Pickle, Value};
use super::{Item, Kind, Source, damaged, elements, plain};
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::path::Path;

/// A pickle of dumps is a few hundred bytes a tensor; what is in memory of it may be 50 times as large.
const LONGEST_PICKLE: u64 = 8 << 20;

/// Dictionaries in dictionaries beyond this depth are no dumps.
const DEEPEST: usize = 16;

/// So many times more is read at most than a view of a storage has elements.
const MOST_SCATTERED: u64 = 64;

/// So many values and no more are looked at: containers may name each other over and over.
const MOST_VISITS: usize = 1_000_000;

/// Bytes of a name: no module's is a tenth as long.
const LONGEST_NAME: usize = 1 << 10;

/// Bytes of all that is kept of names and shapes. A pickle may say one name twenty thousand times at two bytes
/// each.
const MOST_KEPT: usize = 64 << 20;

/// Axes of a tensor; PyTorch has no more.
const MOST_AXES: usize = 64;

/// Names of what is no tensor before the rest is only counted.
const SHOWN: usize = 8;

/// The pickle of an archive that PyTorch wrote.
pub(super) fn pickle_of(archive: &Archive) -> Option<&str> {
    archive
        .entries()
        .iter()
        .map(|(name, _)| name.as_str())
        .find(|n| *n == "data.pkl" || n.ends_with("/data.pkl"))
}

/// Where a tensor's elements lie in its storage, in elements.
#[derive(Debug)]
struct View {
    storage: String,
    offset: u64,
    strides: Vec<usize>,
}

/// One file of tensors.
#[derive(Debug)]
pub(super) struct Torch {
    archive: Archive,
    items: Vec<Item>,
    views: Vec<View>,
    /// The first of what is no tensor, and how many there are.
    others: (Vec<String>, usize),
    visits: usize,
    /// Bytes kept of names and shapes.
    kept: usize,
}

impl Torch {
    /// The tensors of an archive; a tensor that is all of it is called `name`.
    pub fn open(archive: Archive, name: &str) -> Result<Self> {
        let path = archive.path().to_path_buf();
        let entry = pickle_of(&archive).unwrap_or_default().to_owned();
        let root = entry.strip_suffix("data.pkl").unwrap_or_default().to_owned();
        if archive.size(&entry).is_some_and(|size| size > LONGEST_PICKLE) {
            return Err(damaged("its pickle is far larger than one of tensors", &path));
        }
        if archive.read(&format!("{root}byteorder"), 0, 8).is_ok_and(|order| order == b"big") {
            return Err(Error::new("a dump is of a big-endian machine")
                .at(&path)
                .hint("save it on a little-endian one"));
        }
        let pickle =
            Pickle::parse(&archive.read(&entry, 0, LONGEST_PICKLE)?).map_err(|why| refused(&why, &path))?;
        let mut torch = Self {
            archive,
            items: Vec::new(),
            views: Vec::new(),
            others: (Vec::new(), 0),
            visits: 0,
            kept: 0,
        };
        torch.walk(&pickle, pickle.root(), name, &root, 0).map_err(|why| refused(&why, &path))?;
        Ok(torch)
    }

    fn walk(
        &mut self,
        pickle: &Pickle,
        id: Id,
        name: &str,
        root: &str,
        depth: usize,
    ) -> std::result::Result<(), String> {
        // A circle among the containers ends here too, and so does a tree that names one branch many times.
        self.visits += 1;
        if depth > DEEPEST || self.visits > MOST_VISITS {
            return Err("its containers are nested too deeply".into());
        }
        let below = |key: &str| {
            let longest = LONGEST_NAME.saturating_sub(if depth == 0 { 0 } else { name.len() + 1 });
            if key.len() > longest {
                return Err(format!("a name in it is longer than {LONGEST_NAME} bytes"));
            }
            let key = plain(key);
            Ok(if depth == 0 { key } else { format!("{name}/{key}") })
        };
        match pickle.get(id) {
            Value::Dict(pairs) => {
                for (key, value) in pairs {
                    let name = match pickle.get(*key) {
                        Value::Text(text) => below(text)?,
                        Value::Int(n) => below(&n.to_string())?,
                        _ => return Err("a key of its dictionary is neither text nor number".into()),
                    };
                    self.walk(pickle, *value, &name, root, depth + 1)?;
                }
            }
            Value::List(values) => {
                for (i, value) in values.iter().enumerate() {
                    self.walk(pickle, *value, &below(&i.to_string())?, root, depth + 1)?;
                }
            }
            Value::Call(function, arguments) => {
                self.tensor(pickle, function, *arguments, name, root, depth)?;
            }
            Value::Persistent(_) | Value::Global(_) | Value::Mark => {
                return Err(format!("`{name}` is neither a tensor nor a plain value"));
            }
            Value::None | Value::Bool | Value::Int(_) | Value::Float | Value::Text(_) => {
                self.others.1 += 1;
                if self.others.0.len() < SHOWN {
                    self.others.0.push(name.to_owned());
                }
            }
        }
        Ok(())
    }

    fn tensor(
        &mut self,
        pickle: &Pickle,
        function: &str,
        arguments: Id,
        name: &str,
        root: &str,
        depth: usize,
    ) -> std::result::Result<(), String> {
        let malformed = || format!("`{name}` is a malformed tensor");
        let list = pickle.list(arguments).ok_or_else(malformed)?;
        match function {
            // A parameter, or a subclass of a tensor, around a tensor.
            "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state" => {
                return self.walk(pickle, *list.first().ok_or_else(malformed)?, name, root, depth + 1);
            }
            "torch._tensor _rebuild_from_type_v2" => {
                let [function, _, inner, ..] = list else { return Err(malformed()) };
                let Value::Global(function) = pickle.get(*function) else { return Err(malformed()) };
                if depth > DEEPEST {
                    return Err(malformed());
                }
                return self.tensor(pickle, &function.clone(), *inner, name, root, depth + 1);
            }
            "torch._utils _rebuild_tensor_v2" => {}
            _ => return Err(malformed()),
        }
        let [storage, offset, shape, strides, more @ ..] = list else { return Err(malformed()) };
        // The seventh argument: bits of a lazy view whose values are not those of its storage.
        let plain_values = more.get(2).is_none_or(|bits| match pickle.get(*bits) {
            Value::None => true,
            Value::Dict(bits) => bits.is_empty(),
            _ => false,
        });
        if !plain_values {
            return Err(format!(
                "`{name}` is negated or conjugated where it is used and not where it is stored: save `tensor.resolve_neg().resolve_conj()`"
            ));
        }
        let Value::Persistent(storage) = pickle.get(*storage) else { return Err(malformed()) };
        let Some([_, class, key, _, numel, ..]) = pickle.list(*storage) else { return Err(malformed()) };
        let Value::Global(class) = pickle.get(*class) else { return Err(malformed()) };
        let kind = kind(class);
        let size = kind.size().unwrap_or(1) as u64;
        let file = format!("{root}data/{}", pickle.text(*key).ok_or_else(malformed)?);
        let numel = pickle.int(*numel).and_then(|n| u64::try_from(n).ok()).ok_or_else(malformed)?;
        self.keep(name.len() + file.len() + self.archive.path().as_os_str().len())?;
        let there = self
            .archive
            .size(&file)
            .ok_or_else(|| format!("`{name}` lies in a storage that is not there"))?;
        if numel.checked_mul(size) != Some(there) && kind.size().is_some() {
            return Err(format!(
                "the storage of `{name}` has {there} bytes and claims {numel} elements of {size}"
            ));
        }
        let impossible = || format!("`{name}` has an impossible shape or stride");
        let offset = pickle.int(*offset).and_then(|n| u64::try_from(n).ok()).ok_or_else(impossible)?;
        if pickle.list(*shape).is_none_or(|axes| axes.len() > MOST_AXES) {
            return Err(impossible());
        }
        let shape = pickle.sizes(*shape).ok_or_else(impossible)?;
        let strides = pickle.sizes(*strides).filter(|s| s.len() == shape.len()).ok_or_else(impossible)?;
        let n = elements(&shape).ok_or_else(impossible)?;
        let extent = extent(&shape, &strides).ok_or_else(impossible)?;
        if n > 0 && offset.checked_add(extent).is_none_or(|end| end > numel) {
            return Err(format!("`{name}` reaches beyond its storage of {numel} elements"));
        }
        if n > 0 && extent / MOST_SCATTERED > n as u64 {
            return Err(format!("elements of `{name}` lie far apart: save `tensor.contiguous()`"));
        }
        if overlaps(&shape, &strides) {
            return Err(format!(
                "elements of `{name}` share their place in memory: save `tensor.contiguous()`"
            ));
        }
        let path = self.archive.path().to_path_buf();
        self.items.push(Item {
            name: name.to_owned(),
            path,
            kind,
            shape: Some(shape),
            bytes: n as u64 * size,
        });
        self.views.push(View { storage: file, offset, strides });
        Ok(())
    }

    /// Counts what stays in memory for each tensor.
    fn keep(&mut self, bytes: usize) -> std::result::Result<(), String> {
        self.kept += bytes;
        if self.kept > MOST_KEPT {
            return Err(format!("the names in it are more than {MOST_KEPT} bytes"));
        }
        Ok(())
    }
}

/// Elements from the first to the last of a view; none where that overflows.
fn extent(shape: &[usize], strides: &[usize]) -> Option<u64> {
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(0usize, |sum, (n, stride)| sum.checked_add(n.saturating_sub(1).checked_mul(*stride)?))?;
    u64::try_from(last).ok()?.checked_add(1)
}

/// True where two elements may have one place.
fn overlaps(shape: &[usize], strides: &[usize]) -> bool {
    let mut axes: Vec<(usize, usize)> =
        strides.iter().copied().zip(shape.iter().copied()).filter(|(_, n)| *n > 1).collect();
    axes.sort_unstable();
    let mut reach = 0usize;
    axes.into_iter().any(|(stride, n)| {
        let clash = stride <= reach;
        reach = reach.saturating_add(stride.saturating_mul(n - 1));
        clash
    })
}

fn kind(class: &str) -> Kind {
    match class.strip_prefix("torch ").unwrap_or(class) {
        "FloatStorage" => Kind::Known(DType::F32),
        "DoubleStorage" => Kind::Known(DType::F64),
        "HalfStorage" => Kind::Known(DType::F16),
        "BFloat16Storage" => Kind::Known(DType::BF16),
        "ByteStorage" | "BoolStorage" => Kind::Known(DType::U8),
        "CharStorage" => Kind::Integer(1),
        "ShortStorage" => Kind::Integer(2),
        "IntStorage" => Kind::Integer(4),
        "LongStorage" => Kind::Integer(8),
        other => Kind::Other(format!("PyTorch's {}", plain(other))),
    }
}

fn refused(why: &str, path: &Path) -> Error {
    Error::new(format!("a dump is refused: {}", plain(why))).at(path).hint(
        "only tensors are read, and nothing in the file is run: `torch.save` a dict of names and plain tensors",
    )
}

impl Source for Torch {
    fn format(&self) -> &'static str {
        "PyTorch tensors"
    }

    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        let (item, view) = (&self.items[index], &self.views[index]);
        let (shape, size) = (item.shape.as_deref().unwrap_or_default(), item.kind.size().unwrap_or(1));
        if item.bytes == 0 {
            return Ok(Vec::new());
        }
        let extent = extent(shape, &view.strides).unwrap_or(0);
        let bytes = self.archive.read(&view.storage, view.offset * size as u64, extent * size as u64)?;
        if bytes.len() as u64 != extent * size as u64 {
            return Err(damaged(format!("`{}` ends too early", item.name), &item.path));
        }
        Ok(super::super::block::gathered(&bytes, size, shape, &view.strides))
    }

    fn remarks(&self) -> Vec<String> {
        let (shown, n) = &self.others;
        if *n == 0 {
            return Vec::new();
        }
        let more = n - shown.len();
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        vec![format!("no tensors, and left out: {n}: {}{more}", shown.join(", "))]
    }
}
