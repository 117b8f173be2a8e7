//! Which item of a dump goes to which point of which step.

use super::format::{Item, Source};
use super::map::{Map, Rule};
use super::names::Names;
use super::pattern::{Found, fit, placed};
use crate::error::{Error, Result, nearest, nearest_point, plain};
use crate::model::{Component, Graph};
use crate::prompt::Prompt;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Where a tensor goes: place of the prompt among the prompts, step, place of the component in the model.
pub(super) type Place = (usize, u32, usize);

/// An item on its way to a point.
#[derive(Debug, Clone)]
pub(super) struct Part<'a> {
    pub item: usize,
    /// What the map says of it.
    pub rule: Option<&'a Rule>,
    /// Which part of it, where the map splits it.
    pub cut: Option<usize>,
    /// Of the last axis only the first half.
    pub first_half: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// In the order in which a trace has them.
    pub parts: BTreeMap<Place, Part<'a>>,
    /// Items that nothing says anything about, with the step that they are of.
    pub unknown: Vec<(usize, usize, u32)>,
    /// Items that the map leaves out.
    pub ignored: Vec<usize>,
    /// Inputs of modules whose point has another source.
    pub repeated: usize,
}

/// What the plan is made for.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub graph: &'a Graph,
    pub prompts: &'a [Prompt],
    /// The step of items whose name has none.
    pub step: u32,
}

/// Finds a place for each item.
pub(super) fn plan<'a>(source: &dyn Source, map: &'a Map, target: &Target<'_>) -> Result<Plan<'a>> {
    let names = Names::new(target.graph);
    let mut plan = Plan::default();
    let mut second_hand = Vec::new();
    for (index, item) in source.items().iter().enumerate() {
        let ids: Vec<&str> = target.prompts.iter().map(|p| p.id.as_str()).collect();
        let (said, name) = placed(&item.name, &ids);
        let rule = map.rules.iter().find_map(|rule| {
            [item.name.as_str(), name].into_iter().find_map(|name| Some((rule, fit(&rule.file, name)?)))
        });
        let Some((rule, found)) = rule else {
            let (prompt, step) = place(item, &said, target)?;
            match names.get(name) {
                None => plan.unknown.push((index, prompt, step)),
                Some(meant) => {
                    let part = Part { item: index, rule: None, cut: None, first_half: meant.first_half };
                    let place = (prompt, step, component(target.graph, &meant.point)?);
                    if meant.second_hand {
                        second_hand.push((place, part));
                    } else {
                        add(&mut plan, source, target, place, part)?;
                    }
                }
            }
            continue;
        };
        if rule.ignore {
            plan.ignored.push(index);
            continue;
        }
        let found = Found { step: found.step.or(said.step), prompt: found.prompt.or(said.prompt), ..found };
        let (prompt, step) = place(item, &found, target)?;
        for (cut, point) in rule.points().into_iter().enumerate() {
            let point = named(point, found.layer, rule, item).map_err(|e| rule.blame(e))?;
            let cut = rule.split.is_some().then_some(cut);
            let part = Part { item: index, rule: Some(rule), cut, first_half: false };
            let component = component(target.graph, &point).map_err(|e| rule.blame(e))?;
            add(&mut plan, source, target, (prompt, step, component), part)?;
        }
    }
    all_used(source, map, target)?;
    for (place, part) in second_hand {
        match plan.parts.entry(place) {
            Entry::Vacant(free) => drop(free.insert(part)),
            Entry::Occupied(_) => plan.repeated += 1,
        }
    }
    Ok(plan)
}

/// An entry that fits no dump is a mistake: what it was written for is not imported as it says.
fn all_used(source: &dyn Source, map: &Map, target: &Target<'_>) -> Result<()> {
    let ids: Vec<&str> = target.prompts.iter().map(|p| p.id.as_str()).collect();
    let names: Vec<&str> =
        source.items().iter().flat_map(|i| [i.name.as_str(), placed(&i.name, &ids).1]).collect();
    let unused = |rule: &&Rule| names.iter().all(|name| fit(&rule.file, name).is_none());
    let Some(rule) = map.rules.iter().find(unused) else { return Ok(()) };
    let near = nearest(&rule.file, names.iter().copied());
    let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    Err(rule
        .blame(Error::new("no dump has such a name"))
        .hint(format!("{near}names are without extension, `/` between directories")))
}

