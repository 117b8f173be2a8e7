//! PyTorch's side: a trace for each prompt, in a directory that an interrupted run goes on with.

use super::leftovers::sweep;
use crate::checkpoint::ModelDir;
use crate::engine::torch::{Python, Request};
use crate::error::{Error, Result};
use crate::model::{Graph, PointFilter};
use crate::parameters::Parameters;
use crate::prompt::Prompt;
use crate::tokens::{Logits, Setting};
use crate::trace::{Hashes, MANIFEST, Provenance, Trace};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// More logits than these are not kept: the input of the head is, and they are made anew.
const MOST_BYTES: usize = 1 << 30;

/// What PyTorch generated.
pub(in crate::commands) struct Reference {
    dir: PathBuf,
    /// With the tokens that it went on with.
    pub prompts: Vec<Prompt>,
    /// What of each position is kept: the logits, or the input of the head.
    pub points: PointFilter,
    hashes: Hashes,
    /// Open as long as these dumps are in use.
    _lock: Option<File>,
}

/// The runs of PyTorch, by the directories that hold them.
const GREEDY: &str = "reference";
const DOUBLE: &str = "float64";
const SAMPLED: &str = "sampled";
const QUESTIONS: &str = "questions";

/// Says whose dumps a directory holds.
pub(super) const SETTINGS: &str = "settings.json";

/// What generates.
pub(in crate::commands) struct Source<'a> {
    pub python: &'a Python,
    pub model: &'a ModelDir,
    pub setting: Setting,
    pub quiet: bool,
}

impl Source<'_> {
    /// Runs `prompts` greedily, again in f64 on the same tokens, and sampled; and `questions` for the token
    /// that follows them. What is there already is not run again. `positions` are those of the whole job, by
    /// which is decided what of each is kept.
    pub fn generate(
        &self,
        prompts: &[Prompt],
        questions: &[Prompt],
        positions: usize,
        dir: &Path,
    ) -> Result<Reference> {
        check_dir(dir, &self.identity()?)?;
        let runs = [GREEDY, DOUBLE, SAMPLED, QUESTIONS].map(|run| dir.join(run));
        let dirs: Vec<&Path> = runs.iter().map(PathBuf::as_path).chain([dir]).collect();
        let lock = sweep(&dir.join(SETTINGS), &dirs);
        let graph = self.model.graph();
        let head = graph.components().last().expect("an architecture has components");
        let large = positions * graph.dim("vocab") * size_of::<f32>() > MOST_BYTES;
        let logits = PointFilter::new(if large { &head.inputs[0] } else { &head.point })?;
        let small = PointFilter::new(&head.inputs[0])?;
        let request = |prompts, points, dtype, steps| Request {
            model: self.model,
            prompts,
            points,
            dtype,
            steps,
            activation_bits: None,
            quiet: self.quiet,
        };
        let (steps, hashes) = (self.setting.tokens, self.model.hashes()?);
        let run = |request: &Request<'_>, sampling, to: &str| {
            let dir = dir.join(to);
            let there = |p: &Prompt| dir.join(&p.id).join(MANIFEST).is_file();
            if request.prompts.iter().all(there) {
                return Ok(());
            }
            self.python.generate(request, sampling, &dir)
        };
        run(&request(prompts, &logits, "float32", steps), None, GREEDY)?;
        let known = prompts.iter().map(|prompt| {
            let trace = open(&dir.join(GREEDY), prompt, &hashes)?;
            Ok(trace.manifest().prompts[0].clone())
        });
        let known: Vec<Prompt> = known.collect::<Result<_>>()?;
        run(&request(&known, &logits, "float64", steps), None, DOUBLE)?;
        let sampling = Some((self.setting.temperature, self.setting.seed));
        run(&request(prompts, &small, "float32", steps), sampling, SAMPLED)?;
        run(&request(questions, &small, "float32", 0), None, QUESTIONS)?;
        Ok(Reference { dir: dir.to_path_buf(), prompts: known, points: logits, hashes, _lock: lock })
    }

    fn identity(&self) -> Result<Value> {
        let model = self.model.hashes()?;
        Ok(json!({"layerdiff": env!("CARGO_PKG_VERSION"), "model": model, "setting": self.setting}))
    }
}

impl Reference {
    /// The greedy run of a prompt.
    pub fn greedy(&self, prompt: &Prompt) -> Result<Trace> {
        self.open(GREEDY, prompt)
    }

    /// The same tokens in f64.
    pub fn double(&self, prompt: &Prompt) -> Result<Trace> {
        self.open(DOUBLE, prompt)
    }

    /// Who ran: by the first prompt, or else by `question`.
    pub fn provenance(&self, question: Option<&Prompt>) -> Result<Provenance> {
        let trace = match (self.prompts.first(), question) {
            (Some(prompt), _) => self.greedy(prompt)?,
            (None, Some(prompt)) => self.question(prompt)?,
            (None, None) => return Err(Error::new("there is neither a prompt nor a question to run")),
        };
        Ok(trace.manifest().provenance.clone())
    }

