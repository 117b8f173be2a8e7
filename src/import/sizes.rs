//! Sizes that a map may name.

use super::map::Size;
use super::plan::Target;
use crate::error::{Error, Result, nearest};

/// What sizes are called where an item is used.
pub(super) struct Sizes<'a> {
    pub target: &'a Target<'a>,
    pub step: u32,
    pub tokens: usize,
    pub context: usize,
}

impl<'a> Sizes<'a> {
    pub fn new(target: &'a Target<'a>, prompt: usize, step: u32) -> Self {
        let (tokens, context) = target.tokens(prompt, step);
        Self { target, step, tokens, context }
    }

    /// The size that a map means.
    pub fn get(&self, size: &Size) -> Result<usize> {
        let name = match size {
            Size::Number(n) => return Ok(*n),
            Size::Name(name) => name.as_str(),
        };
        let graph = self.target.graph;
        let known = match name {
            "tokens" => Some(self.tokens),
            "context" => Some(self.context),
            _ => graph.size(name),
        };
        known.ok_or_else(|| {
            let names = || ["tokens", "context"].into_iter().chain(graph.size_names());
            let near = nearest(name, names()).map(|near| format!("did you mean `{near}`? "));
            Error::new(format!("the map has an unknown size `{name}`")).hint(format!(
                "{}known: {}",
                near.unwrap_or_default(),
                names().collect::<Vec<_>>().join(", ")
            ))
        })
    }
}
