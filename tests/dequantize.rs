//! The weights that each engine computes with, as an f32 checkpoint: lattice's f32 engine on it gives
//! what the engine gives. All on the bundled model.

mod common;

use common::{Form, Seen, bundled_model, layerdiff, tree};
use lattice_compute::forward::cpu::q8_neon::{matmul_q8_neon_into, pack_weights_q8};
use lattice_quant::quarot::QuarotTensorReader;
use layerdiff::checkpoint::ModelDir;
use layerdiff::checkpoint::q4::Q4Dir;
use layerdiff::engine::open;
use layerdiff::quantize::{DEFAULT_SEED, Format, quantize};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn model(path: &Path) -> ModelDir {
    ModelDir::open(path).unwrap()
}

/// The weights of an engine on `source` as a checkpoint.
fn dequantized(engine: &str, source: &Path) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let source = model(source);
    let engine = open(engine, source.path(), source.graph(), None).unwrap();
    assert!(engine.write_dequantized(&source, &out).unwrap());
    (root, out)
}

/// What a model gives at `point` for some tokens and two decode steps.
fn values(engine: &str, path: &Path, point: &'static str) -> Vec<f32> {
    let tokens: Vec<u32> = (0..40).map(|i| (i * i * 7 + i * 31) % 2048).collect();
    let model = model(path);
    let mut seen = Seen(point, Vec::new());
    open(engine, path, model.graph(), Some("serial")).unwrap().run(&tokens, &[5, 6], &mut seen).unwrap();
    seen.1
}

fn rel_l2(ours: &[f32], theirs: &[f32]) -> f64 {
    assert!(ours.len() == theirs.len() && !ours.is_empty());
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| ours.iter().zip(theirs).map(|(a, b)| f((*a).into(), (*b).into())).sum();
    let (error, norm): (f64, f64) = (sum(&|a, b| (a - b).powi(2)), sum(&|_, b| b * b));
    (error / norm).sqrt()
}

fn tensor(dir: &Path, name: &str) -> (Vec<f32>, Vec<usize>) {
    let (values, shape) = QuarotTensorReader::open(dir).unwrap().read_tensor_f64(name).unwrap();
    (values.into_iter().map(|v| v as f32).collect(), shape)
}

fn config(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap()
}

/// The bundled model with weights that 16 bits do not hold, and a head of its own if wanted.
fn in_f32(head: bool) -> TempDir {
    let form = Form { untied: head, ..Form::F32 };
    form.write(|name, values| values.iter_mut().for_each(|v| *v *= 1.0 + name.len() as f32 / 3000.0))
}

#[test]
fn the_f32_engine_on_it_gives_what_the_engine_gives_up_to_rounding() {
    let source = in_f32(false);
    for (engine, point) in [
        ("lattice-f16", "model.norm"),
        ("lattice-f16", "lm_head"),
        ("lattice-q8", "model.norm"),
        ("lattice-q8", "lm_head"),
        ("lattice-q4", "model.norm"),
        ("lattice-q4", "lm_head"),
        // Its final norm is in another basis.
        ("lattice-quarot-q4", "lm_head"),
    ] {
        let (_root, out) = dequantized(engine, source.path());
        let theirs = values(engine, source.path(), point);
        let engine_adds = rel_l2(&theirs, &values("lattice-f32", &out, point));
        let format_costs = rel_l2(&theirs, &values("lattice-f32", source.path(), point));
        println!("{engine} {point}: C-Q {engine_adds:.1e}, C-T {format_costs:.1e}");
        assert!(engine_adds < 2e-5, "{engine} {point}: {engine_adds}");
        assert!(format_costs > 20.0 * engine_adds, "{engine} {point}: {format_costs} {engine_adds}");
    }
}

