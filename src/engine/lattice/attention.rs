//! Gated full attention, on both of lattice's paths.

use super::pass::{Pass, Path, rms_norm};
use super::rows::Kept;
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
/// which, and what comes back decides which are visited. Of mask, scores and probabilities only the rows that a
/// hook wants are kept; those of other query tokens are made when their context is, and forgotten.
fn attend(pass: &mut Pass<'_>, i: usize, n: usize, q: &[f32], k: &[f32], v: &[f32]) -> Result<Vec<f32>> {
    let s = pass.sizes;
    let seen = k.len() / s.kv_dim();
    let name = |local: &str| format!("model.layers.{i}.self_attn.{local}");
    let wanted = |pass: &Pass<'_>, local: &str| pass.wanted(&name(local), (n, seen));
    let mut mask = Kept::new(None, (n, seen), wanted(pass, "attention_mask"), 0);
    for t in mask.rows().to_vec() {
        mask.row_mut(0, t).into_iter().flatten().take(seen - n + t + 1).for_each(|sees| *sees = 1);
    }
    pass.offer_mask(&name("attention_mask"), &mut mask)?;
    let call = Call { s, n, seen, q, k, v, mask: &mask };
    let rows = |wanted| Kept::new(Some(s.heads), (n, seen), wanted, f32::NEG_INFINITY);
    let (mut scores, mut probs) = (rows(wanted(pass, "scores")), rows(wanted(pass, "probs")));
    match pass.path {
        Path::Serial | Path::Scalar => {
            call.serial_scores(&mut scores);
            pass.offer_rows(&name("scores"), false, &mut scores)?;
            call.serial_probs(&scores, &mut probs);
            pass.offer_rows(&name("probs"), false, &mut probs)?;
            Ok(call.serial_context(&scores, &probs))
        }
        Path::Batched => {
            let tiles = TiledAttentionConfig::new(s.heads, s.kv_heads, s.head_dim);
            let size = (tiles.tile_size_q.max(1), tiles.tile_size_kv.max(1));
            call.tiled_scores(size, &mut scores);
            pass.offer_rows(&name("scores"), false, &mut scores)?;
            let mut context = call.online_softmax(size, &scores, &mut probs);
            if pass.offer_rows(&name("probs"), true, &mut probs)? {
                call.context_of(&probs, &mut context);
            }
            Ok(context)
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
    mask: &'a Kept<u8>,
}

impl Call<'_> {
    fn scale(&self) -> f32 {
        1.0 / (self.s.head_dim as f32).sqrt()
    }

    fn allowed(&self, t: usize, u: usize) -> bool {
        self.mask.row(0, t).map_or(u <= self.seen - self.n + t, |row| row[u] != 0)
    }

    /// How many tokens a query visits: masked ones at the end are not, so that their values cannot matter.
    fn visible(&self, t: usize) -> usize {
        match self.mask.row(0, t) {
            Some(row) => row.iter().rposition(|sees| *sees != 0).map_or(0, |u| u + 1),
            None => self.seen - self.n + t + 1,
        }
    }

    fn query(&self, h: usize, t: usize) -> &[f32] {
        &self.q[t * self.s.q_dim() + h * self.s.head_dim..][..self.s.head_dim]
    }

    fn key_value(&self, all: &'_ [f32], h: usize, u: usize) -> std::ops::Range<usize> {
        debug_assert!(all.len() >= self.seen * self.s.kv_dim());
        let start = u * self.s.kv_dim() + h / (self.s.heads / self.s.kv_heads) * self.s.head_dim;
        start..start + self.s.head_dim
    }

    fn serial_scores(&self, scores: &mut Kept<f32>) {
        for h in 0..self.s.heads {
            for t in scores.rows().to_vec() {
                scores.row_mut(h, t).into_iter().for_each(|row| self.serial_score(h, t, row));
            }
        }
    }

    /// The products are summed in order, then scaled; `row` is −∞ where the mask forbids.
    fn serial_score(&self, h: usize, t: usize, row: &mut [f32]) {
        for (u, score) in row.iter_mut().enumerate().filter(|(u, _)| self.allowed(t, *u)) {
            let key = &self.k[self.key_value(self.k, h, u)];
            let dot = self.query(h, t).iter().zip(key).fold(0.0, |sum: f32, (q, k)| sum + q * k);
            *score = dot * self.scale();
        }
    }

    /// A query's scores: those that are kept, as a hook left them, or made anew.
    fn serial_row(&self, h: usize, t: usize, scores: &Kept<f32>, row: &mut [f32]) {
        match scores.row(h, t) {
            Some(kept) => row.copy_from_slice(kept),
            None => {
                row.fill(f32::NEG_INFINITY);
                self.serial_score(h, t, row);
            }
        }
    }

    fn serial_probs(&self, scores: &Kept<f32>, probs: &mut Kept<f32>) {
        for h in 0..self.s.heads {
            for t in probs.rows().to_vec() {
                if let Some(row) = probs.row_mut(h, t) {
                    self.serial_row(h, t, scores, row);
                    serial_softmax(row);
                }
            }
        }
    }

    fn serial_context(&self, scores: &Kept<f32>, probs: &Kept<f32>) -> Vec<f32> {
        let mut context = vec![0.0; self.n * self.s.q_dim()];
        let mut scratch = vec![0.0; self.seen];
        for h in 0..self.s.heads {
            for t in 0..self.n {
                let row = probs.row(h, t).unwrap_or_else(|| {
                    self.serial_row(h, t, scores, &mut scratch);
                    serial_softmax(&mut scratch);
                    &scratch
                });
                self.accumulate(h, t, row, &mut context);
            }
        }
        context
    }

    /// The context of the rows that are kept.
    fn context_of(&self, probs: &Kept<f32>, context: &mut [f32]) {
        for h in 0..self.s.heads {
            for t in probs.rows() {
                probs.row(h, *t).into_iter().for_each(|row| self.accumulate(h, *t, row, context));
            }
        }
    }

    /// Σ p·v over the tokens in order.
    fn accumulate(&self, h: usize, t: usize, row: &[f32], context: &mut [f32]) {
        let out = &mut context[t * self.s.q_dim() + h * self.s.head_dim..][..self.s.head_dim];
        out.fill(0.0);
        let offset = self.key_value(self.v, h, 0).start;
        accumulate_value_row(out, &row[..self.visible(t)], self.v, self.s.kv_dim(), offset);
    }

    /// Tiles of query tokens, of so many.
    fn query_tiles(&self, size: usize) -> impl Iterator<Item = (usize, usize)> {
        let n = self.n;
        (0..n).step_by(size).map(move |t| (t, n.min(t + size)))
    }

    fn tiled_scores(&self, (rows, columns): (usize, usize), scores: &mut Kept<f32>) {
        for h in 0..self.s.heads {
            for (t0, t1) in self.query_tiles(rows) {
                if (t0..t1).any(|t| scores.has(t)) {
                    self.tile_scores(h, (t0, t1), columns, |t, u, score| {
                        scores.row_mut(h, t).into_iter().for_each(|row| row[u] = score);
                    });
                }
            }
        }
    }

    /// The scores of each tile by one matrix product, then scaled; a tile is made whole, whoever wants of it.
    fn tile_scores(
        &self,
        h: usize,
        (t0, t1): (usize, usize),
        columns: usize,
        mut take: impl FnMut(usize, usize, f32),
    ) {
        let d = self.s.head_dim;
        let queries: Vec<f32> = (t0..t1).flat_map(|t| self.query(h, t).to_vec()).collect();
        for (u0, u1) in self.tiles(t0, t1, columns) {
            let keys: Vec<f32> =
                (u0..u1).flat_map(|u| self.k[self.key_value(self.k, h, u)].to_vec()).collect();
            let mut tile = vec![0.0; (t1 - t0) * (u1 - u0)];
            matmul_bt(&queries, &keys, &mut tile, t1 - t0, d, u1 - u0);
            for (t, line) in (t0..t1).zip(tile.chunks_exact(u1 - u0)) {
                for (u, value) in (u0..u1).zip(line).filter(|(u, _)| self.allowed(t, *u)) {
                    take(t, u, value * self.scale());
                }
            }
        }
    }

    /// The key tiles that some query of `t0..t1` may see.
    fn tiles(&self, t0: usize, t1: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
        let end = (t0..t1).map(|t| self.visible(t)).max().unwrap_or(0);
        (0..end).step_by(columns).map(move |u| (u, end.min(u + columns)))
    }

    /// Softmax and values tile by tile: a row's sums are rescaled whenever its maximum grows.
    fn online_softmax(
        &self,
        (rows, columns): (usize, usize),
        scores: &Kept<f32>,
        probs: &mut Kept<f32>,
    ) -> Vec<f32> {
        let mut context = vec![0.0; self.n * self.s.q_dim()];
        for h in 0..self.s.heads {
            for (t0, t1) in self.query_tiles(rows) {
                let tiles: Vec<_> = self.tiles(t0, t1, columns).collect();
                let mut made = Vec::new();
                if !(t0..t1).all(|t| scores.has(t)) {
                    made.resize((t1 - t0) * self.seen, f32::NEG_INFINITY);
                    self.tile_scores(h, (t0, t1), columns, |t, u, score| {
                        made[(t - t0) * self.seen + u] = score;
                    });
                }
                for t in t0..t1 {
                    let line = scores.row(h, t).unwrap_or_else(|| &made[(t - t0) * self.seen..][..self.seen]);
                    let out = &mut context[t * self.s.q_dim() + h * self.s.head_dim..][..self.s.head_dim];
                    self.online_row((h, t), &tiles, line, probs.row_mut(h, t), out);
                }
            }
        }
        context
    }

    fn online_row(
        &self,
        (h, t): (usize, usize),
        tiles: &[(usize, usize)],
        line: &[f32],
        probs: Option<&mut [f32]>,
        context: &mut [f32],
    ) {
        let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0f32);
        let mut acc = vec![0.0f32; self.s.head_dim];
        for &(u0, u1) in tiles {
            let visible: Vec<usize> = (u0..u1).filter(|&u| self.allowed(t, u)).collect();
            if visible.is_empty() {
                continue;
            }
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
        let inverse = if sum.is_finite() && sum > 0.0 { Some(1.0 / sum) } else { None };
        if let Some(inverse) = inverse {
            context.iter_mut().zip(&acc).for_each(|(c, a)| *c = a * inverse);
        }
        if let Some(probs) = probs {
            probs.fill(0.0);
            for u in (0..self.seen).filter(|&u| inverse.is_some() && self.allowed(t, u)) {
                probs[u] = (line[u] - max).exp() * inverse.unwrap_or(0.0);
            }
        }
    }
}

/// A row with NaN or +∞ becomes zero: lattice fails closed.
fn serial_softmax(row: &mut [f32]) {
    let (max, any_nan) = row_max_and_any_nan(row);
    if row_fails_closed_pre_exp(max, any_nan) {
        row.fill(0.0);
        return;
    }
    let mut sum = 0.0;
    // exp(−∞) is an exact 0, which leaves the sum as it is.
    for value in row.iter_mut() {
        *value = (*value - max).exp();
        sum += *value;
    }
    finalize_row(row, sum);
}
