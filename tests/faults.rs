//! Planted faults: the catalogue, and what is named when one is planted.

use assert_cmd::Command;
use layerdiff::bundle::Bundle;
use layerdiff::checkpoint::ModelDir;
use layerdiff::diagnose::known;
use layerdiff::faults::{Weight, catalogue, named, sites};
use serde_json::{Value, json};

/// Every fault of the project's list of shipped bugs that lives at a point, with its components.
const LISTED: [(&str, &[&str]); 35] = [
    ("norm-no-shift", &["input_layernorm", "self_attn.q_norm", "model.norm"]),
    ("norm-double-shift", &["post_attention_layernorm", "self_attn.k_norm"]),
    ("decay-raw-a-log", &["linear_attn.decay"]),
    ("state-transposed", &["linear_attn.delta_rule"]),
    ("conv-no-silu", &["linear_attn.conv1d"]),
    ("gate-split-halves", &["self_attn.query", "self_attn.gate"]),
    ("gate-skipped", &["self_attn.gated_context"]),
    ("rope-full-dim", &["self_attn.q_rope", "self_attn.k_rope"]),
    ("gqa-tiled", &["self_attn.scores", "self_attn.context"]),
    ("gate-up-swapped", &["mlp.act"]),
    ("context-half-zero", &["self_attn.context"]),
    ("gated-norm-sigmoid", &["linear_attn.norm"]),
    ("q4-nibble-order", &["mlp.down_proj", "self_attn.q_proj"]),
    ("heads-tiled", &["linear_attn.delta_rule"]),
    ("decode-position-zero", &["self_attn.q_rope", "self_attn.k_rope"]),
    ("mask-off-by-one", &["self_attn.attention_mask"]),
    ("residual-dropped", &["post_attention_residual", "output"]),
    ("gelu-for-silu", &["mlp.act"]),
    ("l2-no-eps", &["linear_attn.q_l2norm", "linear_attn.k_l2norm"]),
    ("l2-as-rms", &["linear_attn.q_l2norm", "linear_attn.k_l2norm"]),
    ("norm-eps-outside", &["input_layernorm", "linear_attn.norm"]),
    ("shift-bf16", &["input_layernorm"]),
    ("norm-sum-bf16", &["input_layernorm"]),
    ("a-log-bf16", &["linear_attn.decay"]),
    ("decay-bf16", &["linear_attn.decay"]),
    ("state-bf16", &["linear_attn.recurrent_state"]),
    ("state-int8", &["linear_attn.recurrent_state"]),
    ("memory-undecayed", &["linear_attn.delta_rule"]),
    ("q-scale-missing", &["linear_attn.delta_rule"]),
    ("rope-interleaved", &["self_attn.q_rope", "self_attn.k_rope"]),
    ("rope-theta-1e6", &["model.rotary_emb.cos", "model.rotary_emb.sin"]),
    ("decode-position-plus-one", &["self_attn.q_rope", "self_attn.k_rope"]),
    ("kv-stale-row", &["self_attn.k_cache", "self_attn.v_cache"]),
    ("q4-symmetric", &["mlp.down_proj"]),
    ("q4-floor", &["mlp.down_proj"]),
];

/// The JSON of `faults …`, and the exit code.
fn faults(args: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::cargo_bin("layerdiff").unwrap();
    let output = command.args(["--json", "faults"]).args(args).output().unwrap();
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (json, output.status.code())
}

/// What became of one fault in one layer, and the names of the points that were named.
fn planted(fault: &str, layer: &str) -> (String, Vec<String>, Value) {
    let (json, code) = faults(&["run", "--prompt", "instruction-11", "--fault", fault, "--layer", layer]);
    let planting = &json["faults"][0]["plantings"][0];
    let names = planting["named"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned());
    assert_eq!(code, Some(0), "{json}");
    for said in planting["diagnosis"].as_array().unwrap() {
        assert_eq!((&said["verdict"], &said["left_out"]), (&json!("right"), &json!([])), "{json}");
    }
    assert_eq!(planting["diagnosis"].as_array().unwrap().len(), planting["named"].as_array().unwrap().len());
    (planting["found"].as_str().unwrap().to_owned(), names.collect(), json["faults"][0].clone())
}

#[test]
fn the_catalogue_has_every_listed_fault_at_its_components_and_twenty_more() {
    let bundle = Bundle::unpack().unwrap();
    let model = ModelDir::open(&bundle.model()).unwrap();
    for (name, components) in LISTED {
        let sites = sites(named(name).unwrap(), model.graph());
        let there: Vec<&str> = sites.iter().flat_map(|s| s.components.iter().map(|c| c.name())).collect();
        assert!(components.iter().all(|c| there.contains(c)), "{name}: {there:?}");
    }
    let faults = catalogue().filter(|fault| fault.weight != Weight::Harmless).count();
    assert!(faults >= LISTED.len() + 20, "{faults}");
}

