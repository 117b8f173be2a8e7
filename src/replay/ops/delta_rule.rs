//! The gated delta rule: a matrix-valued memory for each value head.
//!
//! For each token: `S ← g S`, `m = Sᵀ k`, `S ← S + k ((v − m) β)ᵀ`, `o = Sᵀ q / √d`. An error of the state
//! is carried on from token to token, and what it grows to depends on the numbers: no bound that is known
//! beforehand is of use. Instead the same recurrence is run in 32 bits beside the replay, in both orders
//! of operations that engines use; the larger of the errors that they reach is a measurement of what
//! rounding does here.

use super::attention::{Group, grouped};
use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::SMALLEST;
use crate::replay::step::{Replayed, Step, Stop};
use crate::tensor::DType;

/// How many times the measured error a kernel in another order may err; the chunked form of the rule errs
/// one to three times as much as the plain recurrence.
const MARGIN: f64 = 8.0;

/// What the rule reads in one step; for the state alone there are no queries.
struct Inputs {
    q: Option<Vec<f64>>,
    k: Vec<f64>,
    conv: Vec<f64>,
    beta: Vec<f64>,
    decay: Vec<f64>,
    state: Vec<f64>,
}

/// Sizes of the rule.
#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    key_heads: usize,
    heads: usize,
    dk: usize,
    dv: usize,
    conv: usize,
}

impl Sizes {
    fn of(step: &Step<'_>) -> Self {
        Self {
            tokens: step.tokens(),
            key_heads: step.dim("key_heads"),
            heads: step.dim("value_heads"),
            dk: step.dim("key_dim"),
            dv: step.dim("value_dim"),
            conv: step.dim("conv_dim"),
        }
    }
}

impl Inputs {
    fn read(step: &Step<'_>, s: Sizes, queries: bool) -> Replayed<Self> {
        let first = usize::from(queries);
        let read = |i: usize| step.input(i).map(|view| view.to_f64());
        let state = match step.carried()? {
            Some(state) => state.to_f64(),
            None => vec![0.0; s.heads * s.dk * s.dv],
        };
        let inputs = Self {
            q: queries.then(|| read(0)).transpose()?,
            k: read(first)?,
            conv: read(first + 1)?,
            beta: read(first + 2)?,
            decay: read(first + 3)?,
            state,
        };
        sized("the keys", &inputs.k, s.tokens * s.key_heads * s.dk)?;
        sized("the convolution", &inputs.conv, s.tokens * s.conv)?;
        sized("beta", &inputs.beta, s.tokens * s.heads)?;
        sized("the decay", &inputs.decay, s.tokens * s.heads)?;
        sized("the state", &inputs.state, s.heads * s.dk * s.dv)?;
        Ok(inputs)
    }
}

/// Numbers that the recurrence can be run in.
trait Number:
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
fn head<N: Number>(x: &Inputs, s: Sizes, h: usize, rule: &Rule) -> (Vec<f64>, Vec<f64>) {
    let (dk, dv) = (s.dk, s.dv);
    let wide = |values: &[f64]| -> Vec<N> { values.iter().map(|v| N::from_f64(*v)).collect() };
    let mut state = wide(&x.state[h * dk * dv..(h + 1) * dk * dv]);
    let scale = N::from_f64((rule.scale)(dk as f64));
    let group = (rule.group)(h, s.heads, s.key_heads);
    let values = 2 * s.key_heads * dk + h * dv;
    let mut outputs = Vec::new();
    for t in 0..s.tokens {
        let at = (t * s.key_heads + group) * dk;
        let k = wide(&x.k[at..at + dk]);
        let v = wide(&x.conv[t * s.conv + values..][..dv]);
        let (beta, g) = (N::from_f64(x.beta[t * s.heads + h]), N::from_f64(x.decay[t * s.heads + h]));
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
        if let Some(q) = &x.q {
            let out = read(&state, &wide(&q[at..at + dk]), dv, rule.transposed[1]);
            outputs.extend(out.into_iter().map(|o| (o * scale).to_f64()));
        }
        fade(&mut state, Fading::AfterReading);
    }
    (outputs, state.into_iter().map(Number::to_f64).collect())
}

