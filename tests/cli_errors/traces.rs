//! Traces that are damaged, hostile, or do not belong together.

use crate::common::{Draft, edit_header, edit_manifest, prompt, replace_shard, shard};
use crate::world::{COMPARE, World, refused};

#[test]
fn a_missing_trace_is_named() {
    refused!(World::new(), "compare @reference @nothing --out @report");
}

#[test]
fn a_file_is_no_trace() {
    refused!(World::new(), "inspect @prompts.jsonl");
}

#[test]
fn a_directory_without_a_manifest_is_no_trace() {
    let world = World::new();
    std::fs::create_dir(world.path("empty")).unwrap();
    refused!(world, "inspect @empty");
}

#[test]
fn a_truncated_shard_is_refused() {
    let world = World::damaged(|trace| {
        let file = std::fs::File::options().write(true).open(trace.join("shard-00000.safetensors")).unwrap();
        file.set_len(1000).unwrap();
    });
    let said = world.refusal(COMPARE);
    assert!(said.contains("a shard of the trace has the wrong size"), "{said}");
    assert!(said.contains("[ROOT]/candidate/shard-00000.safetensors"), "{said}");
}

#[test]
fn a_manifest_that_names_a_file_outside_is_refused() {
    let world = World::damaged(|trace| {
        edit_manifest(trace, |m| m["shards"][0]["file"] = "../reference/shard-00000.safetensors".into());
    });
    refused!(world, COMPARE);
}

#[test]
fn a_shard_whose_header_claims_two_to_the_63_bytes_is_refused() {
    let world = World::damaged(|trace| {
        let mut bytes = shard(trace, 0);
        bytes[..8].copy_from_slice(&(1_u64 << 63).to_le_bytes());
        replace_shard(trace, 0, &bytes);
    });
    refused!(world, COMPARE);
}

#[test]
fn a_point_that_is_there_twice_is_refused_with_the_usual_cause() {
    let world = World::damaged(|trace| {
        edit_manifest(trace, |m| m["tensors"][1]["point"] = m["tensors"][0]["point"].clone());
    });
    refused!(world, COMPARE);
}

#[test]
fn a_dtype_that_the_format_lacks_is_refused() {
    let world = World::damaged(|trace| {
        edit_header(trace, 0, |h| {
            let tensor = &mut h["p-01/0/model.norm"];
            tensor["dtype"] = "I32".into();
        });
    });
    refused!(world, COMPARE);
}

#[test]
fn an_unknown_architecture_is_answered_with_the_nearest() {
    let mut draft = Draft::tiny();
    draft.options.architecture = "qwen35".into();
    let world = World::new();
    draft.write(&world.path("other"));
    refused!(world, "compare @other @other --out @report");
}

#[test]
fn traces_of_different_architectures_are_refused() {
    refused!(World::with(|d| d.options.architecture = "qwen35".into()), COMPARE);
}

#[test]
fn a_trace_whose_config_lacks_a_key_is_refused() {
    let mut draft = Draft::tiny();
    draft.options.config.as_object_mut().unwrap().remove("head_dim");
    let world = World::new();
    draft.write(&world.path("other"));
    refused!(world, "compare @other @other --out @report");
}

#[test]
fn traces_of_other_tokens_are_refused_with_the_first_difference() {
    refused!(World::with(|d| d.prompts[0].token_ids = vec![1, 2, 9, 4, 5]), COMPARE);
}

#[test]
fn traces_of_more_tokens_are_refused_with_the_first_difference() {
    refused!(World::with(|d| d.prompts[0].token_ids = vec![1, 2, 3, 4, 5, 6]), COMPARE);
}

#[test]
fn traces_without_a_common_prompt_are_refused() {
    let world = World::new();
    Draft::of(&[prompt("other-01", &[1])]).write(&world.path("other"));
    refused!(world, "compare @reference @other --out @report");
}

#[test]
fn a_trace_without_a_prompt_is_refused() {
    let world = World::new();
    Draft::of(&[]).write(&world.path("other"));
    refused!(world, "inspect @other model.norm");
    let said = world.refusal("compare @reference @other --out @report");
    assert!(said.contains("no prompt in common"), "{said}");
}

#[test]
fn traces_without_a_common_name_are_answered_with_the_nearest() {
    let world = World::with(|d| {
        for tensor in &mut d.tensors {
            tensor.point = tensor.point.replace("model.layers.", "layers.").replace("model.", "");
            tensor.point = tensor.point.replace("lm_head", "logits");
        }
    });
    refused!(world, COMPARE);
}

#[test]
fn traces_of_which_nothing_can_be_compared_are_refused() {
    let world = World::with(|d| d.tensors.iter_mut().for_each(|t| t.shape.insert(0, 1)));
    refused!(world, COMPARE);
}

#[test]
fn two_layers_of_the_same_bytes_are_refused() {
    let world = World::with(|d| {
        let bytes = d.at("model.layers.1").bytes.clone();
        d.at("model.layers.2").bytes = bytes;
    });
    refused!(world, COMPARE);
}

#[test]
fn two_layers_of_the_same_bytes_in_the_reference_are_refused() {
    let world = World::with(|d| {
        let bytes = d.at("model.layers.1").bytes.clone();
        d.at("model.layers.2").bytes = bytes;
    });
    refused!(world, "compare @candidate @reference --out @report");
}

#[test]
fn two_layers_of_the_same_bytes_are_refused_in_steps_that_were_written_in_turns() {
    let in_turns = |d: &mut Draft| {
        *d = d.clone().with_step(1);
        let bytes = d.at("model.layers.0").bytes.clone();
        d.at("model.layers.1").bytes = bytes;
        d.tensors.sort_by(|a, b| a.point.cmp(&b.point).then(a.step.cmp(&b.step)));
    };
    refused!(World::with(in_turns), COMPARE);
}

#[test]
fn a_malformed_floor_is_refused() {
    refused!(World::new(), &format!("{COMPARE} --floor @prompts.jsonl"));
}

#[test]
fn a_missing_floor_is_named() {
    refused!(World::new(), &format!("{COMPARE} --floor @nothing"));
}

#[test]
fn an_unknown_point_is_answered_with_the_nearest() {
    refused!(World::new(), "inspect @reference model.layers.3.self_attn.q_rop");
}

#[test]
fn a_glob_that_meets_no_point_of_the_step_is_answered_with_one_that_it_meets() {
    refused!(World::new(), "inspect @reference *.k_rope --step 7");
}

#[test]
fn a_glob_that_meets_no_point_of_a_trace_is_refused() {
    refused!(World::new(), "inspect @reference *.zork*");
}

#[test]
fn an_unknown_prompt_of_a_trace_is_answered_with_the_nearest() {
    refused!(World::new(), "inspect @reference model.norm --prompt p-1");
}

#[test]
fn a_step_that_the_trace_lacks_is_named() {
    refused!(World::new(), "inspect @reference model.norm --step 7");
}