#[test]
fn q8_0_weights_are_the_columns_that_lattice_s_kernel_gives_for_unit_vectors() {
    let (_root, out) = dequantized("lattice-q8_0", &bundled_model());
    for name in [
        "lm_head.weight",
        "model.language_model.layers.0.linear_attn.in_proj_qkv.weight",
        "model.language_model.layers.3.self_attn.k_proj.weight",
        "model.language_model.layers.3.mlp.down_proj.weight",
    ] {
        let original = name.replace("lm_head", "model.language_model.embed_tokens");
        let (weight, shape) = tensor(&bundled_model(), &original);
        let (n, k) = (shape[0], shape[1]);
        let packed = pack_weights_q8(&weight, n, k).unwrap();
        let (written, written_shape) = tensor(&out, name);
        assert_eq!(written_shape, shape);
        let mut scratch = Vec::new();
        for j in [0, 1, 31, 32, k - 1] {
            let mut unit = vec![0.0; k];
            unit[j] = 1.0;
            let mut column = vec![0.0; n];
            matmul_q8_neon_into(&unit, &packed, n, k, &mut column, &mut scratch);
            for (row, kernel) in column.iter().enumerate() {
                let ours = written[row * k + j];
                // The kernel rounds 127 · code · scale, and the quotient by 127.
                assert!((ours - kernel).abs() <= 4e-7 * kernel.abs(), "{name} [{row}, {j}]: {ours} {kernel}");
            }
        }
    }
}

#[test]
fn a_q8_0_checkpoint_has_a_head_in_blocks_and_an_embedding_in_f32() {
    let (_root, out) = dequantized("lattice-q8_0", &bundled_model());
    let embedding = "model.language_model.embed_tokens.weight";
    let (original, _) = tensor(&bundled_model(), embedding);
    assert_eq!(tensor(&out, embedding).0, original);
    let error = rel_l2(&tensor(&out, "lm_head.weight").0, &original);
    assert!((1e-3..1e-2).contains(&error), "{error}");
    let config = config(&out);
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["text_config"]["tie_word_embeddings"], false);
    // It loads: the head is found and the embedding is not taken for it.
    assert!(
        rel_l2(&values("lattice-f32", &out, "lm_head"), &values("lattice-f32", &bundled_model(), "lm_head"))
            > 1e-4
    );
}

#[test]
fn the_head_that_an_engine_ignores_is_written_so_that_the_engine_s_error_stays_one() {
    let source = in_f32(true);
    let (head, _) = tensor(source.path(), "lm_head.weight");
    for (engine, low, high) in [("lattice-f16", 1e-5, 1e-3), ("lattice-q8", 0.0, 0.0)] {
        let (_root, out) = dequantized(engine, source.path());
        let error = rel_l2(&tensor(&out, "lm_head.weight").0, &head);
        assert!((low..=high).contains(&error), "{engine}: {error}");
        let adds = rel_l2(&values(engine, source.path(), "lm_head"), &values("lattice-f32", &out, "lm_head"));
        assert!(adds > 0.5, "{engine}: {adds}");
    }
}

#[test]
fn nothing_is_written_of_weights_that_16_bits_hold_exactly() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let coarse = |value: f32| (value * 1024.0).round() / 1024.0;
    let source = Form::F32.write(|_, values| values.iter_mut().for_each(|v| *v = coarse(*v)));
    let source = model(source.path());
    for engine in ["lattice-f16", "lattice-f32"] {
        let engine = open(engine, source.path(), source.graph(), None).unwrap();
        assert!(!engine.write_dequantized(&source, &out).unwrap());
    }
    assert!(tree(root.path()).is_empty());
}

#[test]
fn a_tensor_that_the_engine_does_not_round_stays_as_it_was() {
    let source = in_f32(false);
    for engine in ["lattice-f16", "lattice-q8", "lattice-q8_0"] {
        let (_root, out) = dequantized(engine, source.path());
        for local in [
            "norm.weight",
            "layers.0.linear_attn.A_log",
            "layers.0.linear_attn.conv1d.weight",
            "layers.3.self_attn.q_norm.weight",
        ] {
            let name = format!("model.language_model.{local}");
            assert_eq!(tensor(&out, &name), tensor(source.path(), &name), "{engine} {local}");
        }
    }
}

#[test]
fn what_an_engine_rounds_is_in_its_provenance() {
    let model = model(&bundled_model());
    for (engine, quantized, bits) in [
        ("lattice-f32", false, None),
        ("lattice-f16", false, None),
        ("lattice-q8", true, None),
        ("lattice-q8_0", true, Some(8)),
        ("lattice-q4", true, None),
        ("lattice-quarot-q4", true, None),
    ] {
        let engine = open(engine, model.path(), model.graph(), None).unwrap();
        let provenance = engine.provenance();
        assert_eq!(
            (provenance.quantized, provenance.activation_bits),
            (quantized, bits),
            "{}",
            provenance.engine
        );
        assert_eq!(engine.activation_bits(), bits);
    }
}

