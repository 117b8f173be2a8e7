//! Gated full attention, on both of lattice's paths.

use super::pass::{Pass, Path, rms_norm};
use super::weights::{Attention, Sizes};
use crate::error::Result;
use lattice_compute::attention::decode::accumulate_value_row;
use lattice_compute::attention::flash::TiledAttentionConfig;
use lattice_compute::attention::gated::{apply_sigmoid_gate, deinterleave_q_gate};
use lattice_compute::attention::softmax_row::{finalize_row, row_fails_closed_pre_exp, row_max_and_any_nan};
use lattice_compute::forward::cpu::matmul_bt;

/// The layer from the normed input `[tokens, hidden]` to `o_proj`'s output.
pub(super) fn layer(
    pass: &mut Pass<'_>,
    i: usize,
    w: &Attention<'_>,
    x: &[f32],
    tables: &[Vec<f32>; 2],
    cache: &mut (Vec<f32>, Vec<f32>),
) -> Result<Vec<f32>> {
    let s = pass.sizes;
    let n = x.len() / s.hidden;
    let name = |local: &str| format!("model.layers.{i}.self_attn.{local}");
    let (heads, kv_heads) = ([n, s.heads, s.head_dim], [n, s.kv_heads, s.head_dim]);

    let q_gate = pass.linear(i, "self_attn.q_proj", &w.q_proj, x, s.hidden)?;
    let (mut query, mut gate) = (vec![0.0; n * s.q_dim()], vec![0.0; n * s.q_dim()]);
    for (t, row) in q_gate.chunks_exact(2 * s.q_dim()).enumerate() {
        let out = t * s.q_dim()..(t + 1) * s.q_dim();
        deinterleave_q_gate(row, &mut query[out.clone()], &mut gate[out], s.heads, s.head_dim);
    }
    let query = pass.point(&name("query"), &heads, query)?;
    let gate = pass.point(&name("gate"), &heads, gate)?;
    let query = pass.point(&name("q_norm"), &heads, rms_norm(&query, w.q_norm, s.eps))?;
    let key = pass.linear(i, "self_attn.k_proj", &w.k_proj, x, s.hidden)?;
    let key = pass.point(&name("k_norm"), &kv_heads, rms_norm(&key, w.k_norm, s.eps))?;
    let value = pass.linear(i, "self_attn.v_proj", &w.v_proj, x, s.hidden)?;
    let query = pass.point(&name("q_rope"), &heads, rope(query, &s, s.heads, tables))?;
    let key = pass.point(&name("k_rope"), &kv_heads, rope(key, &s, s.kv_heads, tables))?;
    let mut grow = |kind: &str, cache: &mut Vec<f32>, new: &[f32]| -> Result<()> {
        cache.extend_from_slice(new);
        let shape = [cache.len() / s.kv_dim(), s.kv_heads, s.head_dim];
        *cache = pass.point(&name(kind), &shape, std::mem::take(cache))?;
        Ok(())
    };
    grow("k_cache", &mut cache.0, &key)?;
    grow("v_cache", &mut cache.1, &value)?;

    let context = attend(pass, i, n, &query, &cache.0, &cache.1)?;
    let mut gated = pass.point(&name("context"), &heads, context)?;
    apply_sigmoid_gate(&mut gated, &gate);
    let gated = pass.point(&name("gated_context"), &[n, s.q_dim()], gated)?;
    pass.linear(i, "self_attn.o_proj", &w.o_proj, &gated, s.q_dim())
}

/// Rotates the first `2 · rope_half` channels of each head in pairs (i, i + half).
fn rope(mut x: Vec<f32>, s: &Sizes, heads: usize, [cos, sin]: &[Vec<f32>; 2]) -> Vec<f32> {
    let half = s.rope_half;
    for (t, row) in x.chunks_exact_mut(heads * s.head_dim).enumerate() {
        let (cos, sin) = (&cos[t * half..][..half], &sin[t * half..][..half]);
        for head in row.chunks_exact_mut(s.head_dim) {
            for j in 0..half {
                let (a, b) = (head[j], head[half + j]);
                head[j] = a * cos[j] - b * sin[j];
                head[half + j] = a * sin[j] + b * cos[j];
            }
        }
    }
    x
}

