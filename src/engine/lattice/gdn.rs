//! `GatedDeltaNet`, on both of lattice's paths.
//!
//! The paths differ in the order of operations: the fused kernel of the serial path reads the
//! memory before the decay and scales what it reads, the batched path decays the state first.

use super::pass::{Pass, Path};
use super::weights::{Gdn, Sizes};
use crate::error::Result;
use lattice_compute::attention::gdn::{
    GatedDeltaNetState, gated_rms_norm, l2_normalize_vec, sigmoid, softplus,
};
use lattice_compute::attention::gdn_fused::{
    conv1d_silu_fused, simd_decay_and_rank1_update, simd_gated_rms_norm, simd_l2_normalize,
    simd_matvec_transpose,
};

/// The layer from the normed input `[tokens, hidden]` to `out_proj`'s output.
pub(super) fn layer(
    pass: &mut Pass<'_>,
    i: usize,
    w: &Gdn<'_>,
    x: &[f32],
    state: &mut GatedDeltaNetState,
) -> Result<Vec<f32>> {
    let s = pass.sizes;
    let n = x.len() / s.hidden;
    let name = |local: &str| format!("model.layers.{i}.linear_attn.{local}");
    let (keys, values) = ([n, s.key_heads, s.key_dim], [n, s.value_heads, s.value_dim]);

    let qkv = pass.linear(i, "linear_attn.in_proj_qkv", &w.in_proj_qkv, x, s.hidden)?;
    let z = pass.linear(i, "linear_attn.in_proj_z", &w.in_proj_z, x, s.hidden)?;
    let b = pass.linear(i, "linear_attn.in_proj_b", &w.in_proj_b, x, s.hidden)?;
    let a = pass.linear(i, "linear_attn.in_proj_a", &w.in_proj_a, x, s.hidden)?;

    let mut conv = vec![0.0; n * s.conv_dim];
    for (input, out) in qkv.chunks_exact(s.conv_dim).zip(conv.chunks_exact_mut(s.conv_dim)) {
        match pass.path {
            Path::Serial | Path::Batched => {
                conv1d_silu_fused(input, &mut state.conv_buffer, w.conv1d, out, s.conv_dim, s.kernel);
            }
            Path::Scalar => conv1d_scalar(input, &mut state.conv_buffer, w.conv1d, out, s.kernel),
        }
    }
    let conv = pass.point(&name("conv1d"), &[n, s.conv_dim], conv)?;
    let tail = std::mem::take(&mut state.conv_buffer);
    state.conv_buffer = pass.point(&name("conv_state"), &[s.conv_dim, s.kernel - 1], tail)?;

    let width = s.key_heads * s.key_dim;
    let q = pass.point(&name("q_l2norm"), &keys, l2_norms(pass.path, &conv, &s, 0))?;
    let k = pass.point(&name("k_l2norm"), &keys, l2_norms(pass.path, &conv, &s, width))?;
    let v = columns(&conv, &s, 2 * width, s.linear_out());
    let beta = b.iter().map(|b| sigmoid(*b)).collect();
    let beta = pass.point(&name("beta"), &[n, s.value_heads], beta)?;
    let decay = a.iter().zip((0..s.value_heads).cycle()).map(|(a, h)| decay(w.a_log[h], *a, w.dt_bias[h]));
    let decay = pass.point(&name("decay"), &[n, s.value_heads], decay.collect())?;

    let out = delta_rule(pass.path, &s, &Inputs { q: &q, k: &k, v: &v, beta: &beta, decay: &decay }, state);
    let out = pass.point(&name("delta_rule"), &values, out)?;
    let memory = std::mem::take(&mut state.s_matrices);
    let shape = [s.value_heads, s.key_dim, s.value_dim];
    state.s_matrices = pass.point(&name("recurrent_state"), &shape, memory)?;

    let mut normed = vec![0.0; out.len()];
    for (start, x) in (0..).step_by(s.value_dim).zip(out.chunks_exact(s.value_dim)) {
        let range = start..start + s.value_dim;
        match pass.path {
            Path::Serial => simd_gated_rms_norm(x, &z[range.clone()], w.norm, &mut normed[range], s.eps),
            Path::Batched | Path::Scalar => {
                gated_rms_norm(x, &z[range.clone()], w.norm, &mut normed[range], s.eps);
            }
        }
    }
    let normed = pass.point(&name("norm"), &values, normed)?;
    pass.linear(i, "linear_attn.out_proj", &w.out_proj, &normed, s.linear_out())
}

