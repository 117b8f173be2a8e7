//! `layerdiff inspect`.

use super::{Ui, print_json, print_text};
use crate::cli::InspectArgs;
use crate::error::{Error, Result, nearest};
use crate::report::Outcome;
use crate::trace::{Entry, Trace};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;

pub(super) fn run(args: &InspectArgs, ui: Ui) -> Result<Outcome> {
    let trace = Trace::open(&args.trace)?;
    match &args.point {
        None if ui.json => print_json(trace.manifest())?,
        None => print_text(&(summary(&trace) + &listing(&trace)))?,
        Some(point) => {
            let entry = find(&trace, point, args)?;
            let statistics = Statistics::of(&trace, entry);
            if ui.json {
                print_json(
                    &json!({"point": entry.point, "prompt": entry.prompt, "step": entry.step, "dtype": entry.dtype,
                    "shape": entry.shape, "basis": entry.basis, "derived": entry.derived, "statistics": statistics}),
                )?;
            } else {
                print_text(&describe(entry, &statistics))?;
            }
        }
    }
    Ok(Outcome::Pass)
}

fn find<'a>(trace: &'a Trace, point: &str, args: &InspectArgs) -> Result<&'a Entry> {
    let prompts = &trace.manifest().prompts;
    let prompt = match &args.prompt {
        Some(id) if prompts.iter().any(|p| p.id == *id) => id,
        Some(id) => {
            let error = Error::new(format!("the trace holds no prompt `{id}`")).at(trace.path());
            let near = nearest(id, prompts.iter().map(|p| p.id.as_str()));
            return Err(error.hint(near.map_or("`layerdiff inspect TRACE` lists the prompts".into(), |n| {
                format!("did you mean `{n}`?")
            })));
        }
        None => {
            &prompts
                .first()
                .ok_or_else(|| {
                    Error::new("the trace holds no prompt")
                        .at(trace.path())
                        .hint("capture it again, with --prompts FILE")
                })?
                .id
        }
    };
    trace.find(prompt, args.step, point).ok_or_else(|| {
        match trace.entries().iter().find(|e| e.point == point) {
            Some(other) => {
                Error::new(format!("the trace holds no `{point}` of prompt `{prompt}`, step {}", args.step))
                    .at(trace.path())
                    .hint(format!("it is there for prompt `{}`, step {}", other.prompt, other.step))
            }
            None => trace.unknown_point(point),
        }
    })
}

/// Who wrote the trace, and what it holds.
pub(super) fn summary(trace: &Trace) -> String {
    let m = trace.manifest();
    let p = &m.provenance;
    let bytes: u64 = m.shards.iter().map(|s| s.bytes).sum();
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(out, "{name:>12}  {value}");
    };
    line("trace", trace.path().display().to_string());
    line("engine", format!("{} {}, {}, path {}", p.engine, p.engine_version, p.dtype, p.path));
    if let Some(attention) = &p.attention_implementation {
        line("attention", attention.clone());
    }
    line("model", m.architecture.clone());
    line("weights", p.hashes.weights.clone().unwrap_or_else(|| "unknown".into()));
    if let Some(adapter) = &m.adapter {
        let hash = p.hashes.adapter.as_deref().unwrap_or("unknown");
        line("adapter", format!("{}, {hash}", adapter.summary()));
    }
    line("self-check", m.self_check.as_ref().map_or("none".into(), |c| format!("{:?}", c.status)));
    for evidence in m.self_check.iter().flat_map(|c| &c.evidence) {
        line(
            "",
            format!(
                "{} of {} numbers differ: {} ({})",
                evidence.mismatches, evidence.elements, evidence.what, evidence.entry_point
            ),
        );
    }
    line("prompts", m.prompts.len().to_string());
    line(
        "tensors",
        format!("{} in {} shards, {:.1} MB", m.tensors.len(), m.shards.len(), bytes as f64 / 1e6),
    );
    out
}

