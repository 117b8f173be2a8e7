//! What a wrong formula may read: what its component read in this step.

use crate::error::{Error, Result};
use crate::model::{Component, Graph, ModelConfig, Op};
use crate::parameters::Parameters;
use std::collections::HashMap;

/// Values of points, by name.
pub(super) type Values = HashMap<String, Vec<f32>>;

/// The parameters that wrong formulas start from.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// As the engine holds them.
    pub held: &'a Parameters,
    /// As the checkpoint has them: what a wrong quantizer would have read.
    pub source: &'a Parameters,
    /// The model's configuration.
    pub config: &'a ModelConfig,
}

/// One call of a component.
#[derive(Debug)]
pub struct Call<'a> {
    pub(super) graph: &'a Graph,
    pub(super) component: &'a Component,
    /// Number of tokens of the step.
    pub(super) tokens: usize,
    /// Number of tokens before it.
    pub(super) past: usize,
    /// What the engine computed.
    pub(super) output: &'a [f32],
    pub(super) now: &'a Values,
    pub(super) before: &'a Values,
    pub(super) weights: Weights<'a>,
}

impl<'a> Call<'a> {
    fn missing(&self, what: &str) -> Error {
        Error::new(format!("the fault at `{}` lacks {what}", self.component.point))
    }

    /// The input number `i`.
    pub(super) fn input(&self, i: usize) -> Result<&'a [f32]> {
        let value = self.component.inputs.get(i).and_then(|point| self.now.get(point));
        value.map(Vec::as_slice).ok_or_else(|| self.missing(&format!("input {i}")))
    }

    /// What the step before left; zeros, `len` of them, in the prefill.
    pub(super) fn carried(&self, len: usize) -> Vec<f32> {
        let point = self.component.carried.first();
        let value = point.and_then(|point| self.before.get(point));
        value.cloned().unwrap_or_else(|| vec![0.0; len])
    }

    /// The parameter number `i`, as the engine holds it.
    pub(super) fn param(&self, i: usize) -> Result<Vec<f32>> {
        self.read(self.weights.held, i)
    }

    /// The parameter number `i`, as the checkpoint has it.
    pub(super) fn original(&self, i: usize) -> Result<Vec<f32>> {
        self.read(self.weights.source, i)
    }

    fn read(&self, from: &Parameters, i: usize) -> Result<Vec<f32>> {
        let name = self.component.params.get(i);
        let view = name.and_then(|name| from.view(name)).ok_or_else(|| self.missing("a parameter"))?;
        Ok(view.to_f64().into_iter().map(|v| v as f32).collect())
    }

    /// A constant of the component.
    pub(super) fn number(&self, name: &str) -> Result<f32> {
        self.number_of(self.component, name).map(|v| v as f32)
    }

    fn number_of(&self, component: &Component, name: &str) -> Result<f64> {
        let value = component.attrs.get(name).ok_or_else(|| self.missing(name))?;
        match value.as_str() {
            Some(key) => self.graph.description().number(self.weights.config, key),
            None => value.as_f64().ok_or_else(|| self.missing(name)),
        }
    }

    /// The base of the rotary frequencies, which the tables' components know.
    pub(super) fn theta(&self) -> Result<f64> {
        let table = self.graph.components().iter().find(|c| c.op == Op::RopeTable);
        self.number_of(table.ok_or_else(|| self.missing("rotary tables"))?, "theta")
    }

    /// A word among the constants.
    pub(super) fn word(&self, name: &str) -> &'a str {
        self.component.attrs.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// The size that the description calls `name`.
    pub(super) fn dim(&self, name: &str) -> usize {
        self.graph.dim(name)
    }

    /// Number of tokens seen, this step's included.
    pub(super) fn seen(&self) -> usize {
        self.past + self.tokens
    }
}
