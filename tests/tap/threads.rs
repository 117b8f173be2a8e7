//! A trace does not depend on who told the tap what first, and holds what it was told.

use super::{common, open, reference};
use layerdiff::tap::{Tap, Values};
use layerdiff::tensor::{DType, TensorView};
use layerdiff::trace::Trace;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Numbers of a tensor as a kernel would have them.
enum Owned {
    Floats(Vec<f32>),
    Mask(Vec<u8>),
}

fn owned(view: TensorView<'_>) -> Owned {
    match view.dtype {
        DType::F32 => {
            Owned::Floats(view.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        }
        DType::U8 => Owned::Mask(view.bytes.to_vec()),
        other => panic!("{other}"),
    }
}

/// Tells a tap all that a trace of the bundled model holds: each of `threads` has its share of a step, in an order
/// that has nothing to do with the model's.
fn tapped(source: &Trace, threads: usize, target: &Path) {
    let tap = Tap::to(target, "copy", "1", common::bundled_model()).unwrap();
    for prompt in &source.manifest().prompts {
        tap.prompt(&prompt.id, &prompt.token_ids);
        for step in 0..=prompt.step_token_ids.len() {
            if step > 0 {
                tap.step(prompt.step_token_ids[step - 1]);
            }
            let here = source.entries().iter().filter(|e| e.prompt == prompt.id && e.step as usize == step);
            let mut here: Vec<_> = here.collect();
            here.sort_by_key(|e| e.point.bytes().rev().collect::<Vec<_>>());
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let (here, tap) = (&here, &tap);
                    scope.spawn(move || {
                        for entry in here.iter().skip(thread).step_by(threads) {
                            match owned(source.view(entry)) {
                                Owned::Floats(values) => tap.tensor(&entry.point, &entry.shape, &values),
                                Owned::Mask(values) => tap.tensor(&entry.point, &entry.shape, &values),
                            }
                        }
                    });
                }
            });
        }
    }
    tap.finish().unwrap();
}

/// The files of a trace, by name.
fn files(trace: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let all = common::tree(trace).into_iter();
    all.map(|(path, bytes)| (path.strip_prefix(trace).unwrap().to_path_buf(), bytes)).collect()
}

#[test]
fn eight_threads_and_one_write_the_same_bytes_which_are_those_of_the_engine_s_own_capture() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let capture = path("capture");
    let (model, prompts) = (common::bundled_model(), reference());
    let args = ["capture", "--engine", "lattice-f32", "--steps", "2", "--prompt", "instruction-07"];
    let args = args.into_iter().map(Into::into).chain([
        "--model".into(),
        model.into_os_string(),
        "--prompts".into(),
        prompts.into_os_string(),
        "--out".into(),
        capture.clone().into_os_string(),
    ]);
    let run = common::layerdiff(&args.collect::<Vec<std::ffi::OsString>>());
    assert_eq!(run.code, 0, "{run:?}");
    let source = open(&capture);
    assert!(source.entries().len() > 500);
    for (name, threads) in [("one", 1), ("eight", 8), ("again", 8)] {
        tapped(&source, threads, &path(name));
    }
    let one = files(&path("one"));
    assert!(one.len() > 1);
    assert!(one == files(&path("eight")) && one == files(&path("again")), "the order of the calls shows");
    for (file, bytes) in files(&capture).iter().filter(|(file, _)| *file != Path::new("manifest.json")) {
        assert!(*bytes == one[file], "{} differs from the engine's", file.display());
    }
    // The tap does not say that a tensor is derived, and all else of an entry is the same.
    let plain = |trace: &Trace| -> Vec<_> {
        let all = trace.entries().iter().cloned();
        all.map(|mut e| (e.derived = false, e).1).collect()
    };
    let copy = open(&path("one"));
    assert_eq!(plain(&copy), plain(&source));
    assert_eq!(copy.manifest().provenance.hashes, source.manifest().provenance.hashes);
    assert_eq!(copy.manifest().config, source.manifest().config);
}

#[test]
fn every_type_order_and_piece_of_a_tensor_is_kept_bit_for_bit() {
    let (root, model) = (tempfile::tempdir().unwrap(), super::tiny_model());
    let target = root.path().join("out");
    let tap = Tap::to(&target, "test", "1", model.path()).unwrap();
    tap.prompt("a", &[1, 2]);
    let nan = f32::from_bits(0x7fc0_1234);
    let floats: Vec<f32> = (0..15u8).map(f32::from).chain([nan]).collect();
    let halves: Vec<u16> = (0..16).map(|i| 0x7bf8 + i).collect();
    let doubles: Vec<f64> = (0..16u8).map(|i| f64::from(i) / 3.0).collect();
    tap.tensor("model.embed_tokens", &[2, 8], &floats);
    tap.tensor("model.layers.0.input_layernorm", &[2, 8], &Values::F16(&halves));
    tap.tensor("model.layers.1.input_layernorm", &[2, 8], &Values::BF16(&halves));
    tap.tensor_with("model.layers.2.input_layernorm", &[2, 8], || doubles.clone());
    tap.tensor("model.layers.3.self_attn.attention_mask", &[2, 2], &[1_u8, 0, 1, 1]);
    // Columns as rows, and one row twice.
    tap.strided("model.layers.0.post_attention_residual", &[2, 8], &[1, 2], &floats);
    tap.strided("model.layers.1.post_attention_residual", &[2, 8], &[0, 1], &floats[..8]);
    tap.rows("model.norm", 1, &[1, 8], &floats[8..]);
    tap.rows("model.norm", 0, &[1, 8], &floats[..8]);
    tap.finish().unwrap();
    let trace = open(&target);
    let bytes = |point: &str| trace.view(trace.find("a", 0, point).unwrap()).bytes.to_vec();
    let wide = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let bits: Vec<u8> = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(bytes("model.embed_tokens"), wide(&floats));
    assert_eq!(bytes("model.norm"), wide(&floats));
    assert_eq!(bytes("model.layers.0.input_layernorm"), bits);
    assert_eq!(bytes("model.layers.1.input_layernorm"), bits);
    let expected: Vec<u8> = doubles.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(bytes("model.layers.2.input_layernorm"), expected);
    assert_eq!(bytes("model.layers.3.self_attn.attention_mask"), [1, 0, 1, 1]);
    let turned: Vec<f32> = (0..16).map(|i| floats[i / 8 + 2 * (i % 8)]).collect();
    assert_eq!(bytes("model.layers.0.post_attention_residual"), wide(&turned));
    let twice = [&floats[..8], &floats[..8]].concat();
    assert_eq!(bytes("model.layers.1.post_attention_residual"), wide(&twice));
    let dtypes: Vec<DType> = trace.entries().iter().map(|e| e.dtype).collect();
    assert_eq!(
        dtypes,
        [DType::F32, DType::F16, DType::F32, DType::BF16, DType::F32, DType::F64, DType::U8, DType::F32]
    );
    let provenance = &trace.manifest().provenance;
    assert_eq!(provenance.dtype, "bfloat16 and float16 and float32 and float64");
    assert_eq!((&provenance.hashes.weights, provenance.quantized), (&None, false));
}
