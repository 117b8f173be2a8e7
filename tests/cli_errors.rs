//! The real command on bad input: what it says, that it says it everywhere, and that it leaves nothing behind.
//!
//! `INSTA_UPDATE=always cargo test --test cli_errors` writes the snapshots anew.

#![cfg(unix)]

mod common;

use common::{
    Captured, Draft, Factors, Run, command, edit_header, edit_manifest, finished, layerdiff, prompt,
    replace_shard, shard, tree,
};
use layerdiff::checkpoint::ModelDir;
use layerdiff::prompt::Prompt;
use layerdiff::tensor::DType;
use serde_json::{Value, json};
use std::fmt::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory with two equal traces, a set of prompts, a place for temporary files, and whatever
/// a test adds.
struct World {
    root: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { root: tempfile::tempdir().unwrap() };
        for side in ["reference", "candidate"] {
            Draft::tiny().write(&world.path(side));
        }
        world.file("prompts.jsonl", r#"{"id": "p", "token_ids": [1, 2, 3]}"#);
        std::fs::create_dir(world.path("tmp")).unwrap();
        world
    }

    /// Two traces, the candidate's after a change.
    fn with(change: impl FnOnce(&mut Draft)) -> Self {
        let world = Self::new();
        let mut draft = Draft::tiny();
        change(&mut draft);
        std::fs::remove_dir_all(world.path("candidate")).unwrap();
        draft.write(&world.path("candidate"));
        world
    }

    /// A damaged candidate.
    fn damaged(damage: impl FnOnce(&Path)) -> Self {
        let world = Self::new();
        damage(&world.path("candidate"));
        world
    }

    /// The bundled model with a changed configuration, in `model`.
    fn with_config(change: impl FnOnce(&mut Value)) -> Self {
        let world = Self::new();
        let bundled = common::bundled_model();
        let mut config =
            serde_json::from_slice(&std::fs::read(bundled.join("config.json")).unwrap()).unwrap();
        change(&mut config);
        std::fs::create_dir(world.path("model")).unwrap();
        world.file("model/config.json", &config.to_string());
        for name in ["model.safetensors", "tokenizer.json"] {
            symlink(bundled.join(name), world.path("model").join(name)).unwrap();
        }
        world
    }

    /// The bundled adapter, its configuration and its tensors changed, in `adapter`.
    fn with_adapter(config: impl FnOnce(&mut Value), tensors: impl FnOnce(&mut Factors)) -> Self {
        let world = Self::new();
        std::fs::create_dir(world.path("adapter")).unwrap();
        common::copy_adapter(&world.path("adapter"), config, tensors);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// An interpreter that prints this on stderr and ends with this code.
    fn python(&self, talk: &str, code: i32) {
        self.file("python", &format!("#!/bin/sh\ncat >&2 <<'END'\n{talk}\nEND\nexit {code}\n"));
        std::fs::set_permissions(self.path("python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The words of a command line; `@name` stands for a path in this directory, `@@` for the bundled model.
    fn args(&self, line: &str) -> Vec<String> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        line.split_whitespace()
            .map(|word| match word.strip_prefix('@') {
                Some("@") => path(common::bundled_model()),
                Some(name) => path(self.path(name)),
                None => word.to_owned(),
            })
            .collect()
    }

    fn run(&self, line: &str) -> Run {
        let mut command = command(&self.args(line));
        finished(command.current_dir(self.root.path()).env("TMPDIR", self.path("tmp")))
    }

    /// Runs a command line that must be refused, as text and as JSON; returns what a user sees.
    #[track_caller]
    fn refusal(&self, line: &str) -> String {
        let before = tree(self.root.path());
        let text = self.run(line);
        assert_eq!(text.code, 2, "{text:#?}");
        assert_eq!(text.stdout, "", "{text:#?}");
        assert!(text.stderr.starts_with("error: ") && text.stderr.contains("\n  hint: "), "{text:#?}");
        let json = self.run(&format!("{line} --json"));
        assert_eq!(json.code, 2, "{json:#?}");
        assert_eq!(json.json()["outcome"], "invalid");
        assert_eq!(
            mask(json.json()["error"].as_str().unwrap()),
            mask(text.stderr.strip_prefix("error: ").unwrap().trim_end())
        );
        assert_eq!(tree(self.root.path()), before, "{line} left something behind");
        let mut shown = format!("$ layerdiff {line}\nexit code: {}\n", text.code);
        let stderr = text.stderr.replace(self.root.path().to_str().unwrap(), "[ROOT]");
        write!(shown, "{}", mask(&stderr.replace(common::bundled_model().to_str().unwrap(), "[BUNDLED]")))
            .unwrap();
        shown
    }

    /// Runs a comparison that must come to this outcome; returns the report.
    #[track_caller]
    fn outcome(&self, outcome: &str, code: i32) -> Value {
        let run = self.run("compare @reference @candidate --json");
        assert_eq!((run.code, run.json()["outcome"].as_str()), (code, Some(outcome)), "{run:#?}");
        run.json()
    }
}

/// Hides what differs from run to run: hashes, and the random part of a temporary name.
fn mask(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', '"', '/']).map(|word| {
        let (core, end) = word.split_at(word.trim_end_matches([' ', '\n', '"', '/']).len());
        let hash = core.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64);
        match core.rsplit_once('.') {
            _ if hash => format!("sha256:[HASH]{end}"),
            Some((name, random)) if name.starts_with('.') && random.len() == 6 => {
                format!("{name}.[RANDOM]{end}")
            }
            _ => word.to_owned(),
        }
    });
    words.collect()
}

