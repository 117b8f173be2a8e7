//! The hook that puts faults into a running engine.

use super::call::{Call, Values, Weights};
use super::{Fault, Site};
use crate::error::{Error, Result};
use crate::hook::{At, Hook};
use crate::model::Graph;
use crate::tensor::{Tensor, Values as Numbers};
use std::collections::HashSet;

/// What a fault changed at one point of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The step.
    pub step: u32,
    /// The point.
    pub point: String,
    /// `‖wrong − right‖ / ‖right‖`; infinite where only one of both is finite.
    pub size: f64,
}

/// A fault, and where it is planted.
#[derive(Debug, Clone, Copy)]
pub struct Planted<'a> {
    /// The fault.
    pub fault: &'a Fault,
    /// Its components.
    pub site: &'a Site<'a>,
    /// 1 plants the wrong formula; s plants `right + s (wrong − right)`.
    pub size: f32,
}

/// Replaces the outputs of the faults' components by what their formulas give.
#[derive(Debug)]
pub struct Plant<'a> {
    planted: &'a [Planted<'a>],
    graph: &'a Graph,
    weights: Weights<'a>,
    prompt: usize,
    reads: HashSet<&'a str>,
    step: u32,
    now: Values,
    before: Values,
    changes: Vec<Change>,
}

impl<'a> Plant<'a> {
    /// Plants faults whose sites have no component in common, for a run whose prefill has `prompt` tokens.
    pub fn new(planted: &'a [Planted<'a>], graph: &'a Graph, weights: Weights<'a>, prompt: usize) -> Self {
        let components = planted.iter().flat_map(|planted| &planted.site.components);
        let reads = components.flat_map(|c| c.inputs.iter().chain(&c.carried));
        Self {
            planted,
            graph,
            weights,
            prompt,
            reads: reads.map(String::as_str).collect(),
            step: 0,
            now: Values::new(),
            before: Values::new(),
            changes: Vec::new(),
        }
    }

    /// Every point of every step at which a bit was changed.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The fault that the component at `point` has.
    fn at(&self, point: &str) -> Option<&'a Planted<'a>> {
        self.planted.iter().find(|planted| planted.site.has(point))
    }

    /// What the component at `point` gives with its fault.
    fn wrong(&self, planted: &Planted<'_>, at: At<'_>, right: &[f32]) -> Result<Vec<f32>> {
        let Planted { fault, size, .. } = *planted;
        let component = self.graph.component(at.point)?;
        let prefill = at.step == 0;
        let call = Call {
            graph: self.graph,
            component,
            tokens: if prefill { self.prompt } else { 1 },
            past: if prefill { 0 } else { self.prompt + at.step as usize - 1 },
            output: right,
            now: &self.now,
            before: &self.before,
            weights: self.weights,
        };
        let mut wrong = (fault.formula)(&call)?;
        if wrong.len() != right.len() {
            return Err(Error::new(format!("`{}` does not fit `{}`", fault.name, at.point))
                .expected(right.len(), wrong.len()));
        }
        if size != 1.0 {
            for (wrong, right) in wrong.iter_mut().zip(right).filter(|(w, r)| w.to_bits() != r.to_bits()) {
                *wrong = right + size * (*wrong - right);
            }
        }
        Ok(wrong)
    }

    fn note(&mut self, at: At<'_>, right: &[f32], wrong: &[f32]) {
        if right.iter().zip(wrong).all(|(r, w)| r.to_bits() == w.to_bits()) {
            return;
        }
        let (mut difference, mut norm) = (0.0f64, 0.0f64);
        // What is infinite on both sides, or NaN on both, was not changed by the fault.
        let same = |r: &f32, w: &f32| !r.is_finite() && (r == w || (r.is_nan() && w.is_nan()));
        for (r, w) in right.iter().zip(wrong).filter(|(r, w)| !same(r, w)) {
            difference += f64::from(w - r).powi(2);
            norm += f64::from(*r).powi(2);
        }
        let size = (difference / norm).sqrt();
        let size = if size.is_nan() { f64::INFINITY } else { size };
        self.changes.push(Change { step: at.step, point: at.point.to_owned(), size });
    }
}

impl Hook for Plant<'_> {
    fn wants(&self, point: &str) -> bool {
        self.reads.contains(point) || self.at(point).is_some()
    }

    fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        if at.step != self.step {
            self.step = at.step;
            self.before = std::mem::take(&mut self.now);
        }
        let mut values = match &tensor.values {
            Numbers::F32(values) => values.clone(),
            Numbers::U8(values) => values.iter().copied().map(f32::from).collect(),
        };
        if let Some(planted) = self.at(at.point).filter(|planted| planted.fault.when.covers(at.step)) {
            let wrong = self.wrong(planted, at, &values)?;
            self.note(at, &values, &wrong);
            values = wrong;
            match &mut tensor.values {
                Numbers::F32(out) => out.clone_from(&values),
                Numbers::U8(out) => *out = values.iter().map(|v| u8::from(*v > 0.5)).collect(),
            }
        }
        if self.reads.contains(at.point) {
            self.now.insert(at.point.to_owned(), values);
        }
        Ok(tensor)
    }
}
