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
    let block =
        readme().split("$ cargo run --release -- run\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(words(block.unwrap()), words(&real));
}

/// The words of an output: without numbers, bars, and names of points and files.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace()
        .filter(|w| w.chars().all(|c| c.is_alphabetic() || ",:;()-−".contains(c)) && !w.contains("layers"))
        .collect()
}
