//! Real files of real programs: what is read is, bit for bit, what the reference has.

use crate::common::layerdiff;
use crate::world::{World, bytes, refused};
use layerdiff::trace::Trace;
use std::path::{Path, PathBuf};

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/dumps")
}

pub fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/reference")
}

/// Imports a dump of the bundled reference and compares every tensor of it.
#[track_caller]
fn equal(dumps: &Path, tensors: usize) -> Trace {
    let root = tempfile::tempdir().unwrap();
    imported(root.path(), dumps, &bundled(), tensors)
}

/// The same of another reference, into `root/out`.
#[track_caller]
fn imported(root: &Path, dumps: &Path, reference: &Path, tensors: usize) -> Trace {
    let out = root.join("out");
    let [dumps, original, target] = [dumps, reference, &out].map(|p| p.to_str().unwrap().to_owned());
    let run = layerdiff(&[
        "import",
        &dumps,
        "--reference",
        &original,
        "--prompt",
        "instruction-07",
        "--out",
        &target,
    ]);
    assert_eq!(run.code, 0, "{run:#?}");
    let (imported, reference) = (Trace::open(&out).unwrap(), Trace::open(reference).unwrap());
    assert_eq!(imported.entries().len(), tensors);
    for entry in imported.entries() {
        let theirs = reference.find("instruction-07", entry.step, &entry.point).unwrap();
        assert_eq!((entry.dtype, &entry.shape), (theirs.dtype, &theirs.shape), "{}", entry.point);
        assert_eq!(imported.view(entry).bytes, reference.view(theirs).bytes, "{}", entry.point);
    }
    imported
}

/// Reads the dumps; those of Transformers' debugger are of the same computation as `debugged`.
fn every_format(goldens: &Path, debugged: &Path) {
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
    let root = tempfile::tempdir().unwrap();
    let debugger = imported(root.path(), &goldens.join("debugger"), debugged, 22);
    assert!(debugger.find("instruction-07", 0, "model.layers.2").is_some());
}

#[test]
fn every_format_gives_the_values_that_were_dumped() {
    every_format(&goldens(), &bundled());
}

#[test]
fn dumps_with_the_inputs_of_components_are_replayed_when_the_weights_are_named() {
    let root = tempfile::tempdir().unwrap();
    drop(imported(root.path(), &goldens().join("debugger"), &bundled(), 22));
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
    let python = |args: &[&str]| {
        let done =
            std::process::Command::new(&python).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(done.unwrap().success());
    };
    python(&[goldens().join("make.py").to_str().unwrap(), out.path().to_str().unwrap()]);
    // On another processor PyTorch computes other bits than those of the bundled reference.
    let now = out.path().join("now");
    let prompt = ["--prompts", "prompts/standard.jsonl", "--prompt", "instruction-07"];
    let model = ["--model", "src/bundle/model", "--threads", "1", "--out", now.to_str().unwrap()];
    python(&[["-m", "layerdiff_hooks", "capture"].as_slice(), &prompt, &model].concat());
    every_format(out.path(), &now);
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

/// A copy of the dump of Transformers' debugger.
fn debugger(world: &World) {
    for entry in std::fs::read_dir(goldens().join("debugger")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, world.path("dumps").join(path.file_name().unwrap())).unwrap();
    }
}

fn line() -> String {
    format!("import dumps --reference {} --prompt instruction-07 --out out", bundled().display())
}

#[test]
fn what_else_lies_beside_a_debugging_dump_is_imported_or_refused() {
    let world = World::new();
    debugger(&world);
    let layer = std::fs::read(goldens().join("raw/layer_0.f32")).unwrap();
    world.file("dumps/layer_0.f32", &layer);
    let run = world.run(&line());
    assert_eq!(run.code, 0, "{run:#?}");
    let trace = Trace::open(&world.path("out")).unwrap();
    assert_eq!(trace.entries().len(), 23);
    assert_eq!(bytes(&trace, 0, "model.layers.0").2, layer);
    std::fs::remove_dir_all(world.path("out")).unwrap();
    world.file("dumps/mine.f32", [0; 28]);
    let told = world.refusal(&line());
    assert!(told.contains("what 1 dump is") && told.contains("`mine`"), "{told}");
}

#[test]
fn outputs_of_another_form_are_named_and_damaged_ones_are_errors() {
    let world = World::new();
    debugger(&world);
    let name = "dumps/Qwen3_5ForCausalLM.lm_head_outputs.safetensors";
    // The last token's logits, as generation asks for them.
    let last = |shape: &str, bytes: usize| {
        let header =
            format!("{{\"data\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,{bytes}]}}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat()
    };
    let vocab =
        Trace::open(&bundled()).unwrap().entries().iter().find(|e| e.point == "lm_head").unwrap().shape[1];
    world.file(name, last(&format!("[1,1,{vocab}]"), 4 * vocab));
    let run = world.run(&line());
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(
        run.stderr.contains("`lm_head` ([1, 1, ") && run.stderr.contains("which is of one token"),
        "{run:#?}"
    );
    std::fs::remove_dir_all(world.path("out")).unwrap();
    world.file(name, &last("[2]", 8)[..40]);
    assert!(world.refusal(&line()).contains("a dump is damaged"));
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
