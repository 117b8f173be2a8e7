//! Q4 and QuaRot Q4: directories made and read back, the pass on blocks, the way back from the
//! rotated basis. All on the bundled model.

mod common;

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

mod a_quantized_directory {
    use super::*;

    #[test]
    fn holds_the_files_and_the_index_of_upstream_s_quantizer() {
        let manifest = load_manifest(&Made::at("q4")).unwrap().unwrap();
        assert_eq!((manifest.flavor, manifest.quarot_seed), (ManifestFlavor::QuantizeQ4, None));
        let reader = QuarotTensorReader::open(&bundled_model()).unwrap();
        let mut names = reader.tensor_names();
        names.sort();
        assert_eq!(manifest.tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>(), names);
        for file in ["config.json", "tokenizer.json"] {
            let read = |dir: PathBuf| std::fs::read(dir.join(file)).unwrap();
            assert_eq!(read(Made::at("q4")), read(bundled_model()), "{file}");
        }
    }

    #[test]
    fn of_quarot_has_its_seed_in_the_index_and_an_untied_head() {
        let manifest = load_manifest(&Made::at("quarot")).unwrap().unwrap();
        assert_eq!((manifest.flavor, manifest.quarot_seed), (ManifestFlavor::QuaRot, Some(DEFAULT_SEED)));
        let dir = Q4Dir::open(&Made::at("quarot")).unwrap();
        assert_eq!(dir.seed(), Some(DEFAULT_SEED));
        assert!(dir.entries().iter().any(|e| e.name == "lm_head.weight" && e.quantized));
        assert!(Made::at("quarot").join("tokenizer.json").is_file());
    }

    #[test]
    fn reads_back_bit_for_bit_as_lattice_reads_it() {
        for name in ["q4", "quarot"] {
            let dir = Q4Dir::open(&Made::at(name)).unwrap();
            for entry in dir.entries() {
                let path = dir.path().join(&entry.file);
                let theirs = match entry.quantized {
                    true => dequantize_q4_to_f32(&load_q4_file(&path).unwrap()),
                    false => load_f16_tensor_file(&path).unwrap().0,
                };
                let ours = dir.dequantize(entry).unwrap();
                assert!(ours.len() == theirs.len() && ours.len() == entry.numel, "{}", entry.name);
                let same = ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{name} {}", entry.name);
            }
        }
    }

    #[test]
    fn of_quarot_is_the_original_after_the_way_back_but_for_four_bits() {
        let model = bundled();
        let dir = Q4Dir::open(&Made::at("quarot")).unwrap();
        let errors = dir.parameter_error(&bundled_model(), &model.gains().unwrap()).unwrap();
        let quantized = dir.entries().iter().filter(|e| e.quantized);
        for name in quantized.map(|e| dir.parameter(&e.name)) {
            assert!((0.02..0.2).contains(&errors[&name]), "{name}: {}", errors[&name]);
        }
        assert!(!errors.contains_key("model.norm.weight"), "gains come from the original");
    }

    #[test]
    fn that_lattice_s_metal_engine_has_loaded_is_still_accepted() {
        let dir = copy("q4");
        std::fs::write(dir.path().join("merged_qkvz_0_1_2.q4"), "cache").unwrap();
        assert!(Q4Dir::open(dir.path()).is_ok());
        let hash = |path: &Path| ModelDir::open(path).unwrap().hashes().unwrap().weights;
        assert_eq!(hash(dir.path()), hash(&Made::at("q4")));
    }
}

mod a_damaged_directory_is_refused {
    use super::*;

    #[test]
    fn for_a_truncated_file() {
        let shorten = |dir: &Path| {
            let bytes = std::fs::read(dir.join(Q_PROJ)).unwrap();
            std::fs::write(dir.join(Q_PROJ), &bytes[..bytes.len() - 7]).unwrap();
        };
        refused("q4", shorten, "the file is truncated");
    }

    #[test]
    fn for_a_file_that_ends_in_its_header() {
        refused(
            "q4",
            |dir| std::fs::write(dir.join(Q_PROJ), b"KHQ4\x02\0\0\0").unwrap(),
            "within its header",
        );
    }

    #[test]
    fn for_one_block_too_many() {
        let lengthen = |dir: &Path| {
            let mut bytes = std::fs::read(dir.join(Q_PROJ)).unwrap();
            bytes.extend([0x3c; 20]);
            std::fs::write(dir.join(Q_PROJ), bytes).unwrap();
        };
        refused("quarot", lengthen, "goes on after its last element");
    }

