//! Hooks: what may look at, and change, the tensors of a running pass.

use crate::basis;
use crate::error::{Error, Result};
use crate::model::{Basis, Graph};
use crate::tensor::Tensor;
use crate::trace::{Incoming, Sink};
use std::collections::BTreeSet;

/// Where in a run a tensor is offered.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The point's name.
    pub point: &'a str,
    /// 0 is the prefill.
    pub step: u32,
    /// True when the engine goes on with other numbers, from which this tensor was computed.
    pub derived: bool,
    /// Which rows the tensor has, where it has not all.
    pub rows: Option<Rows<'a>>,
}

/// Some rows of a tensor that has one for each query token.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The query tokens of the rows, as positions in the step, ascending.
    pub kept: &'a [usize],
    /// How many the step has.
    pub tokens: usize,
}

/// Sees a pass's tensors in order of execution, and may replace them.
///
/// The meaning is that of PyTorch's forward hook: what [`Hook::call`] returns is what the engine
/// goes on with. Capturing, planting a fault and grafting a reference value are hooks; a forward
/// pass knows none of them.
pub trait Hook {
    /// True when the hook wants to be called for this point. Others cost nothing.
    fn wants(&self, point: &str) -> bool;

    /// Of a point with a row over the `context` for each of the step's `tokens`, which rows it wants, as ascending
    /// positions; none for all of them. It may be given more: [`At::rows`] says which.
    fn rows(&self, _at: At<'_>, _tokens: usize, _context: usize) -> Option<Vec<usize>> {
        None
    }

    /// Takes the tensor and returns the one to go on with: same shape, same dtype.
    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor>;
}

/// Several hooks: each sees what the one before it returned.
pub struct Chain<'a>(pub Vec<&'a mut dyn Hook>);

impl Hook for Chain<'_> {
    fn wants(&self, point: &str) -> bool {
        self.0.iter().any(|hook| hook.wants(point))
    }

    fn rows(&self, at: At<'_>, tokens: usize, context: usize) -> Option<Vec<usize>> {
        let hooks = self.0.iter().filter(|hook| hook.wants(at.point));
        let wanted: Option<BTreeSet<usize>> =
            hooks.map(|hook| hook.rows(at, tokens, context)).try_fold(BTreeSet::new(), |mut all, rows| {
                all.extend(rows?);
                Some(all)
            });
        wanted.map(|rows| rows.into_iter().collect())
    }

    fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        for hook in self.0.iter_mut().filter(|hook| hook.wants(at.point)) {
            tensor = hook.call(at, tensor)?;
        }
        Ok(tensor)
    }
}

/// Wants nothing: the un-instrumented pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {
    fn wants(&self, _point: &str) -> bool {
        false
    }

    fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        Ok(tensor)
    }
}

/// Shows the points that a filter chooses to a sink, such as a trace's writer.
pub struct CaptureHook<'a> {
    sink: &'a mut dyn Sink,
    points: &'a crate::model::PointFilter,
    graph: Option<&'a Graph>,
    seed: Option<u64>,
}

impl<'a> CaptureHook<'a> {
    /// Shows them to `sink`, whose current prompt the tensors belong to.
    pub fn new(sink: &'a mut dyn Sink, points: &'a crate::model::PointFilter) -> Self {
        Self { sink, points, graph: None, seed: None }
    }

    /// Names the architecture. By its description the points that have a row for each query token are kept in
    /// part, as the filter says, and those that a rotation touches are in the basis that `seed` makes.
    pub fn of(mut self, graph: &'a Graph, seed: Option<u64>) -> Self {
        (self.graph, self.seed) = (Some(graph), seed);
        self
    }

    /// The rows of a point that are kept, of so many tokens and so much context, and the axis that counts them.
    fn kept(&self, point: &str, tokens: usize, context: usize) -> Option<(usize, Vec<usize>)> {
        let graph = self.graph?;
        let axis = graph.row_axis(graph.get(point)?)?;
        Some((axis, self.points.scores().rows(tokens, context)?))
    }