/// Checks all that a refusal owes its user, and the words against the snapshot of this test's name.
macro_rules! refused {
    ($world:expr, $line:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($world.refusal($line))
        })
    };
}

const CAPTURE: &str = "capture --engine lattice-f32 --model @model --prompts @prompts.jsonl --out @out";
const CAPTURE_BUNDLED: &str = "capture --engine lattice-f32 --model @@ --prompts @prompts.jsonl --out @out";
const CAPTURE_TORCH: &str =
    "capture --engine torch --python @python --model @@ --prompts @prompts.jsonl --out @out";
const COMPARE: &str = "compare @reference @candidate --out @report";
const RUN: &str = "run --model @@ --reference @reference --out @report";

// The model.

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

// Reports that were written before.

#[test]
fn a_missing_report_is_named() {
    refused!(World::new(), "show @gone/report.json");
}

#[test]
fn a_file_that_is_no_report_is_refused() {
    refused!(World::new(), "show @prompts.jsonl");
}

#[test]
fn a_report_of_another_format_is_refused() {
    let world = World::new();
    world.file("report.json", r#"{"format": "layerdif-report", "version": 1}"#);
    refused!(world, "show @report.json");
}

#[test]
fn a_report_of_another_version_is_refused() {
    let world = World::new();
    world.file("report.json", r#"{"format": "layerdiff-report", "version": 2}"#);
    refused!(world, "show @report.json");
}

#[test]
fn a_report_that_lacks_a_key_is_refused() {
    let world = World::new();
    world.file("report.json", r#"{"format": "layerdiff-report", "version": 1, "outcome": "pass"}"#);
    refused!(world, "show @report.json");
}

// Pictures.

impl World {
    /// A report of both traces, with two prompts, in `report`.
    fn reported() -> Self {
        let world = Self { root: tempfile::tempdir().unwrap() };
        for side in ["reference", "candidate"] {
            Draft::of(&[prompt("p-01", &[1, 2, 3]), prompt("p-02", &[4, 5])]).write(&world.path(side));
        }
        std::fs::create_dir(world.path("tmp")).unwrap();
        world.run("compare @reference @candidate --out @report");
        world
    }
}

#[test]
fn an_unknown_family_is_answered_with_the_nearest() {
    refused!(World::reported(), "plot @report --kind curve --family rop --out @a.svg");
}

#[test]
fn an_unknown_point_of_a_report_is_answered_with_the_nearest() {
    refused!(World::reported(), "plot @report --kind tokens --point layers.3.self_attn.k_rop --out @a.svg");
}

#[test]
fn an_unknown_prompt_of_a_report_is_answered_with_the_nearest() {
    refused!(World::reported(), "plot @report --kind tokens --prompt p-1 --out @a.svg");
}

#[test]
fn an_unknown_engine_of_a_report_is_answered_with_the_known_one() {
    refused!(World::reported(), "plot @report --kind curve --engine tset --out @a.svg");
}

#[test]
fn a_step_that_the_report_lacks_is_answered_with_those_that_it_has() {
    refused!(World::reported(), "plot @report --kind heatmap --step 3 --out @a.svg");
}

#[test]
fn local_errors_of_a_report_without_replay_are_refused() {
    refused!(World::reported(), "plot @report --kind heatmap --value local --out @a.svg");
}

#[test]
fn points_without_heads_are_answered_with_those_that_have_some() {
    refused!(World::reported(), "plot @report --kind heads --point *.mlp.act --out @a.svg");
}

#[test]
fn a_point_whose_errors_by_value_are_not_kept_is_answered_with_the_kept_ones() {
    refused!(World::reported(), "plot @report --kind magnitude --point model.layers.2 --out @a.svg");
}

#[test]
fn a_mask_has_no_errors_by_token() {
    refused!(World::reported(), "plot @report --kind tokens --point *.conv_state --out @a.svg");
}

#[test]
fn a_picture_of_an_unknown_kind_of_file_is_refused() {
    refused!(World::reported(), "plot @report --kind curve --out @a.pdf");
}

#[test]
fn a_file_that_is_no_picture_is_not_replaced() {
    let world = World::reported();
    world.file("a.svg", "a poem");
    refused!(world, "plot @report --kind curve --out @a.svg");
}

#[test]
fn a_value_of_what_is_no_heatmap_is_refused() {
    refused!(World::reported(), "plot @report --kind curve --value local --out @a.svg");
}

// Prompts, engines and points.

#[test]
fn an_unknown_engine_is_answered_with_the_nearest() {
    refused!(World::new(), &CAPTURE_BUNDLED.replace("lattice-f32", "latice-f32"));
}

#[test]
fn an_unknown_path_is_answered_with_the_known_ones() {
    refused!(World::new(), &format!("{CAPTURE_BUNDLED} --path paralel"));
}

#[test]
fn an_unknown_prompt_is_answered_with_the_nearest() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"code-01\", \"text\": \"x\"}");
    refused!(world, &format!("{CAPTURE_BUNDLED} --prompt code-1"));
}

#[test]
fn a_prompt_that_the_reference_lacks_is_refused_by_run() {
    let mut draft = Draft::tiny();
    draft.options.provenance.hashes = layerdiff::trace::Hashes::default();
    let world = World::new();
    draft.write(&world.path("bare"));
    refused!(world, "run --model @@ --reference @bare --prompt code-01 --out @report");
}

#[test]
fn a_mistyped_reference_is_answered_with_the_nearest_engine() {
    refused!(World::new(), &RUN.replace("@reference", "latice-f32:serial"));
}

#[test]
fn a_mistyped_word_for_a_reference_is_answered_with_the_nearest() {
    refused!(World::new(), &RUN.replace("@reference", "slef"));
}

#[test]
fn an_unknown_path_of_the_reference_is_answered_with_the_known_ones() {
    refused!(World::new(), &RUN.replace("@reference", "lattice-f32:paralel"));
}

#[test]
fn a_reference_that_is_the_candidate_is_refused() {
    refused!(
        World::new(),
        &format!("{} --engine lattice-f32", RUN.replace("@reference", "lattice-f32:batched"))
    );
}

#[test]
fn a_prompt_of_one_token_cannot_be_cut() {
    let world = World::new();
    world.file("prompts.jsonl", r#"{"id": "one", "token_ids": [7]}"#);
    refused!(world, &format!("{} --prompts @prompts.jsonl", RUN.replace("@reference", "self")));
}

#[test]
fn an_engine_against_itself_has_no_arm_of_other_weights() {
    refused!(World::new(), &format!("{} --quantized @candidate", RUN.replace("@reference", "self")));
}

#[test]
fn a_floor_of_pytorch_is_none_for_an_engine_against_itself() {
    let floor = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/floors/float64.json");
    let world = World::new();
    symlink(floor, world.path("floor.json")).unwrap();
    let run = RUN.replace("@reference", "self");
    refused!(world, &format!("{run} --prompts @prompts.jsonl --engine lattice-f32 --floor @floor.json"));
}

#[test]
fn a_trace_whose_name_is_a_word_is_reached_by_its_path() {
    let world = World::new();
    Draft::tiny().write(&world.path("self"));
    let run = world.run("run --model @@ --reference ./self --out @report");
    assert!(run.stderr.contains("the trace was captured on another model"), "{run:#?}");
}

#[test]
fn a_missing_file_of_prompts_is_named() {
    let world = World::new();
    std::fs::remove_file(world.path("prompts.jsonl")).unwrap();
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn an_empty_file_of_prompts_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "\n\n");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_malformed_line_of_prompts_is_named_by_its_number() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"x\"}\n\n{\"id\": \"b\", \"text\": }\n");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_with_a_bad_id_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"../a\", \"text\": \"x\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_whose_id_is_the_parent_directory_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"..\", \"text\": \"x\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_with_nothing_in_it_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn two_prompts_of_one_id_are_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"a\", \"text\": \"y\"}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"token_ids\": [1, 4000000000]}");
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_prompt_that_is_too_long_is_refused() {
    let world = World::new();
    world.file("prompts.jsonl", &json!({"id": "a", "token_ids": vec![1; 9000]}).to_string());
    refused!(world, CAPTURE_BUNDLED);
}

