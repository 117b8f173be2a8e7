//! Adapters that are broken, or of which only one side knows.

use crate::common::{self, Draft, Factors, edit_manifest};
use crate::world::{COMPARE, World, refused};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

const ADAPTED: &str =
    "capture --engine lattice-f32 --model @@ --lora @adapter --prompts @prompts.jsonl --out @out";

/// Replaces a part of every tensor's name.
fn renamed(from: &str, to: &str) -> impl FnOnce(&mut Factors) {
    move |tensors| {
        let old = std::mem::take(tensors);
        tensors.extend(old.into_iter().map(|(name, value)| (name.replace(from, to), value)));
    }
}

#[test]
fn a_missing_adapter_directory_is_named() {
    refused!(World::new(), ADAPTED);
}

#[test]
fn an_adapter_without_its_configuration_is_refused() {
    let world = World::with_adapter(|_| (), |_| ());
    std::fs::remove_file(world.path("adapter/adapter_config.json")).unwrap();
    refused!(world, ADAPTED);
}

#[test]
fn an_adapter_without_its_weights_is_refused() {
    let world = World::with_adapter(|_| (), |_| ());
    std::fs::remove_file(world.path("adapter/adapter_model.safetensors")).unwrap();
    refused!(world, ADAPTED);
}

#[test]
fn an_adapter_with_truncated_weights_is_refused() {
    let world = World::with_adapter(|_| (), |_| ());
    let whole = std::fs::read(world.path("adapter/adapter_model.safetensors")).unwrap();
    std::fs::write(world.path("adapter/adapter_model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    refused!(world, ADAPTED);
}

#[test]
fn an_adapter_of_rank_0_is_refused() {
    refused!(World::with_adapter(|c| c["r"] = 0.into(), |_| ()), ADAPTED);
}

#[test]
fn an_adapter_of_another_rank_than_its_configuration_says_is_refused() {
    refused!(World::with_adapter(|c| c["r"] = 8.into(), |_| ()), ADAPTED);
}

#[test]
fn an_adapter_without_alpha_is_refused() {
    refused!(World::with_adapter(|c| c["lora_alpha"] = Value::Null, |_| ()), ADAPTED);
}

#[test]
fn what_is_more_than_plain_lora_is_refused_by_name() {
    for (key, value) in [
        ("use_dora", json!(true)),
        ("use_rslora", json!(true)),
        ("bias", json!("lora_only")),
        ("lora_bias", json!(true)),
        ("rank_pattern", json!({"q_proj": 2})),
        ("alpha_pattern", json!({"q_proj": 2})),
        ("modules_to_save", json!(["lm_head"])),
        ("peft_type", json!("IA3")),
    ] {
        let shown = World::with_adapter(|c| c[key] = value.clone(), |_| ()).refusal(ADAPTED);
        let named = if key == "peft_type" { "IA3" } else { key.trim_start_matches("lora_") };
        assert!(shown.contains(named) && shown.contains("not supported"), "{shown}");
    }
    refused!(World::with_adapter(|c| c["use_dora"] = true.into(), |_| ()), ADAPTED);
}

#[test]
fn an_adapter_with_nan_in_it_is_refused() {
    let world = World::with_adapter(|_| (), |t| t.values_mut().next().unwrap().1[3] = f32::NAN);
    refused!(world, ADAPTED);
}

#[test]
fn an_adapter_of_which_half_a_pair_is_missing_is_refused() {
    refused!(World::with_adapter(|_| (), |t| drop(t.pop_first())), ADAPTED);
}

#[test]
fn an_adapter_of_other_sizes_than_the_model_is_refused() {
    let world = World::with_adapter(
        |_| (),
        |tensors| {
            for (_, (shape, values)) in tensors.iter_mut().filter(|(name, _)| name.contains("lora_A")) {
                shape[1] /= 2;
                values.truncate(shape[0] * shape[1]);
            }
        },
    );
    refused!(world, ADAPTED);
}

#[test]
fn an_adapter_of_a_layer_that_the_model_has_not_is_refused() {
    refused!(World::with_adapter(|_| (), renamed("layers.7.", "layers.70.")), ADAPTED);
}

#[test]
fn an_adapter_of_a_projection_that_the_layer_has_not_is_refused() {
    let swapped = renamed("layers.3.self_attn.", "layers.0.self_attn.");
    refused!(World::with_adapter(|_| (), swapped), ADAPTED);
}

#[test]
fn an_adapter_of_a_module_that_nobody_knows_is_refused() {
    let targets = |c: &mut Value| c["target_modules"].as_array_mut().unwrap().push("side_proj".into());
    refused!(World::with_adapter(targets, renamed("mlp.up_proj", "mlp.side_proj")), ADAPTED);
}

#[test]
fn an_adapter_of_the_head_is_refused() {
    let targets = |c: &mut Value| c["target_modules"].as_array_mut().unwrap().push("lm_head".into());
    refused!(World::with_adapter(targets, renamed("model.layers.0.mlp.up_proj", "lm_head")), ADAPTED);
}

#[test]
fn the_bundled_model_with_an_adapter_has_no_reference() {
    refused!(World::with_adapter(|_| (), |_| ()), "run --lora @adapter --out @report");
}

#[test]
fn a_reference_without_the_adapter_is_refused_by_run() {
    let world = World::with_adapter(|_| (), |_| ());
    symlink(common::bundled_model().with_file_name("reference"), world.path("plain")).unwrap();
    refused!(world, "run --lora @adapter --reference @plain --out @report");
}

#[test]
fn traces_of_which_one_has_an_adapter_are_refused() {
    let world = World::with(|draft| {
        draft.options.adapter = Some(common::adapter("model.layers.0.mlp.up_proj", 4, 2.0));
    });
    refused!(world, COMPARE);
    let report = world.run(&format!("{COMPARE} --other-weights --json")).json();
    assert!(report["warnings"].to_string().contains("different adapters"), "{}", report["warnings"]);
}

#[test]
fn traces_of_adapters_with_other_files_are_refused() {
    let world = World::new();
    for (side, hash) in [("reference", "a"), ("candidate", "b")] {
        edit_manifest(&world.path(side), |manifest| {
            manifest["adapter"] =
                json!({"modules": {"model.layers.0.mlp.up_proj": {"rank": 4, "scale": 2.0}}});
            manifest["provenance"]["hashes"]["adapter"] = json!(hash);
        });
    }
    refused!(world, COMPARE);
}

#[test]
fn a_trace_whose_adapter_changes_what_the_model_has_not_is_refused() {
    let world = World::new();
    edit_manifest(&world.path("reference"), |manifest| {
        manifest["adapter"] = json!({"modules": {"model.layers.0.mlp.up_prj": {"rank": 4, "scale": 2.0}}});
    });
    refused!(world, COMPARE);
}

#[test]
fn a_floor_of_another_adapter_is_refused() {
    let world = World::new();
    let mut draft = Draft::tiny();
    draft.options.provenance.dtype = "float64".into();
    draft.options.provenance.hashes.adapter = Some("a".into());
    draft.write(&world.path("arm"));
    refused!(world, &format!("{COMPARE} --floor @arm"));
}
