//! The commands in the README are commands that exist.

use clap::Parser;
use layerdiff::cli::Cli;
use std::collections::HashSet;
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

/// The figures of a text, without thousands' commas.
fn figures(text: &str) -> HashSet<String> {
    let text = text.replace(',', "");
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|n| n.trim_matches('.'));
    numbers.filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_figure_on_speed_in_the_readme_is_in_the_committed_report() {
    // Of what the benches printed: not of the notes, which somebody wrote.
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/speed");
    let sections = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let printed = sections.filter(|path| !path.ends_with("notes.md") && !path.ends_with("report.md"));
    let report = figures(&printed.map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>());
    let section = readme().split("## Speed and scale").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows: Vec<&str> = section.unwrap().lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        let measured = row.split('|').nth(3).unwrap();
        // `f32` is a name.
        let words = measured.split(' ').filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let stated: HashSet<String> = words.flat_map(figures).collect();
        assert!(!stated.is_empty(), "{row}");
        assert!(stated.is_subset(&report), "{row}: {:?}", stated.difference(&report));
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
