//! What the tests need: files to refuse, and the check of a refusal.

use crate::common::{self, Draft, Factors, Run, command, finished, tree};
use serde_json::Value;
use std::fmt::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory with two equal traces, a set of prompts, a place for temporary files, and whatever
/// a test adds.
pub struct World {
    pub root: TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self { root: tempfile::tempdir().unwrap() };
        for side in ["reference", "candidate"] {
            Draft::tiny().write(&world.path(side));
        }
        world.file("prompts.jsonl", r#"{"id": "p", "token_ids": [1, 2, 3]}"#);
        std::fs::create_dir(world.path("tmp")).unwrap();
        world
    }

    /// Two traces, the candidate's after a change.
    pub fn with(change: impl FnOnce(&mut Draft)) -> Self {
        let world = Self::new();
        let mut draft = Draft::tiny();
        change(&mut draft);
        std::fs::remove_dir_all(world.path("candidate")).unwrap();
        draft.write(&world.path("candidate"));
        world
    }

    /// A damaged candidate.
    pub fn damaged(damage: impl FnOnce(&Path)) -> Self {
        let world = Self::new();
        damage(&world.path("candidate"));
        world
    }

    /// The bundled model with a changed configuration, in `model`.
    pub fn with_config(change: impl FnOnce(&mut Value)) -> Self {
        let world = Self::new();
        let bundled = common::bundled_model();
        let mut config =
            serde_json::from_slice(&std::fs::read(bundled.join("config.json")).unwrap()).unwrap();
        change(&mut config);
        std::fs::create_dir(world.path("model")).unwrap();
        world.file("model/config.json", &config.to_string());
        for name in ["model.safetensors", "tokenizer.json"] {
            symlink(bundled.join(name), world.path("model").join(name)).unwrap();
        }
        world
    }

    /// The bundled adapter, its configuration and its tensors changed, in `adapter`.
    pub fn with_adapter(config: impl FnOnce(&mut Value), tensors: impl FnOnce(&mut Factors)) -> Self {
        let world = Self::new();
        std::fs::create_dir(world.path("adapter")).unwrap();
        common::copy_adapter(&world.path("adapter"), config, tensors);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// An interpreter that prints this on stderr and ends with this code.
    pub fn python(&self, talk: &str, code: i32) {
        self.file("python", &format!("#!/bin/sh\ncat >&2 <<'END'\n{talk}\nEND\nexit {code}\n"));
        std::fs::set_permissions(self.path("python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The words of a command line; `@name` stands for a path in this directory, `@@` for the bundled model.
    pub fn args(&self, line: &str) -> Vec<String> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        line.split_whitespace()
            .map(|word| match word.strip_prefix('@') {
                Some("@") => path(common::bundled_model()),
                Some(name) => path(self.path(name)),
                None => word.to_owned(),
            })
            .collect()
    }

    pub fn run(&self, line: &str) -> Run {
        let mut command = command(&self.args(line));
        finished(command.current_dir(self.root.path()).env("TMPDIR", self.path("tmp")))
    }

    /// Runs a command line that must be refused, as text and as JSON; returns what a user sees.
    #[track_caller]
    pub fn refusal(&self, line: &str) -> String {
        let before = tree(self.root.path());
        let text = self.run(line);
        assert_eq!(text.code, 2, "{text:#?}");
        assert_eq!(text.stdout, "", "{text:#?}");
        assert!(text.stderr.starts_with("error: ") && text.stderr.contains("\n  hint: "), "{text:#?}");
        let json = self.run(&format!("{line} --json"));
        assert_eq!(json.code, 2, "{json:#?}");
        assert_eq!(json.json()["outcome"], "invalid");
        assert_eq!(
            mask(json.json()["error"].as_str().unwrap()),
            mask(text.stderr.strip_prefix("error: ").unwrap().trim_end())
        );
        assert_eq!(tree(self.root.path()), before, "{line} left something behind");
        let mut shown = format!("$ layerdiff {line}\nexit code: {}\n", text.code);
        let stderr = text.stderr.replace(self.root.path().to_str().unwrap(), "[ROOT]");
        write!(shown, "{}", mask(&stderr.replace(common::bundled_model().to_str().unwrap(), "[BUNDLED]")))
            .unwrap();
        shown
    }

    /// Runs a comparison that must come to this outcome; returns the report.
    #[track_caller]
    pub fn outcome(&self, outcome: &str, code: i32) -> Value {
        let run = self.run("compare @reference @candidate --json");
        assert_eq!((run.code, run.json()["outcome"].as_str()), (code, Some(outcome)), "{run:#?}");
        run.json()
    }
}

/// Hides what differs from run to run: hashes, and the random part of a temporary name.
pub fn mask(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', '"', '/']).map(|word| {
        let (core, end) = word.split_at(word.trim_end_matches([' ', '\n', '"', '/']).len());
        let hash = core.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64);
        match core.rsplit_once('.') {
            _ if hash => format!("sha256:[HASH]{end}"),
            Some((name, random)) if name.starts_with('.') && random.len() == 6 => {
                format!("{name}.[RANDOM]{end}")
            }
            _ => word.to_owned(),
        }
    });
    words.collect()
}

/// Checks all that a refusal owes its user, and the words against the snapshot of this test's name.
macro_rules! refused {
    ($world:expr, $line:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($world.refusal($line))
        })
    };
}

pub(crate) use refused;

pub const CAPTURE: &str = "capture --engine lattice-f32 --model @model --prompts @prompts.jsonl --out @out";
pub const CAPTURE_BUNDLED: &str =
    "capture --engine lattice-f32 --model @@ --prompts @prompts.jsonl --out @out";
pub const CAPTURE_TORCH: &str =
    "capture --engine torch --python @python --model @@ --prompts @prompts.jsonl --out @out";
pub const COMPARE: &str = "compare @reference @candidate --out @report";
pub const RUN: &str = "run --model @@ --reference @reference --out @report";
