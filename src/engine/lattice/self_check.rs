//! Proof that the instrumented pass computes what the engine computes.

use super::adapter::Slot;
use crate::error::{Error, Result};
use crate::hook::{At, Hook};
use crate::model::{Component, Graph, Op};
use crate::tensor::{Tensor, Values};
use crate::trace::Evidence;
use lattice_compute::lora_hook::LoraHook;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Runs the instrumented engine, and the un-instrumented one beside it: on a thread of its own, unless the user has
/// allowed one thread only. Both may use all of the others too.
///
/// Neither knows of the other: both only read the weights. What went wrong with ours is told first, but not before
/// theirs has ended, since lattice cannot be stopped. Not for a thread of rayon's, which theirs may need.
pub fn beside<A, B: Send>(
    ours: impl FnOnce() -> Result<A>,
    theirs: impl FnOnce() -> Result<B> + Send,
) -> Result<(A, B)> {
    beside_on(rayon::current_num_threads(), ours, theirs)
}

fn beside_on<A, B: Send>(
    threads: usize,
    ours: impl FnOnce() -> Result<A>,
    theirs: impl FnOnce() -> Result<B> + Send,
) -> Result<(A, B)> {
    if threads < 2 {
        return Ok((ours()?, theirs()?));
    }
    std::thread::scope(|scope| {
        let theirs = std::thread::Builder::new()
            .name("un-instrumented".into())
            .spawn_scoped(scope, theirs)
            .map_err(|e| Error::new(format!("cannot start a thread: {e}")))?;
        let ours = ours();
        let theirs = theirs.join();
        let ours = ours?;
        Ok((ours, theirs.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?))
    })
}

