//! `layerdiff dequantize`.

use super::{Ui, print_json, print_text};
use crate::checkpoint::ModelDir;
use crate::cli::DequantizeArgs;
use crate::engine::{CANDIDATES, check_known, open};
use crate::error::{Error, Result};
use crate::files::{remove_on_interrupt, staging_dir};
use crate::number::count;
use crate::quantize::{Format, quantize};
use crate::report::Outcome;
use serde_json::json;
use tempfile::TempDir;

pub(super) fn run(args: &DequantizeArgs, ui: Ui) -> Result<Outcome> {
    check_known(&args.engine, &CANDIDATES)?;
    let model = ModelDir::open(&args.model)?;
    let source = match &args.original {
        Some(path) if model.is_quantized() => ModelDir::open(path)?,
        Some(_) => {
            return Err(Error::new("the model is not quantized, and so its own original")
                .at(&args.model)
                .hint("leave --original out"));
        }
        None => model.clone(),
    };
    // The target is tried first: a bad one must not cost a run.
    drop(staging_dir(&args.out)?);
    let rotated = args.seed.map(|seed| rotated(&model, args, seed, ui)).transpose()?;
    let dir = rotated.as_ref().map_or_else(|| args.model.clone(), |work| work.path().join("quantized"));
    let engine = open(&args.engine, &dir, model.graph(), None)?;
    if !engine.write_dequantized(&source, &args.out)? {
        return Err(Error::new("nothing to write: the weights are exact")
            .expected("weights that the engine rounds", format!("those of {}", args.engine))
            .at(&args.model)
            .hint("the original is the arm Q: run PyTorch on it"));
    }
    // Reading it back proves that others can.
    let (tensors, bytes) = ModelDir::open(&args.out)?.size()?;
    let bits = engine.activation_bits();
    if ui.json {
        print_json(&json!({
            "outcome": "pass", "engine": args.engine, "seed": engine.rotation(), "out": args.out,
            "tensors": tensors, "bytes": bytes, "activation_bits": bits,
        }))?;
    } else {
        let rounded = bits.map_or_else(String::new, |bits| {
            format!(
                "\nthe engine rounds activations to {bits} bits: capture it with --activation-bits {bits}"
            )
        });
        print_text(&format!(
            "{}: the weights of {} in float32\n{} in {bytes} bytes{rounded}",
            args.out.display(),
            args.engine,
            count(tensors, "tensor")
        ))?;
    }
    Ok(Outcome::Pass)
}

/// The model rotated by `seed` and quantized, in a temporary directory.
fn rotated(model: &ModelDir, args: &DequantizeArgs, seed: u64, ui: Ui) -> Result<TempDir> {
    if args.engine != "lattice-quarot-q4" {
        return Err(Error::new(format!("{} has no seed", args.engine))
            .hint("--seed is for --engine lattice-quarot-q4"));
    }
    let work = tempfile::tempdir()
        .map_err(|e| Error::io("create a temporary directory", std::env::temp_dir(), &e))?;
    remove_on_interrupt(work.path());
    quantize(model, Format::QuarotQ4 { seed }, &work.path().join("quantized"), ui.quiet)?;
    Ok(work)
}
