//! Gates, activations, sums, the decay, and the convolution.

use crate::kernel::{KERNELS, Kernel};
use crate::lab::{Inputs, Lab, Ratios, rounded};
use crate::numbers::{Rows, rows};
use layerdiff::tensor::DType;
use proptest::prelude::*;

const ACT: &str = "model.layers.0.mlp.act";
const GATE: &str = "model.layers.3.self_attn.gated_context";
const BETA: &str = "model.layers.0.linear_attn.beta";
const DECAY: &str = "model.layers.0.linear_attn.decay";
const CONV: &str = "model.layers.0.linear_attn.conv1d";
const SUM: &str = "model.layers.0.post_attention_residual";

fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}

/// One unit in the last place of each number, times `units`.
fn nudged(values: &[f32], units: f32) -> Vec<f32> {
    values.iter().map(|v| v * (1.0 + units * f32::EPSILON / 2.0)).collect()
}

#[test]
fn gates_and_activations_stay_within_their_bounds() {
    let (acts, gates, betas) = (Ratios::new(), Ratios::new(), Ratios::new());
    proptest!(ProptestConfig::with_cases(64), |(n in 1_usize..200, a in rows(-20..3), b in rows(-20..20))| {
        let lab = Lab::new(&[("intermediate_size", n)], 2);
        let (x, y) = (a.take(2 * n), b.take(2 * n));
        acts.add(&lab.all(ACT, &Inputs::new(&[&x, &y]), |k| zip(&x, &y, |g, u| k.keep(k.silu(g) * u))));
        let lab = Lab::new(&[("head_dim", 8), ("num_attention_heads", n), ("num_key_value_heads", n)], 2);
        let (x, y) = (b.take(16 * n), a.take(16 * n));
        gates.add(&lab.all(GATE, &Inputs::new(&[&x, &y]), |k| zip(&x, &y, |x, g| k.keep(x * k.sigmoid(g)))));
        let lab = Lab::new(&[("linear_num_value_heads", n), ("linear_num_key_heads", 1)], 2);
        let x = a.take(2 * n);
        betas.add(&lab.all(BETA, &Inputs::new(&[&x]), |k| x.iter().map(|x| k.sigmoid(*x)).collect()));
    });
    acts.print("silu · up", 0.2);
    gates.print("sigmoid gate", 0.2);
    betas.print("sigmoid", 0.2);
}

#[test]
fn an_activation_in_16_bits_may_be_stored_before_it_is_multiplied() {
    proptest!(ProptestConfig::with_cases(48), |(n in 1_usize..200, a in rows(-8..2), b in rows(-4..2))| {
        for dtype in [DType::F16, DType::BF16] {
            let short = |v: Vec<f32>| rounded(dtype, v.into_iter().map(|v| v.clamp(-100.0, 100.0)).collect());
            let (x, y) = (short(a.take(2 * n)), short(b.take(2 * n)));
            let mut lab = Lab::new(&[("intermediate_size", n)], 2);
            (lab.input, lab.output) = (dtype, dtype);
            let silu = rounded(dtype, x.iter().map(|g| KERNELS[0].silu(*g)).collect());
            let out = rounded(dtype, zip(&silu, &y, |g, u| g * u));
            let ratio = lab.ratio(ACT, &Inputs::new(&[&x, &y]), out);
            assert!(ratio <= 1.0, "{dtype:?}: {ratio}");
        }
    });
}

#[test]
fn where_an_exponential_leaves_the_range_of_32_bits_zero_is_right() {
    // sigmoid(−89) is 2e-39; its exponential is infinite in 32 bits, and 0 is what a kernel gives.
    let (gate, up) = ([-89.0f32, -95.0], [1e4f32, 1e6]);
    let lab = Lab::new(&[("intermediate_size", 2)], 1);
    let out = zip(&gate, &up, |g, u| g / (1.0 + (-g).exp()) * u);
    assert_eq!(out, [0.0, 0.0]);
    assert!(lab.ratio(ACT, &Inputs::new(&[&gate, &up]), out) <= 1.0);
}

