//! The logits of a trace.

use crate::error::{Error, Result};
use crate::model::Graph;
use crate::parameters::Parameters;
use crate::prompt::Prompt;
use crate::tensor::TensorView;
use crate::trace::Trace;
use rayon::prelude::*;

/// The logits before each token of a run: as the engine left them, or made anew of what it left.
///
/// A vocabulary of a quarter of a million tokens makes 1 MB of each position. A trace may hold the input of
/// the head instead, which is hundreds of times smaller: the logits are then the products with the head's
/// weights, summed in f64 and rounded to f32 once. They differ from those that an engine computes in f32 by
/// the rounding of its sums, less than `γ_n Σ|x||w|` each (Higham, *Accuracy and Stability of Numerical
/// Algorithms*, ch. 3), and a KL divergence is of second order in that. This form is for a reference: what a
/// candidate's own head does would not be seen.
#[derive(Debug)]
pub struct Logits<'a> {
    trace: &'a Trace,
    /// The point of the logits, and that of the head's input.
    points: [&'a str; 2],
    /// How long a row of what is kept must be.
    width: usize,
    /// The head's weights, where the trace has its input alone.
    head: Option<TensorView<'a>>,
}

impl<'a> Logits<'a> {
    /// Those of a trace of this architecture; `parameters` are the weights that it ran on.
    pub fn new(trace: &'a Trace, graph: &'a Graph, parameters: Option<&'a Parameters>) -> Result<Self> {
        let head = graph.components().last().expect("an architecture has components");
        let points = [head.point.as_str(), head.inputs[0].as_str()];
        let has = |point: &str| trace.entries().iter().any(|e| e.point == point);
        let weights = || head.params.first().and_then(|param| parameters?.view(param));
        let head = match (has(points[0]), has(points[1])) {
            (true, _) => None,
            (false, true) => Some(weights().ok_or_else(|| {
                Error::new("the trace holds no logits, and the weights that would make them are not known")
                    .at(trace.path())
            })?),
            (false, false) => {
                return Err(Error::new("the trace holds no logits")
                    .expected(format!("`{}` or `{}`", points[0], points[1]), "neither")
                    .at(trace.path())
                    .hint("capture it without --points, or with one that accepts these"));
            }
        };
        let width = match &head {
            Some(weights) => weights.shape.last().copied().unwrap_or(0),
            None => graph.dim("vocab"),
        };
        Ok(Self { trace, points, width, head })
    }

    /// The logits `[vocab]` before token `position` of what follows the prompt: position 0 after the prompt.
    pub fn at(&self, prompt: &Prompt, position: usize) -> Result<Vec<f32>> {
        let (row, width) = (self.row(prompt, position)?, self.width);
        let Some(head) = &self.head else { return Ok(row.into_iter().map(|v| v as f32).collect()) };
        Ok((0..head.len() / width)
            .into_par_iter()
            .map_init(
                || vec![0.0; width],
                |weights, token| {
                    head.read_into(token * width, weights);
                    weights.iter().zip(&row).map(|(w, x)| w * x).sum::<f64>() as f32
                },
            )
            .collect())
    }

    /// Refuses what [`Logits::at`] cannot make a distribution of. A logit of −∞ is a token that cannot come.
    pub fn check(&self, prompt: &Prompt, position: usize) -> Result<()> {
        let bad = |v: &f64| v.is_nan() || *v == f64::INFINITY || (self.head.is_some() && v.is_infinite());
        let row = self.row(prompt, position)?;
        match row.iter().position(bad) {
            Some(i) => Err(Error::new(format!("the dump of prompt `{}` holds what is no number", prompt.id))
                .expected(
                    "finite numbers",
                    format!("{} at index {i} of `{}`, step {position}", row[i], self.point()),
                )
                .at(self.trace.path())
                .hint("`layerdiff inspect` shows the trace; remove it to have it made again")),
            None => Ok(()),
        }
    }

    fn point(&self) -> &'a str {
        self.points[usize::from(self.head.is_some())]
    }

    /// The last row of what the trace keeps of a step: that after the last token of the pass.
    fn row(&self, prompt: &Prompt, position: usize) -> Result<Vec<f64>> {
        let point = self.point();
        let entry = self.trace.find(&prompt.id, position as u32, point).ok_or_else(|| {
            Error::new(format!("the trace lacks `{point}` of prompt `{}`, step {position}", prompt.id))
                .at(self.trace.path())
        })?;
        let width = entry.shape.last().copied().unwrap_or(0);
        if width != self.width {
            let what = if self.head.is_some() { "another width" } else { "another vocabulary" };
            return Err(Error::new(format!("the dump of prompt `{}` has {what}", prompt.id))
                .expected(format!("{} numbers a position", self.width), width)
                .at(self.trace.path())
                .hint("both sides must run the same model with the same tokenizer"));
        }
        let view = self.trace.view(entry);
        let mut row = vec![0.0; width];
        view.read_into(view.len() - width, &mut row);
        Ok(row)
    }
}
