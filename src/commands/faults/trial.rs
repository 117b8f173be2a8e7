//! One planted run: captured, replayed, what was named, and what it was called.

use super::healthy::Healthy;
use crate::capture::write_options;
use crate::checkpoint::ModelDir;
use crate::diagnose::{Diagnosed, diagnose};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::faults::{Change, Plant, Planted, Weights};
use crate::hook::{CaptureHook, Chain};
use crate::model::PointFilter;
use crate::prompt::Prompt;
use crate::replay::{Held, Place, Replay, replay};
use crate::trace::{Trace, TraceWriter};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// What every trial on one engine has in common.
pub(super) struct Bench<'a> {
    pub model: &'a ModelDir,
    pub prompts: &'a [Prompt],
    pub held: &'a Held,
    pub weights: Weights<'a>,
    /// Where traces lie while they are looked at.
    pub work: &'a Path,
    /// What need not be replayed again.
    pub healthy: Option<Healthy>,
}

/// A component that errs beyond rounding.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub prompt: String,
    pub step: u32,
    pub point: String,
    pub layer: Option<usize>,
    pub ratio: f64,
}

/// A component of a step of a prompt: prompt, step and point.
pub(super) type At = (String, u32, String);

pub(super) fn at(place: &Place<'_>) -> At {
    (place.prompt.id.clone(), place.step, place.point.to_owned())
}

/// The ratio of a component, or why it could not be replayed.
pub(super) type Ratio = std::result::Result<f64, String>;

/// A planted component that could not be replayed.
#[derive(Debug, Clone)]
pub(super) struct Unjudged {
    pub why: String,
    /// True where it can be replayed without the faults, so that it is they who prevent it.
    pub by_fault: bool,
}

/// What came of a trial.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// By prompt, what was changed.
    pub changes: Vec<(String, Change)>,
    /// All that errs beyond rounding, in order of execution.
    pub named: Vec<Named>,
    /// The ratios of planted components that could be replayed.
    pub ratios: Vec<(At, f64)>,
    /// What is said of the planted components that are named, by point.
    pub diagnosed: Vec<(String, Diagnosed)>,
    /// Planted components that could not be replayed.
    pub unjudged: HashMap<At, Unjudged>,
    /// Number of components that could not be replayed.
    pub unmeasured: usize,
}

impl Trial {
    /// The largest ratio of a planted component that is one of these.
    pub fn ratio(&self, of: impl Fn(&str) -> bool) -> f64 {
        self.ratios.iter().filter(|((_, _, point), _)| of(point)).map(|(_, ratio)| *ratio).fold(0.0, f64::max)
    }
}

/// Which components of a trial are replayed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scope {
    /// All; the faulty ones are diagnosed.
    Model,
    /// Those of the sites alone.
    Site,
}

