//! What a tap that is on has been told so far.

use super::spool::Spool;
use super::values::Values;
use crate::error::{Error, Result};
use crate::model::{Graph, ModelConfig};
use crate::prompt::{PLAIN_ID, Prompt, is_plain_id, read_prompts};
use crate::tensor::DType;
use crate::trace::Trace;
use std::path::{Path, PathBuf};

/// A tensor, or some rows of one, in the spool.
#[derive(Debug)]
pub(super) struct Part {
    /// Indices of the prompt and of the component.
    pub prompt: usize,
    pub step: u32,
    pub component: usize,
    pub first_row: usize,
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub at: u64,
    pub bytes: usize,
}

/// How a tensor lies in its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    /// The first row; none where all of the tensor is there.
    pub first_row: Option<usize>,
    pub shape: &'a [usize],
    /// None for row-major values.
    pub strides: Option<&'a [usize]>,
}

/// Everything between `begin` and `finish`.
#[derive(Debug)]
pub(super) struct Session {
    pub target: PathBuf,
    pub engine: (String, String),
    pub model_dir: PathBuf,
    pub config: ModelConfig,
    pub graph: Graph,
    pub vocab: usize,
    /// True where the engine computes with other weights than those of `model_dir`.
    pub quantized: bool,
    /// Those weights, where they are known.
    pub dequantized: Option<PathBuf>,
    /// The prompt of an engine that names none.
    pub given: Option<Prompt>,
    pub prompts: Vec<Prompt>,
    pub parts: Vec<Part>,
    pub spool: Spool,
    /// The first error; nothing is recorded after it.
    pub error: Option<Error>,
}

impl Session {
    /// Checks all that can be checked before the first tensor.
    pub fn new(
        target: &Path,
        (engine, version): (&str, &str),
        model_dir: &Path,
        prompts: Option<&Path>,
    ) -> Result<Self> {
        // Both are needed at the end too, when the engine may have gone to another directory.
        let (target, model_dir) = (absolute(target)?, absolute(model_dir)?);
        let config = ModelConfig::read(&model_dir)?;
        let graph = Graph::for_config(&config).map_err(|e| e.at(model_dir.join("config.json")))?;
        // The target is tried first: a bad one must not cost a run.
        drop(crate::files::staging_dir(&target)?);
        Ok(Self {
            spool: Spool::beside(&target)?,
            target,
            engine: (engine.to_owned(), version.to_owned()),
            model_dir,
            vocab: graph.dim("vocab"),
            config,
            graph,
            quantized: false,
            dequantized: None,
            given: prompts.map(first_prompt).transpose()?,
            prompts: Vec::new(),
            parts: Vec::new(),
            error: None,
        })
    }

    /// Starts a prompt at its prefill.
    pub fn prompt(&mut self, prompt: Prompt) -> Result<()> {
        if !is_plain_id(&prompt.id) {
            return Err(Error::new("bad id of a prompt").expected(PLAIN_ID, format!("{:?}", prompt.id)));
        }
        if self.prompts.iter().any(|p| p.id == prompt.id) {
            return Err(Error::new(format!("two prompts share the id `{}`", prompt.id))
                .hint("was a warm-up pass tapped too? name each pass otherwise, or tap one"));
        }
        if prompt.token_ids.is_empty() {
            return Err(Error::new(format!("prompt `{}` has no tokens", prompt.id)));
        }
        prompt.token_ids.iter().try_for_each(|id| self.known_token(*id))?;
        self.prompts.push(prompt);
        Ok(())
    }

    /// Starts the next decode step of the prompt.
    pub fn step(&mut self, token_id: u32) -> Result<()> {
        self.known_token(token_id)?;
        self.current()?.step_token_ids.push(token_id);
        Ok(())
    }

    fn known_token(&self, id: u32) -> Result<()> {
        if (id as usize) < self.vocab {
            return Ok(());
        }
        Err(Error::new("a token is outside the model's vocabulary")
            .expected(format!("an id below {}", self.vocab), id))
    }

    /// The prompt that runs now.
    fn current(&mut self) -> Result<&mut Prompt> {
        if self.prompts.is_empty() {
            let given = self.given.take().ok_or_else(|| {
                Error::new("a tensor came before any prompt").hint(
                    "call `prompt` with an id and the token ids first, or name a JSONL file with token_ids, or \
                     the reference's trace, in LAYERDIFF_PROMPTS",
                )
            })?;
            self.prompt(given)?;
        }
        self.prompts.last_mut().ok_or_else(|| Error::new("no prompt"))
    }