/// Mask, scores, probabilities and context `[tokens, heads, head_dim]` of the last `n` tokens.
///
/// The engine has no mask: it visits the tokens that may be seen. The mask that is offered says
/// which, and what comes back decides which are visited.
fn attend(pass: &mut Pass<'_>, i: usize, n: usize, q: &[f32], k: &[f32], v: &[f32]) -> Result<Vec<f32>> {
    let s = pass.sizes;
    let seen = k.len() / s.kv_dim();
    let name = |local: &str| format!("model.layers.{i}.self_attn.{local}");
    let causal = (0..n).flat_map(|t| (0..seen).map(move |u| u8::from(u <= seen - n + t))).collect();
    let mask = pass.mask(&name("attention_mask"), &[n, seen], causal)?;
    let square = [s.heads, n, seen];
    let call = Call { s, n, seen, q, k, v, mask: &mask };
    match pass.path {
        Path::Serial | Path::Scalar => {
            let scores = pass.point(&name("scores"), &square, call.serial_scores())?;
            let probs = pass.point(&name("probs"), &square, call.serial_probs(scores))?;
            Ok(call.context(&probs))
        }
        Path::Batched => {
            let tiles = TiledAttentionConfig::new(s.heads, s.kv_heads, s.head_dim);
            let (rows, columns) = (tiles.tile_size_q.max(1), tiles.tile_size_kv.max(1));
            let scores = pass.point(&name("scores"), &square, call.tiled_scores(rows, columns))?;
            // The engine does not hold the probabilities.
            let shown = pass.hook.wants(&name("probs"));
            let online = call.online_softmax(&scores, rows, columns, shown);
            if !shown {
                return Ok(online.context);
            }
            let (probs, changed) = pass.derived(&name("probs"), &square, online.probs)?;
            Ok(if changed { call.context(&probs) } else { online.context })
        }
    }
}

/// One attention over `seen` keys for `n` queries.
struct Call<'a> {
    s: Sizes,
    n: usize,
    seen: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    mask: &'a [u8],
}

/// The result of the tiled, online softmax; without the probabilities where nobody wants them.
struct Online {
    probs: Vec<f32>,
    context: Vec<f32>,
}

