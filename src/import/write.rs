//! From dumps to a trace on disk.

use super::arrange::{arrange, form};
use super::block::Block;
use super::entries::entries;
use super::format::{Kind, Source};
use super::map::Map;
use super::plan::{Part, Place, Plan, Target, plan};
use super::precise::{sixteen_bits, stored_as, word};
use super::prove::Proof;
use super::sizes::Sizes;
use super::suggest::Suggestion;
use crate::error::{Error, Result};
use crate::model::{Adapter, Graph};
use crate::number::count;
use crate::prompt::Prompt;
use crate::tensor::DType;
use crate::trace::{Provenance, Trace, TraceWriter, WriteOptions};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Bytes after which a shard is written out.
const SHARD_BYTES: usize = 64 << 20;

/// Suggestions in an error before the rest is only counted.
const SHOWN: usize = 8;

/// What is imported, and as what.
#[derive(Debug)]
pub struct Request<'a> {
    /// The dumps.
    pub source: &'a dyn Source,
    /// Where they are, for the notes.
    pub path: &'a Path,
    /// What their names do not say.
    pub map: &'a Map,
    /// The model's components.
    pub graph: &'a Graph,
    /// The model's configuration.
    pub config: Value,
    /// The adapter that the run is stated to have.
    pub adapter: Option<Adapter>,
    /// The prompts that the dumps may be of, with their tokens.
    pub prompts: &'a [Prompt],
    /// The step of dumps whose name has none.
    pub step: u32,
    /// What the values are held against.
    pub reference: Option<&'a Trace>,
    /// The engine's name and version.
    pub engine: (&'a str, &'a str),
    /// True when its weights have fewer than 16 bits.
    pub quantized: bool,
    /// What the engine computed in, where its dumps are wider.
    pub precision: Option<DType>,
    /// Leave out what has no known name.
    pub ignore_unknown: bool,
    /// Import also what the values contradict.
    pub trust_map: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Tensors in the trace.
    pub tensors: usize,
    /// Different points among them.
    pub points: usize,
    /// Points that the model has.
    pub of_points: usize,
    /// Prompts in the trace.
    pub prompts: usize,
    /// What was left out, in words.
    pub left_out: Vec<String>,
    /// What a reader of the comparison should know.
    pub notes: Vec<String>,
}

impl<'a> Request<'a> {
    fn target(&self) -> Target<'a> {
        Target { graph: self.graph, prompts: self.prompts, step: self.step }
    }

    fn suggestions(&self, plan: &Plan<'_>, most: usize) -> Vec<Suggestion> {
        let one = |(item, prompt, step): &(usize, usize, u32)| {
            Suggestion::of(self.source, *item, (*prompt, *step), &self.target(), self.reference)
        };
        plan.unknown.iter().take(most).map(one).collect()
    }
}

/// A map to start from, for the dumps that nothing says anything about.
pub fn suggest(request: &Request<'_>) -> Result<String> {
    let plan = plan(request.source, request.map, &request.target())?;
    let known = plan.parts.len();
    let mut out = format!("# {} of {} need no entry.\n", count(known, "dump"), request.source.items().len());
    let suggestions = request.suggestions(&plan, usize::MAX);
    for entry in entries(&suggestions, request.source.items(), &plan, &request.target()) {
        out.push('\n');
        out.push_str(&entry);
    }
    Ok(out)
}

