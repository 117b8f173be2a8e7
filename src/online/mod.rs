//! Comparison and replay while an engine runs: each tensor is held against the reference and replayed when it
//! comes, and let go of when no component needs it any more. What is found is what a stored trace would show.
//!
//! The tensors of about [`BATCH`] bytes are worked on together, in parallel, while the engine waits; beside them
//! those are in memory that a later component reads. A linear of a decode step waits for others, since its weight
//! is then read once for all of them.
//!
//! Errors by head and by value are of the worst tensors only, and which those are is known at the end. They are
//! counted for each tensor that is the worst so far; in the rare case that the final choice is another (a fault
//! is born there, or two are equal), the tensor is had by running the engine again, as for a diagnosis.

mod measured;
mod window;

pub use measured::{Base, Key, Measured, key};

use crate::align::{Partner, common_rows, meet};
use crate::basis::Gains;
use crate::compare::{head_axis, is_layer, metrics_of, refuse_repeated, sides};
use crate::error::Result;
use crate::metrics::{ErrorsByValue, Metrics, rel_l2_along};
use crate::model::{Graph, Op, PointFilter};
use crate::progress;
use crate::prompt::Prompt;
use crate::replay::{Held, Place, Replay, replay};
use crate::trace::{Entry, Incoming, SelfCheck, Sink, Trace, WriteOptions};
use measured::Compared;
use rayon::prelude::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use window::{Task, Window};

/// Bytes of tensors that are worked on together.
const BATCH: usize = 64 << 20;

/// What a run is held against, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// The architecture.
    pub graph: &'a Graph,
    /// The points that are captured.
    pub points: &'a PointFilter,
    /// The reference.
    pub reference: &'a Trace,
    /// Arm Q, where there is one: what the candidate is then judged by.
    pub arm: Option<&'a Trace>,
    /// The gains of the original checkpoint, for a run of a rotated one.
    pub gains: &'a Gains,
    /// The weights that the candidate computes with, which switch replay on.
    pub held: Option<&'a Held>,
}

/// Takes a run's tensors and keeps what is found out about them.
pub struct Online<'a> {
    against: Against<'a>,
    trace: Trace,
    window: Window,
    measured: Measured,
    /// Orders of the tensors that nobody has looked at.
    pending: Vec<u64>,
    pending_bytes: usize,
    /// Linears of decode steps that wait for others.
    later: Vec<Task>,
    later_bytes: usize,
    /// The largest errors so far, of what errors by head and by value are chosen among.
    worst: [HashMap<String, f64>; 2],
    spent: [Duration; 2],
    batch: usize,
    /// Bytes of tensors in memory, now and at most.
    in_memory: [usize; 2],
}

impl<'a> Online<'a> {
    /// For a run of which `options` says what it is.
    pub fn new(against: Against<'a>, options: WriteOptions) -> Self {
        let name = options.provenance.engine.clone();
        Self {
            window: Window::new(against.graph, against.points, against.held.is_some()),
            trace: Trace::live(&name, options),
            against,
            measured: Measured::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            later: Vec::new(),
            later_bytes: 0,
            worst: Default::default(),
            spent: Default::default(),
            batch: BATCH,
            in_memory: [0, 0],
        }
    }

    /// Works on tensors of about so many bytes together, instead of [`BATCH`].
    pub fn in_batches_of(mut self, bytes: usize) -> Self {
        self.batch = bytes;
        self
    }

    /// The most bytes of tensors that were in memory so far.
    pub fn most_bytes(&self) -> usize {
        self.in_memory[1]
    }

    fn release(&mut self, orders: Vec<u64>) {
        for order in orders {
            self.in_memory[0] -= self.bytes(order);
            self.trace.release(order);
        }
    }

    /// The run has ended: what is known of it, and a trace of it whose values are gone.
    pub fn close(mut self, self_check: Option<SelfCheck>) -> Result<(Trace, Measured)> {
        self.trace.close(self_check)?;
        log::info!("tensors in memory while it ran: at most {:.1} MB", self.in_memory[1] as f64 / 1e6);
        let [compared, replayed] = self.spent;
        progress::spent("comparing while it ran", compared);
        if self.against.held.is_some() {
            progress::spent("replaying while it ran", replayed);
        }
        Ok((self.trace, self.measured))
    }

    /// Looks at what has come; at the end of a prompt, at all that is left of it.
    fn work(&mut self, end: bool) -> Result<()> {
        let start = Instant::now();
        self.compare()?;
        let compared = Instant::now();
        let mut tasks = self.window.ready(end);
        let graph = self.against.graph;
        let of_layer = |task: &&Task| task.component.is_some_and(|i| is_layer(&graph.components()[i]));
        for task in tasks.iter().filter(of_layer) {
            self.check_layer(task)?;
        }
        if self.against.held.is_some() {
            let waits = |task: &Task| {
                let op = task.component.map(|i| graph.components()[i].op);
                !end && task.step > 0 && op == Some(Op::Linear)
            };
            let (later, now): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(waits);
            self.later_bytes += later.iter().map(|task| self.bytes(task.order)).sum::<usize>();
            self.later.extend(later);
            tasks = now;
            if end || self.later_bytes > self.batch {
                tasks.append(&mut self.later);
                self.later_bytes = 0;
            }
            self.replay(&tasks)?;
        }
        for task in &tasks {
            let unused = self.window.done(task);
            self.release(unused);
        }
        self.spent[0] += compared - start;
        self.spent[1] += compared.elapsed();
        Ok(())
    }

    fn bytes(&self, order: u64) -> usize {
        self.trace.entries()[order as usize].byte_len().unwrap_or(0)
    }

