//! What an engine gets that depends on the tap.

use super::cargo;
use std::collections::BTreeSet;
use std::path::Path;

/// What the tap stands on directly.
const DIRECT: [&str; 9] =
    ["half", "memmap2", "safetensors", "serde", "serde_json", "sha2", "strsim", "tempfile", "toml"];

/// All of it, macros that run at compile time included, on any system.
const MOST: usize = 60;

fn tree(depth: &str) -> BTreeSet<String> {
    let args = ["tree", "--offline", "--no-default-features", "--edges", "normal", "--prefix", "none"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = cargo(&[&args[..], &["--depth", depth]].concat(), root);
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "layerdiff").map(str::to_owned).collect()
}

#[test]
fn the_tap_stands_on_nine_crates_and_on_no_engine() {
    assert_eq!(tree("1"), DIRECT.map(str::to_owned).into());
    let all = tree("99");
    println!("{} crates in all: {all:?}", all.len());
    assert!(all.len() <= MOST, "{all:?}");
    let foreign = ["candle", "lattice", "clap", "plotters", "tokenizers", "rayon", "indicatif", "regex"];
    let there: Vec<_> = all.iter().filter(|name| foreign.iter().any(|f| name.starts_with(f))).collect();
    assert!(there.is_empty(), "{there:?}");
}

/// Names and versions in a lock file.
fn locked(file: &str) -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let value = |line: Option<&str>| line.and_then(|line| line.split('"').nth(1)).unwrap().to_owned();
    text.split("[[package]]\n")
        .skip(1)
        .map(|package| (value(package.lines().next()), value(package.lines().nth(1))))
        .collect()
}

/// Else the engine could not be built without a network.
#[test]
fn the_engine_is_locked_to_what_layerdiff_is_locked_to() {
    let mut others = locked("tests/tap/engine/Cargo.lock");
    others.retain(|package| package.0 != "engine" && !locked("Cargo.lock").contains(package));
    assert!(others.is_empty(), "copy Cargo.lock there and build the engine: {others:?}");
}
