//! `layerdiff inspect`.

mod statistics;
mod text;

use super::{Ui, print_json, print_text};
use crate::cli::InspectArgs;
use crate::error::{Error, Result, nearest, plain};
use crate::model::{PointFilter, resolve};
use crate::number::count;
use crate::report::{Outcome, check_status};
use crate::trace::{Entry, Trace};
use serde_json::{Value, json};
use statistics::Statistics;
use std::fmt::Write;

pub(super) fn run(args: &InspectArgs, ui: Ui) -> Result<Outcome> {
    let trace = Trace::open(&args.trace)?;
    match &args.point {
        None if ui.json => print_json(trace.manifest())?,
        None => print_text(&(summary(&trace) + &listing(&trace)))?,
        Some(point) => {
            let point = resolve(point);
            let prompt = prompt(&trace, args)?;
            // A name means one point, also where a glob of the same letters would mean others.
            if trace.entries().iter().any(|e| e.point == point) || !is_glob(point) {
                let entry = find(&trace, prompt, args.step, point)?;
                let statistics = Statistics::of(&trace.view(entry));
                if ui.json {
                    print_json(&document(entry, &statistics))?;
                } else {
                    print_text(&text::describe(entry, &statistics))?;
                }
            } else {
                let entries = matching(&trace, prompt, args.step, &PointFilter::new(point)?)?;
                let rows: Vec<_> = entries.into_iter().map(|e| (e, Statistics::of(&trace.view(e)))).collect();
                if ui.json {
                    let points: Vec<_> = rows.iter().map(|(entry, s)| document(entry, s)).collect();
                    print_json(&json!({"points": points}))?;
                } else {
                    print_text(&text::table(prompt, args.step, &rows))?;
                }
            }
        }
    }
    Ok(Outcome::Pass)
}

fn is_glob(point: &str) -> bool {
    point.contains(['*', '?', '[', '{'])
}

fn document(entry: &Entry, statistics: &Statistics) -> Value {
    let mut document = json!({"point": entry.point, "prompt": entry.prompt, "step": entry.step, "dtype": entry.dtype,
        "shape": entry.shape, "basis": entry.basis, "derived": entry.derived, "statistics": statistics});
    if let Some(rows) = &entry.rows {
        document["rows"] = json!(rows);
    }
    document
}

/// The prompt that was asked for, else the first.
fn prompt<'a>(trace: &'a Trace, args: &InspectArgs) -> Result<&'a str> {
    let prompts = &trace.manifest().prompts;
    let Some(id) = &args.prompt else {
        let none = || {
            Error::new("the trace holds no prompt")
                .at(trace.path())
                .hint("capture it again, with --prompts FILE")
        };
        return prompts.first().map(|p| p.id.as_str()).ok_or_else(none);
    };
    prompts.iter().find(|p| p.id == *id).map(|p| p.id.as_str()).ok_or_else(|| {
        let near = nearest(id, prompts.iter().map(|p| p.id.as_str()));
        let hint = near
            .map_or("`layerdiff inspect TRACE` lists the prompts".into(), |n| format!("did you mean `{n}`?"));
        Error::new(format!("the trace holds no prompt `{id}`")).at(trace.path()).hint(hint)
    })
}

fn find<'a>(trace: &'a Trace, prompt: &str, step: u32, point: &str) -> Result<&'a Entry> {
    trace.find(prompt, step, point).ok_or_else(|| lacking(trace, prompt, step, point, |name| name == point))
}

/// The points of a step of a prompt that the glob accepts.
fn matching<'a>(trace: &'a Trace, prompt: &str, step: u32, points: &PointFilter) -> Result<Vec<&'a Entry>> {
    let here = |e: &&Entry| e.prompt == prompt && e.step == step && points.accepts(&e.point);
    let found: Vec<_> = trace.entries().iter().filter(here).collect();
    if found.is_empty() {
        return Err(lacking(trace, prompt, step, points.as_str(), |name| points.accepts(name)));
    }
    Ok(found)
}

/// The error for what is not there: at this step, or not at all.
fn lacking(trace: &Trace, prompt: &str, step: u32, point: &str, accepts: impl Fn(&str) -> bool) -> Error {
    match trace.entries().iter().find(|e| accepts(&e.point)) {
        Some(other) => Error::new(format!("the trace holds no `{point}` of prompt `{prompt}`, step {step}"))
            .at(trace.path())
            .hint(format!("it is there for prompt `{}`, step {}", other.prompt, other.step)),
        None => trace.unknown_point(point),
    }
}

/// Which rows are there, in words.
fn some_of(rows: &[usize]) -> String {
    let ends = rows.first().zip(rows.last()).filter(|(first, last)| first != last);
    let ends = ends.map_or_else(String::new, |(first, last)| format!(" from {first} to {last}"));
    format!("rows of {}{ends}", count(rows.len(), "query token"))
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
    line("engine", plain(&format!("{} {}, {}, path {}", p.engine, p.engine_version, p.dtype, p.path)));
    if let Some(attention) = &p.attention_implementation {
        line("attention", attention.clone());
    }
    line("model", m.architecture.clone());
    line("weights", p.hashes.weights.clone().unwrap_or_else(|| "unknown".into()));
    if let Some(adapter) = &m.adapter {
        let hash = p.hashes.adapter.as_deref().unwrap_or("unknown");
        line("adapter", format!("{}, {hash}", adapter.summary()));
    }
    line("self-check", m.self_check.as_ref().map_or("none".into(), |c| check_status(c).to_owned()));
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
        format!("{} in {}, {:.1} MB", m.tensors.len(), count(m.shards.len(), "shard"), bytes as f64 / 1e6),
    );
    out
}

fn listing(trace: &Trace) -> String {
    let m = trace.manifest();
    let mut out = String::from("\n");
    for prompt in &m.prompts {
        let _infallible = writeln!(out, "{}: {}", prompt.id, count(prompt.token_ids.len(), "token"));
    }
    let Some(first) = m.prompts.first() else { return out };
    let _infallible = writeln!(out, "\npoints of {}, in order of execution:", first.id);
    for entry in trace.entries().iter().filter(|e| e.prompt == first.id) {
        let shape = format!("{:?}", entry.shape);
        let rows = entry.rows.as_ref().map_or_else(String::new, |rows| format!("  {}", some_of(rows)));
        let note = rows + if entry.derived { "  derived" } else { "" };
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