/// The convolution of the Q8_0 engine: it moves the new input into the buffer before it reads the
/// buffer, so that the last two taps see the same input and the oldest input is never seen. This is
/// what the engine does, and so it is what is shown.
fn conv1d_scalar(input: &[f32], buffer: &mut [f32], weight: &[f32], out: &mut [f32], kernel: usize) {
    let kept = kernel - 1;
    for (channel, (x, out)) in input.iter().zip(out).enumerate() {
        let buffer = &mut buffer[channel * kept..(channel + 1) * kept];
        let weight = &weight[channel * kernel..(channel + 1) * kernel];
        if kept > 0 {
            buffer.copy_within(1.., 0);
            buffer[kept - 1] = *x;
        }
        let mut sum = x * weight[kept];
        for (old, w) in buffer.iter().zip(weight) {
            sum += old * w;
        }
        *out = sum * (1.0 / (1.0 + (-sum).exp()));
    }
}

/// Columns `start..start + width` of each token's row.
fn columns(conv: &[f32], s: &Sizes, start: usize, width: usize) -> Vec<f32> {
    conv.chunks_exact(s.conv_dim).flat_map(|row| row[start..start + width].to_vec()).collect()
}

/// The key heads that begin at column `start`, each scaled to length 1.
///
/// The engine does this once for every value head that shares a key head, with equal results.
fn l2_norms(path: Path, conv: &[f32], s: &Sizes, start: usize) -> Vec<f32> {
    let mut heads = columns(conv, s, start, s.key_heads * s.key_dim);
    for head in heads.chunks_exact_mut(s.key_dim) {
        match path {
            Path::Serial => simd_l2_normalize(head),
            Path::Batched | Path::Scalar => l2_normalize_vec(head),
        }
    }
    heads
}

/// `exp(−exp(A_log) · softplus(a + dt_bias))`, with the rate kept finite.
fn decay(a_log: f32, a: f32, dt_bias: f32) -> f32 {
    let rate = a_log.exp().min(f32::MAX);
    (-rate * softplus(a + dt_bias)).exp()
}

struct Inputs<'a> {
    /// `[tokens, key_heads, key_dim]`.
    q: &'a [f32],
    k: &'a [f32],
    /// `[tokens, value_heads, value_dim]`.
    v: &'a [f32],
    /// `[tokens, value_heads]`.
    beta: &'a [f32],
    decay: &'a [f32],
}

/// The recurrence over the tokens: output `[tokens, value_heads, value_dim]`.
fn delta_rule(path: Path, s: &Sizes, x: &Inputs<'_>, state: &mut GatedDeltaNetState) -> Vec<f32> {
    let (dk, dv) = (s.key_dim, s.value_dim);
    let scale = 1.0 / (dk as f32).sqrt();
    let ratio = s.value_heads / s.key_heads;
    let mut out = vec![0.0; x.v.len()];
    let mut memory = vec![0.0; dv];
    let mut delta = vec![0.0; dv];
    for (row, out) in out.chunks_exact_mut(dv).enumerate() {
        let (t, h) = (row / s.value_heads, row % s.value_heads);
        let at = (t * s.key_heads + h / ratio) * dk;
        let (q, k) = (&x.q[at..at + dk], &x.k[at..at + dk]);
        let v = &x.v[row * dv..(row + 1) * dv];
        let (beta, g) = (x.beta[row], x.decay[row]);
        let matrix = &mut state.s_matrices[h * dk * dv..(h + 1) * dk * dv];
        match path {
            Path::Serial => {
                simd_matvec_transpose(matrix, k, &mut memory, dk, dv);
                for ((delta, v), memory) in delta.iter_mut().zip(v).zip(&memory) {
                    *delta = (v - memory * g) * beta;
                }
                simd_decay_and_rank1_update(matrix, k, &delta, g, dk, dv);
                simd_matvec_transpose(matrix, q, out, dk, dv);
                out.iter_mut().for_each(|o| *o *= scale);
            }
            Path::Batched => {
                matrix.iter_mut().for_each(|m| *m *= g);
                read(matrix, k, &mut memory);
                for ((delta, v), memory) in delta.iter_mut().zip(v).zip(&memory) {
                    *delta = (v - memory) * beta;
                }
                for (line, k) in matrix.chunks_exact_mut(dv).zip(k) {
                    line.iter_mut().zip(&delta).for_each(|(m, delta)| *m += k * delta);
                }
                read(matrix, q, out);
                out.iter_mut().for_each(|o| *o *= scale);
            }
            Path::Scalar => {
                read(matrix, k, &mut memory);
                for ((delta, v), memory) in delta.iter_mut().zip(v).zip(&memory) {
                    *delta = (v - memory * g) * beta;
                }
                for (line, k) in matrix.chunks_exact_mut(dv).zip(k) {
                    line.iter_mut().zip(&delta).for_each(|(m, delta)| *m = g * *m + k * delta);
                }
                read(matrix, q, out);
                out.iter_mut().for_each(|o| *o *= scale);
            }
        }
    }
    out
}

/// `Sᵀ x` with each sum taken in order.
fn read(matrix: &[f32], x: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (line, x) in matrix.chunks_exact(out.len()).zip(x) {
        out.iter_mut().zip(line).for_each(|(out, m)| *out += m * x);
    }
}
