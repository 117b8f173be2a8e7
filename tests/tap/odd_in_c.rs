//! What engines in C do at times: they fork, change their directory, and hand over pointers that lead nowhere.

use super::in_c::compiled;
use super::{SHORT, common, names, open};
use layerdiff::trace::Trace;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const ACT: &str = "model.layers.3.mlp.act";

/// Runs the engine, which does `what`, in `dir`; none where it cannot be built.
fn run(what: &str, model: &Path, dir: &Path, trace: Option<&str>) -> Option<Output> {
    static ENGINE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| compiled("odd")).as_deref()?;
    let mut command = Command::new(engine);
    command.arg(model).arg(what).current_dir(dir);
    command.env_remove("LAYERDIFF_PROMPTS").env_remove("LAYERDIFF_TRACE");
    trace.map(|name| command.env("LAYERDIFF_TRACE", name));
    Some(command.output().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The numbers of the one tensor that a trace holds.
fn numbers(trace: &Trace) -> Vec<f32> {
    assert_eq!(trace.entries().len(), 1);
    let bytes = trace.view(&trace.entries()[0]).bytes;
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn a_forked_child_does_not_touch_the_trace_of_its_parent() {
    let root = tempfile::tempdir().unwrap();
    let Some(output) = run("fork", &common::bundled_model(), root.path(), Some("out")) else { return };
    let text = said(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(output.status.code(), Some(0), "{text}");
    // The child cannot begin before the trace that it inherited is put away, which is an error.
    assert_eq!(lines[0], "child: 1");
    assert!(lines[1].starts_with("child: 1 the trace was begun in another process"), "{text}");
    assert!(lines[2].trim_start().starts_with("hint: "), "{text}");
    assert_eq!(lines[3..], ["child: 0 ", "parent: 0 "]);
    let mut there = names(root.path());
    there.sort();
    assert_eq!(there, ["out", "own"]);
    let out = open(&root.path().join("out"));
    assert_eq!(out.manifest().prompts.len(), 1);
    assert_eq!(out.manifest().prompts[0].id, SHORT);
    assert_eq!(numbers(&out), [1.0; 1024]);
    assert_eq!(numbers(&open(&root.path().join("own"))), [7.0; 1024]);
}

#[test]
fn paths_are_those_of_the_directory_in_which_the_trace_was_begun() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("elsewhere")).unwrap();
    std::fs::create_dir(root.path().join("model")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(common::bundled_model().join(name), root.path().join("model").join(name)).unwrap();
    }
    let Some(output) = run("chdir", Path::new("model"), root.path(), Some("out")) else { return };
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), "parent: 0 \n"));
    assert!(names(&root.path().join("elsewhere")).is_empty());
    // The weights were found at the end, in the directory that the engine had left.
    assert!(open(&root.path().join("out")).manifest().provenance.hashes.weights.is_some());
}

#[test]
fn a_tap_in_c_that_is_off_looks_at_no_pointer() {
    let root = tempfile::tempdir().unwrap();
    let Some(output) = run("nowhere", &common::bundled_model(), root.path(), None) else { return };
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), "begin: 0\nparent: 0 \n"));
    let output = run("null-begin", &common::bundled_model(), root.path(), Some("out")).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).starts_with("begin: 1 the engine's name is a null pointer"), "{output:?}");
}

#[test]
fn a_tensor_in_c_is_not_looked_at_before_its_shape_and_type_are_those_of_the_model() {
    let refused = |what: &str, parts: &[&str]| {
        let root = tempfile::tempdir().unwrap();
        let Some(output) = run(what, &common::bundled_model(), root.path(), Some("out")) else { return };
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {text}");
        assert!(parts.iter().chain([&ACT]).all(|part| text.contains(part)), "{what}: {text}");
        assert!(names(root.path()).is_empty(), "{what}");
    };
    refused(
        "wide",
        &["another shape than the model gives it", "expected: [4, 256]", "got: [4, 1099511627776]"],
    );
    refused("mask", &["another type than the point has", "got: U8"]);
    refused("null", &["the data is a null pointer"]);
    refused("far", &["impossible strides", "[18446744073709551615, 1] for [4, 256]"]);
}