    #[test]
    fn for_a_wrong_magic() {
        refused("q4", patch(Q_PROJ, 0, b"KHQ9"), "does not begin with its magic");
        refused("q4", patch(NORM, 0, b"KHQ4"), "does not begin with its magic");
    }

    #[test]
    fn for_another_version() {
        refused("q4", patch(Q_PROJ, 4, &[1]), "another version of its format");
    }

    #[test]
    fn for_another_shape() {
        refused("q4", patch(Q_PROJ, 8, &[3]), "another number of sizes");
        refused("q4", patch(Q_PROJ, 12, &[1]), "another shape than the index says");
    }

    #[test]
    fn for_another_number_of_elements() {
        refused("q4", patch(Q_PROJ, 28, &[1]), "another number of elements");
    }

    #[test]
    fn for_a_scale_that_is_zero_of_either_sign_or_not_finite() {
        for scale in [&[0, 0], &[0, 0x80], &[0, 0x7c], &[0, 0xfc], &[1, 0x7e]] {
            refused("q4", patch(Q_PROJ, BLOCKS + 20, scale), "block 1 has an impossible scale");
        }
    }

    #[test]
    fn for_a_bias_that_is_not_finite() {
        refused("quarot", patch(Q_PROJ, BLOCKS + 2, &[0, 0x7c]), "block 0 has an impossible bias");
    }

    #[test]
    fn for_a_16_bit_tensor_that_is_not_finite() {
        refused("q4", patch(NORM, 28, &[0, 0x7e]), "element 0 is not finite");
    }

    #[test]
    fn for_a_missing_file() {
        refused("q4", |dir| std::fs::remove_file(dir.join(Q_PROJ)).unwrap(), "which the index lists");
    }

    #[test]
    fn for_a_file_that_the_index_does_not_list() {
        refused("q4", |dir| std::fs::write(dir.join("x.q4"), "").unwrap(), "which the index does not list");
    }

    #[test]
    fn for_a_tensor_that_is_neither_listed_nor_there() {
        let drop = |dir: &Path| {
            std::fs::remove_file(dir.join(NORM)).unwrap();
            edit_json(&dir.join(INDEX), |index| index.as_array_mut().unwrap().retain(|e| e["file"] != NORM));
        };
        refused("q4", drop, "lists no `model.norm.weight`");
    }

    #[test]
    fn for_an_index_that_contradicts_itself() {
        let first = |key: &'static str, value: Value| {
            move |dir: &Path| edit_json(&dir.join(INDEX), |index| index[0][key] = value)
        };
        refused("q4", first("numel", 1.into()), "contradicts itself");
        refused("q4", first("quantized", false.into()), "names an unfit file");
        refused("q4", first("file", "../x.q4".into()), "names an unfit file");
        let second = |dir: &Path| edit_json(&dir.join(INDEX), |index| index[1] = index[0].clone());
        refused("q4", second, "twice");
        refused("q4", |dir| std::fs::write(dir.join(INDEX), "[").unwrap(), "index is malformed");
        refused("q4", |dir| std::fs::write(dir.join(INDEX), "[]").unwrap(), "lists no tensor");
    }

    #[test]
    fn for_a_missing_seed() {
        refused(
            "quarot",
            |dir| edit_json(&dir.join(INDEX), |i| i["quarot_seed"] = Value::Null),
            "has no seed",
        );
        let array = |dir: &Path| edit_json(&dir.join(INDEX), |index| *index = index["tensors"].take());
        refused("quarot", array, "do not agree about the rotation's seed");
    }

    #[test]
    fn for_two_seeds() {
        refused("quarot", |dir| edit_json(&dir.join(INDEX), |i| i["quarot_seed"] = 7.into()), "do not agree");
    }

    #[test]
    fn for_rotations_at_run_time() {
        let online = |dir: &Path| {
            edit_json(&dir.join(INDEX), |index| index["artifact_version"] = "v1-online-r3r4".into());
        };
        refused("quarot", online, "wants rotations at run time");
    }

    #[test]
    fn for_a_head_that_the_configuration_ties() {
        let tie = |dir: &Path| {
            edit_json(&dir.join("config.json"), |config| {
                config["tie_word_embeddings"] = true.into();
                config["text_config"]["tie_word_embeddings"] = true.into();
            });
        };
        refused("quarot", tie, "ties the head to the embedding");
    }
}

mod the_pass_on_blocks {
    use super::*;

