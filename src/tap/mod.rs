//! The tap: how the kernels of any engine write a trace.
//!
//! ```no_run
//! # fn main() -> layerdiff::error::Result<()> {
//! # let (model_dir, token_ids, act) = (std::path::Path::new("model"), [5, 17], vec![0.0_f32; 512]);
//! let tap = layerdiff::tap::Tap::from_env("my-engine", "0.1", model_dir)?;
//! tap.prompt("a", &token_ids);
//! tap.tensor("model.layers.3.mlp.act", &[2, 256], &act); // in the kernel, in any thread
//! tap.finish()?;
//! # Ok(())
//! # }
//! ```
//!
//! A tap is off unless `LAYERDIFF_TRACE` names a directory to make. Off, a call is the load of a flag and one
//! branch: no value is read, and nothing is allocated. Values that must first be computed or fetched belong in
//! [`Tap::tensor_with`], or behind [`Tap::is_on`].
//!
//! **Names.** A tensor is named by its point, and has the shape that the architecture gives it:
//! `layerdiff inspect TRACE` lists both for any trace of the same model. Points that are not tapped are unmeasured.
//!
//! **Threads.** Prompt and step are those of the tap, and every thread's tensors belong to them: a step begins when
//! the kernels of the one before are done. A trace has the architecture's order of execution and not that of the
//! calls, so that it is the same, byte for byte, at any number of threads.
//!
//! **Errors.** No call in the engine's path fails, panics or prints. The first error is kept, nothing is recorded
//! after it, and [`Tap::finish`] returns it; a trace is there whole or not at all. Without `finish` nothing is left behind.
//!
//! **Memory.** Tensors wait in a file without a name beside the trace; in memory is one at a time, and one shard
//! while the trace is written.

#[cfg(feature = "c")]
mod c;
mod session;
mod spool;
mod values;
mod write;

pub use values::{Numbers, Values};

use crate::error::{Error, Result};
use crate::prompt::Prompt;
use session::{Layout, Session};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a kernel hands its tensors to.
#[derive(Debug)]
pub struct Tap {
    on: AtomicBool,
    session: Mutex<Option<Box<Session>>>,
}

/// The tap of the process, for kernels to which no handle can be passed. It is off until [`Tap::begin`].
pub fn global() -> &'static Tap {
    static GLOBAL: Tap = Tap::off();
    &GLOBAL
}

/// The variable that names the trace to write.
const TRACE: &str = "LAYERDIFF_TRACE";

/// The variable that names a JSONL file or a trace, whose first prompt is that of an engine that names none.
const PROMPTS: &str = "LAYERDIFF_PROMPTS";

impl Tap {
    /// A tap that records nothing.
    pub const fn off() -> Self {
        Self { on: AtomicBool::new(false), session: Mutex::new(None) }
    }

    /// A tap that is on if `LAYERDIFF_TRACE` names a directory to make.
    ///
    /// `model_dir` has `config.json`, which says what the points are, and the weights, whose hash makes replay
    /// possible. If `LAYERDIFF_PROMPTS` names a trace, or a JSONL file of prompts with `token_ids`, the tap starts
    /// with the first of them.
    pub fn from_env(engine: &str, version: &str, model_dir: impl AsRef<Path>) -> Result<Self> {
        let tap = Self::off();
        tap.begin(engine, version, model_dir)?;
        Ok(tap)
    }

    /// A tap that is on, and writes to `target`, which must not exist yet.
    pub fn to(
        target: impl AsRef<Path>,
        engine: &str,
        version: &str,
        model_dir: impl AsRef<Path>,
    ) -> Result<Self> {
        let tap = Self::off();
        tap.start(Session::new(target.as_ref(), (engine, version), model_dir.as_ref(), None)?)?;
        Ok(tap)
    }

