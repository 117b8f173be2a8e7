//! What the captured points leave open: how much of the model was looked at, and where between two of them an
//! error may have been born.

use super::assemble::Options;
use super::json::Fault;
use super::rows::Row;
use crate::model::{Graph, layer_of};
use crate::number::count;
use std::collections::{BTreeSet, HashSet};

/// How many of the model's points were asked for, where only captured ones were; none where all were.
pub(super) fn part(rows: &[Row<'_>], options: &Options<'_>) -> Option<String> {
    if !options.points.is_only_captured() {
        return None;
    }
    let asked: BTreeSet<&str> =
        rows.iter().filter(|r| r.pair.component.is_some()).map(|r| r.pair.point).collect();
    Some(format!("{} of the model's {} points", asked.len(), options.graph.components().len()))
}

/// Says that points were compared in some rows only; none where all were in all.
pub(super) fn some_rows(rows: &[Row<'_>]) -> Option<String> {
    let part = || rows.iter().filter_map(|row| Some((row, row.pair.rows.as_ref()?.len())));
    let (fewest, kept) = part().min_by(|(a, m), (b, n)| (m * b.pair.tokens).cmp(&(n * a.pair.tokens)))?;
    let points: BTreeSet<&str> =
        part().map(|(row, _)| row.pair.component.map_or(row.pair.point, |c| c.name())).collect();
    let points: Vec<&str> = points.into_iter().collect();
    let (all, tokens, prompt) = (part().count(), fewest.pair.tokens, fewest.pair.prompt);
    Some(format!(
        "of {} ({}) only the rows of some query tokens were compared (in prompt {prompt} {kept} of {tokens}): the other \
         rows were not captured (`--scores`), and nothing is said of them",
        count(all, "tensor"),
        points.join(", ")
    ))
}

/// Where the error may have been born, when more components than one end between compared points.
pub(super) fn stretch(first: &Fault, rows: &[Row<'_>], graph: &Graph) -> Option<String> {
    let here = |row: &&Row<'_>| row.pair.prompt == first.prompt && row.pair.step == first.step;
    let judged: HashSet<&str> =
        rows.iter().filter(here).filter(|r| r.judgement.is_some()).map(|r| r.pair.point).collect();
    let (unseen, from) = upstream(&first.point, &judged, graph);
    if unseen.is_empty() {
        return None;
    }
    let from = match from.as_slice() {
        [] => "the start".to_owned(),
        from => from.join(", "),
    };
    let in_layer = unseen.iter().filter(|point| layer_of(point) == first.layer).count() + 1;
    let inside = match first.layer {
        Some(layer) if in_layer <= unseen.len() => format!(" ({in_layer} of them in layer {layer})"),
        Some(layer) => format!(" of layer {layer}"),
        None => String::new(),
    };
    Some(format!(
        "The error is born between {from} and {}, in one of {}{inside}, of which only the last was compared.",
        first.point,
        count(unseen.len() + 1, "component")
    ))
}

/// The points before `point` back to those that were judged, and these, in the order of execution.
fn upstream<'a>(point: &str, judged: &HashSet<&str>, graph: &'a Graph) -> (Vec<&'a str>, Vec<&'a str>) {
    let inputs = |point: &str| graph.get(point).map_or(&[][..], |c| c.inputs.as_slice());
    let mut open: Vec<&str> = inputs(point).iter().map(String::as_str).collect();
    let mut seen = HashSet::new();
    while let Some(point) = open.pop() {
        if seen.insert(point) && !judged.contains(point) {
            open.extend(inputs(point).iter().map(String::as_str));
        }
    }
    let ordered = graph.components().iter().map(|c| c.point.as_str()).filter(|point| seen.contains(point));
    ordered.partition(|point| !judged.contains(point))
}