/// Writes the trace to `out`, which must not exist.
pub fn import(request: &Request<'_>, out: &Path) -> Result<Imported> {
    let target = request.target();
    let mut plan = plan(request.source, request.map, &target)?;
    if !request.ignore_unknown {
        let mut asked = plan.unknown.clone();
        asked.retain(|unknown| !request.source.name_is_given(unknown.0));
        if !asked.is_empty() {
            plan.unknown = asked;
            return Err(unknown(request, &plan));
        }
    }
    let mut left_out = left_out(request, &plan);
    let mut notes = Vec::new();
    let mut options = WriteOptions {
        architecture: request.graph.description().name.clone(),
        config: request.config.clone(),
        provenance: provenance(request),
        adapter: request.adapter.clone(),
        shard_bytes: SHARD_BYTES,
    };
    left_out.extend(other_forms(request, &mut plan, &target));
    if plan.parts.is_empty() {
        return Err(Error::new("no dump belongs to a point")
            .at(request.path)
            .hint("`--suggest` prints a map to start from"));
    }
    options.provenance.dtype = dtypes(request, &plan);
    options.provenance.notes.extend(left_out.iter().cloned());
    if request.precision.is_none() && request.map.rules.iter().all(|rule| rule.precision.is_none()) {
        notes.extend(narrow(request, &plan, &target)?);
    }
    options.provenance.notes.extend(notes.iter().cloned());
    let mut writer = TraceWriter::create(out, options)?;
    let mut proof = request.reference.filter(|_| !request.trust_map).map(|r| Proof::new(r, &target));
    let mut points = BTreeSet::new();
    let mut started = BTreeSet::new();
    for (place, part) in &plan.parts {
        let (prompt, step, component) = *place;
        if started.insert(prompt) {
            writer.start_prompt(&prompt_of(request, &plan, prompt));
        }
        let component = &request.graph.components()[component];
        let block = arranged(request, *place, part, &target)?;
        if let Some(proof) = &mut proof {
            let item = &request.source.items()[part.item];
            proof.look(*place, &block, &item.name, &item.path);
        }
        points.insert(component.point.as_str());
        writer.push(step, &component.point, block.dtype, &block.shape, block.bytes, "original", false)?;
    }
    proof.iter().try_for_each(Proof::judge)?;
    writer.finish(None)?;
    Ok(Imported {
        tensors: plan.parts.len(),
        points: points.len(),
        of_points: request.graph.components().len(),
        prompts: started.len(),
        left_out,
        notes,
    })
}

/// The values of a part as they are stored.
fn arranged(
    request: &Request<'_>,
    (prompt, step, component): Place,
    part: &Part<'_>,
    target: &Target<'_>,
) -> Result<Block> {
    let component = &request.graph.components()[component];
    let block = arrange(request.source, part, component, &Sizes::new(target, prompt, step))?;
    let Some(dtype) = precision(request, part) else { return Ok(block) };
    let item = &request.source.items()[part.item];
    stored_as(block, dtype).map_err(|e| e.about(format!("`{}`", item.name)).at(&item.path))
}

/// What the engine computed a part in, where that is stated.
fn precision(request: &Request<'_>, part: &Part<'_>) -> Option<DType> {
    part.rule.and_then(|rule| rule.precision).map(DType::from).or(request.precision)
}

/// That all values are of 16 bits though they were saved wider, if they are.
fn narrow(request: &Request<'_>, plan: &Plan<'_>, target: &Target<'_>) -> Result<Option<String>> {
    let mut found = None;
    for (place, part) in &plan.parts {
        let block = arranged(request, *place, part, target)?;
        if !block.dtype.is_float() {
            continue;
        }
        // One that is not decides it: most imports read no second tensor for this.
        let Some(dtype) = sixteen_bits(&block).filter(|_| block.dtype.size() > 2) else { return Ok(None) };
        if *found.get_or_insert(dtype) != dtype {
            return Ok(None);
        }
    }
    Ok(found.map(|dtype| {
        let name = word(dtype);
        format!("all values are {name} numbers: if the engine computes in {name}, say `--dtype {name}`, or its roundings are taken for errors")
    }))
}

/// The prompt with as many decode steps as there are dumps of.
fn prompt_of(request: &Request<'_>, plan: &Plan<'_>, prompt: usize) -> Prompt {
    let last = plan.parts.keys().filter(|place| place.0 == prompt).map(|place| place.1).max().unwrap_or(0);
    let mut prompt = request.prompts[prompt].clone();
    prompt.step_token_ids.truncate(last as usize);
    prompt
}

