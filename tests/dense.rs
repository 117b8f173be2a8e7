//! A second architecture through the real command: dense decoders of random weights, captured by real
//! `PyTorch` in other precisions and with planted faults.

mod common;

use common::layerdiff;
use layerdiff::faults::named;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs `layerdiff_hooks` once for each line of arguments, in one process.
const DRIVER: &str = "import sys, shlex\nfrom layerdiff_hooks.cli import main\nfor line in sys.stdin:\n    assert main(shlex.split(line)) == 0, line\n";

/// Before [`DRIVER`]: frequencies are computed as if the configuration did not scale them.
const UNSCALED: &str = "import torch\nfrom transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS\nROPE_INIT_FUNCTIONS['llama3'] = lambda *_, **__: (1 / 5e5 ** (torch.arange(0, 24, 2).float() / 24), 1.0)\n";

fn python(args: &[&str], stdin: &str) {
    let python = std::env::var("LAYERDIFF_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut child =
        Command::new(python).args(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A family's checkpoint and captures of it.
struct Family {
    root: tempfile::TempDir,
}

impl Family {
    /// `captures` are names of traces, with what `capture` is asked for.
    fn new(family: &str, captures: &[(&str, &str)]) -> Self {
        Self::scaled(family, "default", captures, |_| ())
    }

    /// With a scaling of the rotary frequencies, and a change of the configuration.
    fn scaled(family: &str, rope: &str, captures: &[(&str, &str)], change: fn(&mut Value)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/scripts/dense.py");
        let model = root.path().join("model");
        python(&[script, "--family", family, "--rope", rope, model.to_str().unwrap()], "");
        let path = model.join("config.json");
        let mut config = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        let lines = [
            json!({"id": "long", "token_ids": (0..23).map(|i| 7 * i * i % 307).collect::<Vec<_>>(), "forced_ids": [11, 12]}),
            json!({"id": "short", "token_ids": [9, 9, 1, 204, 77], "forced_ids": [3, 250]}),
        ];
        std::fs::write(root.path().join("prompts.jsonl"), lines.map(|line| line.to_string()).join("\n"))
            .unwrap();
        let family = Self { root };
        family.capture(DRIVER, captures);
        family
    }

    fn capture(&self, driver: &str, captures: &[(&str, &str)]) {
        let line = |(name, more): &(&str, &str)| {
            let [model, prompts, out] = ["model", "prompts.jsonl", name].map(|name| self.path(name));
            let [model, prompts, out] = [model.display(), prompts.display(), out.display()];
            format!("capture --model {model} --prompts {prompts} --steps 2 --threads 1 --out {out} {more}\n")
        };
        python(&["-c", driver], &captures.iter().map(line).collect::<String>());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The report of a capture against the one in f32.
    fn compare(&self, candidate: &str) -> (i32, Value) {
        let [reference, candidate, model, floor, out] =
            ["reference", candidate, "model", "floor", "report"].map(|name| self.path(name));
        let [reference, candidate, model, floor, out]: [&Path; 5] =
            [&reference, &candidate, &model, &floor, &out];
        let mut args: Vec<&std::ffi::OsStr> =
            vec!["compare".as_ref(), reference.as_ref(), candidate.as_ref()];
        args.extend(["--model".as_ref(), model.as_os_str(), "--floor".as_ref(), floor.as_os_str()]);
        args.extend(["--json".as_ref(), "--out".as_ref(), out.as_os_str()]);
        let run = layerdiff(&args);
        (run.code, run.json())
    }
}

fn points(report: &Value) -> BTreeSet<String> {
    let faults = report["faults"].as_array().unwrap();
    faults.iter().map(|fault| fault["point"].as_str().unwrap().to_owned()).collect()
}

fn healthy(family: &str) {
    let captures = [
        ("reference", ""),
        ("floor", "--dtype float64"),
        ("bf16", "--dtype bfloat16"),
        ("f16", "--dtype float16"),
        ("sdpa", "--attention sdpa"),
    ];
    let family = Family::new(family, &captures);
    for candidate in ["bf16", "f16"] {
        let (code, report) = family.compare(candidate);
        assert_eq!((code, report["outcome"].as_str()), (0, Some("pass")), "{candidate}: {report:#}");
        assert_eq!(report["coverage"]["matched"], report["coverage"]["expected"]);
        assert_eq!(report["verdict"]["rests_on"], "replay");
    }
    // That kernel shows neither scores nor probabilities, and what nobody saw is not called sound.
    let (code, report) = family.compare("sdpa");
    assert_eq!((code, report["outcome"].as_str()), (2, Some("unmeasured")), "{report:#}");
    assert_eq!(points(&report), BTreeSet::new());
}

/// Each fault, planted in layer 2 of a candidate in `dtype`, is found at these components, and called so.
fn faults(family: &str, dtype: &str, planted: &[(&str, &[&str])]) {
    let asked: Vec<String> =
        planted.iter().map(|(fault, _)| format!("--dtype {dtype} --plant {fault}@2")).collect();
    let mut captures = vec![("reference", ""), ("floor", "--dtype float64")];
    captures.extend(planted.iter().zip(&asked).map(|((fault, _), asked)| (*fault, asked.as_str())));
    let family = Family::new(family, &captures);
    for (fault, components) in planted {
        let (code, report) = family.compare(fault);
        assert_eq!(code, 1, "{fault}: {report:#}");
        let expected = components.iter().map(|local| format!("model.layers.2.{local}")).collect();
        assert_eq!(points(&report), expected, "{fault}");
        assert_eq!(report["first_fault"]["layer"], 2);
        for diagnosis in report["diagnosis"].as_array().unwrap() {
            let id = diagnosis["id"].as_str().unwrap_or_default();
            assert!(named(fault).unwrap().names().contains(&id), "{fault}: {diagnosis:#}");
        }
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains(&format!("planted: {fault} in layer 2")), "{warnings}");
    }
}

#[test]
#[ignore = "needs PyTorch"]
fn llama_in_16_bits_has_no_fault() {
    healthy("llama");
}

#[test]
#[ignore = "needs PyTorch"]
fn qwen3_in_16_bits_has_no_fault() {
    healthy("qwen3");
}

#[test]
#[ignore = "needs PyTorch"]
fn faults_planted_in_llama_are_named_exactly_in_bf16() {
    faults(
        "llama",
        "bfloat16",
        &[
            ("norm-sum-for-mean", &["input_layernorm"]),
            ("rope-interleaved", &["self_attn.k_rope", "self_attn.q_rope"]),
            ("scores-unscaled", &["self_attn.scores"]),
            ("gqa-tiled", &["self_attn.context", "self_attn.scores"]),
            ("mask-off-by-one", &["self_attn.attention_mask"]),
            ("gate-up-swapped", &["mlp.act"]),
            ("linear-tail-dropped", &["mlp.down_proj"]),
        ],
    );
}

#[test]
#[ignore = "needs PyTorch"]
fn faults_planted_in_qwen3_are_named_exactly_in_f32() {
    faults(
        "qwen3",
        "float32",
        &[
            ("norm-eps-1e-5", &["input_layernorm"]),
            ("norm-mean-subtracted", &["input_layernorm"]),
            ("qk-norm-skipped", &["self_attn.k_norm", "self_attn.q_norm"]),
            ("rope-backwards", &["self_attn.k_rope", "self_attn.q_rope"]),
            ("rope-key-skipped", &["self_attn.k_rope"]),
            ("mask-not-causal", &["self_attn.attention_mask"]),
            ("gelu-for-silu", &["mlp.act"]),
        ],
    );
}

#[test]
#[ignore = "needs PyTorch"]
fn of_some_rows_of_scores_the_same_is_said_as_of_all() {
    let planted: [(&str, &[&str]); 3] = [
        ("scores-unscaled", &["self_attn.scores"]),
        ("gqa-tiled", &["self_attn.context", "self_attn.scores"]),
        ("mask-off-by-one", &["self_attn.attention_mask"]),
    ];
    let asked = planted.map(|(fault, _)| format!("--dtype bfloat16 --scores rows:6 --plant {fault}@2"));
    let mut captures = vec![
        ("reference", "--scores rows:6"),
        ("floor", "--dtype float64 --scores rows:9"),
        ("bf16", "--dtype bfloat16 --scores rows:6"),
        ("whole", "--dtype float16 --scores all"),
    ];
    captures.extend(planted.iter().zip(&asked).map(|((fault, _), asked)| (*fault, asked.as_str())));
    let family = Family::new("llama", &captures);
    for candidate in ["bf16", "whole"] {
        let (code, report) = family.compare(candidate);
        assert_eq!((code, report["outcome"].as_str()), (0, Some("pass")), "{candidate}: {report:#}");
        assert_eq!(report["coverage"]["matched"], report["coverage"]["expected"]);
        assert_eq!(report["verdict"]["rests_on"], "replay");
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("(in prompt long 6 of 23)"), "{warnings}");
    }
    for (fault, components) in planted {
        let (code, report) = family.compare(fault);
        let expected = components.iter().map(|local| format!("model.layers.2.{local}")).collect();
        assert_eq!((code, points(&report)), (1, expected), "{fault}");
        for diagnosis in report["diagnosis"].as_array().unwrap() {
            let id = diagnosis["id"].as_str().unwrap_or_default();
            assert!(named(fault).unwrap().names().contains(&id), "{fault}: {diagnosis:#}");
        }
    }
}

/// As checkpoints have it that were saved by Transformers 4.
fn older(config: &mut Value) {
    let mut rope = config.as_object_mut().unwrap().remove("rope_parameters").unwrap();
    config["rope_theta"] = rope.as_object_mut().unwrap().remove("rope_theta").unwrap();
    config["rope_scaling"] = rope;
}

#[test]
#[ignore = "needs PyTorch"]
fn frequencies_scaled_for_long_contexts_are_replayed_and_their_loss_is_named() {
    for (rope, change) in [("linear", (|_| ()) as fn(&mut Value)), ("llama3", |_| ()), ("llama3", older)] {
        let captures = [("reference", ""), ("floor", "--dtype float64"), ("bf16", "--dtype bfloat16")];
        let family = Family::scaled("llama", rope, &captures, change);
        let (code, report) = family.compare("bf16");
        assert_eq!((code, report["verdict"]["rests_on"].as_str()), (0, Some("replay")), "{rope}: {report:#}");
        if rope == "llama3" {
            family.capture(&format!("{UNSCALED}{DRIVER}"), &[("unscaled", "")]);
            let (code, report) = family.compare("unscaled");
            assert_eq!(code, 1, "{report:#}");
            assert_eq!(points(&report), ["cos", "sin"].map(|t| format!("model.rotary_emb.{t}")).into());
            for diagnosis in report["diagnosis"].as_array().unwrap() {
                assert_eq!(diagnosis["id"], "rope-scaling-skipped", "{diagnosis:#}");
            }
        }
    }
}