#[test]
fn a_model_without_a_tokenizer_takes_no_text() {
    let world = World::with_config(|_| ());
    std::fs::remove_file(world.path("model/tokenizer.json")).unwrap();
    world.file("prompts.jsonl", "{\"id\": \"a\", \"text\": \"x\"}");
    refused!(world, CAPTURE);
}

#[test]
fn a_bad_glob_is_explained() {
    refused!(World::new(), &format!("{COMPARE} --points *.{{q_rope"));
}

#[test]
fn a_glob_that_chooses_nothing_is_refused_by_compare() {
    refused!(World::new(), &format!("{COMPARE} --points *.q_rop"));
}

#[test]
fn a_glob_that_chooses_nothing_is_refused_by_capture() {
    refused!(World::new(), &format!("{CAPTURE_BUNDLED} --points *.q_rop"));
}

#[test]
fn an_unknown_choice_of_rows_is_answered_with_the_known_ones() {
    refused!(World::new(), &format!("{CAPTURE_BUNDLED} --scores rows:1"));
}

// Adapters.

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

// Traces.

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

// Outputs.

#[test]
fn weights_of_floats_are_not_taken_for_q4_weights() {
    refused!(World::new(), "run --engine lattice-q4 --weights @@ --out @out");
}

#[test]
fn a_fault_in_a_layer_where_it_cannot_live_is_answered_with_the_layers() {
    refused!(World::new(), "faults run --fault rope-interleaved --layer 2");
}

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