    /// The logits after the last token.
    #[derive(Default)]
    struct LastLogits {
        values: Vec<f32>,
        calls: usize,
    }

    impl Hook for LastLogits {
        fn wants(&self, point: &str) -> bool {
            point == "lm_head"
        }

        fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
            let Values::F32(values) = &tensor.values else { unreachable!() };
            self.values = values[values.len() - tensor.shape[1]..].to_vec();
            self.calls += 1;
            Ok(tensor)
        }
    }

    fn engine(name: &str) -> Box<dyn Engine> {
        open(name, &bundled_model(), bundled().graph(), None).unwrap()
    }

    #[test]
    fn is_checked_against_the_f32_engine_bit_for_bit_and_by_a_cross_check() {
        for name in ["lattice-q4", "lattice-quarot-q4"] {
            let mut engine = engine(name);
            for n in [1, 2, 33, 130] {
                let tokens: Vec<u32> = (0..n).map(|i| (i * i * 7 + i * 31 + n) % 2048).collect();
                let found = engine.run(&tokens, &[5, 6, 7], &mut NoHook).unwrap();
                let (cross, bits): (Vec<_>, Vec<_>) = found.iter().partition(|e| e.rel_l2.is_some());
                assert!(
                    bits.len() >= 2 && bits.iter().all(|e| e.elements > 0 && e.mismatches == 0),
                    "{found:?}"
                );
                assert!(bits.iter().all(|e| e.what.contains("on the dequantized weights")), "{found:?}");
                let [cross] = cross[..] else { panic!("{found:?}") };
                let largest = cross.rel_l2.unwrap();
                assert!(largest > 0.0 && largest < 1e-4, "{name}, {n} tokens: {found:?}");
                assert_eq!(SelfCheck::new(found).status, Status::BitEqual);
            }
        }
    }

    #[test]
    fn decodes_a_token_as_it_prefills_it_bit_for_bit() {
        let all: Vec<u32> = (0..40).map(|i| (i * i * 7 + i * 31) % 2048).collect();
        for name in ["lattice-q4", "lattice-quarot-q4"] {
            let mut engine = engine(name);
            let (mut prefill, mut steps) = (LastLogits::default(), LastLogits::default());
            engine.run(&all, &[], &mut prefill).unwrap();
            let found = engine.run(&all[..37], &all[37..], &mut steps).unwrap();
            assert_eq!(SelfCheck::new(found).status, Status::BitEqual);
            assert_eq!((prefill.calls, steps.calls), (1, 4), "{name}");
            assert_eq!(prefill.values, steps.values, "{name}");
        }
    }

    #[test]
    fn takes_the_likeliest_token_of_its_own_logits_at_each_step() {
        let prompt = [5, 6, 7];
        for name in ["lattice-q4", "lattice-quarot-q4"] {
            let mut engine = engine(name);
            let ids = engine.greedy(&prompt, 3).unwrap();
            assert_eq!(ids.len(), 3);
            for n in 0..3 {
                let mut logits = LastLogits::default();
                engine.run(&prompt, &ids[..n], &mut logits).unwrap();
                let likelier = logits.values.iter().filter(|v| **v > logits.values[ids[n] as usize]);
                assert_eq!(likelier.count(), 0, "{name}, step {n}");
            }
        }
    }

    #[test]
    fn fails_its_cross_check_when_it_computes_something_else_even_at_a_step_only() {
        struct AtStep(u32);
        impl Hook for AtStep {
            fn wants(&self, point: &str) -> bool {
                point == "model.layers.5"
            }
            fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
                if let (Values::F32(values), true) = (&mut tensor.values, at.step == self.0) {
                    values.iter_mut().for_each(|v| *v *= 1.2);
                }
                Ok(tensor)
            }
        }
        for (step, status) in [(2, Status::Different), (3, Status::BitEqual)] {
            let found = engine("lattice-q4").run(&[1, 2, 3], &[4, 5], &mut AtStep(step)).unwrap();
            assert_eq!(SelfCheck::new(found).status, status, "step {step}");
        }
    }

    #[test]
    fn refuses_an_empty_prompt() {
        assert!(engine("lattice-q4").run(&[], &[], &mut NoHook).is_err());
    }

    #[test]
    fn fails_its_cross_check_when_it_computes_something_else() {
        struct Nudge;
        impl Hook for Nudge {
            fn wants(&self, point: &str) -> bool {
                point == "model.layers.3.self_attn.o_proj"
            }
            fn call(&mut self, _at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
                if let Values::F32(values) = &mut tensor.values {
                    values.iter_mut().for_each(|v| *v = *v * 1.5 + 0.25);
                }
                Ok(tensor)
            }
        }
        let found = engine("lattice-q4").run(&[1, 2, 3], &[], &mut Nudge).unwrap();
        assert_eq!(SelfCheck::new(found).status, Status::Different);
    }

    #[test]
    fn differs_from_the_dequantized_f32_engine_by_rounding_only_at_every_point() {
        for name in ["q4", "quarot"] {
            let errors = errors(&format!("{name}-f32-trace"), &format!("{name}-trace"));
            let (point, error) = worst(&errors);
            println!("{name}: C-Q worst {error:.2e} at {point}");
            assert_eq!(errors.len(), bundled().graph().components().len());
            assert!(error > 0.0 && error < 1e-4, "{name} {point}: {error}");
        }
    }

    #[test]
    fn says_what_quantization_costs_each_parameter() {
        for name in ["lattice-q4", "lattice-quarot-q4"] {
            let errors = engine(name).provenance().parameter_error;
            assert!((0.02..0.2).contains(&errors["model.layers.0.mlp.up_proj.weight"]), "{errors:?}");
        }
    }

    #[test]
    fn refuses_a_directory_of_the_other_kind() {
        for (name, dir, hint) in
            [("lattice-q4", "quarot", "lattice-quarot-q4"), ("lattice-quarot-q4", "q4", "lattice-q4")]
        {
            let error = open(name, &Made::at(dir), bundled().graph(), None).err().unwrap().to_string();
            assert!(error.contains(&format!("use --engine {hint}")), "{error}");
        }
        let error = open("lattice-f32", &Made::at("q4"), bundled().graph(), None).err().unwrap().to_string();
        assert!(error.contains("cannot run a quantized directory"), "{error}");
    }

    #[test]
    fn refuses_a_prompt_past_the_rotary_table() {
        let root = tempfile::tempdir().unwrap();
        let prompts = root.path().join("long.jsonl");
        std::fs::write(&prompts, json!({"id": "long", "token_ids": vec![1; 8200]}).to_string()).unwrap();
        let out = root.path().join("trace");
        let model = Made::at("q4");
        let args = ["capture", "--engine", "lattice-q4", "--model", model.to_str().unwrap(), "--prompts"];
        let run =
            layerdiff(&[&args[..], &[prompts.to_str().unwrap(), "--out", out.to_str().unwrap()]].concat());
        assert_eq!(run.code, 2, "{run:#?}");
        assert!(run.stderr.contains("too long") && run.stderr.contains("at most 8192 tokens"), "{run:#?}");
    }
}

