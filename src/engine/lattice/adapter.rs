//! A linear with a low-rank adapter on it, and the hook that puts both into the un-instrumented engine.

use super::pass::Pass;
use crate::error::Result;
use crate::model::ADAPTER_PARTS;
use lattice_compute::lora_hook::LoraHook;
use lattice_tune::lora::{LoraAdapter, LoraLayer};
use std::sync::{Arc, PoisonError, RwLock};

/// The factors of a layer's linear in the engine's adapter, if it changes that linear.
pub(super) fn factors<'a>(adapter: &'a LoraAdapter, layer: usize, module: &str) -> Option<&'a LoraLayer> {
    adapter.layers().get(&(layer, module.to_owned()))
}

/// Offers the parts of an adapted linear and returns `base + scale · B (A x)`, not yet offered.
///
/// The engine gets that from one call for each row, which shows neither `A x` nor `B (A x)`. They are
/// computed here in the order of operations of that call, which is repeated from them only when a hook
/// has changed one.
pub(super) fn linear(
    pass: &mut Pass<'_>,
    adapter: &LoraAdapter,
    (layer, module): (usize, &str),
    x: &[f32],
    base: Vec<f32>,
    point: &str,
) -> Result<Vec<f32>> {
    let Some(f) = factors(adapter, layer, module) else { return Ok(base) };
    let n = x.len() / f.d_in;
    let [base_point, down_point, up_point] = ADAPTER_PARTS.map(|part| format!("{point}.{part}"));
    let mut out = pass.point(&base_point, &[n, f.d_out], base)?;
    let (down, down_changed) = pass.derived(&down_point, &[n, f.rank], products(&f.a, x, f.d_in))?;
    let (up, up_changed) = pass.derived(&up_point, &[n, f.d_out], products(&f.b, &down, f.rank))?;
    if down_changed || up_changed {
        add_scaled(&mut out, adapter.config().scale(), &up);
    } else {
        for (x, out) in x.chunks_exact(f.d_in).zip(out.chunks_exact_mut(f.d_out)) {
            adapter.apply(layer, module, x, out);
        }
    }
    Ok(out)
}

/// `x Wᵀ` for rows of `k`, each sum taken in order.
fn products(w: &[f32], x: &[f32], k: usize) -> Vec<f32> {
    let dot = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    x.chunks_exact(k).flat_map(|x| w.chunks_exact(k).map(|row| dot(row, x)).collect::<Vec<_>>()).collect()
}

fn add_scaled(out: &mut [f32], scale: f32, up: &[f32]) {
    out.iter_mut().zip(up).for_each(|(out, up)| *out += scale * up);
}

/// The place in the un-instrumented engine for an adapter, empty at first.
///
/// lattice's own hook for it does the same, but pulls an HTTP client into the build.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<RwLock<Option<Arc<LoraAdapter>>>>);

impl Slot {
    /// Puts the engine's adapter there, in place of an earlier one.
    pub fn fill(&self, adapter: &Arc<LoraAdapter>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(adapter.clone());
    }

    /// The adapter that is there.
    pub fn get(&self) -> Option<Arc<LoraAdapter>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LoraHook for Slot {
    fn apply(&self, layer: usize, module: &str, x: &[f32], output: &mut [f32]) {
        if let Some(adapter) = self.get() {
            adapter.apply(layer, module, x, output);
        }
    }

    fn is_active(&self, layer: usize, module: &str) -> bool {
        self.get().is_some_and(|adapter| adapter.has_adapter(layer, module))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lattice_tune::lora::apply_lora;

    /// Numbers whose products and sums round.
    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 337.0 - 1.5).collect()
    }

    #[test]
    fn the_parts_of_an_adapted_linear_add_up_to_the_engine_s_result_bit_for_bit() {
        // The last is wider than the engine's buffer on the stack.
        for (d_in, d_out, rank) in [(128, 256, 4), (33, 5, 7), (16, 16, 1), (8, 24, 200)] {
            let layer =
                LoraLayer { a: numbers(rank * d_in, 1), b: numbers(d_out * rank, 2), d_in, d_out, rank };
            let (x, base) = (numbers(3 * d_in, 3), numbers(3 * d_out, 4));
            let mut engine = base.clone();
            for (x, out) in x.chunks_exact(d_in).zip(engine.chunks_exact_mut(d_out)) {
                apply_lora(&layer, 0.3, x, out);
            }
            let mut ours = base.clone();
            add_scaled(&mut ours, 0.3, &products(&layer.b, &products(&layer.a, &x, d_in), rank));
            assert_ne!(ours, base);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&ours), bits(&engine), "{d_in} to {d_out}, rank {rank}");
        }
    }
}
