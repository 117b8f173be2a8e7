//! The gated delta rule: a matrix-valued memory for each value head.
//!
//! For each token: `S ← g S`, `m = Sᵀ k`, `S ← S + k ((v − m) β)ᵀ`, `o = Sᵀ q / √d`. An error of the state
//! is carried on from token to token, and what it grows to depends on the numbers: no bound that is known
//! beforehand is of use. Instead the same recurrence is run in 32 bits beside the replay, in both orders
//! of operations that engines use; the larger of the errors that they reach is a measurement of what
//! rounding does here, relative to the sizes of what is added up.

mod extent;
mod recurrence;

pub(crate) use recurrence::{Fading, Memory, RULE, Rule};

use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::{Precision, SMALLEST};
use crate::replay::step::{Replayed, Step, Stop};
use crate::tensor::DType;
use extent::{Bound, Extent};
use recurrence::{head, measured};

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
        sized("the keys", inputs.k.len(), s.tokens * s.key_heads * s.dk)?;
        sized("the convolution", inputs.conv.len(), s.tokens * s.conv)?;
        sized("beta", inputs.beta.len(), s.tokens * s.heads)?;
        sized("the decay", inputs.decay.len(), s.tokens * s.heads)?;
        sized("the state", inputs.state.len(), s.heads * s.dk * s.dv)?;
        Ok(inputs)
    }
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
pub(super) const CHUNK: usize = 64;

/// The bound of each row of `width`, from the same recurrence in 32 bits, in both orders.
///
/// Their errors are measured as multiples of a unit of what is added up; the largest multiple of all rows up
/// to the end of the chunk counts, at the least 1, since an error that was reached once may be reached again.
/// Beside them stands what is `lost` of numbers that are too small.
fn bounds(
    exact: &[f64],
    single: [&[f64]; 2],
    sizes: &[Bound],
    width: usize,
    lost: f64,
    precision: Precision,
) -> Vec<f64> {
    let least = lost + precision.least;
    let mut reached = 1.0f64;
    let mut bounds = Vec::with_capacity(exact.len());
    for (c, chunk) in exact.chunks(CHUNK * width).enumerate() {
        for (i, value) in chunk.iter().enumerate() {
            let at = c * CHUNK * width + i;
            // A state that has left the range of 32 bits explains everything from there on.
            let error = |other: &&[f64]| {
                if other[at].is_finite() { (other[at] - value).abs() } else { f64::INFINITY }
            };
            let error = single.iter().map(error).fold(0.0, f64::max);
            let size = DType::F32.unit_roundoff() * sizes[at].size;
            if error > least {
                reached = reached.max(error / size);
            }
        }
        let bound = |of: &Bound| match reached {
            f64::INFINITY => reached,
            _ => {
                let rounded = MARGIN * reached * precision.unit * of.size + of.logs;
                rounded + lost * of.lost + precision.least * (1.0 + of.size)
            }
        };
        bounds.extend(sizes[c * CHUNK * width..][..chunk.len()].iter().map(bound));
    }
    bounds
}

/// What numbers lose that are too small for 32 bits: for every token and key dimension a term of the memory, one
/// where the state fades and one where it is written.
fn lost(s: Sizes) -> f64 {
    SMALLEST * (3 * s.dk * s.tokens) as f64
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
    sized("the queries", x.q.as_deref().map_or(0, <[f64]>::len), s.tokens * s.key_heads * s.dk)?;
    sized("the output", judge.len(), s.tokens * s.heads * s.dv)?;
    let precision = step.precision()?;
    for h in 0..s.heads {
        let mut extent = Extent::new(s.dv, precision.unit);
        let (exact, _) = measured::<f64>(&x, s, h, rule, Some(&mut extent));
        let [a, b] = orders(rule).map(|rule| head::<f32>(&x, s, h, &rule).0);
        let bounds = bounds(&exact, [&a, &b], extent.outputs(), s.dv, lost(s), precision);
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
    sized("the state", judge.len(), s.heads * size)?;
    let precision = step.precision()?;
    for h in 0..s.heads {
        let mut extent = Extent::new(s.dv, precision.unit);
        let (_, exact) = measured::<f64>(&x, s, h, rule, Some(&mut extent));
        let [a, b] = orders(rule).map(|rule| head::<f32>(&x, s, h, &rule).1);
        let sizes = extent.state(s.dk);
        judge.check(h * size, &exact, &bounds(&exact, [&a, &b], &sizes, size, lost(s), precision));
    }
    Ok(())
}