#[test]
fn a_fault_lives_in_every_layer_of_its_kind_and_nowhere_else() {
    let bundle = Bundle::unpack().unwrap();
    let model = ModelDir::open(&bundle.model()).unwrap();
    let layers = |name: &str| -> Vec<Option<usize>> {
        sites(named(name).unwrap(), model.graph()).iter().map(|s| s.layer).collect()
    };
    assert_eq!(layers("rope-interleaved"), [Some(3), Some(7)]);
    assert_eq!(layers("memory-undecayed"), [0, 1, 2, 4, 5, 6].map(Some));
    assert_eq!(layers("rope-theta-1e6"), [None]);
}

#[test]
fn planted_faults_are_found_at_exactly_their_components() {
    for (fault, layer, expected) in [
        ("rope-interleaved", "3", &["self_attn.q_rope", "self_attn.k_rope"] as &[&str]),
        ("memory-undecayed", "1", &["linear_attn.delta_rule", "linear_attn.recurrent_state"]),
        ("gate-up-swapped", "5", &["mlp.act"]),
        ("kv-stale-row", "7", &["self_attn.k_cache", "self_attn.v_cache"]),
        ("mask-off-by-one", "3", &["self_attn.attention_mask"]),
    ] {
        let (found, names, _) = planted(fault, layer);
        let expected: Vec<String> =
            expected.iter().map(|name| format!("model.layers.{layer}.{name}")).collect();
        assert_eq!((found.as_str(), names), ("exactly", expected), "{fault}");
    }
}

/// A name that the diagnosis does not know could never be right.
#[test]
fn every_name_that_is_right_for_a_fault_is_known_for_its_components() {
    for fault in catalogue().filter(|fault| fault.weight != Weight::Harmless) {
        let of = |op| known(op).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        let all: Vec<&str> = fault.ops.iter().flat_map(|op| of(*op)).collect();
        assert!(fault.names().iter().chain(fault.akin).all(|name| all.contains(name)), "{}", fault.name);
        for op in fault.ops {
            let named = fault.names().iter().any(|name| of(*op).contains(name));
            assert!(named, "{} at {op:?}", fault.name);
        }
    }
}

#[test]
fn of_a_pair_both_are_found_and_named_though_one_feeds_the_other() {
    let (json, code) = faults(&[
        "run",
        "--prompt",
        "instruction-11",
        "--pairs",
        "2",
        "--layer",
        "1",
        "--fault",
        "memory-undecayed",
        "--fault",
        "gated-norm-gate-first",
    ]);
    let pair = &json["pairs"][0];
    assert_eq!(
        (pair["feeding"].as_bool(), json["score"]["pairs"].as_u64(), code),
        (Some(true), Some(1), Some(0))
    );
    assert_eq!(json["score"]["unjudged"], 0, "{json}");
    for planting in pair["plantings"].as_array().unwrap() {
        assert_eq!(planting["found"], "exactly", "{json}");
        assert!(!planting["diagnosis"].as_array().unwrap().is_empty(), "{json}");
        for said in planting["diagnosis"].as_array().unwrap() {
            assert_eq!(said["verdict"], "right", "{json}");
        }
    }
    assert_eq!(json["score"]["pairs_named_right"], 2);
    // Two components of one fault and one of the other, in the prefill and in two decode steps.
    let places = &json["score"]["pairs_places"];
    assert_eq!(
        (&places["prefill"]["visible"], &places["prefill"]["named"]),
        (&json!(3), &json!(3)),
        "{places}"
    );
    assert_eq!(
        (&places["decode"]["visible"], &places["decode"]["named"]),
        (&json!(6), &json!(6)),
        "{places}"
    );
}

#[test]
fn of_a_pair_both_are_found_though_one_makes_the_other_s_numbers_nan() {
    // A state that is read before it is written is 0 at the first token, and its norm without epsilon 0 · ∞.
    let (json, code) = faults(&[
        "run",
        "--prompts",
        concat!(env!("CARGO_MANIFEST_DIR"), "/prompts/standard.jsonl"),
        "--prompt",
        "instruction-07",
        "--pairs",
        "4",
        "--layer",
        "5",
        "--fault",
        "read-before-write",
        "--fault",
        "norm-no-eps",
    ]);
    let pair = &json["pairs"][0];
    assert_eq!((pair["feeding"].as_bool(), code), (Some(true), Some(0)), "{json}");
    for planting in pair["plantings"].as_array().unwrap() {
        assert_eq!((&planting["found"], &planting["missed"]), (&json!("exactly"), &json!([])), "{json}");
        assert_eq!(planting["diagnosis"][0]["verdict"], "right", "{json}");
    }
}

