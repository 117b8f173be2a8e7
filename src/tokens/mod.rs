//! Token metrics: whether an engine gives the same tokens, and the same distributions of tokens.
//!
//! Layers say where an engine errs, tokens say whether anybody would notice. What is compared are traces that
//! hold the logits: the reference's of its own greedy run, and the candidate's of the same tokens
//! ([`logits`]). So each position is compared after the same history, also behind the place where the
//! candidate would have gone another way; that place, and what it chooses there, is a figure of its own
//! ([`greedy`]).

mod choice;
mod distribution;
mod gate;
mod greedy;
mod logits;
mod position;
mod release;
mod report;
mod sampler;
mod statistics;

pub use choice::{ChoiceResult, Choices, Question, bundled_questions, read_questions, template};
pub use distribution::Distribution;
pub use gate::{Criterion, Gate, Profile, profile};
pub use greedy::{Divergence, Greedy};
pub use logits::Logits;
pub use position::{Position, Setting, compare};
pub use release::{EngineRelease, Release};
pub use report::{
    LayerLink, Origin, Record, TokenReport, WorstPrompt, tokens_github, tokens_markdown, tokens_terminal,
    worst_first, write_tokens,
};
pub use sampler::Sampler;
pub use statistics::{Share, Summary, mcnemar};
