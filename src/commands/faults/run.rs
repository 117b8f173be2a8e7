//! `layerdiff faults run`: plants each fault, and scores what is named.

use super::super::{Ui, print_json, print_text, prompts_from};
use super::pairs::{Pair, pairs};
use super::score::{Found, Planting, Row, judge};
use super::shrink::{can_be_blended, shrink};
use super::trial::{Bench, Named, Scope, Trial};
use super::{json, junit, markdown, table};
use crate::bundle::Bundle;
use crate::capture::open_engine;
use crate::checkpoint::ModelDir;
use crate::cli::FaultsRunArgs;
use crate::engine::{Engine, check_known, path_of};
use crate::error::{Error, Result};
use crate::faults::{Fault, Planted, Weights, catalogue, named, sites};
use crate::files::ReplacedDir;
use crate::parameters::Parameters;
use crate::progress;
use crate::prompt::{Prompt, tokenize};
use crate::replay::Held;
use crate::report::Outcome;
use crate::trace::Trace;
use std::collections::BTreeSet;

/// The engines that faults are planted into.
const ENGINES: [&str; 5] = ["lattice-f32", "lattice-f16", "lattice-q8", "lattice-q4", "all"];
/// What `all` means: engine and path.
const ALL: [(&str, &str); 4] = [
    ("lattice-f32", "serial"),
    ("lattice-f32", "batched"),
    ("lattice-f16", "serial"),
    ("lattice-q4", "serial"),
];
/// What the output says instead of a self-check.
pub(super) const UNCHECKED: &str = "planted: the self-check is not taken";

/// All that was found on one engine.
pub(super) struct Score {
    pub engine: String,
    pub path: &'static str,
    pub prompts: Vec<Prompt>,
    pub healthy: Trial,
    pub rows: Vec<Row>,
    pub pairs: Vec<Pair>,
}

impl Score {
    /// A fault where something is missed or wrong; unmeasured where no more is amiss than that some plantings
    /// could not be judged.
    pub fn outcome(&self) -> Outcome {
        let not_wrong = self.healthy.named.is_empty()
            && self.rows.iter().all(Row::is_not_wrong)
            && self.pairs.iter().flat_map(|pair| &pair.plantings).all(Planting::is_not_wrong);
        let plantings = self.rows.iter().flat_map(|row| &row.plantings);
        let mut all = plantings.chain(self.pairs.iter().flat_map(|pair| &pair.plantings));
        match not_wrong {
            false => Outcome::Fault,
            true if all.all(Planting::is_right) => Outcome::Pass,
            true => Outcome::Unmeasured,
        }
    }

    pub fn count(&self, found: Found) -> usize {
        self.rows.iter().map(|row| row.count(found)).sum()
    }
}

pub(super) fn run(args: &FaultsRunArgs, ui: Ui) -> Result<Outcome> {
    check_known(&args.engine, &ENGINES)?;
    let chosen: Vec<&Fault> = args.fault.iter().map(|name| named(name)).collect::<Result<_>>()?;
    let all = if chosen.is_empty() { catalogue().collect() } else { chosen };
    let out = args.out.as_ref().map(|out| ReplacedDir::stage(out, "faults.json")).transpose()?;
    let bundle = Bundle::unpack()?;
    let model = ModelDir::open(&args.model.dir.clone().unwrap_or_else(|| bundle.model()))?;
    let mut scores = Vec::new();
    for (engine, path) in engines(args)? {
        let score = score(args, ui, &bundle, &model, (engine, path), &all)?;
        scores.extend(Some(score).filter(|score| !score.rows.is_empty()));
    }
    if scores.is_empty() {
        let living: Vec<usize> =
            all.iter().flat_map(|f| sites(f, model.graph())).filter_map(|s| s.layer).collect();
        let error = Error::new("there is nothing to plant");
        return Err(match args.layer {
            Some(layer) if !living.contains(&layer) => {
                let list: BTreeSet<usize> = living.into_iter().collect();
                let list: Vec<String> = list.iter().map(usize::to_string).collect();
                error
                    .expected(format!("one of the layers {}", list.join(", ")), layer)
                    .hint("`layerdiff faults list` says where each fault lives; without --layer it is planted in all of them")
            }
            _ => error.hint("it is a fault of quantized weights: try --engine lattice-q4"),
        });
    }
    let outcome = Outcome::worst(scores.iter().map(Score::outcome));
    let text = scores.iter().map(table::text).collect::<Vec<_>>().join("\n\n");
    if let Some(out) = out {
        let files = [("faults.json", json::digest(&scores)), ("faults.md", markdown::report(&scores))];
        out.write(|dir| {
            for (name, text) in files {
                let path = dir.join(name);
                std::fs::write(&path, text).map_err(|e| Error::io("write the score", &path, &e))?;
            }
            crate::report::junit::write(&junit::suites(&scores), dir)
        })?;
        out.publish()?;
    }
    if ui.json {
        print_json(&json::document(&scores))?;
    } else {
        print_text(&text)?;
    }
    Ok(outcome)
}

