//! `layerdiff capture`.

use super::{STEPS, Ui, chosen_prompts, print_json, print_text, standard_prompts};
use crate::capture::{Request, capture};
use crate::checkpoint::ModelDir;
use crate::cli::CaptureArgs;
use crate::engine::torch::Python;
use crate::engine::{ENGINES, check_known};
use crate::error::{Error, Result};
use crate::model::PointFilter;
use crate::prompt::tokenize;
use crate::report::Outcome;
use crate::trace::Trace;
use serde_json::json;

pub(super) fn run(args: &CaptureArgs, ui: Ui) -> Result<Outcome> {
    check_known(&args.engine, &ENGINES)?;
    let points = PointFilter::new(&args.input.points)?;
    let model = ModelDir::open(&args.model)?.adapted(args.input.lora.as_deref())?;
    if !model.graph().components().iter().any(|c| points.accepts(&c.point)) {
        return Err(points.chooses_nothing());
    }
    let mut prompts = chosen_prompts(&args.input)?.map_or_else(standard_prompts, Ok)?;
    tokenize(&mut prompts, model.path(), model.graph().dim("vocab"))?;
    if args.engine == "torch" {
        Python::find(args.input.python.as_deref()).capture(
            &model,
            &prompts,
            &points,
            args.dtype.as_deref().unwrap_or("float32"),
            args.input.steps.unwrap_or(STEPS),
            &args.out,
            ui.quiet,
        )?;
    } else {
        if args.dtype.is_some() {
            return Err(Error::new(format!("{} has a precision of its own", args.engine))
                .hint("--dtype is for --engine torch; lattice's precision is in the engine's name"));
        }
        let request = Request {
            engine: &args.engine,
            path: args.path.as_deref(),
            model: &model,
            prompts: &prompts,
            steps: args.input.steps.unwrap_or(STEPS),
            points: &points,
            quiet: ui.quiet,
        };
        capture(&request, &args.out)?;
    }
    // Reading it back proves that others can.
    let trace = Trace::open(&args.out)?;
    let manifest = trace.manifest();
    if ui.json {
        print_json(&json!({
            "outcome": "pass", "trace": args.out, "prompts": manifest.prompts.len(), "tensors": manifest.tensors.len(),
            "bytes": manifest.shards.iter().map(|s| s.bytes).sum::<u64>(),
            "self_check": manifest.self_check, "provenance": manifest.provenance,
        }))?;
    } else {
        print_text(&super::inspect::summary(&trace))?;
    }
    Ok(Outcome::Pass)
}