#[test]
fn sixteen_units_are_beyond_the_bound_of_what_has_no_sum() {
    let x = Rows { kind: crate::numbers::Kind::Even, scale: 3.0, seed: 2 };
    let (a, b) = (x.take(64), x.again(1).take(64));
    let lab = Lab::new(&[("intermediate_size", 64), ("hidden_size", 64)], 1);
    let k = KERNELS[0];
    let act = zip(&a, &b, |g, u| k.silu(g) * u);
    assert!(lab.ratio(ACT, &Inputs::new(&[&a, &b]), nudged(&act, 16.0)) > 1.0);
    let sum = zip(&a, &b, |a, b| a + b);
    assert!(lab.ratio(SUM, &Inputs::new(&[&a, &b]), nudged(&sum, 4.0)) > 1.0);
    let lab = Lab::new(&[("linear_num_value_heads", 64), ("linear_num_key_heads", 1)], 1);
    let beta: Vec<f32> = a.iter().map(|x| k.sigmoid(*x)).collect();
    assert!(lab.ratio(BETA, &Inputs::new(&[&a]), nudged(&beta, 16.0)) > 1.0);
}

#[test]
fn a_residual_is_rounded_once() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(32), |(n in 1_usize..100, a in rows(-30..30), b in rows(-30..30))| {
        let lab = Lab::new(&[("hidden_size", n)], 2);
        let (x, y) = (a.take(2 * n), b.take(2 * n));
        ratios.add(&lab.all(SUM, &Inputs::new(&[&x, &y]), |k| zip(&x, &y, |a, b| k.keep(a + b))));
    });
    ratios.print("residual", 0.5);
}

fn softplus(kernel: Kernel, t: f32) -> f32 {
    match (kernel.fused, t > 20.0) {
        (_, true) => t,
        (true, _) => t.max(0.0) + kernel.ln_1p(kernel.exp(-t.abs())),
        (false, _) if kernel.flush => (1.0 + kernel.exp(t)).ln(),
        (false, _) => kernel.ln_1p(kernel.exp(t)),
    }
}

#[test]
fn a_decay_stays_within_its_bound() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(64), |(
        n in 1_usize..60, a in rows(-6..3), rate in rows(-6..1), dt in rows(-6..2),
    )| {
        let (a, rate, dt) = (a.take(2 * n), rate.take(n), dt.take(n));
        let clamp = |v: Vec<f32>, most: f32| -> Vec<f32> { v.into_iter().map(|v| v.clamp(-most, most)).collect() };
        let (a, rate, dt) = (clamp(a, 80.0), clamp(rate, 8.0), clamp(dt, 20.0));
        let lab = Lab::new(&[("linear_num_value_heads", n), ("linear_num_key_heads", 1)], 2)
            .weight("model.layers.0.linear_attn.A_log", &[n], &rate)
            .weight("model.layers.0.linear_attn.dt_bias", &[n], &dt);
        ratios.add(&lab.all(DECAY, &Inputs::new(&[&a]), |kernel| {
            let one = |(i, a): (usize, &f32)| {
                kernel.exp(-kernel.exp(rate[i % n]) * softplus(kernel, a + dt[i % n]))
            };
            a.iter().enumerate().map(one).collect()
        }));
    });
    ratios.print("decay", 0.1);
}

#[test]
fn a_convolution_stays_within_its_bound() {
    let ratios = Ratios::new();
    proptest!(ProptestConfig::with_cases(48), |(tokens in 1_usize..8, x in rows(-20..3), w in rows(-4..2), step: bool)| {
        let lab = Lab::new(&[], tokens);
        let channels = lab.dim("conv_dim");
        let w = w.take(channels * 4);
        let lab = lab.weight("model.layers.0.linear_attn.conv1d.weight", &[channels, 1, 4], &w);
        let n = if step { 1 } else { tokens };
        let old = x.again(3).take(channels * 3);
        let x = x.take(n * channels);
        let given = Inputs { inputs: vec![&x], carried: step.then_some(&old), others: Vec::new() };
        ratios.add(&lab.all(CONV, &given, |kernel| {
            let mut out = Vec::new();
            for t in 0..n {
                for c in 0..channels {
                    let at = |j: usize| match (t + j).checked_sub(3) {
                        Some(t) => x[t * channels + c],
                        None if step => old[c * 3 + t + j],
                        None => 0.0,
                    };
                    let taps: Vec<f32> = (0..4).map(at).collect();
                    out.push(kernel.silu(kernel.dot(&taps, &w[c * 4..c * 4 + 4])));
                }
            }
            out
        }));
    });
    ratios.print("convolution", 0.1);
}
