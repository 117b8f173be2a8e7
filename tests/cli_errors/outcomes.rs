//! Outcomes that are no error, but no pass either, and how a run leaves its report.

use crate::common::{self, Draft, edit_manifest, layerdiff, replace_shard, shard, tree};
use crate::world::{CAPTURE_BUNDLED, World};
use layerdiff::tensor::DType;
use serde_json::{Value, json};
use std::path::PathBuf;

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
