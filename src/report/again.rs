//! What a report needs of a candidate's values after it has run: it is run again for these alone.

use super::assemble::{Live, Options};
use super::details::Chosen;
use super::json::Fault;
use super::rows::Row;
use crate::error::{Error, Result};
use crate::model::Graph;
use crate::replay::{Place, Replay, reads_further, reads_of_prefill, replay};
use crate::trace::Trace;
use std::collections::BTreeSet;

/// Points of prompts whose values are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Revisit {
    pub prompts: BTreeSet<String>,
    pub points: BTreeSet<String>,
}

impl Revisit {
    fn point(&mut self, prompt: &str, point: &str) {
        self.prompts.insert(prompt.to_owned());
        self.points.insert(point.to_owned());
    }

    /// What a fault's component reads and leaves.
    fn fault(&mut self, graph: &Graph, fault: &Fault) {
        self.point(&fault.prompt, &fault.point);
        if let Some(component) = graph.get(&fault.point) {
            component.inputs.iter().chain(&component.carried).for_each(|p| self.point(&fault.prompt, p));
            reads_further(graph, component)
                .chain(reads_of_prefill(graph, component))
                .for_each(|p| self.point(&fault.prompt, p));
        }
    }
}

/// Runs the candidate again where its faults are to be diagnosed or an error is to be shown in detail that was
/// not counted while it ran; none where nothing of that is needed. What it leaves is held against what was found the
/// first time.
pub(super) fn again(
    live: Live<'_>,
    candidate: &Trace,
    faults: &[Fault],
    details: &Chosen<'_, '_>,
    options: &Options<'_>,
) -> Result<Option<Trace>> {
    let mut wanted = Revisit::default();
    // Without weights nothing is replayed, and nothing is diagnosed.
    let diagnosed = if options.held.is_some() { faults } else { &[] };
    diagnosed.iter().for_each(|fault| wanted.fault(options.graph, fault));
    let lacks = |row: &&&Row<'_>| live.measured.by_value(&row.key()).is_none();
    let without_heads = details.heads.iter().filter(|row| live.measured.heads(&row.key()).is_none());
    for row in without_heads.chain(details.by_value.iter().filter(lacks)) {
        wanted.point(row.pair.prompt, row.pair.point);
    }
    if wanted.points.is_empty() {
        return Ok(None);
    }
    let again = (live.again)(&wanted)?;
    let Some(held) = options.held else { return Ok(Some(again)) };
    let prompts = &candidate.manifest().prompts;
    let places: Vec<Place<'_>> = diagnosed
        .iter()
        .filter_map(|fault| {
            let prompt = prompts.iter().find(|p| p.id == fault.prompt)?;
            Some(Place { prompt, step: fault.step, point: &fault.point })
        })
        .collect();
    for (place, found) in places.iter().zip(replay(&again, held, &places, || ())?) {
        let first = live.measured.replay(&(place.prompt.id.clone(), place.step, place.point.to_owned()));
        if first.is_none_or(|first| !same(first, &found)) {
            return Err(Error::new(format!("the engine gave other numbers when it was run again, at {}", place.point))
                .expected(format!("{first:?}"), format!("{found:?}"))
                .at(again.path())
                .hint("an engine that does not repeat itself cannot be diagnosed while it runs: `--keep all` looks at one run alone"));
        }
    }
    Ok(Some(again))
}

/// Whether two replays found the same; NaN is NaN.
fn same(a: &Replay, b: &Replay) -> bool {
    format!("{a:?}") == format!("{b:?}")
}