#[test]
fn all_engines_are_scored_in_one_report() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("score");
    let (json, code) = faults(&[
        "run",
        "--engine",
        "all",
        "--prompt",
        "instruction-11",
        "--fault",
        "qk-norm-all-heads",
        "--layer",
        "7",
        "--out",
        dir.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(0), "{json}");
    let engines: Vec<(&str, &str)> = json["engines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["engine"].as_str().unwrap(), e["path"].as_str().unwrap()))
        .collect();
    let expected = [
        ("lattice-f32", "serial"),
        ("lattice-f32", "batched"),
        ("lattice-f16", "serial"),
        ("lattice-q4", "serial"),
    ];
    assert_eq!(engines, expected);
    let report = std::fs::read_to_string(dir.join("faults.md")).unwrap();
    let digest: Value = serde_json::from_slice(&std::fs::read(dir.join("faults.json")).unwrap()).unwrap();
    for (i, (engine, path)) in expected.into_iter().enumerate() {
        assert!(report.contains(&format!("## {engine}, {path}")), "{report}");
        assert_eq!(digest["engines"][i]["faults"][0]["named_right"], 1, "{digest}");
    }
    assert!(report.contains("component exactly 1, layer exactly 1, missed 0"), "{report}");
    assert!(report.contains("- Places that are visibly changed: in the prefill 2, named 2"), "{report}");
    assert!(report.contains("| `qk-norm-all-heads` | loud | 1 | 1 | 0 | 2/2 | "), "{report}");
    assert!(report.contains("called by the right name 1, by none 0, by a wrong one 0"), "{report}");
}

#[test]
fn a_fault_that_is_scaled_down_drowns_and_nothing_else_is_named() {
    let (found, _, row) = planted("shift-bf16", "2");
    assert_eq!(found, "exactly");
    let smallest = &row["smallest"];
    assert!(smallest["size"].as_f64().unwrap() < 0.1, "{row}");
    assert!((1.0..4.0).contains(&smallest["ratio"].as_f64().unwrap()), "{row}");
    assert_eq!(smallest["named_when_drowned"], serde_json::json!([]), "{row}");
}

#[test]
fn a_fault_whose_numbers_overflow_is_named_alone() {
    // The state grows beyond the range of 32 bits, and NaN runs through all that follows.
    let (found, names, _) = planted("decay-raw-a-log", "4");
    assert_eq!((found.as_str(), names), ("exactly", vec!["model.layers.4.linear_attn.decay".to_owned()]));
}

#[test]
fn what_is_harmless_is_not_reported() {
    for fault in catalogue().filter(|fault| fault.weight == Weight::Harmless) {
        let (json, code) = faults(&["run", "--prompt", "instruction-11", "--fault", fault.name]);
        assert_eq!((json["score"]["harmless_alarms"].as_u64(), code), (Some(0), Some(0)), "{json}");
        assert!(json["score"]["harmless_silent"].as_u64() > Some(0), "{json}");
    }
}

#[test]
fn faults_of_quantized_weights_are_found_on_the_engine_that_has_them() {
    for fault in ["q4-nibble-order", "q4-symmetric", "q4-floor"] {
        let args =
            ["run", "--engine", "lattice-q4", "--prompt", "instruction-11", "--fault", fault, "--layer", "3"];
        let (json, code) = faults(&args);
        assert_eq!((json["score"]["exactly"].as_u64(), code), (Some(1), Some(0)), "{json}");
        assert_eq!(json["score"]["named_right"], 1, "{json}");
    }
}

#[test]
fn a_state_in_8_bits_is_named_though_codes_made_in_64_bits_would_drift_away() {
    let prompts = concat!(env!("CARGO_MANIFEST_DIR"), "/prompts/standard.jsonl");
    let ids = ["instruction-07", "instruction-16", "reasoning-05"].map(|id| ["--prompt", id]).concat();
    let fault = ["--engine", "lattice-q4", "--fault", "state-int8", "--layer", "6", "--prompts", prompts];
    let (json, code) = faults(&[&["run"][..], &fault, &ids].concat());
    assert_eq!((json["score"]["named_right"].as_u64(), code), (Some(1), Some(0)), "{json}");
}

#[test]
fn a_fault_that_no_layer_has_is_invalid() {
    let (json, code) = faults(&["run", "--fault", "rope-interleaved", "--layer", "0"]);
    assert_eq!((json["outcome"].as_str(), code), (Some("invalid"), Some(2)));
}

#[test]
fn the_list_says_of_each_fault_what_where_and_where_from() {
    let (json, code) = faults(&["list"]);
    assert_eq!(code, Some(0));
    for fault in json["faults"].as_array().unwrap() {
        for key in ["name", "right", "wrong", "weight", "source"] {
            assert!(!fault[key].as_str().unwrap().is_empty(), "{fault}");
        }
        assert!(!fault["components"].as_array().unwrap().is_empty(), "{fault}");
    }
}
