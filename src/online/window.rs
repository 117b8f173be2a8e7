//! Which tensors of a running prompt are in memory, and who still needs them.

use crate::compare::is_layer;
use crate::model::{Graph, PointFilter};
use crate::replay::{reads_further, reads_of_prefill};
use std::collections::{HashMap, HashSet};

/// A tensor that has come, for its component to be replayed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub step: u32,
    /// Index in the graph; none for a point that the architecture does not know.
    pub component: Option<usize>,
    pub order: u64,
}

/// A step's component.
type Place = (u32, usize);

/// What a component reads, of what is captured.
#[derive(Debug, Default, Clone)]
struct Reads {
    /// In the same step.
    inputs: Vec<usize>,
    /// In the step before.
    carried: Vec<usize>,
    /// In the prefill.
    prefill: Vec<usize>,
    /// True where anything is done with the component.
    wanted: bool,
    layer: bool,
}

/// The tensors of one prompt.
#[derive(Debug)]
pub(super) struct Window {
    reads: Vec<Reads>,
    /// How many components read each, in the same step and in the next.
    readers: Vec<[usize; 2]>,
    /// Which are read by every later step, if they are of the prefill: those stay.
    of_prefill: Vec<bool>,
    steps: u32,
    arrived: HashSet<Place>,
    /// Order, and how many still need it.
    users: HashMap<u64, usize>,
    orders: HashMap<Place, u64>,
    waiting: Vec<Task>,
    /// The last layer's output of each step.
    layers: HashMap<u32, u64>,
}

impl Window {
    /// `replays` where every component is replayed; else only the layers' outputs are looked at.
    pub fn new(graph: &Graph, points: &PointFilter, replays: bool) -> Self {
        let components = graph.components();
        let mut reads = vec![Reads::default(); components.len()];
        let mut readers = vec![[0, 0]; components.len()];
        let mut of_prefill = vec![false; components.len()];
        for (i, component) in components.iter().enumerate() {
            let layer = is_layer(component);
            if !points.accepts(&component.point) || !(replays || layer) {
                continue;
            }
            let known = |read: &mut dyn Iterator<Item = &str>| {
                let captured = read.filter(|point| points.accepts(point));
                let mut known: Vec<usize> = captured.filter_map(|point| graph.position(point)).collect();
                known.sort_unstable();
                known.dedup();
                known
            };
            let inputs = known(
                &mut component.inputs.iter().map(String::as_str).chain(reads_further(graph, component)),
            );
            let carried = known(&mut component.carried.iter().map(String::as_str));
            let prefill = known(&mut reads_of_prefill(graph, component));
            prefill.iter().for_each(|p| of_prefill[*p] = true);
            inputs.iter().for_each(|p| readers[*p][0] += 1);
            carried.iter().for_each(|p| readers[*p][1] += 1);
            reads[i] = Reads { inputs, carried, prefill, wanted: true, layer };
        }
        Self {
            reads,
            readers,
            of_prefill,
            steps: 0,
            arrived: HashSet::new(),
            users: HashMap::new(),
            orders: HashMap::new(),
            waiting: Vec::new(),
            layers: HashMap::new(),
        }
    }

    /// A prompt with so many decode steps begins.
    pub fn start(&mut self, steps: u32) {
        self.steps = steps;
    }

    /// Forgets the prompt; returns what was still in memory.
    pub fn clear(&mut self) -> Vec<u64> {
        self.arrived.clear();
        self.orders.clear();
        self.waiting.clear();
        self.layers.clear();
        self.users.drain().map(|(order, _)| order).collect()
    }

    /// A tensor has come; it is to be compared.
    pub fn arrive(&mut self, step: u32, component: Option<usize>, order: u64) {
        let mut users = 1;
        if let Some(i) = component {
            let reads = &self.reads[i];
            let [now, next] = self.readers[i];
            users += now + if step < self.steps { next } else { 0 };
            // Its own task, and for a layer's output that of the layer after.
            users += usize::from(reads.wanted) + usize::from(reads.layer);
            users += usize::from(self.of_prefill[i] && step == 0);
            self.arrived.insert((step, i));
            self.orders.insert((step, i), order);
        }
        if component.is_none_or(|i| self.reads[i].wanted) {
            users += usize::from(component.is_none());
            self.waiting.push(Task { step, component, order });
        }
        self.users.insert(order, users);
    }

    /// These have been compared; returns what nobody needs any more.
    pub fn compared(&mut self, orders: &[u64]) -> Vec<u64> {
        orders.iter().filter_map(|order| self.used(*order)).collect()
    }

    /// The tasks whose inputs have come; at the `end` of the prompt all others too.
    pub fn ready(&mut self, end: bool) -> Vec<Task> {
        let waiting = std::mem::take(&mut self.waiting);
        let there = |task: &Task| {
            let Some(i) = task.component else { return true };
            let now = |input: &usize| self.arrived.contains(&(task.step, *input));
            let before = |input: &usize| task.step == 0 || self.arrived.contains(&(task.step - 1, *input));
            let first = |input: &usize| self.arrived.contains(&(0, *input));
            let reads = &self.reads[i];
            let there = reads.inputs.iter().all(now)
                && reads.carried.iter().all(before)
                && reads.prefill.iter().all(first);
            end || there
        };
        let (ready, waiting) = waiting.into_iter().partition(there);
        self.waiting = waiting;
        ready
    }

    /// A task is done; returns what nobody needs any more.
    pub fn done(&mut self, task: &Task) -> Vec<u64> {
        let mut places: Vec<Place> = Vec::new();
        if let Some(i) = task.component {
            let reads = &self.reads[i];
            places.extend(reads.inputs.iter().map(|input| (task.step, *input)));
            let before = task.step.checked_sub(1);
            places.extend(
                before.iter().flat_map(|step| reads.carried.iter().map(move |input| (*step, *input))),
            );
        }
        let read: Vec<u64> = places.iter().filter_map(|place| self.orders.get(place).copied()).collect();
        read.into_iter().chain([task.order]).filter_map(|order| self.used(order)).collect()
    }

    /// The output of the layer before this one, in the same step; this one is the last from now on.
    pub fn layer_before(&mut self, task: &Task) -> Option<u64> {
        self.layers.insert(task.step, task.order)
    }

    /// The layer after this output has been looked at; returns the output if nobody needs it any more.
    pub fn layer_checked(&mut self, order: u64) -> Option<u64> {
        self.used(order)
    }

    /// One of those who need a tensor is done with it.
    fn used(&mut self, order: u64) -> Option<u64> {
        let left = self.users.get_mut(&order)?;
        *left -= 1;
        (*left == 0).then(|| {
            self.users.remove(&order);
            order
        })
    }
}
