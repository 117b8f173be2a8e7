//! An engine in C, with the library that C links.

use super::{SHORT, built, cargo, common, judged, names, open, reference};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const LAYERS: usize = 8;

/// The engine, built once; none where there is no compiler, which a Rust that links without one has.
fn engine() -> Option<&'static Path> {
    static ENGINE: OnceLock<Option<PathBuf>> = OnceLock::new();
    ENGINE.get_or_init(|| compiled("example")).as_deref()
}

/// `NAME.c`, with the library.
pub(super) fn compiled(name: &str) -> Option<PathBuf> {
    static LIBRARY: OnceLock<()> = OnceLock::new();
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("NOT TESTED: the tap in C, since there is no `cc` here");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    LIBRARY.get_or_init(|| {
        let how = ["rustc", "--offline", "--lib", "--no-default-features", "--features", "c"];
        cargo(&[&how[..], &["--crate-type", "staticlib"]].concat(), root);
    });
    let engine = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tap-{name}"));
    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-ffp-contract=off"])
        .arg("-I")
        .arg(root.join("src/tap"))
        .arg(root.join(format!("tests/tap/{name}.c")))
        .arg(built("liblayerdiff.a"))
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&engine)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(engine)
}

/// What the engine reads: gate and up of the bundled short prompt, as `PyTorch` computed them.
fn numbers() -> Vec<u8> {
    let trace = open(&reference());
    let prompt = trace.manifest().prompts.iter().find(|p| p.id == SHORT).unwrap();
    let view = |step: u32, layer: usize, name: &str| {
        let point = format!("model.layers.{layer}.mlp.{name}");
        trace.view(trace.find(SHORT, step, &point).unwrap()).bytes
    };
    let width = open(&reference()).entries().iter().find(|e| e.point.ends_with("up_proj")).unwrap().shape[1];
    let mut words = vec![prompt.token_ids.len() as u32];
    words.extend(&prompt.token_ids);
    words.push(prompt.step_token_ids.len() as u32);
    words.extend(&prompt.step_token_ids);
    words.extend([LAYERS as u32, width as u32]);
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    for step in 0..=prompt.step_token_ids.len() as u32 {
        for layer in 0..LAYERS {
            bytes.extend(view(step, layer, "gate_proj"));
            bytes.extend(view(step, layer, "up_proj"));
        }
    }
    bytes
}

/// Runs the engine with a fault in a directory of its own; none where there is no engine.
fn run(fault: &str, trace: Option<&str>) -> Option<(tempfile::TempDir, Output)> {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("numbers");
    std::fs::write(&file, numbers()).unwrap();
    let mut command = Command::new(engine()?);
    command.arg(common::bundled_model()).arg(&file).arg(fault).current_dir(root.path());
    command.env_remove("LAYERDIFF_PROMPTS").env_remove("LAYERDIFF_TRACE");
    trace.map(|name| command.env("LAYERDIFF_TRACE", name));
    let output = command.output().unwrap();
    std::fs::remove_file(&file).unwrap();
    Some((root, output))
}

fn verdict(fault: &str) -> Option<(String, BTreeSet<String>)> {
    let (root, output) = run(fault, Some("out"))?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(names(root.path()), ["out"]);
    Some(judged(&reference(), &root.path().join("out"), "*.mlp.{gate_proj,up_proj,act}"))
}

#[test]
fn the_header_is_one_of_cpp_too() {
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tap-header.cpp");
    std::fs::write(&source, "#include \"layerdiff.h\"\nint main() { return layerdiff_end(); }\n").unwrap();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tap");
    let flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"];
    let Ok(output) = Command::new("c++").args(flags).arg(header).arg(&source).output() else {
        eprintln!("NOT TESTED: the header in C++, since there is no `c++` here");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_right_kernel_in_c_passes() {
    let Some(verdict) = verdict("none") else { return };
    assert_eq!(verdict, ("pass".to_owned(), BTreeSet::new()));
}

#[test]
fn a_wrong_kernel_in_c_is_found_at_exactly_its_point() {
    for fault in ["gelu", "swapped"] {
        let Some(verdict) = verdict(fault) else { return };
        assert_eq!(verdict, ("fault".to_owned(), ["model.layers.5.mlp.act".to_owned()].into()), "{fault}");
    }
}

#[test]
fn a_trace_of_c_is_inspected_as_any_other() {
    let Some((root, _)) = run("none", Some("deep/er/out")) else { return };
    let out = root.path().join("deep/er/out");
    let shown = common::layerdiff(&["inspect", out.to_str().unwrap()]);
    assert_eq!(shown.code, 0);
    assert!(shown.stdout.contains("example-c 1, float32, path tap"), "{}", shown.stdout);
    assert!(shown.stdout.contains("model.layers.7.mlp.act"), "{}", shown.stdout);
    // The same model, so that replay is possible.
    let hashes = |trace: &Path| open(trace).manifest().provenance.hashes.clone();
    assert_eq!(hashes(&out), hashes(&reference()));
}

#[test]
fn a_tap_in_c_that_is_off_writes_nothing() {
    let Some((root, output)) = run("name", None) else { return };
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"off\n"[..]));
    assert!(names(root.path()).is_empty());
}

#[test]
fn an_error_in_c_is_told_at_the_end_and_leaves_nothing() {
    let said = |fault: &str, parts: &[&str]| {
        let Some((root, output)) = run(fault, Some("out")) else { return };
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"on\n"[..]), "{fault}");
        assert!(parts.iter().all(|part| text.contains(part)), "{fault}: {text}");
        assert!(names(root.path()).is_empty(), "{fault}");
    };
    said("name", &["no point `model.layers.", ".mlp.act_fn`", "did you mean `model.layers.", ".mlp.act`?"]);
    said("dtype", &[".mlp.act`: unknown dtype", "0 to 4", "got: 17"]);
    said("null", &[".mlp.act` in step 0: the data is a null pointer"]);
    said("row", &["`model.layers.1.mlp.act` (step 0, prompt `instruction-07`) lacks rows", "none at row 0"]);
}

#[test]
fn a_trace_that_is_there_already_turns_the_tap_off_and_not_the_engine() {
    let Some((root, output)) = run("none", Some(".")) else { return };
    let text = String::from_utf8_lossy(&output.stderr);
    // It runs to its end, and who did not look at the beginning is told there.
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"off\n"[..]));
    assert!(text.starts_with("off: the output already exists"), "{text}");
    assert!(text.contains("error: the output already exists"), "{text}");
    assert!(names(root.path()).is_empty());
}