mod a_quantized_directory {
    use super::*;

    fn quantized(format: Format) -> (TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("quantized");
        quantize(&model(&bundled_model()), format, &dir, true).unwrap();
        (root, dir)
    }

    #[test]
    fn of_plain_q4_is_dequantized_by_itself() {
        let (_root, dir) = quantized(Format::Q4);
        let (_made, out) = dequantized("lattice-q4", &dir);
        let q4 = Q4Dir::open(&dir).unwrap();
        let entry = q4.entries().iter().find(|e| e.quantized).unwrap();
        assert_eq!(tensor(&out, &entry.name).0, q4.dequantize(entry).unwrap());
    }

    #[test]
    fn of_quarot_needs_the_original_for_its_gains() {
        let (root, dir) = quantized(Format::QuarotQ4 { seed: DEFAULT_SEED });
        let quantized = model(&dir);
        let engine = open("lattice-quarot-q4", &dir, quantized.graph(), None).unwrap();
        let out = root.path().join("out");
        let error = engine.write_dequantized(&quantized, &out).unwrap_err().to_string();
        assert!(error.contains("are unknown") && error.contains("hint: QuaRot folds them"), "{error}");
        assert!(!out.exists());
        assert!(engine.write_dequantized(&model(&bundled_model()), &out).unwrap());
        let (_made, from_original) = dequantized("lattice-quarot-q4", &bundled_model());
        assert_eq!(model(&out).hashes().unwrap().weights, model(&from_original).hashes().unwrap().weights);
    }
}

mod command {
    use super::*;

    fn run(args: &[&str], model: &Path, out: &Path) -> common::Run {
        let paths = [model.to_str().unwrap(), out.to_str().unwrap()];
        layerdiff(&[&["dequantize"], args, &paths[..]].concat())
    }

    #[test]
    fn writes_what_the_engine_writes_and_says_how_much() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("deep/out");
        let said = run(&["--engine", "lattice-q8_0", "--json"], &bundled_model(), &out).json();
        let (_made, expected) = dequantized("lattice-q8_0", &bundled_model());
        assert_eq!(
            std::fs::read(out.join("model.safetensors")).unwrap(),
            std::fs::read(expected.join("model.safetensors")).unwrap()
        );
        let bytes = std::fs::metadata(out.join("model.safetensors")).unwrap().len();
        let tensors =
            SafeTensors::deserialize(&std::fs::read(out.join("model.safetensors")).unwrap()).unwrap().len();
        assert_eq!(
            (&said["tensors"], &said["bytes"], &said["activation_bits"]),
            (&json!(tensors), &json!(bytes), &json!(8))
        );
        let text = run(&["--engine", "lattice-q8"], &bundled_model(), &root.path().join("two"));
        assert!(text.code == 0 && text.stdout.contains("the weights of lattice-q8 in float32"), "{text:#?}");
        let again = run(&["--engine", "lattice-q8"], &bundled_model(), &out);
        assert!(again.code == 2 && again.stderr.contains("already exists"), "{again:#?}");
    }

    #[test]
    fn takes_a_seed_for_a_rotation_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let args = ["--engine", "lattice-quarot-q4", "--seed", "7", "--json"];
        let said = run(&args, &bundled_model(), &root.path().join("seven")).json();
        assert_eq!(said["seed"], 7);
        let said =
            run(&["--engine", "lattice-quarot-q4", "--json"], &bundled_model(), &root.path().join("default"))
                .json();
        assert_eq!(said["seed"], DEFAULT_SEED);
        let name = "model.language_model.layers.0.mlp.up_proj.weight";
        let [seven, default] = ["seven", "default"].map(|dir| tensor(&root.path().join(dir), name).0);
        assert!((1e-2..0.3).contains(&rel_l2(&seven, &default)));
        assert_eq!(config(&root.path().join("seven")).get("quarot_rotation_seed"), None);
    }

    #[test]
    fn takes_the_original_of_a_rotated_directory() {
        let root = tempfile::tempdir().unwrap();
        let (dir, out) = (root.path().join("quantized"), root.path().join("out"));
        quantize(&model(&bundled_model()), Format::QuarotQ4 { seed: 3 }, &dir, true).unwrap();
        let refused = run(&["--engine", "lattice-quarot-q4"], &dir, &out);
        assert!(
            refused.code == 2 && refused.stderr.contains("gains of a rotated directory's norms are unknown"),
            "{refused:#?}"
        );
        let args = ["--engine", "lattice-quarot-q4", "--original", bundled_model().to_str().unwrap()]
            .map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(run(&args, &dir, &out).code, 0);
    }
}

