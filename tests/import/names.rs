//! Which names need no map, and what is said of those that do.

use crate::common::{Draft, prompt};
use crate::world::{World, refused};
use layerdiff::trace::Trace;

#[test]
fn points_are_known_by_their_own_names_and_by_those_of_modules() {
    for name in [
        "model.layers.1.mlp.up_proj",
        "layers.1.mlp.up_proj",
        "model.language_model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.up_proj.output",
    ] {
        let world = World::new();
        world.raw(&format!("{name}.f32"), &world.values("model.layers.1.mlp.up_proj"));
        world.imports("", &["model.layers.1.mlp.up_proj"]);
    }
}

#[test]
fn the_order_is_that_of_execution_whatever_the_files_are_called() {
    let world = World::new();
    for (name, point) in [
        ("logits", "lm_head"),
        ("final_norm", "model.norm"),
        ("embed", "model.embed_tokens"),
        ("layer_2", "model.layers.2"),
        ("layer_0", "model.layers.0"),
    ] {
        world.raw(&format!("{name}.f32"), &world.values(point));
    }
    let trace = world.import("");
    let order: Vec<_> = trace.entries().iter().map(|e| e.point.as_str()).collect();
    assert_eq!(order, ["model.embed_tokens", "model.layers.0", "model.layers.2", "model.norm", "lm_head"]);
}

#[test]
fn directories_say_prompt_and_step() {
    let mut world = World::new();
    let mut prompts = [prompt("a", &[1, 2, 3, 4, 5]), prompt("b", &[7, 8])];
    prompts[0].step_token_ids = vec![9];
    world.draft = Draft::of(&prompts).with_step(1);
    std::fs::remove_dir_all(world.path("reference")).unwrap();
    world.draft.write(&world.path("reference"));
    let tensors = world.draft.tensors.iter().filter(|t| t.point == "model.norm");
    for tensor in tensors {
        let name = format!("{}/step_{}/final_norm.f32", tensor.prompt, tensor.step);
        world.raw(&name, &tensor.values());
    }
    let trace = world.import("");
    let reference = Trace::open(&world.path("reference")).unwrap();
    assert_eq!(trace.entries().len(), 3);
    for entry in trace.entries() {
        let theirs = reference.find(&entry.prompt, entry.step, &entry.point).unwrap();
        assert_eq!(trace.view(entry).bytes, reference.view(theirs).bytes);
    }
}

