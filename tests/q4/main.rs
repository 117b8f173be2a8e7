//! Q4 and QuaRot Q4: directories made and read back, the pass on blocks, the way back from the
//! rotated basis. All on the bundled model.

#[path = "../common/mod.rs"]
mod common;

mod a_damaged_directory_is_refused;
mod a_quantized_directory;
mod quantize_command;
mod the_pass_on_blocks;
mod the_rotated_basis;
mod with_pytorch;

use common::{bundled_model, edit_manifest, layerdiff};
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_arch::qwen35_tensors::qwen_required_tensor_names;
use lattice_quant::q4_manifest::{ManifestFlavor, load_manifest};
use lattice_quant::quarot::QuarotTensorReader;
use lattice_quant::quarot::hadamard::RandomizedHadamard;
use lattice_quant::quarot::lm_head::{
    materialize_lm_head_for_qwen35, qwen35_final_norm_fusion_target, untie_word_embeddings_in_config_json,
};
use lattice_quant::quarot::pipeline::{absorb_rotations, fuse_rmsnorms, load_tensors_f64};
use lattice_quant::quarot::plan::qwen35_residual_stream_linear_layers;
use lattice_quant::quarot::rmsnorm_fusion::qwen35_per_layer_fusion_plan;
use lattice_weights::q4_weights::{dequantize_q4_to_f32, load_f16_tensor_file, load_q4_file};
use layerdiff::align::{Partner, align};
use layerdiff::basis::Gains;
use layerdiff::capture::{Request, capture, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::checkpoint::q4::{INDEX, Q4Dir};
use layerdiff::compare::compare;
use layerdiff::engine::{Engine, open};
use layerdiff::error::Result;
use layerdiff::hook::{At, Hook, NoHook};
use layerdiff::model::{Basis, PointFilter};
use layerdiff::prompt::Prompt;
use layerdiff::quantize::{DEFAULT_SEED, Format, quantize};
use layerdiff::tensor::{Tensor, Values};
use layerdiff::trace::{SelfCheck, Status, Trace};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// What is made once for all tests: quantized directories, their f32 forms, and traces.
struct Made(TempDir);

impl Made {
    fn at(name: &str) -> PathBuf {
        static MADE: OnceLock<Made> = OnceLock::new();
        MADE.get_or_init(Made::new).0.path().join(name)
    }

    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        let path = |name: &str| made.0.path().join(name);
        let model = bundled();
        let gains = model.gains().unwrap();
        quantize(&model, Format::Q4, &path("q4"), true).unwrap();
        quantize(&model, Format::QuarotQ4 { seed: DEFAULT_SEED }, &path("quarot"), true).unwrap();
        for name in ["q4", "quarot"] {
            let dir = Q4Dir::open(&path(name)).unwrap();
            dir.write_dequantized(&path(&format!("{name}-f32"))).unwrap();
            dir.write_unrotated(&gains, &path(&format!("{name}-unrotated"))).unwrap();
        }
        write_rotated(&path("rotated"));
        for (engine, model, out) in [
            ("lattice-f32", bundled_model(), "reference"),
            ("lattice-q4", path("q4"), "q4-trace"),
            ("lattice-quarot-q4", path("quarot"), "quarot-trace"),
            ("lattice-f32", path("q4-f32"), "q4-f32-trace"),
            ("lattice-f32", path("quarot-f32"), "quarot-f32-trace"),
            ("lattice-f32", path("quarot-unrotated"), "quarot-unrotated-trace"),
            ("lattice-f32", path("rotated"), "rotated-trace"),
        ] {
            capture_into(engine, &model, &path(out));
        }
        made
    }
}

