//! The gated delta rule: step by step in several orders, and in chunks.

use crate::kernel::{KERNELS, Kernel};
use crate::lab::{Inputs, Lab, Ratios};
use crate::numbers::{Kind, Rows, rows};
use half::bf16;
use proptest::prelude::*;

const RULE: &str = "model.layers.0.linear_attn.delta_rule";
const STATE: &str = "model.layers.0.linear_attn.recurrent_state";

/// One head's numbers.
struct Head {
    tokens: usize,
    dk: usize,
    dv: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    beta: Vec<f32>,
    decay: Vec<f32>,
    old: Vec<f32>,
}

fn unit_rows(rows: Rows, n: usize, width: usize) -> Vec<f32> {
    let mut out = rows.take(n * width);
    for row in out.chunks_exact_mut(width) {
        let length = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        let inverse = 1.0 / (length + 1e-6).sqrt();
        row.iter_mut().for_each(|v| *v = (f64::from(*v) * inverse) as f32);
    }
    out
}

impl Head {
    fn random(tokens: usize, dk: usize, dv: usize, x: Rows, v: Rows, strong: bool, old: bool) -> Self {
        let share = |rows: Rows, n: usize| -> Vec<f32> {
            let even = Rows { kind: Kind::Even, scale: 1.0, ..rows };
            even.take(n).iter().map(|v| 1.0 / (1.0 + (-4.0 * v).exp())).collect()
        };
        let n = if old { 1 } else { tokens };
        let decay = share(x.again(4), n);
        Self {
            tokens: n,
            dk,
            dv,
            q: unit_rows(x.again(1), n, dk),
            k: unit_rows(x.again(2), n, dk),
            v: v.take(n * dv),
            beta: share(x.again(3), n),
            // Strong: nearly everything is forgotten, or nearly nothing is.
            decay: decay.iter().map(|g| if strong { g.powi(30) } else { 1.0 - 1e-3 * g }).collect(),
            old: if old { v.again(5).take(dk * dv) } else { vec![0.0; dk * dv] },
        }
    }

    fn conv(&self) -> Vec<f32> {
        let row = |t: usize| {
            let mut row = vec![0.5; 2 * self.dk];
            row.extend(&self.v[t * self.dv..(t + 1) * self.dv]);
            row
        };
        (0..self.tokens).flat_map(row).collect()
    }

    /// Token after token; the state is kept `[dk, dv]`.
    fn serial(&self, kernel: Kernel, store: impl Fn(f32) -> f32) -> (Vec<f32>, Vec<f32>) {
        let (dk, dv) = (self.dk, self.dv);
        let (mut s, mut out) = (self.old.clone(), Vec::new());
        let scale = (dk as f32).powf(-0.5);
        let column = |s: &[f32], j: usize| -> Vec<f32> { (0..dk).map(|i| s[i * dv + j]).collect() };
        for t in 0..self.tokens {
            let (q, k) = (&self.q[t * dk..(t + 1) * dk], &self.k[t * dk..(t + 1) * dk]);
            let (beta, g) = (self.beta[t], self.decay[t]);
            // What the state says of the key before it fades, or after.
            let early = kernel.fused;
            let read = |s: &[f32]| -> Vec<f32> { (0..dv).map(|j| kernel.dot(&column(s, j), k)).collect() };
            let mut memory = if early { read(&s).iter().map(|m| m * g).collect() } else { Vec::new() };
            if !early {
                s.iter_mut().for_each(|m| *m = kernel.keep(*m * g));
                memory = read(&s);
            }
            for j in 0..dv {
                let delta = (self.v[t * dv + j] - memory[j]) * beta;
                for i in 0..dk {
                    let m = &mut s[i * dv + j];
                    *m = kernel.keep(if early { k[i].mul_add(delta, g * *m) } else { *m + k[i] * delta });
                }
            }
            s.iter_mut().for_each(|m| *m = store(*m));
            let scaled: Vec<f32> = q.iter().map(|q| q * scale).collect();
            out.extend((0..dv).map(|j| {
                if kernel.flush {
                    kernel.dot(&column(&s, j), &scaled)
                } else {
                    kernel.dot(&column(&s, j), q) * scale
                }
            }));
        }
        (out, s)
    }

    /// In chunks, as the parallel form of the rule has it (Yang et al., "Parallelizing Linear Transformers with
    /// the Delta Rule", 2024): within a chunk the written values are found by forward substitution.
    fn chunked(&self, kernel: Kernel, size: usize) -> (Vec<f32>, Vec<f32>) {
        let (dk, dv) = (self.dk, self.dv);
        let (mut s, mut out) = (self.old.clone(), Vec::new());
        let scale = (dk as f32).powf(-0.5);
        for start in (0..self.tokens).step_by(size) {
            let n = size.min(self.tokens - start);
            let k = |t: usize| &self.k[(start + t) * dk..(start + t + 1) * dk];
            let q = |t: usize| &self.q[(start + t) * dk..(start + t + 1) * dk];
            // Σ log g up to each token, as the engines keep it.
            let mut log = vec![0.0f32; n];
            let mut total = 0.0;
            for (t, log) in log.iter_mut().enumerate() {
                // A logarithm that the captured decay cannot show.
                total += self.decay[start + t].max(f32::from_bits(1)).ln();
                *log = total;
            }
            let column = |s: &[f32], j: usize| -> Vec<f32> { (0..dk).map(|i| s[i * dv + j]).collect() };
            let mut written = vec![0.0f32; n * dv];
            for t in 0..n {
                for j in 0..dv {
                    let mut memory = kernel.dot(&column(&s, j), k(t)) * kernel.exp(log[t]);
                    for u in 0..t {
                        memory += kernel.dot(k(u), k(t)) * kernel.exp(log[t] - log[u]) * written[u * dv + j];
                    }
                    written[t * dv + j] = (self.v[(start + t) * dv + j] - memory) * self.beta[start + t];
                }
            }
            for t in 0..n {
                for j in 0..dv {
                    let mut o = kernel.dot(&column(&s, j), q(t)) * kernel.exp(log[t]);
                    for u in 0..=t {
                        o += kernel.dot(k(u), q(t)) * kernel.exp(log[t] - log[u]) * written[u * dv + j];
                    }
                    out.push(o * scale);
                }
            }
            let last = log[n - 1];
            for i in 0..dk {
                for j in 0..dv {
                    let mut m = s[i * dv + j] * kernel.exp(last);
                    for u in 0..n {
                        m += k(u)[i] * kernel.exp(last - log[u]) * written[u * dv + j];
                    }
                    s[i * dv + j] = m;
                }
            }
        }
        (out, s)
    }