/// A number's bits; those of every NaN are the same, since no standard says which NaN results.
fn bits(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

/// Counts the numbers that differ in any bit; NaN equals NaN.
pub fn evidence(what: &str, entry_point: &str, engine: &[f32], pass: &[f32]) -> Evidence {
    let pairs = engine.iter().zip(pass);
    let differing = pairs.filter(|(a, b)| bits(**a) != bits(**b)).count();
    Evidence {
        what: what.to_owned(),
        entry_point: entry_point.to_owned(),
        elements: engine.len() as u64,
        mismatches: (differing + engine.len().abs_diff(pass.len())) as u64,
        rel_l2: None,
    }
}

/// Compares generated tokens. The engine stops at `eos` and does not return it.
pub fn greedy_evidence(entry_point: &str, engine: &[u32], pass: &[u32], eos: u32) -> Evidence {
    let ended: Vec<u32> = pass.iter().copied().take_while(|id| *id != eos).collect();
    let differing = engine.iter().zip(&ended).filter(|(a, b)| a != b).count();
    Evidence {
        what: "greedy tokens after the last position".to_owned(),
        entry_point: entry_point.to_owned(),
        elements: engine.len().max(ended.len()).max(1) as u64,
        mismatches: (differing + engine.len().abs_diff(ended.len())) as u64,
        rel_l2: None,
    }
}

/// Hash of a tensor's bits, in order.
#[derive(Debug, Clone, Default)]
struct Bits {
    hasher: DefaultHasher,
    elements: u64,
}

impl Bits {
    fn add(&mut self, values: &[f32]) {
        for value in values {
            self.hasher.write_u32(bits(*value));
        }
        self.elements += values.len() as u64;
    }
}

/// Input of the linears of a layer, output before an adapter, and output, by layer and module.
type Sites = HashMap<(usize, String), [Bits; 3]>;

/// Sits in the un-instrumented engine behind every linear and remembers a hash of what it sees.
///
/// lattice offers each linear's input and output, row by row, to its adapter hook. This one lets an
/// adapter work where there is one, and changes nothing else; while it is not recording it does not even
/// look.
#[derive(Debug, Clone, Default)]
pub struct LinearTap {
    adapter: Slot,
    recording: Arc<AtomicBool>,
    sites: Arc<Mutex<Sites>>,
}

impl LinearTap {
    /// A tap that sees what `adapter` reads and gives.
    pub(super) fn behind(adapter: Slot) -> Self {
        Self { adapter, ..Self::default() }
    }

    /// Runs `pass` and returns what it gave with what the linears saw.
    pub fn record<T>(&self, pass: impl FnOnce() -> T) -> (T, TappedLinears) {
        self.lock().clear();
        self.recording.store(true, Ordering::SeqCst);
        let result = pass();
        self.recording.store(false, Ordering::SeqCst);
        (result, TappedLinears(std::mem::take(&mut self.lock())))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sites> {
        self.sites.lock().expect("no panic while the lock is held")
    }
}

impl LoraHook for LinearTap {
    fn apply(&self, layer: usize, module: &str, x: &[f32], output: &mut [f32]) {
        if !self.recording.load(Ordering::SeqCst) {
            return self.adapter.apply(layer, module, x, output);
        }
        let mut sites = self.lock();
        let [input, base, result] = sites.entry((layer, module.to_owned())).or_default();
        input.add(x);
        base.add(output);
        self.adapter.apply(layer, module, x, output);
        result.add(output);
    }

    fn is_active(&self, layer: usize, module: &str) -> bool {
        self.recording.load(Ordering::SeqCst) || self.adapter.is_active(layer, module)
    }
}

/// What the engine's linears saw in one pass.
#[derive(Debug)]
pub struct TappedLinears(Sites);

/// A linear that the tap and the pass both see.
#[derive(Debug)]
struct Site {
    layer: usize,
    module: String,
    /// Input, output before an adapter, output.
    points: [String; 3],
}

impl Site {
    /// That of a linear, with an adapter on it or without.
    fn of(graph: &Graph, component: &Component) -> Option<Self> {
        let base = match component.op {
            Op::Linear if !component.is_adapter_part() => component,
            Op::AddScaled => graph.get(&component.inputs[0])?,
            _ => return None,
        };
        let module = component.local.rsplit('.').next()?.to_owned();
        let points = [&base.inputs[0], &base.point, &component.point].map(Clone::clone);
        Some(Self { layer: component.layer?, module, points })
    }
}

/// Hashes the points that are inputs or outputs of a layer's linears, as it sees them.
#[derive(Debug)]
pub struct PointTap {
    wanted: HashSet<String>,
    seen: HashMap<String, Bits>,
    linears: Vec<Site>,
}

impl PointTap {
    /// Wants the linears of `graph`'s layers.
    pub fn new(graph: &Graph) -> Self {
        let linears: Vec<_> = graph.components().iter().filter_map(|c| Site::of(graph, c)).collect();
        let wanted = linears.iter().flat_map(|site| site.points.clone()).collect();
        Self { wanted, seen: HashMap::new(), linears }
    }

    /// Compares what the pass showed with what the engine's linears saw.
    pub fn compare(&self, engine: &TappedLinears, entry_point: &str) -> Evidence {
        let (mut elements, mut mismatches) = (0, 0);
        for Site { layer, module, points } in &self.linears {
            let engine = engine.0.get(&(*layer, module.clone()));
            for (side, point) in points.iter().enumerate() {
                // Without an adapter the second is the third.
                if side == 1 && points[1] == points[2] {
                    continue;
                }
                let (Some(engine), Some(pass)) = (engine.map(|sides| &sides[side]), self.seen.get(point))
                else {
                    // A linear that only one side has is as different as can be.
                    mismatches += 1;
                    continue;
                };
                elements += engine.elements;
                if engine.hasher.finish() != pass.hasher.finish() || engine.elements != pass.elements {
                    mismatches += engine.elements.max(1);
                }
            }
        }
        let adapted = self.linears.iter().filter(|site| site.points[1] != site.points[2]).count();
        let also = if adapted > 0 {
            format!(", {adapted} of them before and after their adapter,")
        } else {
            String::new()
        };
        Evidence {
            what: format!(
                "inputs and outputs of {} linears{also} inside the running engine, all positions, by hash",
                self.linears.len()
            ),
            entry_point: entry_point.to_owned(),
            elements,
            mismatches,
            rel_l2: None,
        }
    }
}

impl Hook for PointTap {
    fn wants(&self, point: &str) -> bool {
        self.wanted.contains(point)
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        if let Values::F32(values) = &tensor.values {
            self.seen.entry(at.point.to_owned()).or_default().add(values);
        }
        Ok(tensor)
    }
}

/// Remembers input and output of the `GatedDeltaNet` layers over all steps.
#[derive(Debug)]
pub struct GdnTap {
    /// Layer and side of each point: 0 the input, 1 the output.
    points: HashMap<String, (usize, usize)>,
    seen: HashMap<usize, [Vec<f32>; 2]>,
}

impl GdnTap {
    /// Wants the layers of `graph` that hold a delta rule.
    pub fn new(graph: &Graph) -> Self {
        let mut points = HashMap::new();
        for rule in graph.components().iter().filter(|c| c.op == Op::DeltaRule) {
            let Some(layer) = rule.layer else { continue };
            points.insert(format!("model.layers.{layer}.input_layernorm"), (layer, 0));
            points.insert(format!("model.layers.{layer}.linear_attn.out_proj"), (layer, 1));
        }
        Self { points, seen: HashMap::new() }
    }

    /// What a layer read and gave, all positions.
    pub fn layer(&self, i: usize) -> Option<(&[f32], &[f32])> {
        self.seen.get(&i).map(|[input, output]| (input.as_slice(), output.as_slice()))
    }
}

impl Hook for GdnTap {
    fn wants(&self, point: &str) -> bool {
        self.points.contains_key(point)
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        if let (Some((layer, side)), Values::F32(values)) = (self.points.get(at.point), &tensor.values) {
            self.seen.entry(*layer).or_default()[*side].extend_from_slice(values);
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_zero_is_not_bit_equal_to_a_positive_one() {
        assert_eq!(evidence("", "", &[0.0, 1.0], &[-0.0, 1.0]).mismatches, 1);
        assert_eq!(evidence("", "", &[f32::NAN], &[-f32::NAN]).mismatches, 0);
        assert_eq!(evidence("", "", &[1.0, 2.0], &[1.0]).mismatches, 1);
    }

    #[test]
    fn an_error_of_ours_is_told_before_one_of_theirs() {
        for threads in [1, 2] {
            let error = |what: &str| Error::new(what);
            assert_eq!(beside_on(threads, || Ok(1), || Ok(2)).unwrap(), (1, 2));
            let both = beside_on(threads, || Err::<(), _>(error("ours")), || Err::<(), _>(error("theirs")));
            assert!(both.unwrap_err().to_string().contains("ours"));
            let theirs = beside_on(threads, || Ok(1), || Err::<(), _>(error("theirs")));
            assert!(theirs.unwrap_err().to_string().contains("theirs"));
            let broken =
                beside_on(threads, || Err::<(), _>(error("ours")), || -> Result<()> { panic!("theirs") });
            assert!(broken.unwrap_err().to_string().contains("ours"));
        }
    }

    #[test]
    fn the_two_run_at_the_same_time_unless_one_thread_is_allowed() {
        let here = std::thread::current().id();
        for (threads, same) in [(1, true), (2, false)] {
            let at = || Ok(std::thread::current().id());
            let (ours, theirs) = beside_on(threads, at, at).unwrap();
            assert_eq!((ours == here, theirs == here), (true, same));
        }
        // Each waits for the other.
        let barrier = std::sync::Barrier::new(2);
        beside_on(2, || Ok(barrier.wait()), || Ok(barrier.wait())).unwrap();
    }

    #[test]
    fn a_tap_records_only_while_asked_to_and_changes_nothing() {
        let tap = LinearTap::default();
        let mut output = [2.0];
        tap.apply(0, "q_proj", &[1.0], &mut output);
        let ((), seen) = tap.record(|| tap.apply(0, "k_proj", &[1.0], &mut [3.0]));
        assert_eq!(output, [2.0]);
        assert!(seen.0.contains_key(&(0, "k_proj".to_owned())));
        assert_eq!(seen.0.len(), 1);
    }
}