#[test]
fn without_a_reference_the_model_and_the_prompts_say_what_the_dumps_are_of() {
    let world = World::new();
    let model = crate::common::bundled_model();
    world.file("prompts.jsonl", r#"{"id": "p", "token_ids": [1, 2, 3]}"#);
    world.raw("embed.f32", &[0.5; 3 * 128]);
    let run = world.run(&format!(
        "import dumps --model {} --prompts prompts.jsonl --engine mine --out out",
        model.display()
    ));
    assert_eq!(run.code, 0, "{run:#?}");
    let trace = Trace::open(&world.path("out")).unwrap();
    assert_eq!(trace.entries()[0].shape, [3, 128]);
    assert_eq!(trace.manifest().prompts[0].token_ids, [1, 2, 3]);
}

#[test]
fn what_was_imported_is_one_json_document_where_that_is_asked_for() {
    let world = World::new();
    world.raw("embed.f32", &world.values("model.embed_tokens"));
    let run = world.run("import dumps --reference reference --out out --json");
    let document = run.json();
    assert_eq!((run.code, run.stderr.as_str(), document["outcome"].as_str()), (0, "", Some("pass")));
    assert_eq!((&document["tensors"], &document["of_points"]), (&1.into(), &96.into()));
    let refused = world.run("import dumps --reference nowhere --out new --json");
    assert_eq!((refused.code, refused.json()["outcome"].as_str()), (2, Some("invalid")));
}

#[test]
fn only_what_was_captured_is_asked_for_when_that_is_said() {
    let world = World::new();
    for i in 0..4 {
        world.raw(&format!("layer_{i}.f32"), &world.values(&format!("model.layers.{i}")));
    }
    drop(world.import(""));
    let all = world.run("compare reference out --json");
    assert_eq!((all.code, all.json()["outcome"].as_str()), (2, Some("unmeasured")));
    let part = world.run("compare reference out --only-captured --json");
    assert_eq!((part.code, part.json()["outcome"].as_str()), (0, Some("pass")));
    assert_eq!(part.json()["coverage"]["expected"], 4);
    let headline = part.json()["verdict"]["headline"].as_str().unwrap().to_owned();
    assert!(headline.contains("none of 4 of the model's 96 points"), "{headline}");
}

#[test]
fn a_fault_between_two_captured_points_is_said_to_be_anywhere_between_them() {
    let world = World::new();
    for i in 0..4 {
        let mut values = world.values(&format!("model.layers.{i}"));
        values[7] += if i >= 2 { 0.1 } else { 0.0 };
        world.raw(&format!("layer_{i}.f32"), &values);
    }
    drop(world.import(""));
    let run = world.run("compare reference out --only-captured --json");
    assert_eq!(run.code, 1, "{run:#?}");
    let report = run.json();
    assert_eq!(report["first_fault"]["point"], "model.layers.2");
    assert_eq!(report["verdict"]["rests_on"], "growth");
    let reasons = report["verdict"]["reasoning"].to_string();
    assert!(
        reasons
            .contains("born between model.layers.1 and model.layers.2, in one of 20 components of layer 2"),
        "{reasons}"
    );
    assert!(reasons.contains("4 of the model's 96 points"), "{reasons}");
}

#[test]
fn dumps_that_nothing_is_known_of_are_answered_with_what_they_may_be() {
    let world = World::new();
    world.raw("l1_up.f32", &world.values("model.layers.1.mlp.up_proj"));
    world.raw("final_nrom.f32", &[1.0; 40]);
    world.raw("other/laye_2.f32", &[1.0; 41]);
    world.raw("model.layers.1.mlp.up_pro.f32", &[1.0; 60]);
    world.raw("x.f32", &[1.0; 7]);
    world.file("dumps/README.txt", "nothing");
    refused!(world);
}

#[test]
fn a_quiet_import_prints_no_notes() {
    let world = World::new();
    world.raw("embed.f32", &world.values("model.embed_tokens"));
    world.raw("x.f32", &[0.1; 7]);
    let run = world.run("import dumps --reference reference --out out --ignore-unknown --quiet");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:#?}");
    let run = world.run("import dumps --reference reference --out two --ignore-unknown");
    assert!(run.stderr.contains("note: left out"), "{run:#?}");
}

#[test]
fn dumps_of_the_prefill_that_are_said_to_be_of_a_step_are_refused() {
    let mut world = World::new();
    let mut prompt = prompt("a", &[1, 2, 3, 4, 5]);
    prompt.step_token_ids = vec![9];
    world.draft = Draft::of(&[prompt]).with_step(1);
    std::fs::remove_dir_all(world.path("reference")).unwrap();
    world.draft.write(&world.path("reference"));
    world.raw("embed.f32", &[0.5; 40]);
    refused!(world, "import dumps --reference reference --step 1 --out out");
}

#[test]
fn two_dumps_of_one_point_are_refused() {
    let world = World::new();
    world.raw("embed.f32", &world.values("model.embed_tokens"));
    world.raw("model.embed_tokens.f32", &world.values("model.embed_tokens"));
    refused!(world);
}

#[test]
fn dumps_of_more_tokens_than_the_prompt_has_are_refused() {
    let world = World::new();
    world.raw("embed.f32", &[0.0; 6 * 8]);
    refused!(world);
}

#[test]
fn logits_of_the_last_token_alone_are_refused() {
    let world = World::new();
    world.raw("logits.f32", &[0.0; 32]);
    refused!(world);
}

#[test]
fn a_step_that_the_prompt_does_not_have_is_refused() {
    let world = World::new();
    world.raw("step_3/embed.f32", &[0.0; 8]);
    refused!(world);
}

#[test]
fn dumps_of_one_of_several_prompts_are_refused_until_it_is_named() {
    let mut world = World::new();
    world.draft = Draft::of(&[prompt("a", &[1, 2]), prompt("b", &[7, 8])]);
    std::fs::remove_dir_all(world.path("reference")).unwrap();
    world.draft.write(&world.path("reference"));
    world.raw("embed.f32", &[0.0; 16]);
    refused!(world);
}

#[test]
fn half_an_element_is_refused() {
    let world = World::new();
    world.file("dumps/embed.f32", [0; 161]);
    refused!(world);
}

#[test]
fn numbers_in_place_of_a_mask_are_refused() {
    let world = World::new();
    world.raw("model.layers.3.self_attn.attention_mask.f32", &[0.0; 25]);
    refused!(world);
}

#[test]
fn bytes_that_are_no_mask_are_refused() {
    let world = World::new();
    world.file("dumps/model.layers.3.self_attn.attention_mask.u8", [255; 25]);
    refused!(world);
}

#[test]
fn bytes_in_place_of_numbers_are_refused() {
    let world = World::new();
    world.file("dumps/embed.u8", [1; 40]);
    refused!(world);
}
