//! What `--reference` names.

use super::ALL;
use crate::cli::RunArgs;
use crate::engine::{CANDIDATES, path_of};
use crate::error::{Error, Result, nearest};
use std::path::Path;

/// A kind of reference. A trace whose name is one of the words is reached as `./NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    Torch,
    /// Each candidate against itself.
    Itself,
    /// An engine on one of its paths.
    Engine(&'a str, &'static str),
    Stored(&'a Path),
}

const WORDS: [&str; 2] = ["torch", "self"];

impl<'a> Reference<'a> {
    pub fn parse(text: &'a str) -> Result<Self> {
        if text.eq_ignore_ascii_case("torch") {
            return Ok(Self::Torch);
        }
        if text.eq_ignore_ascii_case("self") {
            return Ok(Self::Itself);
        }
        let (name, path) = match text.split_once(':') {
            Some((name, path)) => (name, Some(path)),
            None => (text, None),
        };
        if CANDIDATES.contains(&name) {
            return Ok(Self::Engine(name, path_of(name, path)?));
        }
        let file = Path::new(text);
        if file.exists() || file.components().count() != 1 {
            return Ok(Self::Stored(file));
        }
        let known = || WORDS.into_iter().chain(CANDIDATES);
        let list = known().collect::<Vec<_>>().join(", ");
        Err(Error::new(format!("`{text}` is neither an engine nor a trace")).hint(
            match nearest(name, known()) {
                Some(near) => format!("did you mean `{near}`? known: {list}, or the path of a trace"),
                None => format!("known: {list}, or the path of a trace"),
            },
        ))
    }

    /// True when the candidate called `name` is this very engine on this very path.
    pub fn is_candidate(self, name: &str, path: Option<&str>) -> bool {
        match self {
            Self::Engine(engine, on) => engine == name && path_of(name, path) == Ok(on),
            _ => false,
        }
    }

    /// Refuses what would compare a run with itself, and what has no meaning beside this reference.
    pub fn check(self, args: &RunArgs) -> Result<()> {
        // With other weights it is another run.
        let same = args.engine != ALL && args.weights.is_none();
        if same && self.is_candidate(&args.engine, args.path.as_deref()) {
            let path = path_of(&args.engine, args.path.as_deref())?;
            return Err(Error::new("the reference and the candidate are the same run")
                .expected(
                    "another engine, or another path of this one",
                    format!("{}:{path} twice", args.engine),
                )
                .hint("`--reference self` holds an engine's prefill against its decode steps"));
        }
        if self == Self::Itself && !args.quantized.is_empty() {
            return Err(Error::new("an engine against itself has no arm Q: both sides have its own weights")
                .hint("leave --quantized out, or choose another --reference"));
        }
        Ok(())
    }
}
