//! Traces in QuaRot's basis, and the way back.

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
