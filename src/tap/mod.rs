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
//! **Processes.** A trace belongs to the process that began it. A forked child records nothing, and its `finish`
//! writes nothing and says so. Paths are those of the moment they are named: the engine may change its directory.
//!
//! **Memory.** Tensors wait in a file without a name beside the trace; in memory is one at a time, and a few
//! shards while the trace is written.

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
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The id of no process that could have begun a session.
const OFF: u32 = 0;

/// What a kernel hands its tensors to.
#[derive(Debug)]
pub struct Tap {
    /// The id of the process that began the session; [`OFF`] where there is none. It stands outside the lock, which
    /// a forked child may find taken for ever.
    owner: AtomicU32,
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
        Self { owner: AtomicU32::new(OFF), session: Mutex::new(None) }
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
        let Some(target) = wanted() else { return Ok(()) };
        let prompts = variable(PROMPTS);
        self.start(Session::new(&target, (engine, version), model_dir.as_ref(), prompts.as_deref())?)
    }

    fn start(&self, session: Session) -> Result<()> {
        if self.is_another_process_s() {
            return Err(forked());
        }
        let mut current = self.lock();
        if current.is_some() {
            return Err(Error::new("the tap is on already").hint("finish one trace before the next begins"));
        }
        *current = Some(Box::new(session));
        self.owner.store(std::process::id(), Ordering::Release);
        Ok(())
    }

    /// True where a trace is written: what is computed for it alone belongs behind this.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.owner.load(Ordering::Acquire) != OFF
    }

    /// Says that the engine computes with other weights than those of its model's directory, such as quantized
    /// ones. `dequantized` is an f32 checkpoint with the same numbers, where there is one: `compare --weights` takes it.
    pub fn quantized(&self, dequantized: Option<&Path>) {
        self.tell(|session| {
            session.quantized = true;
            session.dequantized = dequantized.map(session::absolute).transpose()?;
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
        if self.is_another_process_s() {
            self.forget();
            return Err(forked());
        }
        let session = {
            let mut current = self.lock();
            // While the lock is held, or it would turn off a session that another thread begins just now.
            self.owner.store(OFF, Ordering::Release);
            current.take()
        };
        session.map_or(Ok(()), |session| session.write())
    }

    /// True where the session is that of the process that this one was forked from.
    fn is_another_process_s(&self) -> bool {
        let owner = self.owner.load(Ordering::Acquire);
        owner != OFF && owner != std::process::id()
    }

    /// Turns off a session that another process began. If one of its threads held the lock at the fork, nobody
    /// will ever give it back, and the tap stays that process's.
    fn forget(&self) {
        let mut current = match self.session.try_lock() {
            Ok(current) => current,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.owner.store(OFF, Ordering::Release);
        *current = None;
    }

    #[cold]
    fn record(&self, point: &str, layout: Layout<'_>, values: Values<'_>) {
        self.tell(|session| session.tensor(point, layout, values.dtype(), || Ok(values)));
    }

    /// Has the session do something, and keeps the first error. In a forked child nothing is done: the spool is the
    /// parent's, as is its place in it, and `finish` fails there in any case.
    fn tell(&self, what: impl FnOnce(&mut Session) -> Result<()>) {
        if !self.is_on() || self.is_another_process_s() {
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

/// The trace that is to be written, if one is.
fn wanted() -> Option<PathBuf> {
    variable(TRACE)
}

fn forked() -> Error {
    Error::new("the trace was begun in another process, which this one was forked from")
        .hint("begin and finish in the process whose kernels are tapped: after the fork")
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread::scope;

    /// Else a trace that one thread begins while another finishes the one before would be off at once.
    #[test]
    fn a_tap_is_on_exactly_while_it_has_a_session_whoever_looks() {
        let root = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bundle/model");
        let (tap, done, wrong) = (Tap::off(), AtomicBool::new(false), AtomicBool::new(false));
        let look = || {
            while !done.load(Ordering::Acquire) {
                let session = tap.lock();
                wrong.fetch_or(session.is_some() != tap.is_on(), Ordering::AcqRel);
            }
        };
        scope(|threads| {
            // Who waits for the lock is woken before the thread that gives it back goes on.
            (0..4).for_each(|_| drop(threads.spawn(look)));
            for _ in 0..100 {
                let session = Session::new(&root.path().join("out"), ("test", "1"), &model, None);
                let begun = session.and_then(|session| tap.start(session));
                let finished = tap.finish();
                wrong.fetch_or(begun.is_err() || finished.is_ok(), Ordering::AcqRel);
            }
            done.store(true, Ordering::Release);
        });
        assert!(!wrong.into_inner());
    }
}
