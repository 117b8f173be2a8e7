//! PyTorch: captured in a Python process by `layerdiff_hooks`.

mod server;

use crate::checkpoint::ModelDir;
use crate::error::{Error, Result, nearest};
use crate::model::PointFilter;
use crate::number::count;
use crate::progress;
use crate::prompt::Prompt;
use serde_json::{Value, json};
use server::{Failed, Server};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What traces call it.
pub const NAME: &str = "torch";

/// The precisions that it is captured in, with what else people call them.
const DTYPES: [(&str, &[&str]); 4] = [
    ("float32", &["f32", "fp32", "float"]),
    ("float64", &["f64", "fp64", "double"]),
    ("bfloat16", &["bf16"]),
    ("float16", &["f16", "fp16", "half"]),
];

/// Refuses a precision that `PyTorch` is not captured in.
pub fn check_dtype(name: &str) -> Result<()> {
    let known = DTYPES.map(|(known, _)| known);
    if known.contains(&name) {
        return Ok(());
    }
    let lower = name.to_lowercase();
    let meant = DTYPES.iter().find(|(_, others)| others.contains(&lower.as_str())).map(|(known, _)| *known);
    let meant = meant.or_else(|| nearest(&lower, known));
    let list = known.join(", ");
    Err(Error::new(format!("unknown precision `{name}`")).hint(match meant {
        Some(meant) => format!("did you mean `{meant}`? known: {list}"),
        None => format!("known: {list}"),
    }))
}

/// A Python with `layerdiff_hooks`.
#[derive(Debug, Clone)]
pub struct Python(PathBuf);

/// What to capture.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The model.
    pub model: &'a ModelDir,
    /// The prompts, with token ids.
    pub prompts: &'a [Prompt],
    /// Which points.
    pub points: &'a PointFilter,
    /// The precision: `float32`, `float64`, ….
    pub dtype: &'a str,
    /// How many decode steps: on the prompts' own step tokens where they have some, else greedily.
    pub steps: usize,
    /// How many bits the input of each linear is rounded to; none where it stays a float.
    pub activation_bits: Option<u32>,
    /// No progress bars.
    pub quiet: bool,
}

const INSTALL: &str = "install the Python side: `pip install ./hooks` from layerdiff's source, or `make venv`; \
     name another interpreter with --python or LAYERDIFF_PYTHON";

