//! From what was recorded to a trace.

use super::session::{Part, Session};
use crate::error::{Error, Result};
use crate::number::count;
use crate::tensor::DType;
use crate::trace::{Provenance, TraceWriter, WriteOptions, hash};
use std::collections::BTreeSet;

/// Bytes of tensors that are kept before a shard is written.
const SHARD_BYTES: usize = 8 << 20;

/// The basis that an engine which rotates nothing computes in.
const BASIS: &str = "original";

impl Session {
    /// Writes the trace, in the architecture's order of execution.
    pub fn write(mut self) -> Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.parts.is_empty() {
            return Err(Error::new("nothing was tapped, so that there is no trace to write")
                .at(&self.target)
                .hint("call `tensor` between `begin` and `finish`, on the same tap"));
        }
        self.parts.sort_by_key(|p| (p.prompt, p.step, p.component, p.first_row));
        let parts = std::mem::take(&mut self.parts);
        // Complete or refused, before the weights are read for their hash.
        let tensors =
            || parts.chunk_by(|a, b| (a.prompt, a.step, a.component) == (b.prompt, b.step, b.component));
        tensors().try_for_each(|rows| self.complete(rows))?;
        let options = WriteOptions {
            architecture: self.graph.description().name.clone(),
            config: self.config.as_json().clone(),
            provenance: self.provenance(&parts)?,
            adapter: None,
            shard_bytes: SHARD_BYTES,
        };
        let mut writer = TraceWriter::create(&self.target, options)?;
        let mut tensors = tensors().peekable();
        for (i, prompt) in self.prompts.iter().enumerate() {
            writer.start_prompt(prompt);
            while let Some(rows) = tensors.next_if(|rows| rows[0].prompt == i) {
                let first = &rows[0];
                let mut shape = first.shape.clone();
                let mut bytes = Vec::with_capacity(rows.iter().map(|part| part.bytes).sum());
                rows.iter().try_for_each(|part| self.spool.read(part.at, part.bytes, &mut bytes))?;
                if let Some(all) = shape.first_mut() {
                    *all = rows.iter().map(|part| part.shape[0]).sum();
                }
                let point = &self.graph.components()[first.component].point;
                writer.push(first.step, point, first.dtype, &shape, bytes, BASIS, false)?;
            }
        }
        writer.finish(None)
    }

    /// Refuses a tensor of which a row is missing, or there twice.
    fn complete(&self, rows: &[Part]) -> Result<()> {
        let first = &rows[0];
        let prompt = &self.prompts[first.prompt];
        let whole = self.shape(first.component, prompt.token_ids.len(), first.step as usize);
        let point = &self.graph.components()[first.component].point;
        let name = || format!("`{point}` (step {}, prompt `{}`)", first.step, prompt.id);
        if let Some(other) = rows.iter().find(|part| part.dtype != first.dtype) {
            return Err(Error::new(format!("rows of {} are of different types", name()))
                .expected(first.dtype, other.dtype));
        }
        let mut next = 0;
        let all = whole.first().copied().unwrap_or(1);
        for part in rows {
            let rows = part.shape.first().copied().unwrap_or(1);
            if part.first_row < next {
                return Err(Error::new(format!("{} was tapped twice", name())).hint(
                    "a warm-up pass, or the same kernel in two places: tap one, or call `step` or `prompt` between",
                ));
            }
            if part.first_row > next {
                break;
            }
            next += rows;
        }
        if next == all {
            return Ok(());
        }
        Err(Error::new(format!("{} lacks rows", name()))
            .expected(count(all, "row"), format!("none at row {next}")))
    }

    fn provenance(&self, parts: &[Part]) -> Result<Provenance> {
        let numbers = parts.iter().map(|part| part.dtype).filter(|dtype| dtype.is_float());
        let dtypes: BTreeSet<&str> = numbers.map(name).collect();
        let mut hashes = hash::hashes(&self.model_dir)?;
        if let Some(dir) = &self.dequantized {
            let weights = hash::hashes(dir)?.weights.ok_or_else(|| {
                Error::new("there are no weights where the engine's dequantized ones should be")
                    .at(dir)
                    .hint("name an f32 checkpoint (`*.safetensors`) in `quantized`, or none if there is none")
            })?;
            hashes.dequantized = Some(weights);
        }
        Ok(Provenance {
            engine: self.engine.0.clone(),
            engine_version: self.engine.1.clone(),
            path: "tap".to_owned(),
            dtype: dtypes.into_iter().collect::<Vec<_>>().join(" and "),
            host: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            hashes,
            libraries: [("layerdiff".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
            quantized: self.quantized,
            ..Provenance::default()
        })
    }
}

fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "float64",
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::U8 => "mask",
    }
}