const DUMPS: &str = "tokens --python @python --prompts @prompts.jsonl --tokens 1 --choices none --profile @one.toml --dumps @dumps --out @out";

/// What PyTorch would leave of one prompt and one token, after a change; a stand-in for Python puts it into
/// `dumps` in a first run.
fn with_dumps(change: impl FnOnce(&mut Draft)) -> World {
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

/// `release` on the stand-in's dumps.
fn release_line(more: &str) -> String {
    DUMPS.replacen("tokens ", "release --engine lattice-f16 --worst 0 ", 1) + more
}

/// The parts of a release as a scheduler lays them out.
fn with_parts() -> (World, String) {
    let world = with_dumps(|_| ());
    let rows = world.run(&release_line(" --part tokens")).json();
    let rows: Vec<String> = rows.as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(rows.len(), 1);
    std::fs::create_dir(world.path("parts")).unwrap();
    world.file("parts/lattice-f16.tokens.jsonl", &rows[0]);
    let layers = world.run(&release_line(" --part layers"));
    assert_eq!(layers.code, 2, "{layers:#?}");
    let error = layers.stderr.strip_prefix("error: ").unwrap().trim_end();
    world.file("parts/lattice-f16.layers.error", error);
    let worst = world.run(&release_line(" --parts @parts --part worst"));
    world.file("parts/lattice-f16.worst.json", &worst.stdout);
    let [row] = rows.try_into().unwrap();
    (world, row)
}

#[test]
fn a_release_of_parts_is_the_release_byte_for_byte() {
    let (world, _) = with_parts();
    let whole = world.run(&release_line(""));
    // The error names a temporary directory, which is another in each run.
    let report = std::fs::read_to_string(world.path("out/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let error = report["engines"][0]["errors"][0].as_str().unwrap();
    world.file("parts/lattice-f16.layers.error", error.strip_prefix("layers: ").unwrap());
    let expected = tree(&world.path("out"));
    assert!(expected.len() > 5);
    for spelling in [" --parts @parts", " --parts=parts"] {
        std::fs::remove_dir_all(world.path("out")).unwrap();
        let parts = world.run(&release_line(spelling));
        assert_eq!((parts.code, &parts.stdout), (whole.code, &whole.stdout), "{parts:#?}");
        assert_eq!(tree(&world.path("out")), expected, "{spelling}");
    }
}

#[test]
fn a_plan_says_what_there_is_to_do() {
    let world = with_dumps(|_| ());
    let plan = || world.run(&release_line(" --part plan")).json();
    let first = plan();
    assert_eq!((&first["engines"][0], &first["prompts"][0]["id"]), (&"lattice-f16".into(), &"p".into()));
    assert_eq!(first["job"]["setting"]["tokens"], 1);
    assert_eq!(first["python"], world.path("python").to_str().unwrap());
    assert_eq!(plan(), first);
    for other in [
        r#"{"id": "p", "token_ids": [1, 2, 4]}"#,
        r#"{"id": "p", "token_ids": [1, 2, 3], "category": "code"}"#,
    ] {
        world.file("prompts.jsonl", other);
        assert_ne!(plan()["job"]["prompts"], first["job"]["prompts"], "{other}");
    }
}

#[test]
fn a_part_of_several_engines_is_refused() {
    refused!(World::new(), "release --part tokens --choices none");
}

#[test]
fn a_part_of_an_unknown_prompt_is_refused() {
    refused!(World::new(), "release --engine lattice-f16 --part tokens --only nowhere --choices none");
}

#[test]
fn the_worst_prompts_need_the_rows() {
    refused!(World::new(), "release --engine lattice-f16 --part worst --choices none");
}

#[test]
fn a_release_without_its_parts_is_refused() {
    let (world, _) = with_parts();
    world.file("parts/lattice-f16.tokens.jsonl", "");
    refused!(world, &release_line(" --parts @parts"));
}

#[test]
fn a_part_that_is_there_twice_is_refused() {
    let (world, row) = with_parts();
    world.file("parts/lattice-f16.tokens.jsonl", &format!("{row}\n{row}\n"));
    refused!(world, &release_line(" --parts @parts"));
}

#[test]
fn a_part_that_was_made_with_another_number_of_threads_is_refused() {
    let (world, row) = with_parts();
    let mut other: Value = serde_json::from_str(&row).unwrap();
    other["candidate"]["threads"] = 99.into();
    world.file("parts/lattice-f16.tokens.jsonl", &format!("{row}\n{other}\n"));
    let run = world.run(&release_line(" --parts @parts"));
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("the part of `p` was made by other hands"), "{run:#?}");
    assert!(run.stderr.contains("threads 99"), "{run:#?}");
}

/// Runs the release of these parts, which must be refused with these words.
#[track_caller]
fn refused_parts(world: &World, more: &str, words: &[&str]) {
    let run = world.run(&release_line(&format!(" --parts @parts{more}")));
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:#?}");
    assert!(words.iter().all(|word| run.stderr.contains(word)), "{words:?} {run:#?}");
    assert!(run.stderr.contains("\n  hint: "), "{run:#?}");
}

/// The bundled model with a line more in its configuration, in `model`.
fn add_model(world: &World) {
    let bundled = common::bundled_model();
    let config = std::fs::read_to_string(bundled.join("config.json")).unwrap();
    std::fs::create_dir(world.path("model")).unwrap();
    world.file("model/config.json", &format!("{config}\n"));
    for name in ["model.safetensors", "tokenizer.json"] {
        symlink(bundled.join(name), world.path("model").join(name)).unwrap();
    }
}

#[test]
fn rows_of_another_engine_model_or_option_are_refused() {
    let (world, row) = with_parts();
    add_model(&world);
    let made: Value = serde_json::from_str(&row).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut other = made.clone();
        change(&mut other);
        world.file("parts/lattice-f16.tokens.jsonl", &other.to_string());
    };
    refused_parts(&world, " --model @model", &["`p` is of another release", "model.config \"sha256:"]);
    refused_parts(&world, " --steps 3", &["`p` is of another release", "steps 3", "steps 16"]);
    refused_parts(&world, " --temperature 2", &["`p` is of another release", "setting.temperature 2.0"]);
    let other = world.run(&release_line(" --part plan --model @model")).json()["job"].clone();
    with(&|row| row["job"] = other.clone());
    // Who forges the job has the runs against him.
    refused_parts(&world, " --model @model", &["`p` is of another model", "config \"sha256:"]);
    with(&|row| row["engine"] = "lattice-q8_0".into());
    refused_parts(&world, "", &["`p` is of another engine", "lattice-q8_0"]);
    with(&|row| row["candidate"]["engine"] = "lattice-q8_0".into());
    refused_parts(&world, "", &["`p` is of another engine", "lattice-q8_0"]);
    with(&|row| row["result"]["prompt_tokens"] = 4.into());
    refused_parts(&world, "", &["`p` is of other tokens"]);
    with(&|row| drop(row.as_object_mut().unwrap().remove("job")));
    refused_parts(&world, "", &["the part is malformed: missing field `job`"]);
}

#[test]
fn answers_to_another_question_are_refused() {
    let (world, row) = with_parts();
    world.file(
        "choices.jsonl",
        r#"{"question": "Why?", "choices": ["a", "b", "c", "d"], "answer": 0, "subject": "sea"}"#,
    );
    let asked = " --choices @choices.jsonl";
    let line = |more: &str| release_line(more).replace(" --choices none", asked);
    let mut prompt: Value = serde_json::from_str(&row).unwrap();
    prompt["job"] = world.run(&line(" --part plan")).json()["job"].clone();
    let mut answer = prompt.clone();
    answer["id"] = "question-0001".into();
    answer["kind"] = "question".into();
    answer["result"] = json!({
        "id": "question-0001", "subject": "sea", "answer": 0, "token_ids": [1], "letters": [1, 2, 3, 4],
        "reference": [-1.0, -2.0, -3.0, -4.0], "candidate": [-1.0, -2.0, -3.0, -4.0],
    });
    world.file("parts/lattice-f16.tokens.jsonl", &format!("{prompt}\n{answer}\n"));
    let run = world.run(&line(" --parts @parts"));
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("the part of `question-0001` is of other tokens"), "{run:#?}");
}

