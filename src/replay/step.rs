//! What a component of one step reads: its inputs as the candidate had them, its parameters, its constants.

use super::edits::{self, Edits};
use super::precision::Precision;
use crate::error::{Error, Result};
use crate::model::{Component, Graph, ModelConfig};
use crate::parameters::Parameters;
use crate::prompt::Prompt;
use crate::tensor::{DType, TensorView};
use crate::trace::Trace;

/// One step of a prompt in the candidate's trace.
// `step` is the number that traces call so.
#[allow(clippy::struct_field_names)]
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub graph: &'a Graph,
    pub config: &'a ModelConfig,
    pub parameters: &'a Parameters,
    /// What the parameters were quantized from, where that is known.
    pub source: Option<&'a Parameters>,
    pub trace: &'a Trace,
    pub prompt: &'a Prompt,
    pub step: u32,
    pub component: &'a Component,
    /// True when the parameters are stored as codes of a few bits.
    pub quantized: bool,
    /// How many bits the inputs of products are rounded to.
    pub activation_bits: Option<u32>,
    /// What is read otherwise than it is; nothing, but for the hypotheses of a diagnosis.
    pub edits: &'a Edits,
}

/// Why a component could not be replayed.
pub(crate) enum Stop {
    /// Something of it was not captured, in words.
    Missing(String),
    /// The weights or the description do not fit.
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Bad(error)
    }
}

/// What a replay comes to, if it comes to an end.
pub(crate) type Replayed<T> = std::result::Result<T, Stop>;

/// Query tokens of a step, as ascending positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows<'a> {
    /// All of so many.
    All(usize),
    /// These.
    Some(&'a [usize]),
}

impl Rows<'_> {
    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Self::All(n) => n,
            Self::Some(rows) => rows.len(),
        }
    }

    /// The token of each row.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(move |i| self.token(i))
    }

    /// The token of row `i`.
    pub fn token(self, i: usize) -> usize {
        match self {
            Self::All(_) => i,
            Self::Some(rows) => rows[i],
        }
    }

    /// Which row is that of a token, if one is.
    pub fn place(self, token: usize) -> Option<usize> {
        match self {
            Self::All(n) => Some(token).filter(|token| *token < n),
            Self::Some(rows) => rows.binary_search(&token).ok(),
        }
    }
}

impl<'a> Step<'a> {
    /// Number of tokens of the step.
    pub fn tokens(&self) -> usize {
        if self.step == 0 { self.prompt.token_ids.len() } else { 1 }
    }

    /// Number of tokens before the step.
    pub fn past(&self) -> usize {
        if self.step == 0 { 0 } else { self.prompt.token_ids.len() + self.step as usize - 1 }
    }

