//! `layerdiff capture`.

use super::{STEPS, Ui, chosen_prompts, print_json, print_text, standard_prompts};
use crate::bundle::Bundle;
use crate::capture::{Request, capture, dequantized, open_engine};
use crate::checkpoint::ModelDir;
use crate::cli::CaptureArgs;
use crate::engine::torch::{self, Python};
use crate::engine::{capturable, check_known};
use crate::error::{Error, Result};
use crate::model::{PointFilter, Scores};
use crate::prompt::tokenize;
use crate::report::Outcome;
use crate::trace::Trace;
use serde_json::json;
use std::path::Path;

pub(super) fn run(args: &CaptureArgs, ui: Ui) -> Result<Outcome> {
    check_known(&args.engine, &capturable())?;
    let points = PointFilter::new(&args.input.points)?.keeping(Scores::parse(&args.input.scores)?);
    let bundle = args.model.dir.is_none().then(Bundle::unpack).transpose()?;
    if bundle.is_some() {
        ui.say("no --model: capturing the bundled model");
    }
    let dir = args.model.dir.clone().or_else(|| bundle.as_ref().map(Bundle::model)).expect("one of the two");
    let model = ModelDir::open(&dir)?.adapted(args.input.lora.as_deref())?;
    if !model.graph().components().iter().any(|c| points.accepts(&c.point)) {
        return Err(points.chooses_nothing());
    }
    let mut prompts = chosen_prompts(&args.input)?.map_or_else(standard_prompts, Ok)?;
    // A trace as the prompts stands for all its tokens, so that the next one has no fewer and no more.
    let of_trace = args.input.prompts.as_deref().is_some_and(Path::is_dir);
    let decoded = prompts.iter().map(|p| p.step_token_ids.len()).min().filter(|_| of_trace);
    let steps = args.input.steps.or(decoded).unwrap_or(STEPS);
    tokenize(&mut prompts, model.path(), model.graph().dim("vocab"))?;
    if let Some(bits) = args.activation_bits {
        check_activation_bits(&args.engine, bits)?;
    }
    if let Some(dtype) = args.dtype.as_deref().filter(|_| args.engine == torch::NAME) {
        torch::check_dtype(dtype)?;
    }
    if args.engine == torch::NAME {
        if let Some(path) = &args.path {
            return Err(
                Error::new(format!("PyTorch has no path `{path}`")).hint("--path is for lattice's engines")
            );
        }
        let request = torch::Request {
            model: &model,
            prompts: &prompts,
            points: &points,
            dtype: args.dtype.as_deref().unwrap_or("float32"),
            steps,
            activation_bits: args.activation_bits,
            quiet: ui.quiet,
        };
        Python::find(args.input.python.file.as_deref()).capture(&request, &args.out)?;
    } else {
        if args.dtype.is_some() {
            return Err(Error::new(format!("{} has a precision of its own", args.engine))
                .hint("--dtype is for --engine torch; lattice's precision is in the engine's name"));
        }
        // The target is tried first: a bad one must not cost the loading.
        drop(crate::files::staging_dir(&args.out)?);
        let mut engine = open_engine(&args.engine, &model, args.path.as_deref())?;
        // Their hash tells which arm Q belongs to this trace.
        let work = tempfile::tempdir()
            .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
        crate::files::remove_on_interrupt(work.path());
        let weights = dequantized(engine.as_ref(), &model, &work.path().join("dequantized"))?;
        let request = Request {
            model: &model,
            prompts: &prompts,
            steps,
            points: &points,
            dequantized: weights.as_ref(),
            quiet: ui.quiet,
        };
        capture(engine.as_mut(), &request, &args.out)?;
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

fn check_activation_bits(engine: &str, bits: u32) -> Result<()> {
    if engine != torch::NAME {
        return Err(Error::new(format!("{engine} rounds activations as it does"))
            .hint("--activation-bits is for --engine torch; of lattice's engines lattice-q8_0 rounds them"));
    }
    if bits != 8 {
        return Err(Error::new("no engine rounds activations to so many bits")
            .expected("--activation-bits 8", bits)
            .hint("8 is what lattice-q8_0 does"));
    }
    Ok(())
}