impl Bench<'_> {
    /// Runs the prompts with faults; healthy without one.
    pub fn trial(&self, engine: &mut dyn Engine, planted: &[Planted<'_>], scope: Scope) -> Result<Trial> {
        let out = self.work.join("trace");
        let points = if scope == Scope::Site { only(planted)? } else { PointFilter::default() };
        let changes = self.capture(engine, planted, &points, &out)?;
        let trace = Trace::open(&out)?;
        let trial = Trial { changes, ..self.replayed(&trace, planted, scope)? };
        drop(trace);
        std::fs::remove_dir_all(&out).map_err(|e| Error::io("remove a trace", &out, &e))?;
        Ok(trial)
    }

    /// Runs the prompts without a fault, and keeps what later trials need not replay again.
    pub fn keep_healthy(&mut self, engine: &mut dyn Engine) -> Result<Trial> {
        let out = self.work.join("healthy");
        self.capture(engine, &[], &PointFilter::default(), &out)?;
        let trace = Trace::open(&out)?;
        let places = self.places(|_| true);
        let ratios = self.ratios(&trace, &places)?;
        let ratios = places.iter().map(at).zip(ratios).collect();
        self.healthy = Some(Healthy { trace, ratios });
        // Which it says itself now, with nothing to replay.
        let healthy = self.healthy.as_ref().map(|healthy| &healthy.trace);
        healthy.map_or_else(|| Ok(Trial::default()), |trace| self.replayed(trace, &[], Scope::Model))
    }

    fn capture(
        &self,
        engine: &mut dyn Engine,
        planted: &[Planted<'_>],
        points: &PointFilter,
        out: &Path,
    ) -> Result<Vec<(String, Change)>> {
        let graph = self.model.graph();
        let mut provenance = engine.provenance();
        let names: Vec<&str> = planted.iter().map(|planted| planted.fault.name).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        provenance.notes.push(format!("planted: {names}; the self-check is not taken"));
        let mut writer = TraceWriter::create(out, write_options(self.model, provenance))?;
        let mut changes = Vec::new();
        for prompt in self.prompts {
            writer.start_prompt(prompt);
            let mut plant = Plant::new(planted, graph, self.weights, prompt.token_ids.len());
            let mut capture = CaptureHook::new(&mut writer, points);
            let mut chain = Chain(vec![&mut plant, &mut capture]);
            engine.run_unchecked(&prompt.token_ids, &prompt.step_token_ids, &mut chain)?;
            changes.extend(plant.changes().iter().map(|change| (prompt.id.clone(), change.clone())));
        }
        writer.finish(None)?;
        Ok(changes)
    }

    /// Components of all steps of all prompts.
    fn places(&self, wanted: impl Fn(&str) -> bool) -> Vec<Place<'_>> {
        let points = || self.model.graph().components().iter().map(|c| c.point.as_str());
        let of_step =
            |prompt, step| points().filter(|p| wanted(p)).map(move |point| Place { prompt, step, point });
        let of_prompt = |prompt: &'_ Prompt| 0..=prompt.step_token_ids.len() as u32;
        self.prompts.iter().flat_map(|p| of_prompt(p).flat_map(move |step| of_step(p, step))).collect()
    }

    /// The ratios of places.
    fn ratios(&self, trace: &Trace, places: &[Place<'_>]) -> Result<Vec<Ratio>> {
        let graph = self.model.graph();
        let known = |place: &Place<'_>| self.healthy.as_ref().filter(|h| h.is_same(graph, trace, place));
        let known: Vec<Option<&Healthy>> = places.iter().map(known).collect();
        let open = places.iter().zip(&known).filter(|(_, known)| known.is_none());
        let open: Vec<Place<'_>> = open.map(|(place, _)| *place).collect();
        let mut anew = replay(trace, self.held, &open, || ())?.into_iter();
        let ratio = |(place, known): (&Place<'_>, Option<&Healthy>)| match known {
            Some(healthy) => healthy.ratio(place),
            None => match anew.next() {
                Some(Replay::Done(local)) => Ok(local.ratio),
                Some(Replay::Unmeasured(why)) => Err(why),
                None => Err("it was not replayed".to_owned()),
            },
        };
        Ok(places.iter().zip(known).map(ratio).collect())
    }

    fn replayed(&self, trace: &Trace, planted: &[Planted<'_>], scope: Scope) -> Result<Trial> {
        let graph = self.model.graph();
        let is_planted = |point: &str| planted.iter().any(|planted| planted.site.has(point));
        let places = self.places(|point| scope == Scope::Model || is_planted(point));
        let mut trial = Trial::default();
        let mut faulty: Vec<(&str, Vec<Place<'_>>)> = Vec::new();
        for (place, ratio) in places.iter().zip(self.ratios(trace, &places)?) {
            let ratio = match ratio {
                Ok(ratio) => ratio,
                Err(why) => {
                    trial.unmeasured += 1;
                    if is_planted(place.point) {
                        let by_fault = self.healthy.as_ref().is_none_or(|h| h.ratio(place).is_ok());
                        trial.unjudged.insert(at(place), Unjudged { why, by_fault });
                    }
                    continue;
                }
            };
            if is_planted(place.point) {
                trial.ratios.push((at(place), ratio));
            }
            if ratio <= 1.0 {
                continue;
            }
            trial.named.push(Named {
                prompt: place.prompt.id.clone(),
                step: place.step,
                point: place.point.to_owned(),
                layer: graph.get(place.point).and_then(|c| c.layer),
                ratio,
            });
            match faulty.iter_mut().find(|(point, _)| *point == place.point) {
                Some((_, places)) => places.push(*place),
                None if is_planted(place.point) => faulty.push((place.point, vec![*place])),
                None => {}
            }
        }
        if scope == Scope::Model {
            let (points, places): (Vec<&str>, Vec<_>) = faulty.into_iter().unzip();
            let found = points.into_iter().zip(diagnose(trace, self.held, &places));
            trial.diagnosed = found.filter_map(|(point, found)| Some((point.to_owned(), found?))).collect();
        }
        Ok(trial)
    }
}

/// What is needed to replay the components of the sites.
fn only(planted: &[Planted<'_>]) -> Result<PointFilter> {
    let components = planted.iter().flat_map(|planted| &planted.site.components);
    let points = components.flat_map(|c| [&c.point].into_iter().chain(&c.inputs).chain(&c.carried));
    let points: BTreeSet<&str> = points.map(String::as_str).collect();
    PointFilter::new(&format!("{{{}}}", points.into_iter().collect::<Vec<_>>().join(",")))
}
