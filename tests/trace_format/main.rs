//! The trace format: every sentence of the specification in `src/trace/mod.rs`, and every way to break it.

#[path = "../common/mod.rs"]
mod common;

mod a_prompt;
mod a_shard_s_file;
mod a_shard_s_header;
mod a_shard_s_name;
mod a_tensor;
mod a_writer;
mod an_entry;
mod rows;
mod the_directory;
mod the_manifest;
mod values;

use common::{Draft, edit_header, edit_manifest, noise, prompt, replace_shard, shard, tree};
use half::{bf16, f16};
use layerdiff::tensor::DType;
use layerdiff::trace::{Evidence, Incoming, MANIFEST, SelfCheck, Status, Trace, TraceWriter};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// A minimal trace in a directory of its own.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Draft::minimal().write(&root.path().join("trace"));
        Self { root }
    }

    /// The same, with a changed manifest.
    fn edited(change: impl FnOnce(&mut Value)) -> Self {
        let fixture = Self::new();
        edit_manifest(&fixture.path(), change);
        fixture
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("trace")
    }

    fn open(&self) -> layerdiff::error::Result<Trace> {
        Trace::open(&self.path())
    }

    /// Opening must fail and say this, where, and what to do.
    #[track_caller]
    fn is_refused(&self, why: &str) {
        let error = self.open().expect_err("the trace is malformed").to_string();
        assert!(error.contains(why), "no {why:?} in {error}");
        assert!(error.contains(&*self.path().to_string_lossy()), "no path in {error}");
        assert!(error.contains("\n  hint: "), "no hint in {error}");
    }

    #[track_caller]
    fn is_read(&self) -> Trace {
        self.open().unwrap()
    }
}

/// A manifest changed by `change` must be refused for `why`.
#[track_caller]
fn refused(change: impl FnOnce(&mut Value), why: &str) {
    Fixture::edited(change).is_refused(why);
}

fn any_dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F64, DType::F32, DType::F16, DType::BF16, DType::U8])
}

fn any_tensor() -> impl Strategy<Value = (DType, Vec<usize>, Vec<u8>, u32)> {
    (any_dtype(), prop::collection::vec(0_usize..5, 0..4), 0_u32..3).prop_flat_map(|(dtype, shape, step)| {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let largest = if dtype == DType::U8 { 1 } else { u8::MAX };
        (Just(dtype), Just(shape), prop::collection::vec(0..=largest, bytes), Just(step))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_is_what_was_written(
        tensors in prop::collection::vec((any_tensor(), "[a-z./ \"é\\\\]{0,8}"), 1..12),
        shard_bytes in 1_usize..200,
    ) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("trace");
        let mut options = Draft::minimal().options;
        options.shard_bytes = shard_bytes;
        let mut writer = TraceWriter::create(&path, options).unwrap();
        writer.start_prompt(&prompt("p", &[1]));
        let named: Vec<_> = tensors.iter().enumerate().map(|(i, (t, name))| (format!("{i}{name}"), t)).collect();
        for (point, (dtype, shape, bytes, step)) in &named {
            writer.push(*step, point, *dtype, shape, bytes.clone(), "original", false).unwrap();
        }
        writer.finish(None).unwrap();
        let trace = Trace::open(&path).unwrap();
        prop_assert_eq!(trace.entries().len(), named.len());
        for (i, (point, (dtype, shape, bytes, step))) in named.iter().enumerate() {
            let entry = trace.find("p", *step, point).unwrap();
            prop_assert_eq!(entry.order, i as u64);
            let view = trace.view(entry);
            prop_assert_eq!((view.dtype, view.shape, view.bytes), (*dtype, &shape[..], &bytes[..]));
            prop_assert_eq!(view.to_f64().len(), view.len());
        }
    }
}

/// The files of a small trace: manifest, two shards.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let fixture = Fixture::new();
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    tree(&fixture.path()).into_iter().map(|(path, bytes)| (name(path), bytes.unwrap())).collect()
});

