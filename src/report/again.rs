//! What a report needs of a candidate's values after it has run: it is run again for these alone.

use super::assemble::{Live, Options};
use super::details::{Chosen, Sides};
use super::diagnosis::{diagnosed, places};
use super::json::Fault;
use super::rows::Row;
use crate::error::{Error, Result};
use crate::model::Graph;
use crate::replay::{reads_further, reads_of_prefill, replay};
use crate::trace::Trace;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// Points of prompts whose values are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Revisit {
    pub prompts: BTreeSet<String>,
    pub points: BTreeSet<String>,
    /// True where components are at fault; else only details are wanted.
    pub faults: bool,
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
    reference: &Trace,
    candidate: &Trace,
    faults: &[Fault],
    details: &Chosen<'_, '_>,
    options: &Options<'_>,
) -> Result<Option<Trace>> {
    let mut wanted = Revisit { faults: !faults.is_empty(), ..Revisit::default() };
    let looked_at: Vec<&Fault> =
        if live.keeps { faults.iter().collect() } else { diagnosed(faults).concat() };
    // Without weights nothing is replayed, and nothing is diagnosed.
    if options.held.is_some() || live.keeps {
        looked_at.iter().for_each(|fault| wanted.fault(options.graph, fault));
    }
    let lacks = |row: &&&Row<'_>| live.measured.by_value(&row.key()).is_none();
    let without_heads = details.heads.iter().filter(|row| live.measured.heads(&row.key()).is_none());
    let lacking: Vec<&Row<'_>> =
        without_heads.chain(details.by_value.iter().filter(lacks)).copied().collect();
    lacking.iter().for_each(|row| wanted.point(row.pair.prompt, row.pair.point));
    if wanted.points.is_empty() {
        return Ok(None);
    }
    let again = (live.again)(&wanted)?;
    let sides = Sides::new(reference, &again, options);
    for row in lacking {
        refuse_other(row.pair.point, row.judged(), sides.metrics(row).as_ref(), &again)?;
    }
    if let Some(held) = options.held {
        let places = places(candidate, &looked_at);
        for (place, found) in places.iter().zip(replay(&again, held, &places, || ())?) {
            let first = live.measured.replay(&(place.prompt.id.clone(), place.step, place.point.to_owned()));
            refuse_other(place.point, first, Some(&found), &again)?;
        }
    }
    Ok(Some(again))
}

/// Refuses an engine that gave other numbers at a point than the first time. NaN is NaN.
fn refuse_other<T: Debug>(point: &str, first: Option<&T>, found: Option<&T>, again: &Trace) -> Result<()> {
    let [first, found] = [first, found].map(|said| format!("{said:?}"));
    if first == found {
        return Ok(());
    }
    Err(Error::new(format!("the engine gave other numbers when it was run again, at {point}"))
        .expected(first, found)
        .at(again.path())
        .hint("an engine that does not repeat itself cannot be diagnosed while it runs: `--keep all` looks at one run alone"))
}