mod the_rotated_basis {
    use super::*;

    #[test]
    fn is_stated_for_the_points_that_the_description_says_it_touches() {
        let model = bundled();
        for (name, rotated) in [("quarot-trace", true), ("quarot-f32-trace", true), ("q4-trace", false)] {
            for entry in Trace::open(&Made::at(name)).unwrap().entries() {
                let touched = model.graph().get(&entry.point).unwrap().basis != Basis::Original;
                let expected = if rotated && touched { "quarot:12648430" } else { "original" };
                assert_eq!(entry.basis, expected, "{name} {}", entry.point);
            }
        }
    }

    #[test]
    fn leads_back_to_the_original_at_every_point_when_nothing_is_quantized() {
        let errors = errors("reference", "rotated-trace");
        let (point, error) = worst(&errors);
        println!("unquantized rotation: worst {error:.2e} at {point}");
        assert_eq!(errors.len(), bundled().graph().components().len());
        assert!(error < 1e-4, "{point}: {error}");
    }

    #[test]
    fn separates_the_engine_from_quantization() {
        // The Q arm is in the original basis, the candidate is not: C-Q over the way back.
        let engine = errors("quarot-unrotated-trace", "quarot-trace");
        let quantization = errors("reference", "quarot-unrotated-trace");
        let (point, error) = worst(&engine);
        println!("QuaRot C-Q worst {error:.2e} at {point}; Q-T worst {:?}", worst(&quantization));
        assert!(error < 1e-4, "{point}: {error}");
        for point in ["model.norm", "lm_head", "model.layers.0.mlp.up_proj"] {
            assert!(quantization[point] > 1000.0 * engine[point], "{point}");
        }
    }