#[test]
fn a_report_by_layer_of_another_engine_or_job_is_refused() {
    let (world, row) = with_parts();
    let row: Value = serde_json::from_str(&row).unwrap();
    std::fs::remove_file(world.path("parts/lattice-f16.layers.error")).unwrap();
    let mut report = world.run("compare @reference @candidate --json").json();
    let lay = |sheet: &Value| world.file("parts/lattice-f16.layers.json", &sheet.to_string());
    lay(&report);
    refused_parts(&world, "", &["the part is malformed: missing field"]);
    let mut sheet = json!({"engine": "lattice-q8_0", "job": row["job"], "result": report});
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another engine", "lattice-q8_0"]);
    sheet["engine"] = "lattice-f16".into();
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another engine"]);
    report["provenance"]["candidate"]["engine"] = "lattice-f16".into();
    sheet["result"] = report.clone();
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another model"]);
    report["provenance"]["reference"]["hashes"] = row["reference"]["hashes"].clone();
    sheet["result"] = report;
    sheet["job"]["fault"] = "rope-interleaved".into();
    lay(&sheet);
    refused_parts(&world, "", &["the report by layer is of another release", "fault \"rope-interleaved\""]);
    sheet["job"] = row["job"].clone();
    lay(&sheet);
    let run = world.run(&release_line(" --parts @parts --json"));
    assert!(run.json()["engines"][0]["layers"].is_object(), "{run:#?}");
}