    /// What is written of a tensor that has all rows, or more of them than are kept.
    fn part(&self, at: At<'_>, tensor: &Tensor) -> Option<(Tensor, Vec<usize>)> {
        let graph = self.graph?;
        let component = graph.get(at.point)?;
        let axis = graph.row_axis(component)?;
        let context = graph.axes(component).iter().position(|name| name == "context")?;
        let tokens = at.rows.map_or(tensor.shape[axis], |rows| rows.tokens);
        let (axis, kept) = self.kept(at.point, tokens, tensor.shape[context])?;
        let places: Vec<usize> = match at.rows {
            None => kept.clone(),
            Some(rows) => kept.iter().filter_map(|row| rows.kept.binary_search(row).ok()).collect(),
        };
        Some((tensor.kept(axis, &places), kept))
    }

    fn basis(&self, point: &str) -> String {
        match self.graph.zip(self.seed) {
            Some((graph, seed)) if graph.get(point).is_some_and(|c| c.basis != Basis::Original) => {
                basis::name(seed)
            }
            _ => basis::ORIGINAL.to_owned(),
        }
    }
}

impl Hook for CaptureHook<'_> {
    fn wants(&self, point: &str) -> bool {
        self.points.accepts(point)
    }

    fn rows(&self, at: At<'_>, tokens: usize, context: usize) -> Option<Vec<usize>> {
        self.kept(at.point, tokens, context).map(|(_, rows)| rows)
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        let part = self.part(at, &tensor);
        let (shown, rows) = part.as_ref().map_or((&tensor, None), |(part, rows)| (part, Some(rows.clone())));
        let At { point, step, derived, .. } = at;
        let (shape, dtype, basis) = (&shown.shape, shown.dtype(), &self.basis(point));
        self.sink.push(Incoming { step, point, dtype, shape, rows, basis, derived }, shown.to_le_bytes())?;
        Ok(tensor)
    }
}

/// Offers `tensor` to `hook` and checks that what comes back can take its place.
pub fn offer(hook: &mut dyn Hook, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
    let (shape, dtype) = (tensor.shape.clone(), tensor.dtype());
    let returned = hook.call(at, tensor)?;
    if returned.shape != shape || returned.dtype() != dtype {
        return Err(Error::new(format!("a hook returned an unfit tensor for `{}`", at.point))
            .expected(format!("{dtype} {shape:?}"), format!("{} {:?}", returned.dtype(), returned.shape)));
    }
    Ok(returned)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Add(f32);

    impl Hook for Add {
        fn wants(&self, point: &str) -> bool {
            point == "a"
        }

        fn call(&mut self, _at: At<'_>, tensor: Tensor) -> Result<Tensor> {
            let shape = tensor.shape.clone();
            Ok(Tensor::new(&shape, tensor.into_f32()?.iter().map(|v| v + self.0).collect()))
        }
    }

    #[test]
    fn each_hook_of_a_chain_sees_what_the_one_before_returned() {
        let (mut one, mut two) = (Add(1.0), Add(2.0));
        let mut chain = Chain(vec![&mut one, &mut two]);
        let at = At { point: "a", step: 0, derived: false, rows: None };
        assert_eq!(chain.call(at, Tensor::new(&[1], vec![0.0])).unwrap().into_f32().unwrap(), [3.0]);
    }

    #[test]
    fn a_hook_that_changes_the_shape_is_refused() {
        struct Flatten;
        impl Hook for Flatten {
            fn wants(&self, _: &str) -> bool {
                true
            }
            fn call(&mut self, _: At<'_>, tensor: Tensor) -> Result<Tensor> {
                Ok(Tensor::new(&[4], tensor.into_f32()?))
            }
        }
        let at = At { point: "a", step: 0, derived: false, rows: None };
        assert!(offer(&mut Flatten, at, Tensor::new(&[2, 2], vec![0.0; 4])).is_err());
    }
}