    /// Holds what has come against the reference and arm Q.
    fn compare(&mut self) -> Result<()> {
        let Against { graph, reference, arm, gains, .. } = self.against;
        let bases: Vec<&Trace> = [Some(reference), arm].into_iter().flatten().collect();
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let trace = &self.trace;
        let Some(prompt) = trace.manifest().prompts.last() else { return Ok(()) };
        let entries: Vec<&Entry> = pending.iter().map(|order| &trace.entries()[*order as usize]).collect();
        let metrics = |entry: &&Entry| {
            let of = |base: &&Trace| -> Result<Option<Metrics>> {
                let pair = meet(graph, base, prompt, entry, gains)?;
                let Partner::Matched(r, c) = pair.partner else { return Ok(None) };
                let rows = pair.rows.as_deref();
                let sides = sides(graph, pair.component, rows, (base, r), (trace, c), gains);
                Ok(sides.map(|sides| metrics_of(graph, pair.component, rows, sides)))
            };
            bases.iter().map(of).collect::<Result<Vec<_>>>()
        };
        let found: Vec<Vec<Option<Metrics>>> = entries.par_iter().map(metrics).collect::<Result<_>>()?;
        // Which is the worst so far depends on the order, which is that of the run.
        let chosen: Vec<[bool; 2]> = entries
            .iter()
            .zip(&found)
            .map(|(entry, found)| chosen(graph, &mut self.worst, entry, found))
            .collect();
        let judged_by = bases.last().expect("there is a reference");
        let details = |(entry, [heads, by_value]): (&&Entry, &[bool; 2])| {
            let component = graph.get(&entry.point);
            let both = || {
                let r = judged_by.find(&entry.prompt, entry.step, &entry.point)?;
                let rows = common_rows(r, entry);
                sides(graph, component, rows.as_deref(), (judged_by, r), (trace, entry), gains)
            };
            let axis = component.and_then(|component| head_axis(graph, component)).filter(|_| *heads);
            let heads = axis.and_then(|axis| both().map(|[r, c]| rel_l2_along(r, c, axis)));
            let by_value = by_value.then(both).flatten().map(|[r, c]| ErrorsByValue::of(r, c));
            (heads, by_value)
        };
        let details: Vec<_> = entries.par_iter().zip(&chosen).map(details).collect();
        for ((entry, against), (heads, by_value)) in entries.iter().zip(found).zip(details) {
            self.measured.compared(key(entry), Compared { against, heads, by_value });
        }
        let unused = self.window.compared(&pending);
        self.release(unused);
        Ok(())
    }

    /// Refuses a layer's output that is, byte for byte, that of the layer before.
    fn check_layer(&mut self, task: &Task) -> Result<()> {
        let before = self.window.layer_before(task);
        let Some(before) = before else { return Ok(()) };
        let entries = self.trace.entries();
        refuse_repeated(
            self.against.graph,
            &self.trace,
            &entries[before as usize],
            &entries[task.order as usize],
        )?;
        let unused = self.window.layer_checked(before);
        self.release(unused.into_iter().collect());
        Ok(())
    }

    fn replay(&mut self, tasks: &[Task]) -> Result<()> {
        let Some(held) = self.against.held else { return Ok(()) };
        let entry = |task: &Task| &self.trace.entries()[task.order as usize];
        let Some(prompt) = self.trace.manifest().prompts.last() else { return Ok(()) };
        let place = |task| Place { prompt, step: entry(task).step, point: &entry(task).point };
        let places: Vec<Place<'_>> = tasks.iter().map(place).collect();
        let replays: Vec<Replay> = replay(&self.trace, held, &places, || ())?;
        for (task, replay) in tasks.iter().zip(replays) {
            self.measured.replayed(key(entry(task)), replay);
        }
        Ok(())
    }
}

/// Whether errors by head and by value are counted for a tensor: if its error is larger than all before.
fn chosen(
    graph: &Graph,
    worst: &mut [HashMap<String, f64>; 2],
    entry: &Entry,
    found: &[Option<Metrics>],
) -> [bool; 2] {
    let Some(Some(metrics)) = found.last() else { return [false; 2] };
    let error = if metrics.rel_l2.is_nan() { f64::INFINITY } else { metrics.rel_l2 };
    let component = graph.get(&entry.point);
    let heads = component.and_then(|c| head_axis(graph, c)).map(|_| entry.point.clone());
    let name = component.map_or(entry.point.as_str(), |c| c.name()).to_owned();
    let [by_head, by_value] = worst;
    let largest = |worst: &mut HashMap<String, f64>, key: String| {
        let known = worst.entry(key).or_insert(-1.0);
        let larger = error > *known;
        *known = known.max(error);
        larger
    };
    [heads.is_some_and(|point| largest(by_head, point)), largest(by_value, name)]
}

impl Sink for Online<'_> {
    fn start_prompt(&mut self, prompt: &Prompt) -> Result<()> {
        self.window.start(prompt.step_token_ids.len() as u32);
        self.trace.start_prompt(prompt);
        Ok(())
    }

    fn end_prompt(&mut self) -> Result<()> {
        self.work(true)?;
        let unused = self.window.clear();
        self.release(unused);
        Ok(())
    }

    fn leave_out(&mut self, step: u32, point: &str) {
        self.trace.leave_out(step, point);
    }

    fn push(&mut self, tensor: Incoming<'_>, bytes: Vec<u8>) -> Result<()> {
        self.pending_bytes += bytes.len();
        let [now, most] = self.in_memory;
        self.in_memory = [now + bytes.len(), most.max(now + bytes.len())];
        let (step, component) = (tensor.step, self.against.graph.position(tensor.point));
        let order = self.trace.push(tensor, bytes);
        self.window.arrive(step, component, order);
        self.pending.push(order);
        if self.pending_bytes >= self.batch { self.work(false) } else { Ok(()) }
    }
}
