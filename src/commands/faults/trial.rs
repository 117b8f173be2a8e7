//! One planted run: captured, replayed, and what was named.

use crate::checkpoint::ModelDir;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::faults::{Change, Fault, Plant, Site, Weights};
use crate::hook::{CaptureHook, Chain, Hook, NoHook};
use crate::model::PointFilter;
use crate::prompt::Prompt;
use crate::replay::{Held, Local, Place, Replay, replay};
use crate::trace::{Trace, TraceWriter, WriteOptions};
use std::path::Path;

/// What every trial on one engine has in common.
pub(super) struct Bench<'a> {
    pub model: &'a ModelDir,
    pub prompts: &'a [Prompt],
    pub held: &'a Held,
    pub weights: Weights<'a>,
    /// Where traces lie while they are looked at.
    pub work: &'a Path,
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

/// What came of a trial.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// By prompt, what was changed.
    pub changes: Vec<(String, Change)>,
    /// All that errs beyond rounding, in order of execution.
    pub named: Vec<Named>,
    /// The largest ratio of a planted component.
    pub ratio: f64,
    /// Components that could not be replayed.
    pub unmeasured: usize,
}

/// Which components of a trial are replayed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scope {
    /// All.
    Model,
    /// Those of the site alone.
    Site,
}

impl Bench<'_> {
    /// Runs the prompts with `fault` at `site`, blended to `size`; healthy without one.
    pub fn trial(
        &self,
        engine: &mut dyn Engine,
        planted: Option<(&Fault, &Site<'_>, f32)>,
        scope: Scope,
    ) -> Result<Trial> {
        let out = self.work.join("trace");
        let points = match planted {
            Some((_, site, _)) if scope == Scope::Site => only(site)?,
            _ => PointFilter::default(),
        };
        let changes = self.capture(engine, planted, &points, &out)?;
        let trace = Trace::open(&out)?;
        let mut trial = self.replayed(&trace, planted.map(|(_, site, _)| site), scope)?;
        trial.changes = changes;
        drop(trace);
        std::fs::remove_dir_all(&out).map_err(|e| Error::io("remove a trace", &out, &e))?;
        Ok(trial)
    }

    fn capture(
        &self,
        engine: &mut dyn Engine,
        planted: Option<(&Fault, &Site<'_>, f32)>,
        points: &PointFilter,
        out: &Path,
    ) -> Result<Vec<(String, Change)>> {
        let graph = self.model.graph();
        let mut provenance = engine.provenance();
        let name = planted.map_or("nothing", |(fault, ..)| fault.name);
        provenance.notes.push(format!("planted: {name}; the self-check is not taken"));
        let options = WriteOptions {
            architecture: graph.description().name.clone(),
            config: self.model.config().as_json().clone(),
            provenance,
            adapter: None,
            shard_bytes: 64 << 20,
        };
        let mut writer = TraceWriter::create(out, options)?;
        let mut changes = Vec::new();
        for prompt in self.prompts {
            writer.start_prompt(prompt);
            let tokens = prompt.token_ids.len();
            let mut plant =
                planted.map(|(fault, site, size)| Plant::new(fault, graph, site, self.weights, size, tokens));
            let mut nothing = NoHook;
            let mut capture = CaptureHook::new(&mut writer, points);
            let first: &mut dyn Hook = plant.as_mut().map_or(&mut nothing, |plant| plant);
            let mut chain = Chain(vec![first, &mut capture]);
            engine.run_unchecked(&prompt.token_ids, &prompt.step_token_ids, &mut chain)?;
            let made = plant.iter().flat_map(Plant::changes).cloned();
            changes.extend(made.map(|change| (prompt.id.clone(), change)));
        }
        writer.finish(None)?;
        Ok(changes)
    }

    fn replayed(&self, trace: &Trace, site: Option<&Site<'_>>, scope: Scope) -> Result<Trial> {
        let graph = self.model.graph();
        let planted = |point: &str| site.is_some_and(|site| site.has(point));
        let mut places = Vec::new();
        for prompt in self.prompts {
            for step in 0..=prompt.step_token_ids.len() as u32 {
                let all = graph.components().iter().filter(|c| scope == Scope::Model || planted(&c.point));
                places.extend(all.map(|c| Place { prompt, step, point: &c.point }));
            }
        }
        let mut trial = Trial::default();
        for (place, replayed) in places.iter().zip(replay(trace, self.held, &places, || ())?) {
            let Replay::Done(Local { ratio, .. }) = replayed else {
                trial.unmeasured += 1;
                continue;
            };
            if planted(place.point) {
                trial.ratio = trial.ratio.max(ratio);
            }
            if ratio > 1.0 {
                trial.named.push(Named {
                    prompt: place.prompt.id.clone(),
                    step: place.step,
                    point: place.point.to_owned(),
                    layer: graph.get(place.point).and_then(|c| c.layer),
                    ratio,
                });
            }
        }
        Ok(trial)
    }
}

/// What is needed to replay the components of a site.
fn only(site: &Site<'_>) -> Result<PointFilter> {
    let points =
        site.components.iter().flat_map(|c| [&c.point].into_iter().chain(&c.inputs).chain(&c.carried));
    let points: std::collections::BTreeSet<&str> = points.map(String::as_str).collect();
    PointFilter::new(&format!("{{{}}}", points.into_iter().collect::<Vec<_>>().join(",")))
}