#[test]
fn what_was_found_in_other_prompts_or_engines_is_refused() {
    let (world, row) = with_parts();
    let row: Value = serde_json::from_str(&row).unwrap();
    let greedy = json!({"reference": [4], "candidate": [5], "divergence": null});
    let worst = json!({
        "id": "p", "prompt": "", "common": "", "reference": "", "candidate": "", "greedy": greedy,
        "top": [[], []], "layers": null,
    });
    let mut sheet = json!({"engine": "lattice-q8_0", "job": row["job"], "result": worst});
    let lay = |sheet: &Value| world.file("parts/lattice-f16.worst.json", &format!("[{sheet}]"));
    lay(&sheet);
    refused_parts(&world, "", &["the part of the worst prompts is of another engine", "lattice-q8_0"]);
    sheet["engine"] = "lattice-f16".into();
    lay(&sheet);
    refused_parts(&world, "", &["the part of the worst prompts is of others", "none", "p"]);
    sheet["job"]["worst"] = 5.into();
    lay(&sheet);
    refused_parts(&world, "", &["the part of the worst prompts is of another release", "worst 5"]);
}

#[test]
fn a_missing_model_directory_is_named_by_release() {
    refused!(World::new(), "release --model @model --out @out");
}

#[test]
fn more_steps_than_the_model_takes_are_refused_by_release_before_an_engine_runs() {
    let line = DUMPS.replacen("tokens ", "release --steps 100000 ", 1);
    refused!(with_dumps(|_| ()), &line);
}

#[test]
fn an_unknown_fault_is_answered_with_the_nearest_by_tokens() {
    refused!(World::new(), "tokens --fault rope-interleavd --out @out");
}

#[test]
fn a_release_of_an_unknown_engine_is_answered_with_the_nearest() {
    refused!(World::new(), "release --engine lattice-f61 --out @out");
}

#[test]
fn an_existing_trace_is_not_overwritten() {
    refused!(World::new(), &CAPTURE_BUNDLED.replace("@out", "@reference"));
}

#[test]
fn a_precision_that_others_call_fp16_is_answered_with_its_name() {
    refused!(World::new(), "capture --engine torch --dtype fp16 --model @@ --out @out");
}

#[test]
fn activations_are_rounded_by_pytorch_only() {
    refused!(World::new(), "capture --engine lattice-q8 --activation-bits 8 --model @@ --out @out");
}

#[test]
fn activations_of_other_than_8_bits_are_refused() {
    refused!(World::new(), "capture --engine torch --activation-bits 4 --model @@ --out @out");
}

#[test]
fn an_engine_that_has_no_weights_to_dequantize_is_answered_with_the_known_ones() {
    refused!(World::new(), "dequantize --engine torch @@ @out");
}

#[test]
fn weights_that_an_engine_holds_exactly_are_not_written() {
    refused!(World::new(), "dequantize --engine lattice-f32 @@ @out");
}

#[test]
fn a_seed_for_an_engine_that_rotates_nothing_is_refused() {
    refused!(World::new(), "dequantize --engine lattice-q8 --seed 7 @@ @out");
}

#[test]
fn the_original_of_what_is_not_quantized_is_refused() {
    refused!(World::new(), "dequantize --engine lattice-q8 --original @@ @@ @out");
}

#[test]
fn an_existing_checkpoint_is_not_overwritten() {
    refused!(World::new(), "dequantize --engine lattice-q8 @@ @reference");
}

#[test]
fn an_existing_output_is_found_before_python_starts() {
    let world = World::new();
    world.python("error: this must not run", 2);
    refused!(world, &CAPTURE_TORCH.replace("@out", "@reference"));
}

#[test]
fn an_existing_directory_that_is_no_report_is_not_replaced() {
    refused!(World::new(), "compare @reference @candidate --out @reference");
}

#[test]
fn an_existing_directory_that_is_no_report_is_not_replaced_by_run() {
    refused!(World::new(), &RUN.replace("@report", "@candidate"));
}

#[test]
fn an_output_below_a_file_is_refused() {
    refused!(World::new(), &COMPARE.replace("@report", "@prompts.jsonl/report"));
}

