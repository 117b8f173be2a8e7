//! The commands in the README are commands that exist.

use clap::Parser;
use layerdiff::cli::Cli;
use std::process::Command;

fn readme() -> &'static str {
    include_str!("../README.md")
}

/// The commands of `layerdiff` in the README's code blocks, without comments.
fn commands() -> Vec<Vec<String>> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in readme().lines() {
        if line.starts_with("```") {
            inside = !inside;
        }
        let line = line.trim_start_matches("$ ").replace("cargo run --release -- ", "layerdiff ");
        if inside && line.starts_with("layerdiff ") {
            let command = line.split(" #").next().unwrap_or_default();
            found.push(command.split_whitespace().map(str::to_owned).collect());
        }
    }
    found
}

#[test]
fn every_command_in_the_readme_is_understood() {
    let commands = commands();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        Cli::try_parse_from(&command).unwrap_or_else(|e| panic!("{command:?}: {e}"));
    }
}

#[test]
fn every_file_that_the_readme_links_to_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in readme().split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        assert!(target.starts_with("https://") || root.join(target).exists(), "{target}");
    }
}

/// Digits differ from one processor to the other, the form of the output does not.
#[test]
fn the_console_output_in_the_readme_has_the_form_of_the_real_one() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(assert_cmd::cargo::cargo_bin!("layerdiff"))
        .args(["run", "--out"])
        .arg(out.path().join("report"))
        .output()
        .unwrap();
    let real = String::from_utf8(output.stdout).unwrap();
    for wanted in [
        "PASS  lattice-f16 against torch",
        "1870 of 1870 points compared, 0 mismatched, 0 unmeasured",
        "self-check bit-equal",
    ] {
        assert!(readme().contains(wanted), "the README lacks: {wanted}");
        assert!(real.contains(wanted), "the output lacks: {wanted}\n{real}");
    }
    let labels = |text: &str| -> Vec<String> {
        let table = text
            .lines()
            .skip_while(|l| !l.contains("worst point"))
            .take_while(|l| !l.starts_with("Relative"));
        table.skip(1).filter_map(|l| l.split_whitespace().next().map(str::to_owned)).collect()
    };
    assert_eq!(labels(readme()), labels(&real));
}
