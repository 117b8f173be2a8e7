//! Faults: bugs that people have really written, to be planted into a running engine.
//!
//! A fault is data (its name, what is right and what was written, where it lives, who shipped it) and one
//! formula, which computes the wrong output of a component from the component's own inputs. [`Plant`] is
//! the hook that puts it in: the forward pass knows nothing of faults. The formulas are written in 32 bits
//! and share no code with [`crate::replay`], whose judgement they test.

mod call;
mod catalogue;
mod engine;
mod number;
mod plant;
mod site;

pub use call::{Call, Weights};
pub use catalogue::{catalogue, named};
pub use engine::FaultyEngine;
pub use plant::{Change, Plant, Planted};
pub use site::{Site, sites};

use crate::error::Result;
use crate::model::{Component, Graph, Op};

/// How much a fault shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// It ruins the output.
    Loud,
    /// Drift that common thresholds pass.
    Quiet,
    /// No fault: another way to compute the same, or a difference that cancels. Must not be reported.
    Harmless,
}

impl Weight {
    /// What the words mean, in one line.
    pub const LEGEND: &str = "weight: loud ruins the output, quiet is drift that common thresholds pass, harmless is \
                              no fault and must not be reported";

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loud => "loud",
            Self::Quiet => "quiet",
            Self::Harmless => "harmless",
        }
    }
}

/// In which steps a fault is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In all.
    Always,
    /// In the steps after the prefill.
    Decode,
    /// In the first step after the prefill.
    FirstDecode,
    /// In the prefill.
    Prefill,
}

impl When {
    /// True for a step in which it is there.
    pub fn covers(self, step: u32) -> bool {
        match self {
            Self::Always => true,
            Self::Decode => step > 0,
            Self::FirstDecode => step == 1,
            Self::Prefill => step == 0,
        }
    }
}

/// What a diagnosis should call a fault.
#[derive(Debug, Clone, Copy)]
pub enum Called {
    /// As the catalogue does.
    ByName,
    /// Any of these.
    Any(&'static [&'static str]),
}

/// Computes a component's output, wrongly.
pub type Formula = fn(&Call<'_>) -> Result<Vec<f32>>;

/// One entry of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Unique name.
    pub name: &'static str,
    /// The right formula.
    pub right: &'static str,
    /// What was written.
    pub wrong: &'static str,
    /// How much it shows.
    pub weight: Weight,
    /// The kinds of component that it lives at; all of them in a layer have it together, as one piece of
    /// code computes them.
    pub ops: &'static [Op],
    /// In which steps.
    pub when: When,
    /// True when it is a fault of 4-bit weights, so that only an engine that has them can have it.
    pub quantized: bool,
    /// Where it is known from, in words.
    pub source: &'static str,
    /// Short names of the diagnosis' formulas that say the same: several where it has one for each kind of
    /// component, or where a comment says why no input can tell them apart.
    pub called: Called,
    /// Short names that are not right, but say the same of some inputs: a comment says of which.
    pub akin: &'static [&'static str],
    /// Which of these components can show it: none at a ratio of 1, for example.
    lives: fn(&Graph, &Component) -> bool,
    formula: Formula,
}

impl Fault {
    /// The short names of the formulas that say the same.
    pub fn names(&self) -> &[&'static str] {
        match &self.called {
            Called::ByName => std::slice::from_ref(&self.name),
            Called::Any(names) => names,
        }
    }

    /// A loud fault of `ops` in all steps.
    const fn new(
        name: &'static str,
        ops: &'static [Op],
        right: &'static str,
        wrong: &'static str,
        source: &'static str,
        formula: Formula,
    ) -> Self {
        let (weight, when) = (Weight::Loud, When::Always);
        let (called, lives) = (Called::ByName, anywhere as fn(&Graph, &Component) -> bool);
        let akin = &[];
        Self { name, right, wrong, weight, ops, when, quantized: false, source, called, akin, lives, formula }
    }

    const fn quiet(self) -> Self {
        Self { weight: Weight::Quiet, ..self }
    }

    const fn harmless(self) -> Self {
        Self { weight: Weight::Harmless, ..self }
    }

    const fn called(self, names: &'static [&'static str]) -> Self {
        Self { called: Called::Any(names), ..self }
    }

    const fn akin(self, akin: &'static [&'static str]) -> Self {
        Self { akin, ..self }
    }

    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    const fn quantized(self) -> Self {
        Self { quantized: true, ..self }
    }

    const fn lives(self, lives: fn(&Graph, &Component) -> bool) -> Self {
        Self { lives, ..self }
    }
}

fn anywhere(_: &Graph, _: &Component) -> bool {
    true
}
