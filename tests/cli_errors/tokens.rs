//! What the comparison of tokens refuses: prompts, questions, and dumps of other jobs.

use crate::common::{self, Captured, Draft, prompt, tree};
use crate::world::{World, refused};
use layerdiff::checkpoint::ModelDir;
use layerdiff::prompt::Prompt;
use layerdiff::tensor::DType;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

#[test]
fn no_tokens_are_no_job() {
    refused!(World::new(), "tokens --tokens 0 --out @out");
}

#[test]
fn a_temperature_of_nothing_is_refused() {
    refused!(World::new(), "tokens --temperature 0 --out @out");
}

#[test]
fn an_unknown_profile_is_answered_with_the_nearest() {
    refused!(World::new(), "tokens --profile fp61 --out @out");
}

#[test]
fn a_profile_with_an_unknown_metric_is_refused_by_name() {
    let world = World::new();
    world.file(
        "mine.toml",
        "[[profile]]\nname = 'mine'\n[[profile.criterion]]\nmetric = 'kl'\nat_most = 1.0\n",
    );
    refused!(world, "tokens --profile @mine.toml --out @out");
}

#[test]
fn malformed_questions_are_refused_with_their_line() {
    let world = World::new();
    world.file("choices.jsonl", r#"{"question": "Why?", "choices": ["a", "b", "c"], "answer": 0}"#);
    refused!(world, "tokens --choices @choices.jsonl --out @out");
}

#[test]
fn an_empty_set_of_prompts_is_refused_by_tokens() {
    let world = World::new();
    world.file("prompts.jsonl", "\n\n");
    refused!(world, "tokens --prompts @prompts.jsonl --out @out");
}

#[test]
fn a_prompt_that_is_too_long_with_its_tokens_is_refused_by_tokens() {
    let world = World::new();
    let ids: Vec<usize> = (0..3000).map(|i| i % 2000).collect();
    world.file("prompts.jsonl", &json!({"id": "long", "token_ids": ids}).to_string());
    refused!(world, "tokens --prompts @prompts.jsonl --tokens 100000 --out @out");
}

#[test]
fn a_subject_of_mmlu_with_too_few_examples_is_refused() {
    let world = World::new();
    for split in ["mmlu/test", "mmlu/dev"] {
        std::fs::create_dir_all(world.path(split)).unwrap();
    }
    world.file("mmlu/test/anatomy_test.csv", "Where?,here,there,up,down,A\n");
    world.file("mmlu/dev/anatomy_dev.csv", "Who?,he,she,it,they,B\n");
    refused!(world, "tokens --choices @mmlu --out @out");
}

/// MMLU's archive, of which only this split is there.
fn archive_without_examples() -> World {
    let world = World::new();
    std::fs::create_dir_all(world.path("mmlu/test")).unwrap();
    world.file("mmlu/test/anatomy_test.csv", "Where?,here,there,up,down,A\n");
    world
}

#[test]
fn shots_without_examples_are_refused() {
    refused!(archive_without_examples(), "tokens --choices @mmlu --shots 5 --out @out");
}

#[test]
fn shots_before_the_bundled_questions_are_refused() {
    refused!(World::new(), "tokens --shots 2 --out @out");
}

#[test]
fn an_archive_of_mmlu_without_its_dev_split_is_said_to_be_asked_0_shot() {
    let world = archive_without_examples();
    world.python("error: this far and no further", 2);
    let notes = |more: &str| {
        let line = format!("tokens --choices @mmlu --python @python --tokens 100 --out @out {more}");
        let run = world.run(&line);
        assert!(run.stderr.contains("this far and no further"), "{run:#?}");
        run.stderr.lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(notes(""), ["note: the questions are asked 0-shot: no --shots-from, and no dev in --choices"]);
    assert_eq!(notes("--shots 0"), [""; 0]);
}

pub const DUMPS: &str = "tokens --python @python --prompts @prompts.jsonl --tokens 1 --choices none --profile @one.toml --dumps @dumps --out @out";

/// What PyTorch would leave of one prompt and one token, after a change; a stand-in for Python puts it into
/// `dumps` in a first run.
pub fn with_dumps(change: impl FnOnce(&mut Draft)) -> World {
    let world = World::new();
    let prompts = [Prompt { step_token_ids: vec![4], ..prompt("p", &[1, 2, 3]) }];
    let mut draft = Draft::of(&prompts);
    let model = ModelDir::open(&common::bundled_model()).unwrap();
    draft.options.provenance.hashes = model.hashes().unwrap();
    draft.options.config = model.config().as_json().clone();
    let vocab = model.graph().dim("vocab");
    let logits = |step: u32, tokens: usize| Captured {
        prompt: "p".into(),
        step,
        point: "lm_head".into(),
        dtype: DType::F32,
        shape: vec![tokens, vocab],
        bytes: vec![0; 4 * tokens * vocab],
        basis: "original".into(),
        derived: false,
    };
    draft.tensors = vec![logits(0, 3), logits(1, 1)];
    change(&mut draft);
    for run in ["reference", "float64", "sampled"] {
        std::fs::create_dir_all(world.path("made").join(run)).unwrap();
        draft.write(&world.path("made").join(run).join(&draft.prompts[0].id));
    }
    world.file(
        "one.toml",
        "[[profile]]\nname = 'one'\n[[profile.criterion]]\nmetric = 'mean_kl'\nat_most = 1.0\n",
    );
    world.file(
        "python",
        "#!/bin/sh\nwhile [ \"$1\" != --out ]; do shift; done\n\
         mkdir -p \"$2\"\ncp -R \"$(dirname \"$0\")/made/$(basename \"$2\")/.\" \"$2\"\n",
    );
    std::fs::set_permissions(world.path("python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    world.run(DUMPS);
    assert!(world.path("dumps/settings.json").is_file());
    world
}

#[test]
fn dumps_of_other_prompts_are_refused() {
    refused!(with_dumps(|draft| draft.prompts[0].token_ids[1] = 7), DUMPS);
}

#[test]
fn dumps_that_lack_a_prompt_are_refused() {
    let rename = |draft: &mut Draft| {
        draft.prompts[0].id = "q".into();
        draft.tensors.iter_mut().for_each(|t| t.prompt = "q".into());
    };
    refused!(with_dumps(rename), DUMPS);
}

#[test]
fn dumps_of_another_tokenizer_are_refused() {
    let other = Some(format!("sha256:{}", "0".repeat(64)));
    refused!(with_dumps(|draft| draft.options.provenance.hashes.tokenizer = other), DUMPS);
}

#[test]
fn dumps_of_another_vocabulary_are_refused() {
    let cut = |draft: &mut Draft| {
        for tensor in &mut draft.tensors {
            tensor.shape[1] = 1000;
            tensor.bytes.truncate(4 * tensor.shape[0] * 1000);
        }
    };
    refused!(with_dumps(cut), DUMPS);
}

#[test]
fn dumps_with_a_logit_that_is_no_number_are_refused() {
    let last = |draft: &mut Draft| {
        let bytes = &mut draft.tensors[0].bytes;
        let at = bytes.len() - 4 * 5;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    refused!(with_dumps(last), DUMPS);
}

#[test]
fn dumps_of_another_setting_are_refused_with_the_first_difference() {
    refused!(with_dumps(|_| ()), &DUMPS.replace("--tokens 1", "--tokens 2"));
}

#[test]
fn what_a_killed_run_left_in_its_dumps_goes_when_the_run_goes_on() {
    let world = with_dumps(|_| ());
    let left = [
        "dumps/.tmpAb12xY",
        "dumps/reference/.p.0123abcd.partial/shard-00000.safetensors",
        "dumps/lattice-f16/.tmpAb12xY",
        "dumps/lattice-f16/traces/.p.Ab12xY/shard-00000.safetensors",
    ];
    let expected = tree(&world.path("dumps"));
    for name in left {
        std::fs::create_dir_all(world.path(name).parent().unwrap()).unwrap();
        world.file(name, "half");
    }
    let run = world.run(DUMPS);
    assert!(run.code < 2, "{run:#?}");
    assert_eq!(
        tree(&world.path("dumps")).keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{run:#?}"
    );
}

/// The stand-in for Python leaves dumps and no trace for the comparison by layer.
#[test]
fn a_release_whose_layers_cannot_be_run_has_its_tokens_judged_and_says_why() {
    let world = with_dumps(|_| ());
    let profile = std::fs::read_to_string(world.path("one.toml")).unwrap();
    world.file("one.toml", &profile.replace("1.0", "100.0"));
    let line = DUMPS.replacen("tokens ", "release --engine lattice-f16 ", 1);
    let run = world.run(&format!("{line} --json"));
    assert_eq!((run.code, run.json()["outcome"].as_str()), (2, Some("unmeasured")), "{run:#?}");
    let engine = run.json()["engines"][0].clone();
    assert_eq!((&engine["layers"], &engine["tokens"]["profile"]), (&Value::Null, &"one".into()), "{engine}");
    let errors = engine["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{engine}");
    assert!(errors[0].as_str().unwrap().starts_with("layers: not a trace"), "{engine}");
    assert!(world.path("out/lattice-f16/tokens/report.json").is_file());
}
