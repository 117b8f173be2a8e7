//! A prefill of n tokens, cut into the form of a prefill of n − 1 tokens and one decode step.
//!
//! Both are the same computation, done on other paths of an engine: the engine is its own reference. Each
//! tensor of the whole prefill is cut in two by the architecture's description: along `tokens` into the
//! first n − 1 and the last one, along `context` into what each part sees, n − 1 and n.
//!
//! A point with neither axis is a state that a pass leaves behind at its end. The whole prefill leaves only
//! the last one; that after n − 1 tokens is unmeasured by nature, and left out of both traces.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::{At, Hook, Rows, offer};
use crate::model::{Component, Graph};
use crate::number::count;
use crate::prompt::Prompt;
use crate::tensor::Tensor;
use crate::trace::Evidence;

/// How an engine is given a prompt's tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Feed {
    /// The prompt as the prefill, its step tokens one by one.
    #[default]
    Plain,
    /// The same, without what [`Feed::Joined`] cannot show.
    Apart,
    /// The first step token as a part of the prefill, which is cut into a prefill and a step.
    Joined,
}

/// The prompt with its last token as the first step token.
pub fn cut(prompt: &Prompt) -> Result<Prompt> {
    match prompt.token_ids.as_slice() {
        [first @ .., last] if !first.is_empty() => Ok(Prompt {
            token_ids: first.to_vec(),
            step_token_ids: [&[*last], prompt.step_token_ids.as_slice()].concat(),
            ..prompt.clone()
        }),
        tokens => Err(Error::new(format!("prompt `{}` cannot be cut before its last token", prompt.id))
            .expected("at least 2 tokens: a prefill, and one that is decoded", tokens.len())
            .hint(
                "an engine is held against itself on longer prompts: choose some with --prompts or --prompt",
            )),
    }
}

impl Feed {
    /// The points that a trace does not have in step 0.
    pub fn left_out(self, graph: &Graph) -> impl Iterator<Item = &str> {
        let states = graph.components().iter().filter(move |c| is_state(graph, c));
        states.filter(move |_| self != Self::Plain).map(|c| c.point.as_str())
    }

    /// What the engine is given, in words; of several prompts in general terms.
    pub fn describe(self, prompts: &[Prompt], steps: usize) -> Option<String> {
        let (less, steps) = match self {
            Self::Plain => return None,
            Self::Apart => (0, steps),
            Self::Joined => (1, steps.saturating_sub(1)),
        };
        let tokens = match (prompts, less) {
            ([prompt], _) => count(prompt.token_ids.len() + less, "token"),
            (_, 0) => "all tokens but the last".to_owned(),
            _ => "all tokens".to_owned(),
        };
        Some(if steps == 0 { tokens } else { format!("{tokens} and {}", count(steps, "step")) })
    }

    /// Runs a prompt with its step tokens; `hook` sees the steps that the trace is to have.
    pub fn run(
        self,
        engine: &mut dyn Engine,
        graph: &Graph,
        prompt: &Prompt,
        hook: &mut dyn Hook,
    ) -> Result<Vec<Evidence>> {
        let (tokens, steps) = (&prompt.token_ids, &prompt.step_token_ids);
        match (self, steps.as_slice()) {
            (Self::Plain, steps) => engine.run(tokens, steps, hook),
            (Self::Apart, steps) => engine.run(tokens, steps, &mut Apart { graph, inner: hook }),
            (Self::Joined, [first, rest @ ..]) => {
                let tokens = [tokens.as_slice(), &[*first]].concat();
                engine.run(&tokens, rest, &mut Joined { graph, tokens: tokens.len(), inner: hook })
            }
            (Self::Joined, []) => Err(Error::new(format!("prompt `{}` has no step to join", prompt.id))),
        }
    }
}

/// True for what a pass leaves behind once, at its end.
fn is_state(graph: &Graph, component: &Component) -> bool {
    !graph.axes(component).iter().any(|axis| axis == "tokens" || axis == "context")
}

/// Keeps the states after the prefill from a hook that only looks.
struct Apart<'a> {
    graph: &'a Graph,
    inner: &'a mut dyn Hook,
}

impl Hook for Apart<'_> {
    fn wants(&self, point: &str) -> bool {
        self.inner.wants(point)
    }

    fn rows(&self, at: At<'_>, tokens: usize, context: usize) -> Option<Vec<usize>> {
        self.inner.rows(at, tokens, context)
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        if at.step == 0 && is_state(self.graph, self.graph.component(at.point)?) {
            return Ok(tensor);
        }
        self.inner.call(at, tensor)
    }
}

/// Shows a hook the two parts of a prefill of `tokens` tokens, and later steps as one later. The hook only
/// looks: what it returns for a part is not put back.
struct Joined<'a> {
    graph: &'a Graph,
    tokens: usize,
    inner: &'a mut dyn Hook,
}

impl Hook for Joined<'_> {
    fn wants(&self, point: &str) -> bool {
        self.inner.wants(point)
    }

    /// Those of the first part, and that of the token that becomes a step.
    fn rows(&self, at: At<'_>, tokens: usize, context: usize) -> Option<Vec<usize>> {
        if at.step > 0 {
            return self.inner.rows(At { step: at.step + 1, ..at }, tokens, context);
        }
        let last = tokens - 1;
        self.inner.rows(at, last, context - 1).map(|rows| rows.into_iter().chain([last]).collect())
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        if at.step > 0 {
            return self.inner.call(At { step: at.step + 1, ..at }, tensor);
        }
        let component = self.graph.component(at.point)?;
        let kept = at.rows.map(|rows| rows.kept);
        let whole = self.graph.shape_of_rows(component, self.tokens, self.tokens, kept);
        if tensor.shape != whole {
            return Err(Error::new(format!("cannot cut `{}` in two", at.point))
                .expected(format!("{whole:?}"), format!("{:?}", tensor.shape)));
        }
        let square = self.graph.row_axis(component).is_some();
        for (step, tokens) in [(0, 0..self.tokens - 1), (1, self.tokens - 1..self.tokens)] {
            if step == 0 && is_state(self.graph, component) {
                continue;
            }
            // Of a tensor with some rows only those of the part's tokens.
            let kept = kept.filter(|_| square);
            let rows = kept.map(|kept| {
                kept.partition_point(|row| *row < tokens.start)..kept.partition_point(|row| *row < tokens.end)
            });
            let (end, tokens) = (tokens.end, rows.unwrap_or(tokens));
            let axes = self.graph.axes(component).iter().zip(&whole);
            let ranges: Vec<_> = axes
                .map(|(axis, n)| match axis.as_str() {
                    "tokens" => tokens.clone(),
                    "context" => 0..end,
                    _ => 0..*n,
                })
                .collect();
            let rows = kept.map(|kept| Rows { kept: &kept[tokens.clone()], tokens: self.tokens - 1 });
            let rows = rows.filter(|rows| step == 0 && rows.kept.len() < rows.tokens);
            offer(self.inner, At { step, rows, ..at }, tensor.part(&ranges))?;
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests;
