//! Names that need no map: the points' own, those of weight files and of Transformers' modules, and the few
//! of lattice's dumps.

use crate::error::nearest_point;
use crate::model::{Component, Graph};
use std::collections::HashMap;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meant {
    pub point: String,
    /// Only the first half of the last axis is the point's: Transformers' rotary tables have each value twice.
    pub first_half: bool,
    /// Other names of the same point go before this one.
    pub second_hand: bool,
}

/// All names that a model's points are known by.
#[derive(Debug)]
pub(super) struct Names {
    known: HashMap<String, Meant>,
    /// Those that a person may have meant, in the order of execution.
    offered: Vec<String>,
    prefixes: Vec<String>,
}

impl Names {
    pub fn new(graph: &Graph) -> Self {
        let mut known = HashMap::new();
        // What a module reads is what another point is: the first of its component's inputs; of a layer, that of
        // the layer's first component.
        for component in graph.components() {
            let first = match component.layer.filter(|_| component.local.is_empty()) {
                Some(i) => graph.components().iter().find(|c| c.layer == Some(i)),
                None => Some(component),
            };
            if let Some(input) = first.and_then(|c| c.inputs.first()) {
                let meant = Meant { point: input.clone(), first_half: false, second_hand: true };
                known.insert(format!("{}.input", component.point), meant);
            }
        }
        for component in graph.components() {
            if let Some((name, first_half)) = shown(graph, component) {
                let second_hand = name.rsplit('.').next() == Some("input");
                known.insert(name, Meant { point: component.point.clone(), first_half, second_hand });
            }
        }
        let own = graph.components().iter().map(|c| c.point.clone());
        let layers =
            (0..graph.layer_types().len()).map(|i| (format!("layer_{i}"), format!("model.layers.{i}")));
        let usual = [("embed", "model.embed_tokens"), ("final_norm", "model.norm"), ("logits", "lm_head")];
        let usual = usual.map(|(name, point)| (name.to_owned(), point.to_owned()));
        let mut offered = Vec::new();
        // A name that says what it is goes before what was found out about modules.
        for (name, point) in own.map(|p| (p.clone(), p)).chain(layers).chain(usual) {
            if graph.get(&point).is_some() {
                offered.push(name.clone());
                known.insert(name, Meant { point, first_half: false, second_hand: false });
            }
        }
        Self { known, offered, prefixes: graph.description().weight_prefixes.clone() }
    }

    /// The known name that is nearest to one that is not.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest_point(name, self.offered.iter().map(String::as_str))
    }

    /// What a name stands for; none where nothing says it.
    pub fn get(&self, name: &str) -> Option<&Meant> {
        let direct = |name: &str| self.known.get(name);
        let prefixed = |name: &str| {
            let local = self.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix.as_str()));
            local.and_then(|local| direct(&format!("model.{local}")))
        };
        let short = |name: &str| direct(&format!("model.{name}"));
        let any = |name: &str| direct(name).or_else(|| prefixed(name)).or_else(|| short(name));
        any(name).or_else(|| any(name.strip_suffix(".output")?))
    }
}

/// How Transformers' debugger calls a component's tensor, and whether only half of it counts; none where it
/// does not show it, or in another order of axes.
fn shown(graph: &Graph, component: &Component) -> Option<(String, bool)> {
    let layer = component.layer;
    let named = |text: &str| layer.map_or_else(|| text.to_owned(), |i| text.replace("{i}", &i.to_string()));
    let template = graph
        .description()
        .templates()
        .iter()
        .find(|t| named(&t.point) == component.point && t.op == component.op)?;
    let place = template.torch.as_ref().filter(|place| place.call.is_none())?;
    let first_half = match place.layout.as_deref() {
        // `token_rows` joins tokens and heads, which neighbouring axes may do by themselves.
        None | Some("token_rows") => false,
        Some("first_half") => true,
        Some(_) => return None,
    };
    let module = match (layer, place.module.as_str()) {
        (Some(i), "") => format!("model.layers.{i}"),
        (Some(i), module) => format!("model.layers.{i}.{module}"),
        (None, module) => module.to_owned(),
    };
    let name = if place.take == "output" { module } else { format!("{module}.{}", place.take) };
    Some((name, first_half))
}
