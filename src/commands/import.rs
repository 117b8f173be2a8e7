//! `layerdiff import`.

use super::compare::graph_of;
use super::{Ui, print_json, print_text, prompts_from};
use crate::checkpoint::ModelDir;
use crate::cli::ImportArgs;
use crate::error::{Error, Result};
use crate::files::staging_dir;
use crate::import::map::Map;
use crate::import::{Imported, Request, format, import, suggest};
use crate::model::{Adapter, Graph};
use crate::number::count;
use crate::prompt::{Prompt, select, tokenize};
use crate::report::Outcome;
use crate::tensor::DType;
use crate::trace::Trace;
use serde_json::{Value, json};
use std::path::Path;

/// What the dumps are of.
struct Model {
    graph: Graph,
    config: Value,
    adapter: Option<Adapter>,
    prompts: Vec<Prompt>,
    reference: Option<Trace>,
}

pub(super) fn run(args: &ImportArgs, ui: Ui) -> Result<Outcome> {
    // The target is tried first: a bad one must not cost a run.
    args.out.as_deref().filter(|_| !args.suggest).map(staging_dir).transpose()?;
    let map = args.map.as_deref().map(Map::read).transpose()?.unwrap_or_default();
    let model = model(args)?;
    let source = format::open(&args.dumps)?;
    let engine = args.engine.as_deref().or(map.engine.as_deref()).unwrap_or("imported");
    let version = args.engine_version.as_deref().or(map.version.as_deref()).unwrap_or("unknown");
    let request = Request {
        source: source.as_ref(),
        path: &args.dumps,
        map: &map,
        graph: &model.graph,
        config: model.config.clone(),
        adapter: model.adapter.clone(),
        prompts: &model.prompts,
        step: args.step,
        reference: model.reference.as_ref(),
        engine: (engine, version),
        quantized: args.quantized || map.quantized,
        precision: args.dtype.or(map.precision).map(DType::from),
        ignore_unknown: args.ignore_unknown,
        trust_map: args.trust_map,
    };
    match &args.out {
        Some(out) if !args.suggest => {
            let imported = import(&request, out)?;
            say(&imported, args, out, source.format(), ui)?;
        }
        _ => {
            let text = suggest(&request)?;
            if ui.json { print_json(&json!({"outcome": "pass", "map": text}))? } else { print_text(&text)? }
        }
    }
    Ok(Outcome::Pass)
}

/// The model and its prompts, from the reference or from files.
fn model(args: &ImportArgs) -> Result<Model> {
    if let Some(path) = &args.reference {
        let trace = Trace::open(path)?;
        let graph = graph_of(&trace)?;
        let manifest = trace.manifest();
        let prompts = select(manifest.prompts.clone(), &args.prompt.ids).map_err(|e| e.at(path))?;
        let (config, adapter) = (manifest.config.clone(), manifest.adapter.clone());
        return Ok(Model { graph, config, adapter, prompts, reference: Some(trace) });
    }
    let (Some(dir), Some(file)) = (&args.model, &args.prompts) else {
        return Err(Error::new("nothing says what model the dumps are of")
            .hint("give --reference TRACE, or --model DIR with --prompts FILE"));
    };
    let dir = ModelDir::open(dir)?;
    let graph = dir.graph().clone();
    let mut prompts = prompts_from(Some(file), &args.prompt.ids)?.unwrap_or_default();
    tokenize(&mut prompts, dir.path(), graph.dim("vocab"))?;
    let config = dir.config().as_json().clone();
    Ok(Model { graph, config, adapter: None, prompts, reference: None })
}

fn say(imported: &Imported, args: &ImportArgs, out: &Path, format: &str, ui: Ui) -> Result<()> {
    if ui.json {
        return print_json(&json!({
            "outcome": "pass", "out": out, "format": format, "tensors": imported.tensors,
            "points": imported.points, "of_points": imported.of_points, "prompts": imported.prompts,
            "left_out": imported.left_out, "notes": imported.notes,
        }));
    }
    print_text(&format!(
        "{}: {} from {format}, {}\n{} of the model's {} points",
        out.display(),
        count(imported.tensors, "tensor"),
        count(imported.prompts, "prompt"),
        imported.points,
        imported.of_points
    ))?;
    imported.left_out.iter().chain(&imported.notes).for_each(|words| ui.say(format_args!("note: {words}")));
    if let Some(reference) = &args.reference {
        let (reference, out) = (reference.display(), out.display());
        ui.say(format_args!("hint: layerdiff compare {reference} {out} --only-captured"));
    }
    Ok(())
}
