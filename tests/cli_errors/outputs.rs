//! Outputs that are in the way, and what a command does not write.

use crate::world::{CAPTURE_BUNDLED, CAPTURE_TORCH, COMPARE, RUN, World, refused};

#[test]
fn weights_of_floats_are_not_taken_for_q4_weights() {
    refused!(World::new(), "run --engine lattice-q4 --weights @@ --out @out");
}

#[test]
fn a_fault_in_a_layer_where_it_cannot_live_is_answered_with_the_layers() {
    refused!(World::new(), "faults run --fault rope-interleaved --layer 2");
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
