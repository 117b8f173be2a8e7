//! Models that are broken, or not those of the reference.

use crate::world::{CAPTURE, World, refused};
use serde_json::json;

#[test]
fn a_missing_model_directory_is_named() {
    refused!(World::new(), CAPTURE);
}

#[test]
fn a_missing_model_directory_is_named_by_run() {
    refused!(World::new(), "run --model @model --reference @reference --out @new/deep/report");
}

#[test]
fn a_model_without_config_is_refused() {
    let world = World::with_config(|_| ());
    std::fs::remove_file(world.path("model/config.json")).unwrap();
    refused!(world, CAPTURE);
}

#[test]
fn a_model_with_a_broken_config_is_refused() {
    let world = World::with_config(|_| ());
    world.file("model/config.json", "{\"model_type\": ");
    refused!(world, CAPTURE);
}

#[test]
fn a_model_whose_config_is_no_object_is_refused() {
    refused!(World::with_config(|c| *c = json!([])), CAPTURE);
}

#[test]
fn a_model_without_weights_is_refused() {
    let world = World::with_config(|_| ());
    std::fs::remove_file(world.path("model/model.safetensors")).unwrap();
    refused!(world, CAPTURE);
}

#[test]
fn a_model_with_truncated_weights_is_refused() {
    let world = World::with_config(|_| ());
    let whole = std::fs::read(world.path("model/model.safetensors")).unwrap();
    std::fs::remove_file(world.path("model/model.safetensors")).unwrap();
    std::fs::write(world.path("model/model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    for engine in ["lattice-f32", "lattice-f16"] {
        // Which of the missing tensors lattice names is chance.
        let run = world.run(&CAPTURE.replace("lattice-f32", engine));
        assert_eq!(run.code, 2, "{run:#?}");
        assert!(
            run.stderr.starts_with("error: lattice cannot load the model") && run.stderr.contains("hint: "),
            "{run:#?}"
        );
        assert!(!world.path("out").exists());
    }
}

#[test]
fn an_unknown_model_type_is_answered_with_the_known_ones() {
    let world = World::with_config(|c| {
        c["model_type"] = "gpt2".into();
        c["text_config"]["model_type"] = "gpt2_text".into();
    });
    refused!(world, CAPTURE);
}

#[test]
fn a_model_of_an_architecture_that_lattice_does_not_run_is_refused_by_its_engines() {
    let world = World::with_config(|c| {
        *c = json!({
            "model_type": "llama", "hidden_size": 8, "vocab_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 8,
        });
    });
    refused!(world, CAPTURE);
}

#[test]
fn a_mistyped_model_type_is_answered_with_the_nearest() {
    let world = World::with_config(|c| {
        c["model_type"] = "qwen3.5".into();
        c["text_config"]["model_type"] = "qwen3.5_text".into();
    });
    refused!(world, CAPTURE);
}

#[test]
fn a_key_that_the_config_lacks_is_named() {
    refused!(
        World::with_config(|c| drop(c["text_config"].as_object_mut().unwrap().remove("hidden_size"))),
        CAPTURE
    );
}

#[test]
fn a_size_of_zero_is_refused() {
    refused!(World::with_config(|c| c["text_config"]["num_attention_heads"] = 0.into()), CAPTURE);
}

#[test]
fn an_unknown_layer_type_is_refused() {
    refused!(
        World::with_config(|c| c["text_config"]["layer_types"][1] = "sliding_attention".into()),
        CAPTURE
    );
}

#[test]
fn a_config_of_other_sizes_than_the_weights_is_refused() {
    let world = World::with_config(|c| c["text_config"]["intermediate_size"] = 12.into());
    for engine in ["lattice-f32", "lattice-f16"] {
        let said = world.refusal(&CAPTURE.replace("lattice-f32", engine));
        assert!(said.contains("lattice cannot"), "{said}");
    }
}

#[test]
fn a_model_without_a_reference_is_refused() {
    let world = World::with_config(|_| ());
    world.file("model/more.safetensors", "other weights than the bundled ones");
    refused!(world, "run --model @model --out @report");
}

#[test]
fn the_bundled_model_has_its_reference_wherever_it_lies() {
    let run = World::new().run("run --model @@ --out @report --json");
    assert_eq!((run.code, run.json()["outcome"].as_str()), (0, Some("pass")), "{run:#?}");
}

#[test]
fn a_trace_of_other_weights_is_refused() {
    let world =
        World::with(|d| d.options.provenance.hashes.weights = Some(format!("sha256:{}", "0".repeat(64))));
    refused!(world, "run --model @@ --reference @candidate --out @report");
}

#[test]
fn a_trace_of_other_weights_is_refused_by_compare_too() {
    let world =
        World::with(|d| d.options.provenance.hashes.weights = Some(format!("sha256:{}", "0".repeat(64))));
    refused!(world, "compare @candidate @candidate --model @@ --out @report");
}
