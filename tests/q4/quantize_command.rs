//! The command that quantizes.

use super::*;

/// The bundled model with another configuration and, if given, other weights.
fn model(change: impl FnOnce(&mut Value), weights: Option<&[u8]>) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(bundled_model().join(name), root.path().join(name)).unwrap();
    }
    edit_json(&root.path().join("config.json"), change);
    if let Some(weights) = weights {
        std::fs::write(root.path().join("model.safetensors"), weights).unwrap();
    }
    root
}

#[track_caller]
fn refusal(format: &str, model: &Path, words: &str) {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let args = ["quantize", "--format", format, model.to_str().unwrap(), out.to_str().unwrap()];
    let run = layerdiff(&args);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:#?}");
    assert!(run.stderr.contains(words) && run.stderr.contains("hint: "), "{run:#?}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn makes_what_the_library_makes_and_says_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let (model, out) = (bundled_model(), root.path().join("deep/out"));
    let args =
        ["quantize", "--format", "quarot-q4", model.to_str().unwrap(), out.to_str().unwrap(), "--json"];
    let run = layerdiff(&args);
    assert_eq!(run.code, 0, "{run:#?}");
    let said = run.json();
    println!("{said}");
    assert_eq!((&said["seed"], &said["format"]), (&json!(DEFAULT_SEED), &json!("quarot-q4")));
    for entry in Q4Dir::open(&out).unwrap().entries() {
        let read = |dir: &Path| std::fs::read(dir.join(&entry.file)).unwrap();
        assert_eq!(read(&out), read(&Made::at("quarot")), "{}", entry.file);
    }
    let run = layerdiff(&args);
    assert!(run.code == 2 && run.stderr.contains("already exists"), "{run:#?}");
}

#[test]
fn refuses_a_hidden_size_that_quarot_cannot_rotate() {
    let model = model(|config| config["text_config"]["hidden_size"] = 96.into(), None);
    refusal("quarot-q4", model.path(), "cannot rotate a model of this hidden size");
}

#[test]
fn refuses_experts() {
    let model = model(|config| config["text_config"]["num_experts"] = 4.into(), None);
    refusal("q4", model.path(), "mixture-of-experts");
}

#[test]
fn refuses_a_directory_without_weights() {
    let model = model(|_| (), None);
    std::fs::remove_file(model.path().join("model.safetensors")).unwrap();
    refusal("q4", model.path(), "holds no weights");
}

#[test]
fn refuses_weights_that_are_not_finite() {
    let mut weights = std::fs::read(bundled_model().join("model.safetensors")).unwrap();
    let end = weights.len();
    weights[end - 2..].copy_from_slice(&[0xc0, 0x7f]);
    let model = model(|_| (), Some(&weights));
    for format in ["q4", "quarot-q4"] {
        refusal(format, model.path(), "NaN");
    }
}

#[test]
fn refuses_damaged_weights() {
    let model = model(|_| (), Some(b"not safetensors"));
    refusal("q4", model.path(), "lattice cannot read the weights");
}

#[test]
fn refuses_to_quantize_or_rotate_twice() {
    refusal("q4", &Made::at("q4"), "quantized already");
    refusal("q4", &Made::at("rotated"), "rotated already");
}

#[test]
fn refuses_a_seed_for_what_has_none() {
    let run = layerdiff(&["quantize", "--format", "q4", "--seed", "1", "a", "b"]);
    assert!(run.code == 2 && run.stderr.contains("plain Q4 has no seed"), "{run:#?}");
}
