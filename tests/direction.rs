//! Imports go one way: a module names modules of lower ranks only, and the two halves share the trace alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which part of the program a module belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What both halves share: up to the architecture's description and the trace.
    Shared,
    /// Runs engines and leaves traces.
    Production,
    /// Reads traces and leaves reports.
    Analysis,
    /// Puts the two halves together.
    Front,
}

use Part::{Analysis, Front, Production, Shared};

/// The modules of the crate in ranks, lowest first. Those of one rank do not know each other.
const RANKS: [(Part, &[&str]); 25] = [
    (Shared, &["error"]),
    (Shared, &["number", "progress", "files"]),
    (Shared, &["tensor"]),
    (Shared, &["elements", "prompt", "model"]),
    (Shared, &["basis"]),
    (Shared, &["trace", "parameters"]),
    (Production, &["checkpoint", "hook", "import", "tap"]),
    (Production, &["quantize"]),
    (Production, &["engine"]),
    (Production, &["split", "faults"]),
    (Production, &["capture"]),
    (Analysis, &["metrics"]),
    (Analysis, &["align"]),
    (Analysis, &["compare"]),
    (Analysis, &["floor"]),
    (Analysis, &["replay"]),
    (Analysis, &["online"]),
    (Analysis, &["localize"]),
    (Analysis, &["diagnose"]),
    (Analysis, &["arms"]),
    (Analysis, &["report"]),
    (Analysis, &["tokens"]),
    (Front, &["bundle", "cli"]),
    (Front, &["commands"]),
    (Front, &["main"]),
];

fn place(module: &str) -> Option<(usize, Part)> {
    RANKS
        .iter()
        .enumerate()
        .find(|(_, (_, names))| names.contains(&module))
        .map(|(rank, (part, _))| (rank, *part))
}

/// Why `from` must not import `to`; none when it may.
fn objection(from: &str, to: &str) -> Option<String> {
    if from == to {
        return None;
    }
    let unlisted = |name| format!("`{name}` has no rank: give it one in tests/direction.rs");
    let (Some(importer), Some(imported)) = (place(from), place(to)) else {
        return Some(unlisted(if place(from).is_none() { from } else { to }));
    };
    match (importer.1, imported.1) {
        (Analysis, Production) | (Production, Analysis) => {
            Some(format!("{:?} must not know {:?}: they share traces", importer.1, imported.1))
        }
        _ if imported.0 >= importer.0 => Some("imports go from higher ranks to lower ones".to_owned()),
        _ => None,
    }
}

/// The modules of the crate that a file names, with the line; `depth` is how many `super` lead to the crate's root.
fn imports(text: &str, depth: usize) -> Vec<(String, usize)> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for (root, certain) in [("crate::", true), ("layerdiff::", true), (up.as_str(), false)] {
        for (at, _) in code.match_indices(root) {
            // The end of a longer name, or a path that leads elsewhere.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || "_$:".contains(c)) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let names = first_names(&code[at + root.len()..]);
            // Inline modules have a `super` more, so that only the name of a module is a sign.
            found
                .extend(names.into_iter().filter(|n| certain || place(n).is_some()).map(|name| (name, line)));
        }
    }
    found.retain(|(name, _)| name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

/// `a` of `a::b`; `a` and `b` of `{a::{x, y}, b}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    if !path.starts_with('{') {
        return vec![name(path)];
    }
    let (mut depth, mut names, mut expecting) = (0, Vec::new(), true);
    for (i, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => expecting = true,
            c if depth == 1 && expecting && !c.is_whitespace() => {
                names.push(name(&path[i..]));
                expecting = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Path relative to `src`, and text, of every source file.
fn files() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut open = vec![source()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(source()).unwrap().to_path_buf(), text);
            }
        }
    }
    files
}

/// The module of the crate that a file belongs to, and how many `super` lead from it to the root.
fn module(file: &Path) -> (String, usize) {
    let parts: Vec<String> =
        file.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
    let depth = parts.len() - usize::from(parts.last().is_some_and(|last| last == "mod"));
    (parts[0].clone(), depth)
}

#[test]
fn imports_go_one_way() {
    let mut objections = Vec::new();
    // The root only lists the modules.
    for (file, text) in files().iter().filter(|(file, _)| *file != Path::new("lib.rs")) {
        let (from, depth) = module(file);
        for (to, line) in imports(text, depth) {
            if let Some(why) = objection(&from, &to) {
                objections.push(format!("src/{}:{line}: {from} imports {to}: {why}", file.display()));
            }
        }
    }
    assert!(objections.is_empty(), "\n{}\n", objections.join("\n"));
}

#[test]
fn every_module_has_a_rank_and_every_rank_a_module() {
    let there: BTreeSet<String> = files().keys().map(|f| module(f).0).filter(|name| name != "lib").collect();
    let ranked: BTreeSet<String> =
        RANKS.iter().flat_map(|(_, names)| names.iter().map(|n| (*n).to_owned())).collect();
    assert_eq!(there, ranked);
}

#[test]
fn the_halves_meet_in_the_commands_only() {
    assert_eq!(objection("localize", "trace"), None);
    assert_eq!(objection("capture", "trace"), None);
    assert_eq!(objection("commands", "capture"), None);
    for (from, to) in
        [("report", "engine"), ("compare", "hook"), ("metrics", "checkpoint"), ("capture", "metrics")]
    {
        assert!(objection(from, to).unwrap().contains("must not know"), "{from} {to}");
    }
    for (from, to) in
        [("trace", "align"), ("prompt", "trace"), ("error", "tensor"), ("number", "files"), ("report", "cli")]
    {
        assert!(objection(from, to).unwrap().contains("lower ones"), "{from} {to}");
    }
    assert!(objection("trace", "novelty").unwrap().contains("no rank"));
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    let text = "\
        //! [`crate::report`]\n\
        use crate::{error::{Error, Result}, report::Report,\n    trace};\n\
        use crate::align::Pair; // crate::engine\n\
        fn f() -> crate::floor::Floor { super::compare::x($crate::cli::y, mycrate::hook::z) }\n\
        fn g() { crate::Local::new() }\n";
    let found = imports(text, 1);
    let expected = [("error", 2), ("report", 2), ("trace", 2), ("align", 4), ("floor", 5), ("compare", 5)];
    assert_eq!(found, expected.map(|(name, line)| (name.to_owned(), line)));
    assert!(imports("use super::compare::x;", 2).is_empty());
    assert_eq!(imports("use super::super::compare::x;", 2), [("compare".to_owned(), 1)]);
    assert_eq!(module(Path::new("trace/mod.rs")), ("trace".to_owned(), 1));
    assert_eq!(module(Path::new("trace/read.rs")), ("trace".to_owned(), 2));
    assert_eq!(module(Path::new("align.rs")), ("align".to_owned(), 1));
}