    fn lab(&self, tokens: usize) -> Lab {
        Lab::new(
            &[
                ("linear_key_head_dim", self.dk),
                ("linear_value_head_dim", self.dv),
                ("linear_num_key_heads", 1),
                ("linear_num_value_heads", 1),
            ],
            tokens,
        )
    }
}

fn judged(
    head: &Head,
    tokens: usize,
    old: bool,
    ratios: [&Ratios; 2],
    run: impl Fn(Kernel) -> (Vec<f32>, Vec<f32>),
) {
    let (lab, conv) = (head.lab(tokens), head.conv());
    let carried = old.then_some(head.old.as_slice());
    let output = Inputs {
        inputs: vec![&head.q, &head.k, &conv, &head.beta, &head.decay],
        carried,
        others: Vec::new(),
    };
    ratios[0].add(&lab.all(RULE, &output, |kernel| run(kernel).0));
    let state = Inputs { inputs: vec![&head.k, &conv, &head.beta, &head.decay], carried, others: Vec::new() };
    ratios[1].add(&lab.all(STATE, &state, |kernel| run(kernel).1));
}

#[test]
fn the_delta_rule_stays_within_its_bound_over_prompts_and_steps() {
    let (rules, states) = (Ratios::new(), Ratios::new());
    proptest!(ProptestConfig::with_cases(64), |(
        tokens in 1_usize..50, dk in 1_usize..40, dv in 1_usize..12, x in rows(-1..1), v in rows(-12..8), strong: bool, old: bool,
    )| {
        let head = Head::random(tokens, dk, dv, x, v, strong, old);
        judged(&head, tokens, old, [&rules, &states], |kernel| head.serial(kernel, |m| m));
    });
    rules.print("delta rule", 0.05);
    states.print("delta rule's state", 0.05);
}

#[test]
fn the_delta_rule_in_chunks_stays_within_its_bound() {
    let (rules, states) = (Ratios::new(), Ratios::new());
    proptest!(ProptestConfig::with_cases(48), |(
        tokens in 1_usize..140, dk in 1_usize..20, dv in 1_usize..6, x in rows(-1..1), v in rows(-6..6), strong: bool,
        size in prop::sample::select(vec![16_usize, 64]),
    )| {
        let head = Head::random(tokens, dk, dv, x, v, strong, false);
        judged(&head, tokens, false, [&rules, &states], |kernel| head.chunked(kernel, size));
    });
    rules.print("delta rule in chunks", 0.05);
    states.print("its state", 0.05);
}

/// Here what was 1000 fades below all numbers within a chunk, by decays that a kernel may put to 0.
#[test]
fn a_decay_that_is_lost_in_a_chunk_is_counted_with_what_has_not_faded() {
    let (rules, states) = (Ratios::new(), Ratios::new());
    let x = Rows { kind: Kind::Even, scale: 1.0, seed: 14_900_164_785_614_702_844 };
    let v = Rows { kind: Kind::Sparse, scale: 1000.0, seed: 6_226_661_329_587_365_353 };
    let head = Head::random(116, 1, 5, x, v, true, false);
    judged(&head, 116, false, [&rules, &states], |kernel| head.chunked(kernel, 16));
}

#[test]
fn a_decay_that_is_lost_takes_with_it_a_whole_state_of_the_step_before() {
    let (rules, states) = (Ratios::new(), Ratios::new());
    for dk in [1, 16] {
        let even = Rows { kind: Kind::Even, scale: 1.0, seed: 3 };
        let mut head = Head::random(1, dk, 4, even, Rows { scale: 1e4, ..even }, false, true);
        // Too small for a normal number.
        head.decay[0] = 1.1e-38;
        judged(&head, 1, true, [&rules, &states], |kernel| head.chunked(kernel, 64));
    }
}

#[test]
fn a_state_in_bf16_is_beyond_the_bound_after_many_tokens_too() {
    let even = Rows { kind: Kind::Even, scale: 1.0, seed: 11 };
    for tokens in [2, 64, 300] {
        let head = Head::random(tokens, 32, 16, even, even.again(9), false, false);
        let (lab, conv) = (head.lab(tokens), head.conv());
        let (out, _) = head.serial(KERNELS[0], |m| bf16::from_f32(m).to_f32());
        let given = Inputs::new(&[&head.q, &head.k, &conv, &head.beta, &head.decay]);
        let ratio = lab.ratio(RULE, &given, out);
        println!("state in bf16, {tokens} tokens: {ratio:.0}");
        assert!(ratio > 10.0, "{tokens}: {ratio}");
    }
}
