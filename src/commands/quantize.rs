//! `layerdiff quantize`.

use super::{Ui, print_json, print_text};
use crate::checkpoint::ModelDir;
use crate::checkpoint::q4::Q4Dir;
use crate::cli::{QuantizeArgs, QuantizeFormat};
use crate::error::{Error, Result};
use crate::number::count;
use crate::quantize::{DEFAULT_SEED, Format, quantize};
use crate::report::Outcome;
use serde_json::json;

pub(super) fn run(args: &QuantizeArgs, ui: Ui) -> Result<Outcome> {
    let (name, format) = match (args.format, args.seed) {
        (QuantizeFormat::Q4, None) => ("q4", Format::Q4),
        (QuantizeFormat::Q4, Some(_)) => {
            return Err(
                Error::new("plain Q4 has no seed").hint("leave --seed out, or use --format quarot-q4")
            );
        }
        (QuantizeFormat::QuarotQ4, seed) => {
            ("quarot-q4", Format::QuarotQ4 { seed: seed.unwrap_or(DEFAULT_SEED) })
        }
    };
    let model = ModelDir::open(&args.model)?;
    let made = quantize(&model, format, &args.out, ui.quiet)?;
    // Reading it back proves that others can.
    let seed = Q4Dir::open(&args.out)?.seed();
    let bits = made.bytes as f64 * 8.0 / made.elements as f64;
    if ui.json {
        print_json(&json!({
            "outcome": "pass", "format": name, "seed": seed, "out": args.out, "quantized": made.quantized,
            "kept": made.kept, "elements": made.elements, "bytes": made.bytes, "bits_per_element": bits,
        }))?;
    } else {
        print_text(&format!(
            "{}: {name}{}\n{} in four bits, {} in 16 bits\n{} elements in {} bytes, {bits:.2} bits each",
            args.out.display(),
            seed.map_or_else(String::new, |seed| format!(", rotated with seed {seed}")),
            count(made.quantized, "tensor"),
            made.kept,
            made.elements,
            made.bytes
        ))?;
    }
    Ok(Outcome::Pass)
}