/// The bundled model's weights after lattice's own rotation, not quantized, as an f32 checkpoint.
fn write_rotated(out: &Path) {
    let source = bundled_model();
    let json = std::fs::read_to_string(source.join("config.json")).unwrap();
    let config = Qwen35Config::from_config_json_str(&json).unwrap();
    let reader = QuarotTensorReader::open(&source).unwrap();
    let mut tensors = load_tensors_f64(&reader, &qwen_required_tensor_names(&config)).unwrap();
    materialize_lm_head_for_qwen35(&mut tensors, &config).unwrap();
    let mut fusions = qwen35_per_layer_fusion_plan(&config).unwrap();
    fusions.push(qwen35_final_norm_fusion_target());
    fuse_rmsnorms(&mut tensors, &fusions).unwrap();
    let rotation = RandomizedHadamard::new(DEFAULT_SEED, config.hidden_size).unwrap();
    absorb_rotations(&mut tensors, &qwen35_residual_stream_linear_layers(), &rotation).unwrap();
    std::fs::create_dir(out).unwrap();
    let bytes: BTreeMap<String, Vec<u8>> = tensors
        .iter()
        .map(|(name, t)| (name.clone(), t.data.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        (name, TensorView::new(Dtype::F32, tensors[name].shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, &out.join("model.safetensors")).unwrap();
    let untied = untie_word_embeddings_in_config_json(&json).unwrap();
    let mut config: Value = serde_json::from_str(&untied).unwrap();
    config["quarot_rotation_seed"] = DEFAULT_SEED.into();
    std::fs::write(out.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(source.join("tokenizer.json"), out.join("tokenizer.json")).unwrap();
}

fn bundled() -> ModelDir {
    ModelDir::open(&bundled_model()).unwrap()
}

/// `code-01` of the bundled trace, so that it can be the reference too.
fn prompt() -> Prompt {
    let trace = Trace::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/reference")).unwrap();
    trace.manifest().prompts.iter().find(|p| p.id == "code-01").unwrap().clone()
}

/// Decode steps of the captured traces.
const STEPS: usize = 2;

fn capture_into(engine: &str, model: &Path, out: &Path) {
    let model = ModelDir::open(model).unwrap();
    let points = PointFilter::default();
    let prompts = [prompt()];
    let mut opened = open_engine(engine, &model, Some("serial")).unwrap();
    let request = Request {
        model: &model,
        prompts: &prompts,
        steps: STEPS,
        points: &points,
        dequantized: None,
        quiet: true,
    };
    capture(opened.as_mut(), &request, out).unwrap();
}

/// The relative L2 error at each point, the largest over the steps; both must have every point.
fn errors(reference: &str, candidate: &str) -> BTreeMap<String, f64> {
    let model = bundled();
    let gains = model.gains().unwrap();
    let [reference, candidate] = [reference, candidate].map(|name| Trace::open(&Made::at(name)).unwrap());
    let pairs = align(model.graph(), &reference, &candidate, &PointFilter::default(), &gains).unwrap();
    let metrics = compare(model.graph(), &reference, &candidate, &pairs, &gains, || ());
    assert_eq!(pairs.len(), (STEPS + 1) * model.graph().components().len());
    let mut largest = BTreeMap::new();
    for (pair, metrics) in pairs.iter().zip(metrics) {
        let metrics = metrics.unwrap_or_else(|| panic!("{}: {:?}", pair.point, pair.note()));
        let error: &mut f64 = largest.entry(pair.point.to_owned()).or_insert(0.0);
        *error = if metrics.rel_l2 <= *error { *error } else { metrics.rel_l2 };
    }
    largest
}

fn worst(errors: &BTreeMap<String, f64>) -> (&str, f64) {
    let (point, error) = errors.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    (point, *error)
}

/// A copy of a quantized directory, to be damaged.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(Made::at(name)).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn edit_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// The refusal of a damaged copy, from the library and from the command.
#[track_caller]
fn refused(name: &str, damage: impl FnOnce(&Path), words: &str) {
    let dir = copy(name);
    damage(dir.path());
    let error = Q4Dir::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(words) && error.contains("hint: "), "{error}");
    let out = dir.path().join("trace");
    let engine = if name == "q4" { "lattice-q4" } else { "lattice-quarot-q4" };
    let args =
        ["capture", "--engine", engine, "--model", dir.path().to_str().unwrap(), "--prompt", "code-01"];
    let run = layerdiff(&[&args[..], &["--out", out.to_str().unwrap()]].concat());
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:#?}");
    assert!(run.stderr.contains(words) && !out.exists(), "{run:#?}");
}

const Q_PROJ: &str = "model_language_model_layers_3_self_attn_q_proj_weight.q4";
const NORM: &str = "model_language_model_norm_weight.f16";

/// Overwrites bytes of a file.
fn patch(file: &'static str, at: usize, bytes: &'static [u8]) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join(file);
        let mut contents = std::fs::read(&path).unwrap();
        contents[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(path, contents).unwrap();
    }
}

/// Where a two-dimensional `.q4` file's blocks begin.
const BLOCKS: usize = 36;

#[test]
fn gains_are_read_from_the_original_and_from_nothing_else() {
    assert!(bundled().gains().unwrap().get("model.norm.weight").is_some_and(|gain| gain.len() == 128));
    for name in ["q4", "quarot", "rotated"] {
        assert_eq!(ModelDir::open(&Made::at(name)).unwrap().gains().unwrap(), Gains::default());
    }
}

#[test]
fn every_pair_of_a_rotated_run_is_matched() {
    let model = bundled();
    let gains = model.gains().unwrap();
    let [reference, candidate] =
        ["reference", "quarot-trace"].map(|name| Trace::open(&Made::at(name)).unwrap());
    let pairs = align(model.graph(), &reference, &candidate, &PointFilter::default(), &gains).unwrap();
    assert!(pairs.iter().all(|p| matches!(p.partner, Partner::Matched(..))));
}