impl Call<'_> {
    fn scale(&self) -> f32 {
        1.0 / (self.s.head_dim as f32).sqrt()
    }

    fn allowed(&self, t: usize, u: usize) -> bool {
        self.mask[t * self.seen + u] != 0
    }

    fn query(&self, h: usize, t: usize) -> &[f32] {
        &self.q[t * self.s.q_dim() + h * self.s.head_dim..][..self.s.head_dim]
    }

    fn key_value(&self, all: &'_ [f32], h: usize, u: usize) -> std::ops::Range<usize> {
        debug_assert!(all.len() >= self.seen * self.s.kv_dim());
        let start = u * self.s.kv_dim() + h / (self.s.heads / self.s.kv_heads) * self.s.head_dim;
        start..start + self.s.head_dim
    }

    fn row(&self, h: usize, t: usize) -> std::ops::Range<usize> {
        let start = (h * self.n + t) * self.seen;
        start..start + self.seen
    }

    /// The products are summed in order, then scaled.
    fn serial_scores(&self) -> Vec<f32> {
        let mut scores = vec![f32::NEG_INFINITY; self.s.heads * self.n * self.seen];
        for h in 0..self.s.heads {
            for t in 0..self.n {
                let row = self.row(h, t);
                for (u, score) in scores[row].iter_mut().enumerate().filter(|(u, _)| self.allowed(t, *u)) {
                    let key = &self.k[self.key_value(self.k, h, u)];
                    let dot = self.query(h, t).iter().zip(key).fold(0.0, |sum: f32, (q, k)| sum + q * k);
                    *score = dot * self.scale();
                }
            }
        }
        scores
    }

    /// A row with NaN or +∞ becomes zero: lattice fails closed.
    fn serial_probs(&self, mut scores: Vec<f32>) -> Vec<f32> {
        for row in scores.chunks_exact_mut(self.seen) {
            let (max, any_nan) = row_max_and_any_nan(row);
            if row_fails_closed_pre_exp(max, any_nan) {
                row.fill(0.0);
                continue;
            }
            let mut sum = 0.0;
            // exp(−∞) is an exact 0, which leaves the sum as it is.
            for value in row.iter_mut() {
                *value = (*value - max).exp();
                sum += *value;
            }
            finalize_row(row, sum);
        }
        scores
    }

    /// Σ p·v over the tokens in order.
    fn context(&self, probs: &[f32]) -> Vec<f32> {
        let mut context = vec![0.0; self.n * self.s.q_dim()];
        for h in 0..self.s.heads {
            for t in 0..self.n {
                let row = &probs[self.row(h, t)];
                // Masked tokens at the end are not visited, so that their values cannot matter.
                let visible = (0..self.seen).rev().find(|&u| self.allowed(t, u)).map_or(0, |u| u + 1);
                let out = &mut context[t * self.s.q_dim() + h * self.s.head_dim..][..self.s.head_dim];
                let offset = self.key_value(self.v, h, 0).start;
                accumulate_value_row(out, &row[..visible], self.v, self.s.kv_dim(), offset);
            }
        }
        context
    }

    /// The scores of each tile by one matrix product, then scaled.
    fn tiled_scores(&self, rows: usize, columns: usize) -> Vec<f32> {
        let d = self.s.head_dim;
        let mut scores = vec![f32::NEG_INFINITY; self.s.heads * self.n * self.seen];
        for h in 0..self.s.heads {
            for t0 in (0..self.n).step_by(rows) {
                let t1 = self.n.min(t0 + rows);
                let queries: Vec<f32> = (t0..t1).flat_map(|t| self.query(h, t).to_vec()).collect();
                for (u0, u1) in self.tiles(t0, t1, columns) {
                    let keys: Vec<f32> =
                        (u0..u1).flat_map(|u| self.k[self.key_value(self.k, h, u)].to_vec()).collect();
                    let mut tile = vec![0.0; (t1 - t0) * (u1 - u0)];
                    matmul_bt(&queries, &keys, &mut tile, t1 - t0, d, u1 - u0);
                    for (t, line) in (t0..t1).zip(tile.chunks_exact(u1 - u0)) {
                        let row = self.row(h, t);
                        for (u, value) in (u0..u1).zip(line).filter(|(u, _)| self.allowed(t, *u)) {
                            scores[row.start + u] = value * self.scale();
                        }
                    }
                }
            }
        }
        scores
    }

    /// The key tiles that some query of `t0..t1` may see.
    fn tiles(&self, t0: usize, t1: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
        let last = |t| (0..self.seen).rev().find(|&u| self.allowed(t, u)).map_or(0, |u| u + 1);
        let end = (t0..t1).map(last).max().unwrap_or(0);
        (0..end).step_by(columns).map(move |u| (u, end.min(u + columns)))
    }

    /// Softmax and values tile by tile: a row's sums are rescaled whenever its maximum grows.
    fn online_softmax(&self, scores: &[f32], rows: usize, columns: usize, probs: bool) -> Online {
        let probs = vec![0.0; if probs { scores.len() } else { 0 }];
        let mut out = Online { probs, context: vec![0.0; self.n * self.s.q_dim()] };
        for h in 0..self.s.heads {
            for t0 in (0..self.n).step_by(rows) {
                let t1 = self.n.min(t0 + rows);
                let tiles: Vec<_> = self.tiles(t0, t1, columns).collect();
                for t in t0..t1 {
                    self.online_row(h, t, &tiles, scores, &mut out);
                }
            }
        }
        out
    }

    fn online_row(&self, h: usize, t: usize, tiles: &[(usize, usize)], scores: &[f32], out: &mut Online) {
        let d = self.s.head_dim;
        let row = self.row(h, t);
        let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0f32);
        let mut acc = vec![0.0f32; d];
        for &(u0, u1) in tiles {
            let visible: Vec<usize> = (u0..u1).filter(|&u| self.allowed(t, u)).collect();
            if visible.is_empty() {
                continue;
            }
            let line = &scores[row.clone()];
            let poisoned = visible.iter().any(|&u| line[u].is_nan() || line[u] == f32::INFINITY);
            // A NaN is never greater, so that it drops out here, as it does in the engine.
            let tile_max =
                visible.iter().fold(f32::NEG_INFINITY, |m, &u| if line[u] > m { line[u] } else { m });
            let new_max = max.max(tile_max);
            let alpha = if sum == 0.0 { 0.0 } else { (max - new_max).exp() };
            acc.iter_mut().for_each(|a| *a *= alpha);
            sum *= alpha;
            let weights: Vec<f32> = visible.iter().map(|&u| (line[u] - new_max).exp()).collect();
            weights.iter().for_each(|w| sum += w);
            if poisoned {
                sum = f32::NAN;
            }
            max = new_max;
            for (&u, weight) in visible.iter().zip(&weights) {
                let value = &self.v[self.key_value(self.v, h, u)];
                acc.iter_mut().zip(value).for_each(|(a, v)| *a += weight * v);
            }
        }
        if sum.is_finite() && sum > 0.0 {
            let inverse = 1.0 / sum;
            let context = &mut out.context[t * self.s.q_dim() + h * d..][..d];
            context.iter_mut().zip(&acc).for_each(|(c, a)| *c = a * inverse);
            let shown = if out.probs.is_empty() { 0 } else { self.seen };
            for u in (0..shown).filter(|&u| self.allowed(t, u)) {
                out.probs[row.start + u] = (scores[row.start + u] - max).exp() * inverse;
            }
        }
    }
}