#[test]
fn an_output_deep_below_a_file_is_refused_by_capture() {
    refused!(World::new(), &CAPTURE_BUNDLED.replace("@out", "@prompts.jsonl/a/out"));
}

#[test]
#[cfg(target_os = "linux")]
fn an_output_where_nobody_may_write_is_refused() {
    refused!(World::new(), &COMPARE.replace("@report", "/proc/report"));
}

#[test]
fn an_output_without_a_name_is_refused() {
    refused!(World::new(), &COMPARE.replace("@report", ".."));
}

#[test]
#[cfg(target_os = "linux")]
fn a_standard_output_that_is_full_is_an_error() {
    let world = World::new();
    for line in [
        "inspect @reference",
        "inspect @reference model.norm --json",
        "compare @reference @candidate",
        CAPTURE_BUNDLED,
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"));
        let output = command.args(world.args(line)).stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains("error: cannot write to standard output"), "{line}: {stderr}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = World::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"));
    let output = command.args(world.args("inspect @reference")).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_standard_error_that_is_full_does_not_change_the_exit_code() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"));
    assert_eq!(command.args(["inspect", "/nothing"]).stderr(full).status().unwrap().code(), Some(2));
}

// Python.

#[test]
fn a_missing_python_is_answered_with_how_to_install_it() {
    refused!(World::new(), CAPTURE_TORCH);
}

