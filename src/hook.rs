//! Hooks: what may look at, and change, the tensors of a running pass.

use crate::basis;
use crate::error::{Error, Result};
use crate::model::{Basis, Graph};
use crate::tensor::Tensor;
use crate::trace::Sink;

/// Where in a run a tensor is offered.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The point's name.
    pub point: &'a str,
    /// 0 is the prefill.
    pub step: u32,
    /// True when the engine goes on with other numbers, from which this tensor was computed.
    pub derived: bool,
}

/// Sees a pass's tensors in order of execution, and may replace them.
///
/// The meaning is that of PyTorch's forward hook: what [`Hook::call`] returns is what the engine
/// goes on with. Capturing, planting a fault and grafting a reference value are hooks; a forward
/// pass knows none of them.
pub trait Hook {
    /// True when the hook wants to be called for this point. Others cost nothing.
    fn wants(&self, point: &str) -> bool;

    /// Takes the tensor and returns the one to go on with: same shape, same dtype.
    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor>;
}

/// Several hooks: each sees what the one before it returned.
pub struct Chain<'a>(pub Vec<&'a mut dyn Hook>);

impl Hook for Chain<'_> {
    fn wants(&self, point: &str) -> bool {
        self.0.iter().any(|hook| hook.wants(point))
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
    rotated: Option<(&'a Graph, u64)>,
}

impl<'a> CaptureHook<'a> {
    /// Shows them to `sink`, whose current prompt the tensors belong to.
    pub fn new(sink: &'a mut dyn Sink, points: &'a crate::model::PointFilter) -> Self {
        Self { sink, points, rotated: None }
    }

    /// Says of the points that a rotation touches, by the architecture's description, that they are in
    /// the basis that `seed` makes.
    pub fn rotated(mut self, graph: &'a Graph, seed: Option<u64>) -> Self {
        self.rotated = seed.map(|seed| (graph, seed));
        self
    }

    fn basis(&self, point: &str) -> String {
        match self.rotated {
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

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        let bytes = tensor.to_le_bytes();
        let basis = self.basis(at.point);
        self.sink.push(at.step, at.point, tensor.dtype(), &tensor.shape, bytes, &basis, at.derived)?;
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
        let at = At { point: "a", step: 0, derived: false };
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
        let at = At { point: "a", step: 0, derived: false };
        assert!(offer(&mut Flatten, at, Tensor::new(&[2, 2], vec![0.0; 4])).is_err());
    }
}