mod with_pytorch {
    use super::*;

    /// Runs a command that needs the Python of the environment, which the shared helper hides.
    fn run(args: &[&str]) -> Value {
        let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"))
            .args(args)
            .arg("--json")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
    }

    /// Captures the bundled prompt.
    fn capture(engine: &[&str], model: &Path, out: &Path) {
        let [model, out] = [model, out].map(|path| path.to_str().unwrap());
        let prompt = ["--prompts", "src/bundle/reference", "--prompt", "code-01", "--steps", "2"];
        let args = [&["capture", "--model", model, "--out", out, "--engine"], engine, &prompt].concat();
        assert_eq!(run(&args)["self_check"]["status"], "bit-equal");
    }

    /// The largest relative L2 error at a point over the steps.
    fn error(report: &Value, point: &str) -> f64 {
        let points = report["points"].as_array().unwrap().iter().filter(|p| p["point"] == point);
        points.map(|p| p["rel_l2"].as_f64().unwrap()).reduce(f64::max).unwrap()
    }

    #[test]
    #[ignore = "needs PyTorch"]
    fn on_it_with_8_bit_activations_gives_what_the_q8_0_engine_gives_up_to_its_wrong_convolution() {
        let (root, arm) = dequantized("lattice-q8_0", &bundled_model());
        let path = |name: &str| root.path().join(name);
        capture(&["lattice-q8_0"], &bundled_model(), &path("engine"));
        capture(&["torch", "--activation-bits", "8"], &arm, &path("rounded"));
        capture(&["torch"], &arm, &path("floats"));
        let [rounded, floats] = ["rounded", "floats"].map(|reference| {
            let [reference, engine] = [path(reference), path("engine")];
            let [reference, engine] = [&reference, &engine].map(|path| path.to_str().unwrap());
            run(&["compare", "--other-weights", reference, engine])
        });
        for module in ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"] {
            let point = format!("model.layers.0.linear_attn.{module}");
            let [rounded, floats] = [error(&rounded, &point), error(&floats, &point)];
            println!("{point}: {rounded:.1e} with 8-bit activations, {floats:.1e} without");
            // One code that differs by one would be a thousandth.
            assert!(rounded < 2e-6 && floats > 1e-3, "{point}: {rounded} {floats}");
        }
        // The engine's own error, which no arm has.
        assert!(error(&rounded, "model.layers.0.linear_attn.conv1d") > 0.1);
    }

    #[test]
    #[ignore = "needs PyTorch"]
    fn gives_what_each_engine_with_float_activations_gives_up_to_rounding() {
        let source = in_f32(false);
        for engine in ["lattice-f16", "lattice-q8", "lattice-q4"] {
            let (root, arm) = dequantized(engine, source.path());
            let path = |name: &str| root.path().join(name);
            capture(&[engine], source.path(), &path("engine"));
            capture(&["torch"], &arm, &path("arm"));
            let [reference, candidate] = [path("arm"), path("engine")];
            let [reference, candidate] = [&reference, &candidate].map(|path| path.to_str().unwrap());
            let report = run(&["compare", "--other-weights", reference, candidate]);
            let points = report["points"].as_array().unwrap();
            let worst = points.iter().map(|p| p["rel_l2"].as_f64().unwrap()).fold(0.0, f64::max);
            println!("{engine}: C-Q worst {worst:.1e}");
            assert!(worst < 1e-4, "{engine}: {worst}");
            // Compared, though not all are judged: what 16 bits do to these weights could hide a fault.
            assert_eq!(points.len() as u64, report["coverage"]["expected"].as_u64().unwrap());
        }
    }
}