    /// Turns this tap on if `LAYERDIFF_TRACE` names a directory to make, as [`Tap::from_env`] does.
    pub fn begin(&self, engine: &str, version: &str, model_dir: impl AsRef<Path>) -> Result<()> {
        let Some(target) = variable(TRACE) else { return Ok(()) };
        let prompts = variable(PROMPTS);
        self.start(Session::new(&target, (engine, version), model_dir.as_ref(), prompts.as_deref())?)
    }

    fn start(&self, session: Session) -> Result<()> {
        let mut current = self.lock();
        if current.is_some() {
            return Err(Error::new("the tap is on already").hint("finish one trace before the next begins"));
        }
        *current = Some(Box::new(session));
        self.on.store(true, Ordering::Release);
        Ok(())
    }

    /// True where a trace is written: what is computed for it alone belongs behind this.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Says that the engine computes with other weights than those of its model's directory, such as quantized
    /// ones. `dequantized` is an f32 checkpoint with the same numbers, where there is one: `compare --weights` takes it.
    pub fn quantized(&self, dequantized: Option<&Path>) {
        self.tell(|session| {
            session.quantized = true;
            session.dequantized = dequantized.map(Path::to_path_buf);
            Ok(())
        });
    }

    /// Begins a prompt, whose prefill is step 0.
    pub fn prompt(&self, id: &str, token_ids: &[u32]) {
        self.tell(|session| {
            session.prompt(Prompt {
                id: id.to_owned(),
                category: None,
                text: None,
                token_ids: token_ids.to_vec(),
                step_token_ids: Vec::new(),
            })
        });
    }

    /// Begins the next decode step of the prompt, which is given this token.
    pub fn step(&self, token_id: u32) {
        self.tell(|session| session.step(token_id));
    }

    /// Records the tensor at a point: row-major, of the shape that the architecture gives it in this step.
    #[inline]
    pub fn tensor(&self, point: &str, shape: &[usize], values: &(impl Numbers + ?Sized)) {
        if self.is_on() {
            self.record(point, Layout { first_row: None, shape, strides: None }, values.values());
        }
    }

    /// The same for values that are computed, or fetched from a device, only where the tap is on.
    #[inline]
    pub fn tensor_with<N: Numbers>(&self, point: &str, shape: &[usize], values: impl FnOnce() -> N) {
        if self.is_on() {
            self.tensor(point, shape, &values());
        }
    }

    /// The same for values that lie in another order: `strides` are the distances in elements, along each axis
    /// of `shape`, from the first value on. `[head_dim, tokens * head_dim, 1]` reads a buffer of `[heads, tokens,
    /// head_dim]` as `[tokens, heads, head_dim]`.
    #[inline]
    pub fn strided(&self, point: &str, shape: &[usize], strides: &[usize], values: &(impl Numbers + ?Sized)) {
        if self.is_on() {
            self.record(point, Layout { first_row: None, shape, strides: Some(strides) }, values.values());
        }
    }

    /// Records some rows of a tensor, from `first_row` of its outermost axis on: a token, or a head. By `finish`
    /// every row must have been recorded once, in whatever order.
    #[inline]
    pub fn rows(&self, point: &str, first_row: usize, shape: &[usize], values: &(impl Numbers + ?Sized)) {
        if self.is_on() {
            let layout = Layout { first_row: Some(first_row), shape, strides: None };
            self.record(point, layout, values.values());
        }
    }

    /// Writes the trace, or says why there is none, and turns the tap off. What comes later is not recorded.
    pub fn finish(&self) -> Result<()> {
        let session = self.lock().take();
        self.on.store(false, Ordering::Release);
        session.map_or(Ok(()), |session| session.write())
    }

    #[cold]
    fn record(&self, point: &str, layout: Layout<'_>, values: Values<'_>) {
        self.tell(|session| session.tensor(point, layout, values));
    }

    /// Has the session do something, and keeps the first error.
    fn tell(&self, what: impl FnOnce(&mut Session) -> Result<()>) {
        if !self.is_on() {
            return;
        }
        if let Some(session) = self.lock().as_mut()
            && session.error.is_none()
        {
            session.error = what(session).err();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
