//! `layerdiff faults run`: plants each fault, and scores what is named.

use super::super::{Ui, print_json, print_text, prompts_from};
use super::score::{Found, Row, judge};
use super::shrink::{can_be_blended, shrink};
use super::table;
use super::trial::{Bench, Named, Scope};
use crate::bundle::Bundle;
use crate::capture::open_engine;
use crate::checkpoint::ModelDir;
use crate::cli::FaultsRunArgs;
use crate::engine::{Engine, check_known};
use crate::error::{Error, Result};
use crate::faults::{Fault, Weights, catalogue, named, sites};
use crate::files::ReplacedDir;
use crate::parameters::Parameters;
use crate::progress;
use crate::prompt::{Prompt, tokenize};
use crate::replay::Held;
use crate::report::Outcome;
use crate::trace::Trace;
use serde_json::json;

/// The engines that faults are planted into.
const ENGINES: [&str; 4] = ["lattice-f32", "lattice-f16", "lattice-q8", "lattice-q4"];
/// What the output says instead of a self-check.
pub(super) const UNCHECKED: &str = "planted: the self-check is not taken";
pub(super) fn run(args: &FaultsRunArgs, ui: Ui) -> Result<Outcome> {
    check_known(&args.engine, &ENGINES)?;
    let chosen = args.fault.as_deref().map(named).transpose()?;
    let out = args.out.as_ref().map(|out| ReplacedDir::stage(out, "faults.json")).transpose()?;
    let bundle = Bundle::unpack()?;
    let model = ModelDir::open(&args.model.clone().unwrap_or_else(|| bundle.model()))?;
    let path = args.path.as_deref().or(Some("serial"));
    let mut engine = open_engine(&args.engine, &model, path)?;
    let prompts = prompts(args, &model, &bundle, engine.as_ref())?;
    let work = tempfile::tempdir()
        .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
    crate::files::remove_on_interrupt(work.path());
    let held_dir = work.path().join("held");
    let written = engine.write_held(&model, &held_dir)?;
    let dir = if written { held_dir.as_path() } else { model.path() };
    let held = Held::open(dir, model.graph().clone(), model.config().clone())?;
    let description = model.graph().description();
    let (own, source) = (Parameters::open(dir, description)?, Parameters::open(model.path(), description)?);
    let weights = Weights { held: &own, source: &source, config: model.config() };
    let bench = Bench { model: &model, prompts: &prompts, held: &held, weights, work: work.path() };

    let quantized = engine.provenance().quantized;
    let all = chosen.map_or_else(|| catalogue().collect(), |fault| vec![fault]);
    let all: Vec<&Fault> = all.into_iter().filter(|fault| quantized || !fault.quantized).collect();
    let healthy = bench.trial(engine.as_mut(), None, Scope::Model)?;
    let bar = progress::bar("planting", all.len() as u64, ui.quiet);
    let mut rows = Vec::new();
    for fault in all {
        bar.set_message(fault.name);
        rows.push(row(&bench, engine.as_mut(), fault, args.layer)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    rows.retain(|row| !row.plantings.is_empty());
    if rows.is_empty() {
        return Err(Error::new("there is nothing to plant").hint(
            "the fault lives in no such layer, or is one of quantized weights: try --engine lattice-q4",
        ));
    }
    let right = rows.iter().all(Row::is_right) && healthy.named.is_empty();
    let outcome = if right { Outcome::Pass } else { Outcome::Fault };
    let count = |found: Found| rows.iter().map(|row| row.count(found)).sum::<usize>();
    let json = json!({
        "outcome": if right { "pass" } else { "fault" },
        "engine": args.engine, "path": path, "self_check": UNCHECKED,
        "prompts": prompts.iter().map(|p| json!({
            "id": p.id, "tokens": p.token_ids.len(), "steps": p.step_token_ids.len()
        })).collect::<Vec<_>>(),
        "healthy": { "alarms": points(&healthy.named), "unmeasured": healthy.unmeasured },
        "score": {
            "exactly": count(Found::Exactly), "missed": count(Found::Missed), "wrong": count(Found::Wrong),
            "indistinguishable": count(Found::Indistinguishable), "not_visible": count(Found::NotVisible),
            "layer_exact": rows.iter().flat_map(|r| &r.plantings).filter(|p| p.layer_exact).count(),
            "plantings": rows.iter().map(|r| r.plantings.len()).sum::<usize>(),
            "harmless_silent": count(Found::Silent), "harmless_alarms": count(Found::Alarm),
        },
        "faults": rows,
    });
    let text = table::text(&args.engine, &prompts, &healthy, &rows);
    if let Some(out) = out {
        let pretty = serde_json::to_string_pretty(&json).expect("a score has string keys only");
        for (name, text) in [("faults.json", pretty), ("faults.txt", text.clone())] {
            let path = out.path().join(name);
            std::fs::write(&path, text + "\n").map_err(|e| Error::io("write the score", &path, &e))?;
        }
        out.publish()?;
    }
    if ui.json {
        print_json(&json)?;
    } else {
        print_text(&text)?;
    }
    Ok(outcome)
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
    let mut prompts = match prompts_from(args.prompts.as_deref(), &args.prompt)? {
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
) -> Result<Row> {
    let graph = bench.model.graph();
    let sites = sites(fault, graph);
    let sites = sites.iter().filter(|site| layer.is_none() || site.layer == layer);
    let mut plantings = Vec::new();
    let mut smallest = None;
    for site in sites {
        let trial = bench.trial(engine, Some((fault, site, 1.0)), Scope::Model)?;
        let planting = judge(fault, site, &trial);
        // Between −∞ and a number there is nothing either.
        let blended = planting.change.is_finite() && can_be_blended(fault, graph, site);
        if smallest.is_none() && planting.found == Found::Exactly && blended {
            smallest = Some(shrink(bench, engine, fault, site, planting.ratio)?);
        }
        plantings.push(planting);
    }
    Ok(Row { name: fault.name, weight: fault.weight.name(), plantings, smallest, diagnosis: None })
}
