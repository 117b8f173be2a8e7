//! lattice: the published crates, instrumented from outside.
//!
//! The passes here call lattice's own kernels in lattice's own order; where a function is private
//! its few operations are written anew. That the result is the engine's, bit for bit, is not
//! assumed but checked on every prompt.

#![allow(missing_docs)]

mod adapter;
mod attention;
mod dequantize;
mod f16;
mod f32;
mod frame;
mod gdn;
mod pass;
mod probe;
mod q4;
mod q4_engine;
mod q4_weights;
mod q8;
mod q8_0;
mod rows;
mod self_check;
mod text;
mod weights;

pub use f16::F16Engine;
pub use f32::F32Engine;
pub use pass::Path;
pub use q4_engine::Q4Engine;
pub use q8::Q8Engine;
pub use q8_0::Q8_0Engine;

use crate::error::Error;
use crate::trace::Provenance;
use lattice_arch::generation::GenerateConfig;
use lattice_compute::forward::cpu::simd_config;
use lattice_inference_core::InferenceError;
use std::collections::BTreeMap;

/// The architecture that its engines run, by the name of its description.
pub const ARCHITECTURE: &str = "qwen3_5";

/// The version of the crates that the passes follow; `Cargo.toml` pins them to it.
pub const VERSION: &str = "0.15.0";

fn engine_error(what: &str, error: &InferenceError) -> Error {
    Error::new(format!("lattice cannot {what}: {error}"))
}

/// Greedy decoding without a repetition penalty, which lattice has on by default.
fn greedy_config(tokens: usize) -> GenerateConfig {
    let mut config = GenerateConfig::default();
    config.temperature = 0.0;
    config.repetition_penalty = 1.0;
    config.max_new_tokens = tokens;
    config
}

/// The SIMD features that its kernels use here.
pub fn cpu_features() -> Vec<String> {
    let simd = simd_config();
    let features = [
        ("avx2", simd.avx2_enabled),
        ("avx512f", simd.avx512f_enabled),
        ("fma", simd.fma_enabled),
        ("neon", simd.neon_enabled),
    ];
    features.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect()
}

fn provenance(engine: &str, path: Path, dtype: &str) -> Provenance {
    Provenance {
        engine: engine.to_owned(),
        engine_version: VERSION.to_owned(),
        path: path.name().to_owned(),
        dtype: dtype.to_owned(),
        cpu_features: cpu_features(),
        host: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        threads: Some(rayon::current_num_threads()),
        libraries: BTreeMap::from([
            ("layerdiff".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("lattice-compute".to_owned(), VERSION.to_owned()),
            ("lattice-model-qwen35".to_owned(), VERSION.to_owned()),
        ]),
        ..Provenance::default()
    }
}