fn add<'a>(
    plan: &mut Plan<'a>,
    source: &dyn Source,
    target: &Target<'_>,
    place: Place,
    part: Part<'a>,
) -> Result<()> {
    let new = &source.items()[part.item];
    match plan.parts.entry(place) {
        Entry::Vacant(free) => drop(free.insert(part)),
        Entry::Occupied(taken) => {
            let old = &source.items()[taken.get().item];
            let (prompt, step, component) = place;
            let point = &target.graph.components()[component].point;
            return Err(Error::new(format!(
                "two dumps are of one point: `{}` and `{}` are both `{point}` of prompt `{}`, step {step}",
                old.name, new.name, target.prompts[prompt].id
            ))
            .at(&new.path)
            .hint("a map says which of them it is, and `ignore = true` leaves the other out"));
        }
    }
    Ok(())
}

/// The point of an entry of the map in the layer that a name says.
fn named(point: &str, layer: Option<usize>, rule: &Rule, item: &Item) -> Result<String> {
    let Some(layer) = layer else { return Ok(point.to_owned()) };
    let shifted =
        i64::try_from(layer).ok().and_then(|n| n.checked_add(rule.layer_offset)).filter(|n| *n >= 0);
    let shifted = shifted.ok_or_else(|| {
        Error::new(format!("`{}` is of a layer before the first", item.name))
            .expected("a layer from 0 on", format!("{layer} {:+}", rule.layer_offset))
            .hint("check `layer_offset` in the map")
    })?;
    Ok(point.replace("{i}", &shifted.to_string()))
}

fn component(graph: &Graph, point: &str) -> Result<usize> {
    graph.components().iter().position(|c| c.point == point).ok_or_else(|| {
        let error = Error::new(format!("the model has no point `{}`", plain(point)));
        match nearest_point(point, graph.components().iter().map(|c| c.point.as_str())) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`layerdiff inspect TRACE` lists the points"),
        }
    })
}

/// Place of the prompt, and step.
fn place(item: &Item, found: &Found, target: &Target<'_>) -> Result<(usize, u32)> {
    let ids = || target.prompts.iter().map(|p| p.id.as_str());
    let prompt = match &found.prompt {
        Some(id) => target.prompts.iter().position(|p| p.id == *id).ok_or_else(|| {
            let hint = nearest(id, ids()).map_or_else(
                || format!("known: {}", ids().take(5).collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            Error::new(format!("`{}` is of an unknown prompt `{id}`", item.name)).at(&item.path).hint(hint)
        })?,
        None if target.prompts.len() == 1 => 0,
        None => {
            return Err(Error::new(format!("nothing says which prompt `{}` is of", item.name))
                .expected("one prompt, or a directory for each", ids().take(5).collect::<Vec<_>>().join(", "))
                .at(&item.path)
                .hint("say it with --prompt ID"));
        }
    };
    let step = found.step.unwrap_or(target.step);
    let decoded = target.prompts[prompt].step_token_ids.len();
    if step as usize > decoded {
        return Err(Error::new(format!("`{}` is of a step that the prompt does not have", item.name))
            .expected(format!("at most step {decoded} of `{}`", target.prompts[prompt].id), step)
            .at(&item.path)
            .hint("step 0 is the prefill, and each decoded token one more; the tokens come from the reference, or from `step_token_ids` of the prompts"));
    }
    Ok((prompt, step))
}

impl Target<'_> {
    /// Tokens that a step takes, and those that it sees.
    pub fn tokens(&self, prompt: usize, step: u32) -> (usize, usize) {
        let prefill = self.prompts[prompt].token_ids.len();
        (if step == 0 { prefill } else { 1 }, prefill + step as usize)
    }

    /// The shape of a point there.
    pub fn shape(&self, component: &Component, prompt: usize, step: u32) -> Vec<usize> {
        let (tokens, context) = self.tokens(prompt, step);
        self.graph.shape(component, tokens, context)
    }
}