/// Takes out what a program dumped under a point's name in another form, such as a convolution before its
/// activation.
fn other_forms(request: &Request<'_>, plan: &mut Plan<'_>, target: &Target<'_>) -> Vec<String> {
    let mut gone = Vec::new();
    plan.parts.retain(|place, part| {
        if part.rule.is_some() || !request.source.name_is_given(part.item) {
            return true;
        }
        let (item, component) = (&request.source.items()[part.item], &request.graph.components()[place.2]);
        let sizes = Sizes::new(target, place.0, place.1);
        let fits = form(item, part, component, &sizes).is_ok();
        if !fits {
            let shape = target.shape(component, place.0, place.1);
            // Engines that only want the next token give the last one's logits.
            let last = item.elements() == Some(shape.iter().skip(1).product());
            let last = if last && shape.len() > 1 { ", which is of one token" } else { "" };
            gone.push(format!("`{}` ({}{last}; the point has {shape:?})", item.name, item.form()));
        }
        fits
    });
    if gone.is_empty() {
        return Vec::new();
    }
    vec![format!("left out, for their form is not the point's: {}", gone.join(", "))]
}

fn unknown(request: &Request<'_>, plan: &Plan<'_>) -> Error {
    let lines: Vec<String> = request.suggestions(plan, SHOWN).iter().map(Suggestion::line).collect();
    let more = plan.unknown.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("\n    and {more} more") } else { String::new() };
    Error::new(format!(
        "nothing says what {} {}:\n    {}{more}",
        count(plan.unknown.len(), "dump"),
        if plan.unknown.len() == 1 { "is" } else { "are" },
        lines.join("\n    ")
    ))
    .at(request.path)
    .hint("`--suggest` prints a map to start from, for --map; `--ignore-unknown` leaves them out")
}

/// Nothing is dropped in silence.
fn left_out(request: &Request<'_>, plan: &Plan<'_>) -> Vec<String> {
    let items = request.source.items();
    let names = |list: &[usize]| {
        let shown: Vec<&str> = list.iter().take(SHOWN).map(|i| items[*i].name.as_str()).collect();
        let more = list.len().saturating_sub(shown.len());
        format!("{}{}", shown.join(", "), if more > 0 { format!(", and {more} more") } else { String::new() })
    };
    let mut words = request.source.remarks();
    if !plan.ignored.is_empty() {
        words.push(format!("left out as the map says: {}", names(&plan.ignored)));
    }
    let unknown: Vec<usize> = plan.unknown.iter().map(|(item, ..)| *item).collect();
    if !unknown.is_empty() {
        words.push(format!("left out, for no point is known by that name: {}", names(&unknown)));
    }
    if plan.repeated > 0 {
        words.push(format!(
            "{} of modules not taken: the point is there from elsewhere",
            count(plan.repeated, "input")
        ));
    }
    words
}

fn provenance(request: &Request<'_>) -> Provenance {
    Provenance {
        engine: request.engine.0.to_owned(),
        engine_version: request.engine.1.to_owned(),
        path: "imported".into(),
        quantized: request.quantized,
        notes: vec![format!("imported from {}, {}", request.path.display(), request.source.format())],
        ..Provenance::default()
    }
}

/// The precisions that the dumps are stored in, the most frequent first.
fn dtypes(request: &Request<'_>, plan: &Plan<'_>) -> String {
    let items = request.source.items();
    let of = |item: usize, stated: Option<DType>| match (&items[item].kind, stated) {
        (Kind::Integer(_) | Kind::Known(DType::U8), _) => None,
        (_, Some(dtype)) => Some(dtype),
        (Kind::Known(dtype) | Kind::Assumed(dtype), None) => Some(*dtype),
        _ => None,
    };
    let mut counts: Vec<(usize, &str)> = Vec::new();
    for part in plan.parts.values() {
        let stated = precision(request, part).or(part.rule.and_then(|r| r.dtype));
        let Some(dtype) = of(part.item, stated).filter(|dtype| dtype.is_float()) else { continue };
        let name = word(dtype);
        match counts.iter_mut().find(|(_, n)| *n == name) {
            Some((n, _)) => *n += 1,
            None => counts.push((1, name)),
        }
    }
    counts.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    counts.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}