    /// The ids of the step's tokens.
    pub fn ids(&self) -> &'a [u32] {
        match self.step.checked_sub(1) {
            None => &self.prompt.token_ids,
            Some(i) => self.prompt.step_token_ids.get(i as usize..=i as usize).unwrap_or_default(),
        }
    }

    /// The captured output.
    pub fn output(&self) -> Replayed<TensorView<'a>> {
        self.captured(self.step, &self.component.point)
    }

    /// What was captured at any point of the step.
    pub fn at(&self, point: &str) -> Replayed<TensorView<'a>> {
        self.captured(self.step, point)
    }

    fn captured(&self, step: u32, point: &str) -> Replayed<TensorView<'a>> {
        let entry = self.trace.find(&self.prompt.id, step, point);
        entry.map(|e| self.trace.view(e)).ok_or_else(|| Stop::Missing(format!("{point} was not captured")))
    }

    /// Refuses what was captured in another shape than the description gives it.
    pub fn fits(&self) -> Replayed<()> {
        let component = self.component;
        let before = self.step.checked_sub(1);
        let carried = component.carried.iter().filter_map(|point| Some((before?, point)));
        let now = component.inputs.iter().chain([&component.point]).map(|point| (self.step, point));
        for (step, point) in now.chain(carried) {
            // What was not captured is for the formula to miss.
            let (Some(entry), Some(known)) =
                (self.trace.find(&self.prompt.id, step, point), self.graph.get(point))
            else {
                continue;
            };
            let there = Step { step, ..*self };
            let (tokens, context) = (there.tokens(), there.past() + there.tokens());
            let wanted = self.graph.shape_of_rows(known, tokens, context, entry.rows.as_deref());
            if entry.shape != wanted {
                return Err(Stop::Missing(format!(
                    "{point} has another shape than the model gives it: expected {wanted:?}, got {:?}",
                    entry.shape
                )));
            }
        }
        Ok(())
    }

    /// The query tokens whose rows were captured at a point that has one for each, as positions in the step.
    pub fn rows(&self, point: &str) -> Rows<'a> {
        let entry = self.trace.find(&self.prompt.id, self.step, point);
        match entry.and_then(|entry| entry.rows.as_deref()) {
            Some(rows) => Rows::Some(rows),
            None => Rows::All(self.tokens()),
        }
    }

    /// Those of the component's output.
    pub fn output_rows(&self) -> Rows<'a> {
        self.rows(&self.component.point)
    }

    /// Those of its input number `i`.
    pub fn input_rows(&self, i: usize) -> Rows<'a> {
        self.component.inputs.get(i).map_or(Rows::All(self.tokens()), |point| self.rows(point))
    }

    /// The same step of another component, read as it is.
    pub fn of(&self, component: &'a Component) -> Self {
        Step { component, edits: &edits::NONE, ..*self }
    }

    /// The same step, read otherwise.
    pub fn edited<'b>(&self, edits: &'b Edits) -> Step<'b>
    where
        'a: 'b,
    {
        Step { edits, ..*self }
    }

    /// The captured input number `i`.
    pub fn input(&self, i: usize) -> Replayed<TensorView<'a>> {
        self.edits.input(i).map_or_else(|| self.captured_input(i), Ok)
    }

    fn captured_input(&self, i: usize) -> Replayed<TensorView<'a>> {
        let point = self.component.inputs.get(i);
        self.captured(
            self.step,
            point.ok_or_else(|| Stop::Missing(format!("the description has no input {i}")))?,
        )
    }

    /// What the step before left at the component's carried point; none in the prefill, which starts empty.
    pub fn carried(&self) -> Replayed<Option<TensorView<'a>>> {
        let Some(before) = self.step.checked_sub(1).filter(|_| !self.edits.is_fresh()) else {
            return Ok(None);
        };
        let point =
            self.component.carried.first().ok_or_else(|| Stop::Missing("nothing is carried".into()))?;
        self.captured(before, point).map(Some)
    }

    /// The parameter number `i`.
    pub fn parameter(&self, i: usize) -> Replayed<TensorView<'a>> {
        if let Some(edited) = self.edits.parameter(i) {
            return Ok(edited);
        }
        let name = self.component.params.get(i);
        let name = name.ok_or_else(|| Stop::Missing(format!("the description has no parameter {i}")))?;
        let name = self.edits.name(i).unwrap_or(name);
        self.parameters.view(name).ok_or_else(|| Stop::Missing(format!("the weights lack `{name}`")))
    }

    /// The parameter number `i` before it was quantized.
    pub fn original(&self, i: usize) -> Replayed<TensorView<'a>> {
        let name = self.component.params.get(i);
        let view = self.source.zip(name).and_then(|(source, name)| source.view(name));
        view.ok_or_else(|| Stop::Missing("what it was quantized from is not known".into()))
    }

    /// A constant of the component: a number, or the configuration's under the key that stands there.
    pub fn number(&self, name: &str) -> Result<f64> {
        if let Some(edited) = self.edits.number(name) {
            return Ok(edited);
        }
        match self.component.attrs.get(name) {
            Some(serde_json::Value::String(key)) => self.graph.description().number(self.config, key),
            Some(value) if value.is_number() => Ok(value.as_f64().unwrap_or(f64::NAN)),
            _ => Err(Error::new(format!(
                "the description gives `{}` no constant `{name}`",
                self.component.point
            ))),
        }
    }

    /// A word among the constants.
    pub fn word(&self, name: &str) -> &str {
        self.component.attrs.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// A word of the configuration, under the first of the keys among the constants that it has.
    pub fn choice(&self, name: &str) -> Option<&'a str> {
        let section = self.graph.description().config_section.as_str();
        let keys = self.component.attrs.get(name)?.as_array()?;
        keys.iter().find_map(|key| self.config.get(section, key.as_str()?)?.as_str())
    }

    /// The rounding of the component's arithmetic.
    pub fn precision(&self) -> Replayed<Precision> {
        let inputs = (0..self.component.inputs.len()).filter_map(|i| self.captured_input(i).ok());
        let inputs: Vec<DType> = inputs.map(|v| v.dtype).filter(|d| d.is_float()).collect();
        Ok(Precision::new(self.output()?.dtype, inputs.into_iter()))
    }

    /// The size that the description calls `name`.
    pub fn dim(&self, name: &str) -> usize {
        self.graph.dim(name)
    }
}
