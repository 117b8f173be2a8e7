//! Adapters: low-rank updates of linears, and what they add to a model's components.
//!
//! An adapted linear X becomes four components, in order of execution: `X.base_layer`, the linear as it
//! was; `X.lora_A`, which takes X's input down to the rank; `X.lora_B`, which takes that up to X's width;
//! and X itself, `base_layer + scale · lora_B`. The names are the module paths of PEFT.

use super::description::{Basis, Op};
use super::graph::{Component, Graph};
use crate::error::{Error, Result, nearest};
use crate::number::count;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The parts of an adapted linear: the linear as it was, the way down, the way up.
pub const ADAPTER_PARTS: [&str; 3] = ["base_layer", "lora_A", "lora_B"];

/// The curve that these parts belong to in the report: beside the linears themselves, three of them each,
/// no picture could show them.
const FAMILY: &str = "adapter";

/// The widest inner dimension that is believed.
const MAX_RANK: usize = 1 << 16;

/// What an adapter does to a model, without its weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// The adapted linears, by their points.
    pub modules: BTreeMap<String, LowRank>,
}

/// The low-rank update of one linear.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LowRank {
    /// The inner dimension.
    pub rank: usize,
    /// What the update is multiplied by before it is added.
    pub scale: f64,
}

impl Adapter {
    /// Checks what can be checked without the model.
    pub fn validate(&self) -> Result<()> {
        if self.modules.is_empty() {
            return Err(Error::new("the adapter changes no module"));
        }
        for (point, LowRank { rank, scale }) in &self.modules {
            if !(1..=MAX_RANK).contains(rank) {
                return Err(Error::new(format!("the adapter has an impossible rank at `{point}`"))
                    .expected(format!("1 to {MAX_RANK}"), rank));
            }
            if !scale.is_finite() {
                return Err(Error::new(format!("the adapter's scale at `{point}` is not finite"))
                    .expected("a finite number", scale));
            }
        }
        Ok(())
    }

    /// True when both describe the same update; an engine may keep a scale in 32 bits.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs();
        let mut pairs = self.modules.iter().zip(&other.modules);
        self.modules.len() == other.modules.len()
            && pairs.all(|((p, a), (q, b))| p == q && a.rank == b.rank && close(a.scale, b.scale))
    }

    /// Rank and scale in words.
    pub fn summary(&self) -> String {
        let mut kinds: Vec<String> =
            self.modules.values().map(|m| format!("rank {}, scale {}", m.rank, m.scale)).collect();
        kinds.sort();
        kinds.dedup();
        format!("{}, {}", count(self.modules.len(), "linear"), kinds.join("; "))
    }
}

impl Graph {
    /// The components of this model with `adapter` on it.
    pub fn adapted(&self, adapter: &Adapter) -> Result<Self> {
        adapter.validate()?;
        let mut graph = self.without_components();
        for component in self.components() {
            match adapter.modules.get(&component.point) {
                None => graph.push(component.clone())?,
                Some(_) if component.op != Op::Linear => {
                    return Err(Error::new(format!("the adapter changes `{}`", component.point))
                        .expected("linears only", format!("{:?}", component.op)));
                }
                Some(low_rank) => {
                    for part in graph.adapted_linear(component, *low_rank) {
                        graph.push(part)?;
                    }
                }
            }
        }
        match adapter.modules.keys().find(|point| self.get(point).is_none()) {
            Some(unknown) => Err(self.no_such_linear(unknown)),
            None => Ok(graph),
        }
    }

    /// The error for a module that an adapter changes and the model has not.
    pub fn no_such_linear(&self, name: &str) -> Error {
        let error = Error::new(format!("the adapter changes `{name}`, which this model has not"));
        let linears = self.components().iter().filter(|c| c.op == Op::Linear);
        match nearest(name, linears.map(|c| c.point.as_str())) {
            Some(near) => error
                .hint(format!("the adapter belongs to another model; the nearest linear here is `{near}`")),
            None => error.hint("the adapter belongs to another model"),
        }
    }

    fn adapted_linear(&mut self, linear: &Component, low_rank: LowRank) -> [Component; 4] {
        let [base, down, up] = ADAPTER_PARTS.map(|part| linear.part(part));
        let rank = self.named_size(format!("rank_{}", low_rank.rank), low_rank.rank);
        let mut rank_shape = linear.shape.clone();
        // A linear's output is [tokens, width].
        *rank_shape.last_mut().expect("a linear's output has a width") = rank;
        let weight = |point: &str| vec![format!("{point}.weight")];
        let down =
            Component { params: weight(&down.point), shape: rank_shape, basis: Basis::Original, ..down };
        let up = Component { params: weight(&up.point), inputs: vec![down.point.clone()], ..up };
        let sum = Component {
            op: Op::AddScaled,
            inputs: vec![base.point.clone(), up.point.clone()],
            params: Vec::new(),
            attrs: BTreeMap::from([("scale".to_owned(), low_rank.scale.into())]),
            ..linear.clone()
        };
        [base, down, up, sum]
    }
}

impl Component {
    /// The same component as a part of it.
    fn part(&self, part: &str) -> Self {
        let (point, local) = (format!("{}.{part}", self.point), format!("{}.{part}", self.local));
        let family = FAMILY.to_owned();
        Self { point, family, local: local.trim_start_matches('.').to_owned(), ..self.clone() }
    }

    /// True for a part of an adapted linear.
    pub fn is_adapter_part(&self) -> bool {
        self.point.rsplit_once('.').is_some_and(|(_, last)| ADAPTER_PARTS.contains(&last))
    }
}

#[cfg(test)]
mod tests;