    fn compare_traces(candidate: &Path, more: &[&str]) -> common::Run {
        let reference = Made::at("reference");
        let args = ["compare", reference.to_str().unwrap(), candidate.to_str().unwrap(), "--json"];
        layerdiff(&[&args[..], more].concat())
    }

    /// How many points have a total error: without arm Q none is judged.
    fn with_total(report: &Value) -> usize {
        report["points"].as_array().unwrap().iter().filter(|p| !p["rel_l2"].is_null()).count()
    }

    /// The hash of a quantized directory is not that of its original.
    const ANYWAY: &[&str] = &["--other-weights"];

    #[test]
    fn and_quantized_weights_are_other_weights_unless_the_original_is_named() {
        for name in ["q4-trace", "quarot-trace"] {
            let run = compare_traces(&Made::at(name), &[]);
            assert!(run.code == 2 && run.stderr.contains("are of different weights"), "{run:#?}");
            for more in [ANYWAY, &["--model", bundled_model().to_str().unwrap()]] {
                assert_ne!(compare_traces(&Made::at(name), more).json()["outcome"], "invalid", "{more:?}");
            }
        }
        // A rotated or quantized candidate may be of other weights; a plain one may not.
        let run = compare_traces(&Made::at("q4-f32-trace"), &["--model", bundled_model().to_str().unwrap()]);
        assert!(run.code == 2 && run.stderr.contains("captured on another model"), "{run:#?}");
    }

    #[test]
    fn is_left_by_the_command_which_says_so() {
        let model = bundled_model();
        let run = compare_traces(&Made::at("quarot-trace"), &["--model", model.to_str().unwrap()]);
        let report = run.json();
        assert_eq!(with_total(&report), report["coverage"]["expected"]);
        assert!(
            report["warnings"].to_string().contains("the embedding confirms the seed"),
            "{}",
            report["warnings"]
        );
    }

    #[test]
    fn is_not_needed_to_compare_a_quantized_directory_with_its_original() {
        let model = bundled_model();
        let report = compare_traces(&Made::at("q4-trace"), &["--model", model.to_str().unwrap()]).json();
        assert_eq!(with_total(&report), report["coverage"]["expected"]);
    }

    #[test]
    fn leaves_normed_points_unmeasured_where_the_original_gain_is_unknown() {
        let report = compare_traces(&Made::at("quarot-trace"), ANYWAY).json();
        // Two norms in each of eight layers, and the final one.
        let all = report["coverage"]["expected"].as_u64().unwrap() as usize;
        assert_eq!(with_total(&report), all - 17 * (STEPS + 1));
        assert!(report["points"].to_string().contains("the original one is unknown"));
    }

    fn changed(from: &str, to: &str) -> (TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        std::fs::create_dir(&trace).unwrap();
        for file in std::fs::read_dir(Made::at("quarot-trace")).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, trace.join(path.file_name().unwrap())).unwrap();
        }
        edit_manifest(&trace, |manifest| {
            // Only the bases speak of the seed.
            manifest["config"].as_object_mut().unwrap().remove("quarot_rotation_seed");
            manifest["config"]["text_config"].as_object_mut().unwrap().remove("quarot_rotation_seed");
            for tensor in manifest["tensors"].as_array_mut().unwrap() {
                if tensor["basis"] == from {
                    tensor["basis"] = to.into();
                }
            }
        });
        (root, trace)
    }

    #[test]
    fn with_a_wrong_seed_is_invalid_and_not_a_huge_error() {
        let (_root, trace) = changed("quarot:12648430", "quarot:12648431");
        let run = compare_traces(&trace, ANYWAY);
        assert_eq!((run.code, &run.json()["outcome"]), (2, &json!("invalid")), "{run:#?}");
        assert!(run.stderr.contains("is not the one that the trace is in"), "{run:#?}");
    }

    #[test]
    fn that_the_configuration_states_and_the_points_do_not_is_invalid() {
        let (_root, trace) = changed("quarot:12648430", "original");
        edit_manifest(&trace, |manifest| manifest["config"]["quarot_rotation_seed"] = DEFAULT_SEED.into());
        let run = compare_traces(&trace, ANYWAY);
        assert!(run.code == 2 && run.stderr.contains("does not say so of its points"), "{run:#?}");
    }

    #[test]
    fn of_another_seed_than_the_configuration_s_is_invalid() {
        let (_root, trace) = changed("quarot:12648430", "quarot:12648430");
        edit_manifest(&trace, |manifest| manifest["config"]["quarot_rotation_seed"] = 7.into());
        let run = compare_traces(&trace, ANYWAY);
        assert!(run.code == 2 && run.stderr.contains("speaks of two rotations"), "{run:#?}");
    }

    #[test]
    fn without_a_seed_is_invalid() {
        for to in ["quarot", "quarot:", "quarot:x"] {
            let (_root, trace) = changed("quarot:12648430", to);
            let run = compare_traces(&trace, ANYWAY);
            assert_eq!((run.code, &run.json()["outcome"]), (2, &json!("invalid")), "{run:#?}");
            assert!(run.stderr.contains("a rotated basis without its seed"), "{run:#?}");
        }
    }

    #[test]
    fn with_two_seeds_is_invalid() {
        let (_root, trace) = changed("quarot:12648430", "quarot:12648430");
        edit_manifest(&trace, |manifest| manifest["tensors"][0]["basis"] = "quarot:7".into());
        let run = compare_traces(&trace, ANYWAY);
        assert!(run.code == 2 && run.stderr.contains("speaks of two rotations"), "{run:#?}");
    }

    #[test]
    fn at_a_point_that_no_rotation_touches_is_unmeasured() {
        let (_root, trace) = changed("original", "quarot:12648430");
        let report = compare_traces(&trace, ANYWAY).json();
        assert!(report["points"].to_string().contains("a rotation does not touch this point"));
        let residual = bundled().graph().components().iter().filter(|c| c.basis == Basis::Residual).count();
        assert_eq!(with_total(&report), residual * (STEPS + 1));
    }
}

