//! An engine whose tensors are changed on their way.

use layerdiff::engine::Engine;
use layerdiff::error::Result;
use layerdiff::hook::{At, Chain, Hook};
use layerdiff::model::PointFilter;
use layerdiff::tensor::Tensor;
use layerdiff::trace::{Evidence, Provenance};

/// What becomes of a tensor in the n-th run, from 0 on, counting each prompt.
pub type Change<'a> = Box<dyn FnMut(At<'_>, usize, &mut Tensor) + 'a>;

/// An engine that computes something else at some points.
pub struct Changed<'a> {
    engine: &'a mut dyn Engine,
    plant: Plant<'a>,
}

struct Plant<'a> {
    points: PointFilter,
    runs: usize,
    change: Change<'a>,
}

impl<'a> Changed<'a> {
    /// `engine` with `change` at the points that the glob accepts.
    pub fn new(
        engine: &'a mut dyn Engine,
        points: &str,
        change: impl FnMut(At<'_>, usize, &mut Tensor) + 'a,
    ) -> Self {
        let points = PointFilter::new(points).unwrap();
        Self { engine, plant: Plant { points, runs: 0, change: Box::new(change) } }
    }
}

impl Hook for Plant<'_> {
    fn wants(&self, point: &str) -> bool {
        self.points.accepts(point)
    }

    fn call(&mut self, at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        (self.change)(at, self.runs, &mut tensor);
        Ok(tensor)
    }
}

impl Engine for Changed<'_> {
    fn provenance(&self) -> Provenance {
        self.engine.provenance()
    }

    fn max_tokens(&self) -> usize {
        self.engine.max_tokens()
    }

    fn rotation(&self) -> Option<u64> {
        self.engine.rotation()
    }

    fn generate(
        &self,
        tokens: &[u32],
        count: usize,
        choose: &mut dyn FnMut(&[f32], usize) -> u32,
        hook: &mut dyn Hook,
    ) -> Result<Vec<u32>> {
        self.engine.generate(tokens, count, choose, hook)
    }

    fn run_unchecked(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<()> {
        let done = self.engine.run_unchecked(tokens, forced, &mut Chain(vec![&mut self.plant, hook]));
        self.plant.runs += 1;
        done
    }

    /// Its self-check would notice, and is not what is tested.
    fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
        self.run_unchecked(tokens, forced, hook).map(|()| Vec::new())
    }
}
