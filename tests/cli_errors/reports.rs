//! Reports that were written before, and pictures of them.

use crate::common::{Draft, prompt};
use crate::world::{World, refused};

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