fn engines(args: &FaultsRunArgs) -> Result<Vec<(&str, &'static str)>> {
    if args.engine != "all" {
        let path = args.path.as_deref().or(Some("serial"));
        return Ok(vec![(&args.engine, path_of(&args.engine, path)?)]);
    }
    if args.path.is_some() {
        return Err(Error::new("--path chooses a path of one engine").hint("all has every path of each"));
    }
    Ok(ALL.to_vec())
}

fn score(
    args: &FaultsRunArgs,
    ui: Ui,
    bundle: &Bundle,
    model: &ModelDir,
    (name, path): (&str, &'static str),
    all: &[&'static Fault],
) -> Result<Score> {
    let mut engine = open_engine(name, model, Some(path))?;
    let prompts = prompts(args, model, bundle, engine.as_ref())?;
    let work = tempfile::tempdir()
        .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
    crate::files::remove_on_interrupt(work.path());
    let held_dir = work.path().join("held");
    let written = engine.write_held(model, &held_dir)?;
    let dir = if written { held_dir.as_path() } else { model.path() };
    let held = Held::open(dir, model.graph().clone(), model.config().clone())?.made_from(model.path())?;
    let description = model.graph().description();
    let (own, source) = (Parameters::open(dir, description)?, Parameters::open(model.path(), description)?);
    let weights = Weights { held: &own, source: &source, config: model.config() };
    let mut bench =
        Bench { model, prompts: &prompts, held: &held, weights, work: work.path(), healthy: None };

    let quantized = engine.provenance().quantized;
    let all: Vec<&Fault> = all.iter().copied().filter(|fault| quantized || !fault.quantized).collect();
    let healthy = bench.keep_healthy(engine.as_mut())?;
    let bar = progress::bar(&format!("{name}, {path}"), (all.len() + args.pairs) as u64, ui.quiet);
    let mut rows = Vec::new();
    for fault in all {
        bar.set_message(fault.name);
        rows.push(row(&bench, engine.as_mut(), fault, args.layer, healthy.unmeasured)?);
        bar.inc(1);
    }
    rows.retain(|row| !row.plantings.is_empty());
    bar.set_message("pairs");
    let pairs = pairs(&bench, engine.as_mut(), &rows, args.pairs, || bar.inc(1))?;
    bar.finish_and_clear();
    drop(bench);
    Ok(Score { engine: name.to_owned(), path, prompts, healthy, rows, pairs })
}

pub(super) fn points(named: &[Named]) -> Vec<String> {
    named.iter().map(|n| format!("{} step {} ratio {:.1e}", n.point, n.step, n.ratio)).collect()
}

/// The prompts that were asked for; else those of the bundled trace, which has tokens to decode.
fn prompts(
    args: &FaultsRunArgs,
    model: &ModelDir,
    bundle: &Bundle,
    engine: &dyn Engine,
) -> Result<Vec<Prompt>> {
    let mut prompts = match prompts_from(args.prompts.as_deref(), &args.prompt.ids)? {
        Some(prompts) => prompts,
        None => Trace::open(&bundle.reference())?.manifest().prompts.clone(),
    };
    tokenize(&mut prompts, model.path(), model.graph().dim("vocab"))?;
    for prompt in &mut prompts {
        prompt.step_token_ids.truncate(args.steps);
        let lacking = args.steps - prompt.step_token_ids.len();
        if lacking > 0 {
            let all = [prompt.token_ids.as_slice(), &prompt.step_token_ids].concat();
            prompt.step_token_ids.extend(engine.greedy(&all, lacking)?);
        }
    }
    Ok(prompts)
}

fn row(
    bench: &Bench<'_>,
    engine: &mut dyn Engine,
    fault: &'static Fault,
    layer: Option<usize>,
    unmeasured: usize,
) -> Result<Row> {
    let graph = bench.model.graph();
    let sites = sites(fault, graph);
    let sites = sites.iter().filter(|site| layer.is_none() || site.layer == layer);
    let mut plantings = Vec::new();
    let mut smallest = None;
    for site in sites {
        let planted = Planted { fault, site, size: 1.0 };
        let trial = bench.trial(engine, &[planted], Scope::Model)?;
        let mut planting = judge(&planted, &trial);
        planting.undefined = trial.unmeasured.saturating_sub(unmeasured);
        // Between −∞ and a number there is nothing either.
        let blended = planting.change.is_finite() && can_be_blended(fault, graph, site);
        if smallest.is_none() && planting.found == Found::Exactly && blended {
            smallest = Some(shrink(bench, engine, planted, planting.ratio)?);
        }
        plantings.push(planting);
    }
    Ok(Row { name: fault.name, weight: fault.weight.name(), plantings, smallest })
}
