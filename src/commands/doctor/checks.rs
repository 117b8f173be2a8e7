//! What `doctor` looks at.

use super::{Check, problem};
use crate::bundle::{Bundle, DEFAULT_PROMPT};
use crate::capture::{open_engine, require_identical};
use crate::checkpoint::ModelDir;
use crate::commands::{STEPS, Ui, standard_prompts};
use crate::engine::torch::Python;
use crate::engine::{CANDIDATES, lattice};
use crate::error::{Error, Result};
use crate::hook::NoHook;
use crate::progress;
use crate::prompt::{select, tokenize};
use crate::report::check_status;
use crate::tensor::DType;
use crate::trace::{SelfCheck, Status};
use indicatif::DecimalBytes;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;

/// What changes an engine's numbers or its speed.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    host: String,
    cpu_features: Vec<String>,
    threads: usize,
}

pub(super) fn machine() -> Machine {
    Machine {
        host: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        cpu_features: lattice::cpu_features(),
        threads: rayon::current_num_threads(),
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = if self.cpu_features.is_empty() { "none" } else { &self.cpu_features.join(", ") };
        write!(f, "{}, SIMD that lattice uses: {features}, threads: {}", self.host, self.threads)
    }
}

/// Each engine on a prompt of the bundled model, with its self-check.
pub(super) fn engines(ui: Ui) -> Result<Vec<Check>> {
    let bundle = Bundle::unpack()?;
    let model = ModelDir::open(&bundle.model())?;
    let mut prompts = select(standard_prompts()?, &[DEFAULT_PROMPT.to_owned()])?;
    tokenize(&mut prompts, model.path(), model.graph().dim("vocab"))?;
    let bar = progress::bar("engines", CANDIDATES.len() as u64, ui.quiet);
    let mut found = Vec::new();
    for name in CANDIDATES {
        bar.set_message(name);
        let run = || {
            let mut engine = open_engine(name, &model, None)?;
            let check = SelfCheck::over(engine.run(&prompts[0].token_ids, &[], &mut NoHook)?);
            require_identical(name, &check)?;
            if check.status == Status::Unmeasured {
                return Err(problem(
                    "its self-check compared nothing",
                    "please report this with your CPU's features",
                ));
            }
            let said = format!("self-check {}", check_status(&check));
            Ok((said, json!({"self_check": check})))
        };
        found.push(Check::new(name, run()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(found)
}

/// The Python side.
pub(super) fn python(python: &Python) -> Result<(String, Value)> {
    let found = python.examine()?;
    let list = |key: &str| found[key].as_object().cloned().unwrap_or_default();
    let versions: Vec<String> = list("libraries")
        .iter()
        .filter_map(|(name, version)| Some(format!("{name} {}", version.as_str()?)))
        .collect();
    let version = found["python"].as_str().unwrap_or("of an unknown version");
    Ok((format!("Python {version} at {}: {}", python.path().display(), versions.join(", ")), found))
}

/// Room below which a trace of a small model may not fit.
const LEAST: u64 = 1 << 30;

/// Where reports and temporary traces go.
pub(super) fn disk() -> Vec<Check> {
    let here = std::env::current_dir().unwrap_or_else(|_| ".".into());
    let places = [("disk here", here), ("disk, temporary", std::env::temp_dir())];
    places
        .into_iter()
        .map(|(name, path)| Check::new(name, room(&path).and_then(|free| enough(&path, free))))
        .collect()
}

fn enough(path: &Path, free: u64) -> Result<(String, Value)> {
    if free < LEAST {
        return Err(problem(
            format!("{} free in {}", DecimalBytes(free), path.display()),
            "make room; TMPDIR chooses where temporary traces go",
        ));
    }
    let probe = tempfile::Builder::new().prefix(".layerdiff-").tempfile_in(path);
    probe.map_err(|e| Error::io("write here", path, &e))?;
    let details = json!({"path": path, "free_bytes": free});
    Ok((format!("{} free in {}", DecimalBytes(free), path.display()), details))
}

fn room(path: &Path) -> Result<u64> {
    fs4::available_space(path).map_err(|e| Error::io("see how much room there is", path, &e))
}

/// Tokens of the prompt that a trace's size is said for.
const TOKENS: usize = 64;

/// A checkpoint: what it is, who runs it, and what a trace of it takes.
pub(super) fn model(dir: &Path) -> Result<(String, Value)> {
    let model = ModelDir::open(dir)?;
    let graph = model.graph();
    let description = graph.description();
    let bytes_of = |tokens: usize, context: usize| -> u64 {
        let shapes = graph.components().iter().map(|c| (c.dtype, graph.shape(c, tokens, context)));
        shapes
            .map(|(dtype, shape)| shape.iter().product::<usize>() * dtype.unwrap_or(DType::F32).size())
            .sum::<usize>() as u64
    };
    let decoded: u64 = (1..=STEPS).map(|step| bytes_of(1, TOKENS + step)).sum();
    let bytes = bytes_of(TOKENS, TOKENS) + decoded;
    let engines: &[&str] = if description.name == lattice::ARCHITECTURE { &CANDIDATES } else { &[] };
    let by = if engines.is_empty() {
        "PyTorch; none of lattice's engines runs it"
    } else {
        "PyTorch and lattice's engines"
    };
    let text = format!(
        "{} of {} layers, {} points, run by {by}; a trace of {TOKENS} tokens and {STEPS} steps takes {} in f32",
        description.title,
        graph.layer_types().len(),
        graph.components().len(),
        DecimalBytes(bytes),
    );
    let details = json!({
        "architecture": description.name, "points": graph.components().len(), "engines": engines,
        "trace_bytes": bytes, "hashes": model.hashes()?,
    });
    Ok((text, details))
}