fn listing(trace: &Trace) -> String {
    let m = trace.manifest();
    let mut out = String::from("\n");
    for prompt in &m.prompts {
        let _infallible = writeln!(out, "{}: {} tokens", prompt.id, prompt.token_ids.len());
    }
    let Some(first) = m.prompts.first() else { return out };
    let _infallible = writeln!(out, "\npoints of {}, in order of execution:", first.id);
    for entry in trace.entries().iter().filter(|e| e.prompt == first.id) {
        let shape = format!("{:?}", entry.shape);
        let note = if entry.derived { "  derived" } else { "" };
        let _infallible = writeln!(
            out,
            "{:>4}  {:<48} {:<5} {shape}{note}",
            entry.step,
            entry.point,
            entry.dtype.to_string()
        );
    }
    out
}

/// What a tensor's values are like.
#[derive(Debug, Serialize)]
struct Statistics {
    elements: usize,
    nan: usize,
    inf: usize,
    zeros: usize,
    #[serde(with = "crate::number")]
    min: f64,
    #[serde(with = "crate::number")]
    max: f64,
    #[serde(with = "crate::number")]
    mean: f64,
    #[serde(with = "crate::number")]
    rms: f64,
    #[serde(with = "crate::number::list")]
    first: Vec<f64>,
    #[serde(with = "crate::number::list")]
    last: Vec<f64>,
    /// Bounds of equal bins from `min` to `max`, and the count in each.
    histogram: Vec<(f64, f64, usize)>,
}

const BINS: usize = 16;
const SHOWN: usize = 6;

impl Statistics {
    fn of(trace: &Trace, entry: &Entry) -> Self {
        let values = trace.view(entry).to_f64();
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let min = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let max = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let count = finite.len().max(1) as f64;
        let width = (max - min) / BINS as f64;
        let mut counts = [0; BINS];
        for value in &finite {
            let bin = if width > 0.0 { ((value - min) / width) as usize } else { 0 };
            counts[bin.min(BINS - 1)] += 1;
        }
        let bound = |i: usize| min + width * i as f64;
        let used = if finite.is_empty() {
            0
        } else if width > 0.0 {
            BINS
        } else {
            1
        };
        Self {
            elements: values.len(),
            nan: values.iter().filter(|v| v.is_nan()).count(),
            inf: values.iter().filter(|v| v.is_infinite()).count(),
            zeros: values.iter().filter(|v| **v == 0.0).count(),
            min,
            max,
            mean: finite.iter().sum::<f64>() / count,
            rms: (finite.iter().map(|v| v * v).sum::<f64>() / count).sqrt(),
            first: values.iter().copied().take(SHOWN).collect(),
            last: values[values.len().saturating_sub(SHOWN)..].to_vec(),
            histogram: (0..used).map(|i| (bound(i), bound(i + 1), counts[i])).collect(),
        }
    }
}

fn describe(entry: &Entry, s: &Statistics) -> String {
    let list = |values: &[f64]| values.iter().map(|v| format!("{v:.6e}")).collect::<Vec<_>>().join("  ");
    let mut out = format!(
        "{} (prompt {}, step {})\n{} {:?}, basis {}, {} in order of execution{}\n\n",
        entry.point,
        entry.prompt,
        entry.step,
        entry.dtype,
        entry.shape,
        entry.basis,
        entry.order,
        if entry.derived { ", derived" } else { "" }
    );
    let _infallible = write!(
        out,
        "elements {}   NaN {}   inf {}   zeros {}\nmin {:.6e}   max {:.6e}   mean {:.6e}   rms {:.6e}   (of the finite ones)\nfirst  {}\nlast   {}\n\n",
        s.elements,
        s.nan,
        s.inf,
        s.zeros,
        s.min,
        s.max,
        s.mean,
        s.rms,
        list(&s.first),
        list(&s.last)
    );
    let largest = s.histogram.iter().map(|(.., n)| *n).max().unwrap_or(0).max(1);
    for (low, high, count) in &s.histogram {
        let bar = "#".repeat((count * 50).div_ceil(largest));
        let _infallible = writeln!(out, "{low:>13.5e} .. {high:>13.5e}  {count:>8}  {bar}");
    }
    out
}
