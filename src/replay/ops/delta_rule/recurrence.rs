//! The recurrence itself, in any precision, with what can be varied about it.

use super::super::attention::{Group, grouped};
use super::extent::{Extent, length};
use super::{Inputs, Sizes};

/// Numbers that the recurrence can be run in.
pub(super) trait Number:
    Copy + std::ops::Add<Output = Self> + std::ops::Sub<Output = Self> + std::ops::Mul<Output = Self>
{
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
}

impl Number for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
}

impl Number for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

/// What is taken off the value before it is written.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Memory {
    /// What the decayed state says of the key.
    Decayed,
    /// What the state says of the key, then decayed: the same in exact arithmetic.
    ReadFirst,
    /// What the state says of the key before it is decayed.
    Undecayed,
    /// Nothing.
    Nothing,
}

/// When the state is decayed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fading {
    /// Before the token is written.
    Before,
    /// After it is written.
    After,
    /// After it is read.
    AfterReading,
    /// Not at all.
    Never,
}

/// The rule, with what can be varied about it.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    /// Which key head a value head belongs to, of value and key heads.
    pub group: Group,
    /// The query's scale, of its size.
    pub scale: fn(f64) -> f64,
    /// What is taken off the value.
    pub memory: Memory,
    /// When the state is decayed.
    pub fading: Fading,
    /// Whether the state is read upside down: for the memory, and for the output.
    pub transposed: [bool; 2],
    /// Whether the output is read before the token is written.
    pub read_first: bool,
    /// How the state is stored after each token, from the state and the length of its rows.
    pub stored: Option<fn(&mut [f64], usize)>,
}

/// The right one.
pub(crate) const RULE: Rule = Rule {
    group: grouped,
    scale: |d| 1.0 / d.sqrt(),
    memory: Memory::Decayed,
    fading: Fading::Before,
    transposed: [false; 2],
    read_first: false,
    stored: None,
};

/// `Sᵀ x`, or `S x`.
fn read<N: Number>(state: &[N], x: &[N], width: usize, transposed: bool) -> Vec<N> {
    let zero = N::from_f64(0.0);
    let lines = state.chunks_exact(width);
    if transposed {
        return lines.map(|line| line.iter().zip(x).fold(zero, |sum, (m, x)| sum + *m * *x)).collect();
    }
    let mut out = vec![zero; width];
    for (line, x) in lines.zip(x) {
        out.iter_mut().zip(line).for_each(|(out, m)| *out = *out + *m * *x);
    }
    out
}

/// Runs one head over all tokens: outputs `[tokens, dv]` (none without queries), and its state at the end.
pub(super) fn head<N: Number>(x: &Inputs, s: Sizes, h: usize, rule: &Rule) -> (Vec<f64>, Vec<f64>) {
    measured::<N>(x, s, h, rule, None)
}

/// [`head`], with the sizes of what it adds up.
pub(super) fn measured<N: Number>(
    x: &Inputs,
    s: Sizes,
    h: usize,
    rule: &Rule,
    mut extent: Option<&mut Extent>,
) -> (Vec<f64>, Vec<f64>) {
    let (dk, dv) = (s.dk, s.dv);
    let wide = |values: &[f64]| -> Vec<N> { values.iter().map(|v| N::from_f64(*v)).collect() };
    let mut state = wide(&x.state[h * dk * dv..(h + 1) * dk * dv]);
    let scale = N::from_f64((rule.scale)(dk as f64));
    let group = (rule.group)(h, s.heads, s.key_heads);
    let values = 2 * s.key_heads * dk + h * dv;
    let mut outputs = Vec::new();
    for t in 0..s.tokens {
        let at = (t * s.key_heads + group) * dk;
        let (k, v) = (&x.k[at..at + dk], &x.conv[t * s.conv + values..][..dv]);
        let (beta, g) = (x.beta[t * s.heads + h], x.decay[t * s.heads + h]);
        if let Some(extent) = &mut extent {
            let state: Vec<f64> = state.iter().map(|m: &N| m.to_f64()).collect();
            extent.token(&state, k, v, beta, g);
            extent.read(x.q.as_ref().map_or(0.0, |q| scale.to_f64().abs() * length(&q[at..at + dk])));
        }
        let (k, v, beta, g) = (wide(k), wide(v), N::from_f64(beta), N::from_f64(g));
        let fade = |state: &mut [N], when: Fading| {
            if rule.fading == when {
                state.iter_mut().for_each(|m| *m = *m * g);
            }
        };
        let early = matches!(rule.memory, Memory::ReadFirst | Memory::Undecayed);
        let mut memory = if early { read(&state, &k, dv, rule.transposed[0]) } else { Vec::new() };
        fade(&mut state, Fading::Before);
        match rule.memory {
            Memory::Decayed => memory = read(&state, &k, dv, rule.transposed[0]),
            Memory::ReadFirst => memory.iter_mut().for_each(|m| *m = *m * g),
            Memory::Undecayed => {}
            Memory::Nothing => memory = vec![N::from_f64(0.0); dv],
        }
        let out = |state: &[N], q: &[f64]| -> Vec<f64> {
            let out = read(state, &wide(&q[at..at + dk]), dv, rule.transposed[1]);
            out.into_iter().map(|o| (o * scale).to_f64()).collect()
        };
        if let Some(q) = x.q.as_ref().filter(|_| rule.read_first) {
            outputs.extend(out(&state, q));
        }
        let delta: Vec<N> = v.iter().zip(memory).map(|(v, m)| (*v - m) * beta).collect();
        for (line, k) in state.chunks_exact_mut(dv).zip(&k) {
            line.iter_mut().zip(&delta).for_each(|(m, delta)| *m = *m + *k * *delta);
        }
        fade(&mut state, Fading::After);
        if let Some(stored) = rule.stored {
            let mut all: Vec<f64> = state.iter().map(|m| m.to_f64()).collect();
            stored(&mut all, dv);
            state = wide(&all);
        }
        if let Some(q) = x.q.as_ref().filter(|_| !rule.read_first) {
            outputs.extend(out(&state, q));
        }
        fade(&mut state, Fading::AfterReading);
    }
    (outputs, state.into_iter().map(Number::to_f64).collect())
}