    /// The tokens of the sampled run.
    pub fn sampled(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        Ok(self.open(SAMPLED, prompt)?.manifest().prompts[0].step_token_ids.clone())
    }

    /// A question's run.
    pub fn question(&self, prompt: &Prompt) -> Result<Trace> {
        self.open(QUESTIONS, prompt)
    }

    /// Refuses dumps of which a later figure could not be made: the candidate has not run yet.
    pub fn check(&self, questions: &[Prompt], graph: &Graph, parameters: &Parameters) -> Result<()> {
        let numbers = |trace: &Trace, prompt, count| {
            let logits = Logits::new(trace, graph, Some(parameters))?;
            (0..count).try_for_each(|position| logits.check(prompt, position))
        };
        for prompt in &self.prompts {
            let count = prompt.step_token_ids.len();
            numbers(&self.greedy(prompt)?, prompt, count)?;
            numbers(&self.double(prompt)?, prompt, count)?;
            self.sampled(prompt)?;
        }
        questions.iter().try_for_each(|prompt| numbers(&self.question(prompt)?, prompt, 1))
    }

    fn open(&self, run: &str, prompt: &Prompt) -> Result<Trace> {
        open(&self.dir.join(run), prompt, &self.hashes)
    }

    /// Where a candidate's records go.
    pub fn records(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The trace of one prompt, which must be of this very model and of these very tokens.
fn open(dir: &Path, prompt: &Prompt, model: &Hashes) -> Result<Trace> {
    let path = dir.join(&prompt.id);
    if !path.join(MANIFEST).is_file() {
        let found = if path.exists() { "a directory without it" } else { "no directory of this name" };
        return Err(Error::new(format!("the dump of prompt `{}` is missing", prompt.id))
            .expected(format!("a trace with {MANIFEST}"), found)
            .at(&path)
            .hint(
                "remove this directory if it is there, and start again: only what is missing is then run",
            ));
    }
    let trace = Trace::open(&path)?;
    trace.refuse_failed_self_check()?;
    let of = &trace.manifest().provenance.hashes;
    let none = || "none".to_owned();
    for (what, own, found) in [
        ("tokenizer", &model.tokenizer, &of.tokenizer),
        ("configuration", &model.config, &of.config),
        ("model", &model.weights, &of.weights),
    ] {
        if own != found {
            return Err(Error::new(format!("the dump of prompt `{}` is of another {what}", prompt.id))
                .expected(own.clone().unwrap_or_else(none), found.clone().unwrap_or_else(none))
                .at(trace.path())
                .hint("both sides must run the same model with the same tokenizer: choose another --dumps, or remove this one"));
        }
    }
    match trace.manifest().prompts.as_slice() {
        [known] if known.id == prompt.id && known.token_ids == prompt.token_ids => Ok(trace),
        _ => Err(Error::new(format!("the dump of prompt `{}` is of other tokens", prompt.id))
            .at(trace.path())
            .hint("the prompts or the tokenizer have changed: choose another --dumps, or remove this one")),
    }
}

/// Makes a directory of dumps, or takes one that is of the very same job.
pub(super) fn check_dir(dir: &Path, identity: &Value) -> Result<()> {
    let file = dir.join(SETTINGS);
    let io = |e: &std::io::Error| Error::io("make the directory of dumps", dir, e);
    if file.exists() {
        let text = std::fs::read_to_string(&file).map_err(|e| io(&e))?;
        let known: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some((expected, got)) = first_difference("", identity, &known) {
            return Err(Error::new("these dumps are of another model or setting")
                .expected(expected, got)
                .at(&file)
                .hint("choose another --dumps, or remove this one"));
        }
        return Ok(());
    }
    // A hidden file may be left of a run that was killed.
    let visible = |entry: std::fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
    if std::fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(visible)) {
        return Err(Error::new("the directory holds something else than dumps")
            .at(dir)
            .hint("choose another --dumps"));
    }
    std::fs::create_dir_all(dir).map_err(|e| io(&e))?;
    crate::files::write_whole("a dump", &file, identity.to_string().as_bytes())
}

/// The first key that two documents have otherwise, with both values.
pub(in crate::commands) fn first_difference(key: &str, a: &Value, b: &Value) -> Option<(String, String)> {
    if let (Value::Object(of_a), Value::Object(of_b)) = (a, b) {
        let keys: BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
        return keys.into_iter().find_map(|name| {
            let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            first_difference(&below, &a[name], &b[name])
        });
    }
    let name = if key.is_empty() { String::new() } else { format!("{key} ") };
    (a != b).then(|| (format!("{name}{a}"), format!("{name}{b}")))
}
