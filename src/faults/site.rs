//! Where a fault can be planted, by the architecture's description.

use super::Fault;
use crate::model::{Component, Graph};

/// The components of one layer that have a fault together; those outside the layers for `None`.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// The layer.
    pub layer: Option<usize>,
    /// The components, in order of execution.
    pub components: Vec<&'a Component>,
}

impl Site<'_> {
    /// True when `point` is one of them.
    pub fn has(&self, point: &str) -> bool {
        self.components.iter().any(|c| c.point == point)
    }
}

/// All sites of a fault in a model, in order of execution of their first components.
pub fn sites<'a>(fault: &Fault, graph: &'a Graph) -> Vec<Site<'a>> {
    let mut sites: Vec<Site<'a>> = Vec::new();
    let of_kind = graph.components().iter().filter(|c| fault.ops.contains(&c.op));
    for component in of_kind.filter(|c| (fault.lives)(graph, c)) {
        match sites.iter_mut().find(|site| site.layer == component.layer) {
            Some(site) => site.components.push(component),
            None => sites.push(Site { layer: component.layer, components: vec![component] }),
        }
    }
    sites
}