/// A rule in both orders of operations.
fn orders(rule: &Rule) -> [Rule; 2] {
    let other = if rule.memory == Memory::Decayed && rule.fading == Fading::Before {
        Memory::ReadFirst
    } else {
        rule.memory
    };
    [*rule, Rule { memory: other, ..*rule }]
}

/// Refuses to read a state upside down that is not square.
fn readable(s: Sizes, rule: &Rule) -> Replayed<()> {
    if s.dk == s.dv || rule.transposed == [false; 2] {
        return Ok(());
    }
    Err(Stop::Missing(format!("the state is {} × {}, not square", s.dk, s.dv)))
}

/// Tokens that the chunked form of the rule takes at once: an error of one may show in any of them.
const CHUNK: usize = 64;

/// The bound of each row of `width`: the largest error in 32 bits, in both orders, of all rows up to the
/// end of its chunk, since an error that was reached once may be reached again; at the least what a sum of
/// `terms` numbers of that size may err.
fn bounds(exact: &[f64], single: [&[f64]; 2], width: usize, terms: usize, unit: f64) -> Vec<f64> {
    let ratio = unit / DType::F32.unit_roundoff();
    let least = unit * (terms as f64).sqrt();
    let mut reached = 0.0f64;
    let mut bounds = Vec::with_capacity(exact.len());
    for (c, chunk) in exact.chunks(CHUNK * width).enumerate() {
        for (i, value) in chunk.iter().enumerate() {
            let at = c * CHUNK * width + i;
            let error = single.iter().map(|other| (other[at] - value).abs()).fold(0.0, f64::max);
            reached = reached.max(ratio * error).max(least * value.abs());
        }
        bounds.extend(std::iter::repeat_n(MARGIN * reached + SMALLEST, chunk.len()));
    }
    bounds
}

/// The rule's output.
pub(crate) fn output(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    output_by(step, judge, &RULE)
}

/// The output of another rule.
pub(crate) fn output_by(step: &Step<'_>, judge: &mut Judge<'_>, rule: &Rule) -> Replayed<()> {
    let s = Sizes::of(step);
    readable(s, rule)?;
    let x = Inputs::read(step, s, true)?;
    sized("the queries", x.q.as_deref().unwrap_or_default(), s.tokens * s.key_heads * s.dk)?;
    sized("the output", &vec![0.0; judge.len()], s.tokens * s.heads * s.dv)?;
    let unit = step.precision()?.unit;
    for h in 0..s.heads {
        let (exact, _) = head::<f64>(&x, s, h, rule);
        let [a, b] = orders(rule).map(|rule| head::<f32>(&x, s, h, &rule).0);
        let bounds = bounds(&exact, [&a, &b], s.dv, s.dk, unit);
        for t in 0..s.tokens {
            let row = t * s.dv..(t + 1) * s.dv;
            judge.check((t * s.heads + h) * s.dv, &exact[row.clone()], &bounds[row]);
        }
        if judge.is_hopeless() {
            break;
        }
    }
    Ok(())
}

/// The memory after the step's last token.
pub(crate) fn state(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    state_by(step, judge, &RULE)
}

/// The memory that another rule leaves.
pub(crate) fn state_by(step: &Step<'_>, judge: &mut Judge<'_>, rule: &Rule) -> Replayed<()> {
    let s = Sizes::of(step);
    readable(s, rule)?;
    let x = Inputs::read(step, s, false)?;
    let size = s.dk * s.dv;
    sized("the state", &vec![0.0; judge.len()], s.heads * size)?;
    let unit = step.precision()?.unit;
    for h in 0..s.heads {
        let (_, exact) = head::<f64>(&x, s, h, rule);
        let [a, b] = orders(rule).map(|rule| head::<f32>(&x, s, h, &rule).1);
        judge.check(h * size, &exact, &bounds(&exact, [&a, &b], size, s.dk, unit));
    }
    Ok(())
}
