//! The tap: engines in Rust and C write traces through it, and the real command judges them.

#[path = "../common/mod.rs"]
mod common;

mod dependencies;
mod errors;
mod in_c;
mod in_rust;
mod odd_in_c;
mod off;
mod sequences;
mod threads;

use layerdiff::prompt::Prompt;
use layerdiff::trace::{Manifest, Trace, TraceWriter, WriteOptions};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The `PyTorch` trace that the binary carries.
fn reference() -> PathBuf {
    common::bundled_model().with_file_name("reference")
}

/// Cargo, on what this test was built with, into the same directory: what both need is built once.
fn cargo(args: &[&str], dir: &Path) -> Output {
    let bin = assert_cmd::cargo::cargo_bin!("layerdiff");
    let target = bin.ancestors().nth(2).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What `cargo build` left under this name.
fn built(name: &str) -> PathBuf {
    assert_cmd::cargo::cargo_bin!("layerdiff").with_file_name(name)
}

/// The short prompt of that trace.
const SHORT: &str = "instruction-07";

/// Writes a trace of the prefill of that prompt alone.
fn prefill(target: &Path) {
    let trace = open(&reference());
    let Manifest { architecture, config, provenance, prompts, .. } = trace.manifest().clone();
    let options = WriteOptions { architecture, config, provenance, adapter: None, shard_bytes: 1 << 23 };
    let mut writer = TraceWriter::create(target, options).unwrap();
    let prompt = prompts.into_iter().find(|prompt| prompt.id == SHORT).unwrap();
    writer.start_prompt(&Prompt { step_token_ids: Vec::new(), ..prompt });
    for e in trace.entries().iter().filter(|e| e.prompt == SHORT && e.step == 0) {
        let bytes = trace.view(e).bytes.to_vec();
        writer.push(0, &e.point, e.dtype, &e.shape, bytes, &e.basis, e.derived).unwrap();
    }
    writer.finish(trace.manifest().self_check.clone()).unwrap();
}

/// Outcome and faults of a trace against a reference, at these points of the short prompt.
fn judged(reference: &Path, trace: &Path, points: &str) -> (String, BTreeSet<String>) {
    let model = common::bundled_model();
    let paths = [reference, trace, &model].map(|path| path.to_str().unwrap());
    let [reference, trace, model] = paths;
    let args = ["compare", reference, trace, "--model", model, "--points", points, "--json"];
    let run = common::layerdiff(&[&args[..], &["--prompt", SHORT]].concat());
    let report = run.json();
    assert_eq!(report["coverage"]["unmeasured"], 0, "{report:#}");
    let faults = report["faults"].as_array().unwrap();
    let faults = faults.iter().map(|fault| fault["point"].as_str().unwrap().to_owned()).collect();
    (report["outcome"].as_str().unwrap().to_owned(), faults)
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// The model of `common::config`, its configuration alone.
fn tiny_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), common::config().to_string()).unwrap();
    dir
}

/// Opens a trace, which checks it.
fn open(path: &Path) -> Trace {
    Trace::open(path).unwrap()
}