mod quantize_command {
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
}

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

mod with_pytorch {
    use super::*;

    fn capture_torch(model: &Path, out: &Path) {
        // The tokens that the candidate decoded, not PyTorch's own.
        let root = tempfile::tempdir().unwrap();
        let prompts = root.path().join("prompts.jsonl");
        std::fs::write(&prompts, serde_json::to_string(&prompt()).unwrap()).unwrap();
        let steps = STEPS.to_string();
        let args = ["capture", "--engine", "torch", "--model", model.to_str().unwrap(), "--steps", &steps];
        let prompts = ["--prompts", prompts.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let args = [&args[..], &prompts].concat();
        // The shared helper hides the interpreter that this needs.
        let run = std::process::Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"))
            .args(&args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }

    #[test]
    #[ignore = "needs PyTorch"]
    fn the_engine_differs_from_the_q_arm_by_rounding_only_and_the_q_arm_from_the_original_by_four_bits() {
        for (arm, candidate) in [("q4-f32", "q4-trace"), ("quarot-unrotated", "quarot-trace")] {
            let out = Made::at(&format!("{arm}-torch"));
            capture_torch(&Made::at(arm), &out);
            let engine = errors(&format!("{arm}-torch"), candidate);
            let quantization = errors("reference", &format!("{arm}-torch"));
            println!("{candidate}: C-Q worst {:?}, Q-T worst {:?}", worst(&engine), worst(&quantization));
            assert_eq!(engine.len(), bundled().graph().components().len());
            assert!(worst(&engine).1 < 1e-4, "{:?}", worst(&engine));
            assert!(quantization["lm_head"] > 1000.0 * engine["lm_head"]);
        }
    }

    #[test]
    #[ignore = "needs PyTorch"]
    fn a_rotated_checkpoint_that_is_not_quantized_leads_back_to_the_original_at_every_point() {
        let [original, rotated] = ["original-torch", "rotated-torch"].map(Made::at);
        capture_torch(&bundled_model(), &original);
        capture_torch(&Made::at("rotated"), &rotated);
        for candidate in ["rotated-torch", "rotated-trace"] {
            let errors = errors("original-torch", candidate);
            println!("{candidate}: unquantized rotation against PyTorch, worst {:?}", worst(&errors));
            assert_eq!(errors.len(), bundled().graph().components().len());
            assert!(worst(&errors).1 < 1e-4, "{:?}", worst(&errors));
        }
        let model = bundled_model();
        let [original, rotated, model] = [&original, &rotated, &model].map(|path| path.to_str().unwrap());
        let report = layerdiff(&["compare", original, rotated, "--model", model, "--json"]).json();
        assert_eq!(report["outcome"], "pass", "{}", report["verdict"]);
        assert_eq!(report["coverage"]["matched"], report["coverage"]["expected"]);
        assert!(report["warnings"].to_string().contains("the embedding confirms the seed"));
    }
}
