//! Names for the faults, and what is said of them.

use super::assemble::Options;
use super::json::{Diagnosis, Fault};
use crate::diagnose::{Diagnosed, diagnose};
use crate::replay::Place;
use crate::trace::Trace;

/// Most components that are diagnosed: a candidate of which more is wrong has another problem than a formula.
const MOST: usize = 32;

/// Most steps and prompts of a component that a formula must reproduce.
const PLACES: usize = 4;

/// The word where no formula reproduces a component.
const NONE: &str = "none of the known formulas";

/// The faults that are looked at, by component, in their order.
pub(super) fn diagnosed(faults: &[Fault]) -> Vec<Vec<&Fault>> {
    let mut components: Vec<Vec<&Fault>> = Vec::new();
    for fault in faults {
        match components.iter().position(|known| known[0].point == fault.point) {
            Some(i) if components[i].len() < PLACES => components[i].push(fault),
            None if components.len() < MOST => components.push(vec![fault]),
            _ => {}
        }
    }
    components
}

/// Where faults are in a trace.
pub(super) fn places<'a>(trace: &'a Trace, faults: &[&'a Fault]) -> Vec<Place<'a>> {
    let prompts = &trace.manifest().prompts;
    let place = |fault: &&'a Fault| {
        let prompt = prompts.iter().find(|p| p.id == fault.prompt)?;
        Some(Place { prompt, step: fault.step, point: &fault.point })
    };
    faults.iter().filter_map(place).collect()
}

/// Diagnoses the faulty components, each once, in the order of the faults.
pub(super) fn diagnoses(candidate: &Trace, faults: &[Fault], options: &Options<'_>) -> Vec<Diagnosis> {
    let Some(held) = options.held else { return Vec::new() };
    let components = diagnosed(faults);
    let placed: Vec<Vec<Place<'_>>> = components.iter().map(|faults| places(candidate, faults)).collect();
    let points = components.iter().map(|faults| faults[0].point.as_str());
    let found = diagnose(candidate, held, &placed);
    let known = points.zip(found).filter_map(|(point, found)| Some((point, found?)));
    // A component that errs within its bounds was found by growth: there is nothing to name.
    known
        .filter(|(_, found)| !found.shape.is_empty())
        .flat_map(|(point, found)| entries(point, &found))
        .collect()
}

fn entries(point: &str, found: &Diagnosed) -> Vec<Diagnosis> {
    let entry = |name: &str, id: Option<&str>, residual_ratio: f64, left: f64, to_rounding: bool| Diagnosis {
        point: point.to_owned(),
        name: name.to_owned(),
        id: id.map(str::to_owned),
        residual_ratio,
        left,
        to_rounding,
        description: found.shape.clone(),
    };
    if found.names.is_empty() {
        return vec![entry(NONE, None, f64::INFINITY, 1.0, false)];
    }
    let names = found.names.iter();
    names.map(|n| entry(n.name, Some(n.id), n.residual_ratio, n.left, n.to_rounding)).collect()
}

/// What is said of the first of these entries, and of those of the same component.
pub(super) fn sentence(diagnosis: &[Diagnosis]) -> Option<String> {
    let first = diagnosis.first()?;
    if !first.is_named() {
        return Some(format!("No known wrong formula reproduces its output. {}", first.description));
    }
    let same: Vec<&str> =
        diagnosis.iter().take_while(|d| d.point == first.point).map(|d| d.name.as_str()).collect();
    let names = same.join("; or, which cannot be told from it on these inputs: ");
    Some(if first.to_rounding {
        format!("Its output is reproduced to rounding by: {names}.")
    } else {
        format!("All but {:.1e} of its error is reproduced by: {names}.", first.left)
    })
}