    /// Keeps a tensor of the current step. `values`, of type `dtype`, are asked for when shape and type are known to
    /// be those that the model gives the point: behind a pointer of C there may be fewer than a wrong shape says.
    pub fn tensor<'v>(
        &mut self,
        point: &str,
        layout: Layout<'_>,
        dtype: DType,
        values: impl FnOnce() -> Result<Values<'v>>,
    ) -> Result<()> {
        let prompt = self.current()?;
        let (tokens, step) = (prompt.token_ids.len(), prompt.step_token_ids.len());
        let Some(component) = self.graph.position(point) else {
            return Err(self.graph.component(point).err().unwrap_or_else(|| Error::new("no such point")));
        };
        let shape = self.shape(component, tokens, step);
        let bytes = fits(layout, &shape)
            .and_then(|()| self.fits_type(component, dtype))
            .and_then(|()| values()?.bytes(layout.shape, layout.strides))
            .and_then(|bytes| if dtype == DType::U8 { zeros_and_ones(bytes) } else { Ok(bytes) })
            .map_err(|e| e.about(format!("`{point}` in step {step}")))?;
        let at = self.spool.append(&bytes)?;
        self.parts.push(Part {
            prompt: self.prompts.len() - 1,
            step: step as u32,
            component,
            first_row: layout.first_row.unwrap_or(0),
            shape: layout.shape.to_vec(),
            dtype,
            at,
            bytes: bytes.len(),
        });
        Ok(())
    }

    /// The shape that the model gives a component's output in this step after a prompt of `tokens` tokens.
    pub fn shape(&self, component: usize, tokens: usize, step: usize) -> Vec<usize> {
        let now = if step == 0 { tokens } else { 1 };
        self.graph.shape(&self.graph.components()[component], now, tokens + step)
    }

    fn fits_type(&self, component: usize, got: DType) -> Result<()> {
        let mask = self.graph.components()[component].dtype == Some(DType::U8);
        if mask == got.is_float() {
            let wanted = if mask { "U8, a mask" } else { "numbers: F64, F32, F16 or BF16" };
            return Err(Error::new("another type than the point has").expected(wanted, got));
        }
        Ok(())
    }
}

/// The path, whatever directory the process is in later.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("make out where this is", path, &e))
}

/// Refuses what is no mask. Only its elements count: what strides skip may be anything.
fn zeros_and_ones(mask: Vec<u8>) -> Result<Vec<u8>> {
    match mask.iter().find(|value| **value > 1) {
        Some(value) => Err(Error::new("the values are not a mask").expected("0 and 1 only", value)),
        None => Ok(mask),
    }
}

/// Refuses a part that is not one of a tensor of this shape.
fn fits(layout: Layout<'_>, whole: &[usize]) -> Result<()> {
    let got = layout.shape;
    let fits = match (layout.first_row, got, whole) {
        (None, ..) => got == whole,
        (Some(first), [rows, width @ ..], [all, whole @ ..]) => {
            width == whole && *rows > 0 && first.checked_add(*rows).is_some_and(|end| end <= *all)
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let from = layout.first_row.map_or_else(String::new, |row| format!(" from row {row} on"));
    let what = if layout.first_row.is_some() { "rows of " } else { "" };
    Err(Error::new("another shape than the model gives it")
        .expected(format!("{what}{whole:?}"), format!("{got:?}{from}"))
        .hint("the batch is dropped, and tokens come before heads except in scores and probs"))
}

/// The first prompt of a JSONL file or a trace, without decode steps.
fn first_prompt(path: &Path) -> Result<Prompt> {
    let all = if path.is_dir() { Trace::open(path)?.manifest().prompts.clone() } else { read_prompts(path)? };
    let first = all.into_iter().next().filter(|prompt| !prompt.token_ids.is_empty());
    let mut prompt = first.ok_or_else(|| {
        Error::new("the first prompt of LAYERDIFF_PROMPTS has no token_ids")
            .at(path)
            .hint("a trace of the reference has them: a tap has no tokenizer")
    })?;
    prompt.step_token_ids.clear();
    Ok(prompt)
}