#[test]
fn a_python_without_layerdiff_hooks_is_answered_with_how_to_install_it() {
    let world = World::new();
    world.python("/usr/bin/python3: No module named layerdiff_hooks", 1);
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn a_python_without_torch_is_answered_with_how_to_install_it() {
    let world = World::new();
    world.python(
        "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\nModuleNotFoundError: No module named 'torch'",
        1,
    );
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn what_the_python_side_says_is_passed_on() {
    let world = World::new();
    world.python(
        "{\"event\": \"start\"}\nerror: no room for a shard of 5 bytes\nhint: capture fewer points",
        2,
    );
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn what_the_python_side_says_is_passed_on_by_run() {
    let world = World::new();
    world.python("error: the checkpoint has no key\n  expected: a\nhint: download it again", 2);
    refused!(world, "run --model @@ --reference torch --python @python --out @report");
}

#[test]
fn a_python_that_dies_is_reported_with_its_last_words() {
    let world = World::new();
    world.python("something went wrong", 3);
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn a_python_that_says_nothing_and_writes_nothing_is_not_believed() {
    let world = World::new();
    world.python("", 0);
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn a_python_that_floods_stderr_does_not_hang() {
    let world = World::new();
    world.file("python", "#!/bin/sh\nhead -c 40000000 /dev/zero | tr '\\0' 'x' >&2\nexit 4\n");
    std::fs::set_permissions(world.path("python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = world.run(CAPTURE_TORCH);
    assert_eq!(run.code, 2);
    assert!(run.stderr.len() < 4096, "{} bytes on stderr", run.stderr.len());
}

// Outcomes that are no error, but no pass either.

#[test]
fn nan_on_one_side_only_is_a_fault_at_that_point() {
    let nan = |d: &mut Draft| d.at("model.layers.2.mlp.act").map(|i, v| if i == 17 { f32::NAN } else { v });
    let report = World::with(nan).outcome("fault", 1);
    assert_eq!(report["first_fault"]["point"], "model.layers.2.mlp.act");
    assert!(
        report["verdict"]["headline"].as_str().unwrap().contains("model.layers.2.mlp.act"),
        "{}",
        report["verdict"]
    );
    assert_eq!(report["first_fault"]["rel_l2"], "inf");
    assert_eq!(report["faults"].as_array().unwrap().len(), 1);
    let world = World::new();
    let swapped = World::with(nan);
    let run =
        layerdiff(&["compare".into(), swapped.path("candidate"), world.path("candidate"), "--json".into()]);
    assert_eq!((run.code, run.json()["first_fault"]["point"].as_str()), (1, Some("model.layers.2.mlp.act")));
}

#[test]
fn nan_on_both_sides_is_invalid() {
    let world = World::new();
    for side in ["reference", "candidate"] {
        std::fs::remove_dir_all(world.path(side)).unwrap();
        let mut draft = Draft::tiny();
        draft.at("model.layers.2.mlp.act").map(|i, v| if i == 17 { f32::NAN } else { v });
        draft.write(&world.path(side));
    }
    let report = world.outcome("invalid", 2);
    assert!(
        report["warnings"].to_string().contains("both sides have NaN at model.layers.2.mlp.act"),
        "{}",
        report["warnings"]
    );
}

#[test]
fn another_shape_is_mismatched_and_never_passed() {
    let report = World::with(|d| d.at("model.layers.1.mlp.act").shape = vec![12, 5]).outcome("unmeasured", 2);
    let point = report["points"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["point"] == "model.layers.1.mlp.act")
        .unwrap()
        .clone();
    assert_eq!(point["state"], "mismatched");
    assert_eq!(point["note"], "shape [5, 12] in the reference, [12, 5] in the candidate");
}

#[test]
fn a_mask_in_place_of_numbers_is_mismatched_and_never_passed() {
    let report = World::with(|d| {
        let tensor = d.at("model.layers.1.mlp.act");
        (tensor.dtype, tensor.bytes) = (DType::U8, vec![1; 60]);
    })
    .outcome("unmeasured", 2);
    assert_eq!(report["coverage"]["mismatched"], 1);
    assert!(report["points"].to_string().contains("dtype F32 in the reference, U8 in the candidate"));
}

#[test]
fn another_basis_is_mismatched_and_never_passed() {
    let report = World::with(|d| d.at("model.norm").basis = "spectral".into()).outcome("unmeasured", 2);
    assert!(
        report["points"].to_string().contains("basis original in the reference, spectral in the candidate")
    );
}

#[test]
fn what_both_sides_cannot_show_is_not_expected_and_what_one_cannot_is_unmeasured() {
    let world = World::with(|_| {});
    let point = "model.layers.0.linear_attn.conv_state";
    let expected = world.outcome("pass", 0)["coverage"]["expected"].as_u64().unwrap();
    for side in ["reference", "candidate"] {
        let mut draft = Draft::tiny();
        draft.tensors.retain(|t| t.point != point);
        std::fs::remove_dir_all(world.path(side)).unwrap();
        draft.write(&world.path(side));
    }
    let leave_out = |side| {
        edit_manifest(&world.path(side), |m| m["left_out"] = json!([{"step": 0, "point": point}]));
    };
    leave_out("candidate");
    let coverage = world.outcome("unmeasured", 2)["coverage"].clone();
    assert_eq!((coverage["expected"].as_u64(), &coverage["unmeasured"]), (Some(expected), &json!(1)));
    leave_out("reference");
    assert_eq!(world.outcome("pass", 0)["coverage"]["expected"].as_u64(), Some(expected - 1));
}

#[test]
fn a_candidate_that_failed_its_self_check_is_invalid() {
    let evidence = layerdiff::trace::Evidence {
        what: "logits".into(),
        entry_point: "f".into(),
        elements: 4,
        mismatches: 1,
        rel_l2: None,
    };
    let world = World::with(|d| d.self_check = Some(layerdiff::trace::SelfCheck::new(vec![evidence])));
    let report = world.outcome("invalid", 2);
    assert_eq!(report["self_check"]["status"], "different");
}

#[test]
fn a_run_leaves_its_report_and_replaces_that_of_the_last_one() {
    let world = World::new();
    let before: Vec<PathBuf> = tree(world.root.path()).into_keys().collect();
    let run = world.run(&format!("{} --steps 0", CAPTURE_BUNDLED.replace("@out", "@own")));
    assert_eq!(run.code, 0, "{run:#?}");
    for outcome in ["pass", "fault"] {
        let line = "run --model @@ --reference @own --engine lattice-f32 --out @new/report --json";
        let run = world.run(line);
        assert_eq!(run.json()["outcome"], outcome, "{run:#?}");
        let report: Value =
            serde_json::from_slice(&std::fs::read(world.path("new/report/report.json")).unwrap()).unwrap();
        assert_eq!(report, run.json());
        let ours = |path: &PathBuf| {
            path.starts_with(world.path("own")) || path.starts_with(world.path("new/report"))
        };
        let rest: Vec<PathBuf> =
            tree(world.root.path()).into_keys().filter(|p| !ours(p) && *p != world.path("new")).collect();
        assert_eq!(rest, before);
        // The second run is held against a reference that is wrong in one value. Safetensors sorts by
        // dtype, so that the masks are last; before them lie numbers.
        let mut bytes = shard(&world.path("own"), 0);
        let at = bytes.len() - 4096;
        bytes[at + 3 - at % 4] ^= 0x40;
        replace_shard(&world.path("own"), 0, &bytes);
    }
}

#[test]
fn a_command_line_that_cannot_be_parsed_is_one_json_document_too() {
    let world = World::new();
    for line in ["compare @reference", "capture --out @x", "explode", "inspect @reference --step -1", ""] {
        let run = world.run(&format!("--json {line}"));
        assert_eq!((run.code, run.json()["outcome"].as_str()), (2, Some("invalid")), "{line}: {run:#?}");
    }
    for line in ["--help", "--version", "run --help"] {
        let run = world.run(line);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let temporary = root.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut run = std::process::Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"))
        .args(["capture", "--engine", "lattice-f32", "--model"])
        .arg(common::bundled_model())
        .arg("--out")
        .arg(root.path().join("trace"))
        .env("TMPDIR", &temporary)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // 60 prompts take seconds: wait until the hidden directory is there, and some of them are in it.
    let hidden = || std::fs::read_dir(root.path()).unwrap().count() > 1;
    while !hidden() && run.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["tmp"]);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}