/// How Python's process is set up unless the user says otherwise; no number depends on it.
///
/// On a busy machine threads that spin while they wait cost minutes. Tensors that come and go get new pages from
/// the system each time where glibc gives theirs back: up to a third of the time of a capture. It keeps 1 GiB, and
/// maps what is larger than 32 MiB, the most that it can be told.
const SETTINGS: [(&str, &str); 3] = [
    ("OMP_WAIT_POLICY", "passive"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
];

impl Python {
    /// The interpreter that was named, else the checkout's or the active virtual environment's, else `python3`.
    pub fn find(named: Option<&Path>) -> Self {
        let candidates = [".venv/bin/python", ".venv/Scripts/python.exe"];
        let local = candidates.iter().map(PathBuf::from).find(|p| p.exists());
        let found =
            named.map(Path::to_path_buf).or_else(|| std::env::var_os("LAYERDIFF_PYTHON").map(PathBuf::from));
        let active = || std::env::var_os("VIRTUAL_ENV").map(|v| PathBuf::from(v).join("bin/python"));
        Self(found.or_else(active).or(local).unwrap_or_else(|| "python3".into()))
    }

    /// The interpreter.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The versions of what a capture needs; an error where something is missing or too old.
    pub fn examine(&self) -> Result<Value> {
        let mut command = Command::new(&self.0);
        command.args(["-m", "layerdiff_hooks", "doctor", "--json"]).stdin(Stdio::null());
        let failed =
            |e: std::io::Error| Error::new(format!("cannot start Python: {e}")).at(&self.0).hint(INSTALL);
        let output = command.output().map_err(failed)?;
        let talk = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(self.failure(&talk.lines().map(str::to_owned).collect::<Vec<_>>(), output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| {
            Error::new(format!("Python said something else than its versions: {e}"))
                .at(&self.0)
                .hint(self.by_hand())
        })
    }

    /// Captures the prompts into the trace `out`, which must not exist yet.
    pub fn capture(&self, request: &Request<'_>, out: &Path) -> Result<()> {
        // The target is tried first: a bad one must not cost a run.
        drop(crate::files::staging_dir(out)?);
        self.start("capture", &[], request, out)
    }

    /// Runs the prompts and leaves a trace of each in the directory `out`, by its id; what is there already
    /// stays. `sampling` is the temperature and the seed; none takes the likeliest tokens.
    pub fn generate(&self, request: &Request<'_>, sampling: Option<(f64, u64)>, out: &Path) -> Result<()> {
        let more = sampling.map_or_else(Vec::new, |(temperature, seed)| {
            vec!["--temperature".to_owned(), temperature.to_string(), "--seed".to_owned(), seed.to_string()]
        });
        self.start("generate", &more, request, out)
    }

    fn start(&self, name: &str, more: &[String], request: &Request<'_>, out: &Path) -> Result<()> {
        let Request { model, prompts, points, dtype, steps, activation_bits, quiet } = *request;
        let mut file = tempfile::NamedTempFile::new()
            .map_err(|e| Error::io("create a temporary file", std::env::temp_dir(), &e))?;
        for prompt in prompts {
            let mut line = json!({"id": prompt.id, "category": prompt.category, "text": prompt.text, "token_ids": prompt.token_ids});
            if !prompt.step_token_ids.is_empty() {
                line["forced_ids"] = json!(prompt.step_token_ids);
            }
            writeln!(file, "{line}").map_err(|e| Error::io("write the prompts", file.path(), &e))?;
        }
        let mut command = Command::new(&self.0);
        for (name, value) in SETTINGS {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        command
            .args(["-m", "layerdiff_hooks", name, "--progress", "json", "--dtype", dtype])
            .args(more)
            .arg("--model")
            .arg(model.path())
            .arg("--prompts")
            .arg(file.path())
            .arg("--out")
            .arg(out)
            .args(["--steps", &steps.to_string()])
            .args(["--scores", &points.scores().to_string()]);
        if let Some(adapter) = model.adapter() {
            command.arg("--lora").arg(adapter.path());
        }
        if let Some(bits) = activation_bits {
            command.args(["--activation-bits", &bits.to_string()]);
        }
        // The names, and not the glob: Python has other globs.
        for component in model.graph().components().iter().filter(|c| points.accepts(&c.point)) {
            command.args(["--points", &component.point]);
        }
        let prompts_and_steps = (count(prompts.len(), "prompt"), count(steps, "step"));
        let _stage = progress::stage(format_args!(
            "PyTorch, {dtype}: {}, {}, with {}",
            prompts_and_steps.0,
            prompts_and_steps.1,
            self.0.display()
        ));
        let bar = progress::bar("PyTorch", prompts.len() as u64, quiet);
        bar.set_message(format!("{dtype}, starting"));
        let result = self.run(command, |_| bar.inc(1));
        bar.finish_and_clear();
        if result.is_ok() && !out.exists() {
            return Err(Error::new("Python ended well but wrote no trace").at(&self.0).hint(self.by_hand()));
        }
        result
    }

    /// Runs a command to its end; lines of JSON on its stderr go to `progress`.
    fn run(&self, command: Command, progress: impl FnMut(&str)) -> Result<()> {
        let (talk, status) = Server::run(command, progress).map_err(|e| match e {
            Failed::Start(e) => Error::new(format!("cannot start Python: {e}")).at(&self.0).hint(INSTALL),
            Failed::Wait(e) => Error::io("wait for Python", &self.0, &e),
        })?;
        if status.success() { Ok(()) } else { Err(self.failure(&talk, status)) }
    }

    fn failure(&self, talk: &[String], status: std::process::ExitStatus) -> Error {
        let after =
            |prefix: &str| talk.iter().find_map(|line| line.trim().strip_prefix(prefix).map(str::to_owned));
        let missing = talk
            .iter()
            .find_map(|line| line.split_once("No module named "))
            .map(|(_, rest)| rest.split([';', ' ']).next().unwrap_or_default().trim_matches('\''));
        match (after("error: "), missing) {
            (Some(error), _) => {
                let rest = talk.iter().skip_while(|l| !l.trim().starts_with("error: ")).skip(1);
                let detail: Vec<&str> =
                    rest.map(|l| l.trim()).take_while(|l| !l.starts_with("hint: ")).collect();
                let message = std::iter::once(error.as_str()).chain(detail).collect::<Vec<_>>().join("\n  ");
                let error = Error::new(format!("PyTorch: {message}"));
                match after("hint: ") {
                    Some(hint) => error.hint(hint),
                    None => error.hint(self.by_hand()),
                }
            }
            (None, Some(module)) => Error::new(format!("Python lacks {module}")).at(&self.0).hint(INSTALL),
            (None, None) => Error::new(format!("Python failed ({status})"))
                .expected("exit code 0", talk.last().map_or("no message", String::as_str))
                .at(&self.0)
                .hint(self.by_hand()),
        }
    }

    fn by_hand(&self) -> String {
        format!("try it by hand: {} -m layerdiff_hooks doctor", self.0.display())
    }
}