/// Opens the trace with one file replaced; all that was accepted must be readable.
fn open_with(file: usize, bytes: &[u8]) {
    let root = tempfile::tempdir().unwrap();
    for (i, (name, original)) in FILES.iter().enumerate() {
        std::fs::write(root.path().join(name), if i == file { bytes } else { original }).unwrap();
    }
    match Trace::open(root.path()) {
        Ok(trace) => {
            for entry in trace.entries() {
                assert_eq!(trace.view(entry).to_f64().len(), entry.shape.iter().product::<usize>());
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("path: ") && error.contains("hint: "), "{error}");
        }
    }
}

/// All places in a JSON document.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, v)| pointers(v, &format!("{at}/{}", key.replace('/', "~1")), out))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), out))
        }
        _ => {}
    }
}

/// What hostile writers like to put there.
fn nasty() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(u64::MAX),
        json!(1e308),
        json!(i64::MAX),
        json!(""),
        json!("F64"),
        json!("../x"),
        json!("shard-00001.safetensors"),
        json!("p-01"),
        json!([]),
        json!({}),
        json!([u64::MAX, u64::MAX]),
        json!([0, u64::MAX]),
        json!([1_u64 << 62, 0]),
        json!([[]]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn flipped_bytes_never_panic(file in 0_usize..3, flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..6)) {
        let mut bytes = FILES[file].1.clone();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        open_with(file, &bytes);
    }

    #[test]
    fn flipped_bytes_of_a_header_never_panic(file in 1_usize..3, flips in prop::collection::vec((0_usize..120, 1_u8..), 1..3)) {
        let mut bytes = FILES[file].1.clone();
        for (at, flip) in flips {
            bytes[at] ^= flip;
        }
        open_with(file, &bytes);
    }

    #[test]
    fn truncated_files_never_panic(file in 0_usize..3, end in any::<prop::sample::Index>()) {
        open_with(file, &FILES[file].1[..end.index(FILES[file].1.len())]);
    }

    #[test]
    fn values_out_of_place_in_the_manifest_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(nasty())), 1..4),
    ) {
        let mut manifest: Value = serde_json::from_slice(&FILES[0].1).unwrap();
        for (at, value) in changes {
            let mut places = Vec::new();
            pointers(&manifest, "", &mut places);
            *manifest.pointer_mut(&places[at.index(places.len())]).unwrap() = value;
        }
        open_with(0, manifest.to_string().as_bytes());
    }

    #[test]
    fn values_out_of_place_in_a_header_never_panic(
        file in 1_usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(nasty())), 1..3),
    ) {
        let bytes = &FILES[file].1;
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
        for (at, value) in changes {
            let mut places = Vec::new();
            pointers(&header, "", &mut places);
            *header.pointer_mut(&places[at.index(places.len())]).unwrap() = value;
        }
        let header = header.to_string();
        let mut damaged = (header.len() as u64).to_le_bytes().to_vec();
        damaged.extend(header.bytes());
        damaged.extend(&bytes[8 + len..]);
        // The manifest has to state the new size, or the header would not be looked at.
        let root = tempfile::tempdir().unwrap();
        for (name, original) in FILES.iter() {
            std::fs::write(root.path().join(name), original).unwrap();
        }
        replace_shard(root.path(), file - 1, &damaged);
        if let Err(error) = Trace::open(root.path()) {
            prop_assert!(error.to_string().contains("path: "));
        }
    }
}

#[test]
fn a_restricted_trace_shows_the_chosen_prompts_with_their_own_values() {
    let root = tempfile::tempdir().unwrap();
    let prompts = [prompt("a", &[1, 2]), prompt("b", &[3])];
    Draft::of(&prompts).write(&root.path().join("trace"));
    let trace = Trace::open(&root.path().join("trace")).unwrap().restricted_to(&prompts[1..], 0);
    assert!(trace.find("a", 0, "model.norm").is_none());
    let values = trace.view(trace.find("b", 0, "model.norm").unwrap()).to_f64();
    assert_eq!(values, noise("b/0/model.norm", 8).iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
    assert!(trace.entries().iter().all(|e| e.prompt == "b"));
}
