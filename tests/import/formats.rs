//! Real files of real programs: what is read is, bit for bit, what the reference has.

use crate::common::layerdiff;
use crate::world::{World, bytes, refused};
use layerdiff::import::format::open;
use layerdiff::trace::Trace;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/dumps")
}

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/reference")
}

/// Imports a dump of the bundled reference and compares every tensor of it.
#[track_caller]
fn equal(dumps: &Path, tensors: usize) -> Trace {
    let root = tempfile::tempdir().unwrap();
    imported(root.path(), dumps, tensors)
}

/// The same, into `root/out`.
#[track_caller]
fn imported(root: &Path, dumps: &Path, tensors: usize) -> Trace {
    let out = root.join("out");
    let [dumps, reference, target] = [dumps, &bundled(), &out].map(|p| p.to_str().unwrap().to_owned());
    let run = layerdiff(&[
        "import",
        &dumps,
        "--reference",
        &reference,
        "--prompt",
        "instruction-07",
        "--out",
        &target,
    ]);
    assert_eq!(run.code, 0, "{run:#?}");
    let (imported, reference) = (Trace::open(&out).unwrap(), Trace::open(&bundled()).unwrap());
    assert_eq!(imported.entries().len(), tensors);
    for entry in imported.entries() {
        let theirs = reference.find("instruction-07", entry.step, &entry.point).unwrap();
        assert_eq!((entry.dtype, &entry.shape), (theirs.dtype, &theirs.shape), "{}", entry.point);
        assert_eq!(imported.view(entry).bytes, reference.view(theirs).bytes, "{}", entry.point);
    }
    imported
}

fn every_format(goldens: &Path) {
    // Compressed; C and Fortran order, big-endian, a mask of bool.
    equal(&goldens.join("arrays.npz"), 5);
    // A directory for each step.
    let steps = equal(&goldens.join("arrays"), 2);
    assert_eq!(steps.entries().iter().map(|e| e.step).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(steps.manifest().prompts[0].step_token_ids.len(), 1);
    equal(&goldens.join("arrays/step_0/layer_0.npy"), 1);
    // A transposed view, a part of a larger storage, a batch, a parameter, a nested dictionary, a mask of int64.
    equal(&goldens.join("tensors.pt"), 5);
    equal(&goldens.join("tensors.safetensors"), 5);
    // By module paths; the outputs of layers are the inputs of what follows them.
    let debugger = equal(&goldens.join("debugger"), 22);
    assert!(debugger.find("instruction-07", 0, "model.layers.2").is_some());
}

#[test]
fn every_format_gives_the_values_that_were_dumped() {
    every_format(&goldens());
}

#[test]
fn dumps_with_the_inputs_of_components_are_replayed_when_the_weights_are_named() {
    let root = tempfile::tempdir().unwrap();
    drop(imported(root.path(), &goldens().join("debugger"), 22));
    let model = crate::common::bundled_model();
    let [reference, out, model] =
        [bundled(), root.path().join("out"), model].map(|p| p.to_str().unwrap().to_owned());
    let run = layerdiff(&["compare", &reference, &out, "--only-captured", "--weights", &model, "--json"]);
    assert_eq!(run.code, 0, "{run:#?}");
    let report = run.json();
    assert_eq!(report["verdict"]["rests_on"], "replay, and growth where a component was not replayed");
    let replayed = report["points"].as_array().unwrap().iter().filter(|p| p["local_ratio"].is_number());
    assert_eq!(replayed.count(), 19);
}

#[test]
#[ignore = "needs PyTorch"]
fn dumps_made_now_by_numpy_pytorch_and_transformers_are_read_alike() {
    let out = tempfile::tempdir().unwrap();
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let made = std::process::Command::new(python).arg(goldens().join("make.py")).arg(out.path()).status();
    assert!(made.unwrap().success());
    every_format(out.path());
    let files = |dir: PathBuf| {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(files(out.path().join("raw")), files(goldens().join("raw")));
}

#[test]
fn raw_numbers_are_what_their_extension_says() {
    let world = World::new();
    world.raw("embed.f32", &world.values("model.embed_tokens"));
    let half: Vec<u8> =
        world.values("model.norm").iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    world.file("dumps/final_norm.f16", &half);
    let wide: Vec<u8> =
        world.values("model.layers.0").iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    world.file("dumps/layer_0.f64", &wide);
    let trace = world.import("");
    for (point, dtype, raw) in [("model.norm", "F16", half), ("model.layers.0", "F64", wide)] {
        let (found, _, bytes) = bytes(&trace, 0, point);
        assert_eq!((found.to_string().as_str(), bytes), (dtype, raw), "{point}");
    }
    let provenance = &trace.manifest().provenance;
    assert_eq!((provenance.path.as_str(), provenance.hashes.weights.as_ref()), ("imported", None));
    assert!(trace.manifest().self_check.is_none());
    assert!(provenance.notes[0].starts_with("imported from dumps"), "{:?}", provenance.notes);
}

#[test]
fn values_that_are_not_finite_arrive_as_they_are() {
    let world = World::new();
    let mut values = world.values("model.norm");
    (values[0], values[1], values[2]) = (f32::NAN, f32::INFINITY, -0.0);
    world.raw("final_norm.f32", &values);
    let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(bytes(&world.import(""), 0, "model.norm").2, expected);
}

#[test]
fn a_debugging_dump_of_text_is_refused() {
    let world = World::new();
    world.file("dumps/Model_debug_tree_FULL_TENSORS.json", "{}");
    refused!(world);
}

#[test]
fn an_empty_directory_of_dumps_is_refused() {
    refused!(World::new());
}

#[test]
fn missing_dumps_are_named() {
    refused!(World::new(), "import nowhere --reference reference --out out");
}

#[test]
fn a_trace_that_is_there_is_not_overwritten_by_import() {
    let world = World::new();
    world.raw("embed.f32", &world.values("model.embed_tokens"));
    refused!(world, "import dumps --reference reference --out reference");
}

/// One file of each format that has a structure.
const FILES: [&str; 5] =
    ["arrays.npz", "arrays/step_0/layer_0.npy", "tensors.pt", "legacy.pt", "tensors.safetensors"];

/// Opens a file and reads all of it that says it is small; nothing may panic.
fn survives(name: &str, bytes: &[u8]) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(Path::new(name).file_name().unwrap());
    std::fs::write(&path, bytes).unwrap();
    let Ok(source) = open(&path) else { return };
    for (i, item) in source.items().iter().enumerate().filter(|(_, item)| item.bytes < 1 << 20) {
        if let Ok(values) = source.read(i) {
            // No more than it promised, and what is promised is no more than the importer asked for.
            assert!(values.len() as u64 <= item.bytes, "{item:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic(
        file in 0..FILES.len(),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = std::fs::read(goldens().join(FILES[file])).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        survives(FILES[file], &bytes);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_never_a_panic(
        file in 0..FILES.len(),
        keep in 0..40usize,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        // The beginning of a real file, so that more than the first look is taken.
        let real = std::fs::read(goldens().join(FILES[file])).unwrap();
        survives(FILES[file], &[&real[..keep], &bytes].concat());
    }
}
