//! Against PyTorch on the dequantized weights.

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
