//! A reference of the tiny model, dumps of it in the making, and the command.

use crate::common::{Draft, Run, command, finished, tree};
use layerdiff::tensor::DType;
use layerdiff::trace::Trace;
use std::path::PathBuf;
use tempfile::TempDir;

pub struct World {
    root: TempDir,
    pub draft: Draft,
}

/// The values of a trace's tensor, as bytes.
pub fn bytes(trace: &Trace, step: u32, point: &str) -> (DType, Vec<usize>, Vec<u8>) {
    let prompt = trace.manifest().prompts[0].id.clone();
    let entry = trace.find(&prompt, step, point).unwrap_or_else(|| panic!("no {point}"));
    let view = trace.view(entry);
    (view.dtype, view.shape.to_vec(), view.bytes.to_vec())
}

impl World {
    pub fn new() -> Self {
        let world = Self { root: tempfile::tempdir().unwrap(), draft: Draft::tiny() };
        world.draft.write(&world.path("reference"));
        std::fs::create_dir(world.path("dumps")).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The reference's values at a point.
    pub fn values(&self, point: &str) -> Vec<f32> {
        self.draft.clone().at(point).values()
    }

    /// Writes raw numbers to `dumps/NAME`.
    pub fn raw(&self, name: &str, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.file(&format!("dumps/{name}"), bytes);
    }

    /// Runs a command line in the world's directory.
    pub fn run(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        finished(command(&words).current_dir(self.root.path()))
    }

    /// Imports with these words beside the usual ones; returns the trace.
    #[track_caller]
    pub fn import(&self, more: &str) -> Trace {
        let run = self.run(&format!("import dumps --reference reference --out out {more}"));
        assert_eq!(run.code, 0, "{run:#?}");
        Trace::open(&self.path("out")).unwrap()
    }

    /// Imports, and compares these points with the reference's, bit for bit.
    #[track_caller]
    pub fn imports(&self, more: &str, points: &[&str]) {
        let imported = self.import(more);
        assert_eq!(imported.entries().len(), points.len(), "{:#?}", imported.entries());
        let reference = Trace::open(&self.path("reference")).unwrap();
        for point in points {
            assert_eq!(bytes(&imported, 0, point), bytes(&reference, 0, point), "{point}");
        }
    }

    /// Runs a command line that must be refused and leave nothing behind; returns what a user sees.
    #[track_caller]
    pub fn refusal(&self, line: &str) -> String {
        let before = tree(self.root.path());
        let run = self.run(line);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:#?}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains("\n  hint: "), "{run:#?}");
        assert_eq!(tree(self.root.path()), before, "{line} left something behind");
        format!("$ layerdiff {line}\nexit code: 2\n{}", run.stderr)
    }
}

/// Checks all that a refusal owes its user, and the words against the snapshot of this test's name.
macro_rules! refused {
    ($world:expr) => {
        $crate::world::refused!($world, "import dumps --reference reference --out out")
    };
    ($world:expr, $line:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($world.refusal($line))
        })
    };
}
pub(crate) use refused;
