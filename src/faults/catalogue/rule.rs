//! The recurrence of the gated delta rule in 32 bits, with everything about it that may be wrong.

use super::super::Call;
use crate::error::Result;
use crate::model::Op;

/// The recurrence, with what may be wrong about it.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub key: fn(usize, usize, usize) -> usize,
    pub transposed: bool,
    pub memory_decay: bool,
    /// Factor of the queries, and of what they read, for their size.
    pub before: fn(usize) -> f32,
    pub after: fn(usize) -> f32,
    pub read_first: bool,
    pub chunk: usize,
    pub decay: fn(f32) -> f32,
    pub delta: fn(f32, f32, f32) -> f32,
    pub store: fn(&mut [f32], usize),
}

/// Nothing wrong.
pub(super) const RIGHT: Rule = Rule {
    key: |h, heads, keys| h / (heads / keys),
    transposed: false,
    memory_decay: true,
    before: |_| 1.0,
    after: scale,
    read_first: false,
    chunk: usize::MAX,
    decay: |g| g,
    delta: |v, m, beta| (v - m) * beta,
    store: |_, _| (),
};

impl Rule {
    /// Output or state, whichever the component is.
    pub fn run(&self, c: &Call<'_>) -> Result<Vec<f32>> {
        let queries = c.component.op == Op::DeltaRule;
        let first = usize::from(queries);
        let (k, conv, beta, decay) =
            (c.input(first)?, c.input(first + 1)?, c.input(first + 2)?, c.input(first + 3)?);
        let q = if queries { c.input(0)? } else { k };
        let (heads, keys) = (c.dim("value_heads"), c.dim("key_heads"));
        let (dk, dv, width) = (c.dim("key_dim"), c.dim("value_dim"), c.dim("conv_dim"));
        let mut all = c.carried(heads * dk * dv);
        let mut out = vec![0.0; c.tokens * heads * dv];
        for (h, state) in all.chunks_exact_mut(dk * dv).enumerate() {
            let key = (self.key)(h, heads, keys);
            for t in 0..c.tokens {
                if t > 0 && t % self.chunk == 0 {
                    state.fill(0.0);
                }
                let place = (t * keys + key) * dk;
                let q: Vec<f32> = q[place..place + dk].iter().map(|q| q * (self.before)(dk)).collect();
                let (q, k) = (q.as_slice(), &k[place..place + dk]);
                let v = &conv[t * width + 2 * keys * dk + h * dv..][..dv];
                let (beta, g) = (beta[t * heads + h], (self.decay)(decay[t * heads + h]));
                let undecayed = self.memory(state, k, dv);
                state.iter_mut().for_each(|s| *s *= g);
                let memory = if self.memory_decay { self.memory(state, k, dv) } else { undecayed };
                let early = read(state, q, dv);
                for (line, k) in state.chunks_exact_mut(dv).zip(k) {
                    let change = v.iter().zip(&memory).map(|(v, m)| (self.delta)(*v, *m, beta));
                    line.iter_mut().zip(change).for_each(|(s, d)| *s += k * d);
                }
                (self.store)(state, dv);
                let read = if self.read_first { early } else { read(state, q, dv) };
                let scale = (self.after)(dk);
                let out = &mut out[(t * heads + h) * dv..][..dv];
                out.iter_mut().zip(read).for_each(|(out, o)| *out = o * scale);
            }
        }
        Ok(if queries { out } else { all })
    }

    fn memory(&self, state: &[f32], k: &[f32], dv: usize) -> Vec<f32> {
        if self.transposed {
            state.chunks_exact(dv).map(|line| line.iter().zip(k).map(|(s, k)| s * k).sum()).collect()
        } else {
            read(state, k, dv)
        }
    }
}

/// `d^-½`.
pub(super) fn scale(dk: usize) -> f32 {
    (dk as f32).sqrt().recip()
}

/// `Sᵀ x`.
fn read(state: &[f32], x: &[f32], dv: usize) -> Vec<f32> {
    let mut out = vec![0.0; dv];
    for (line, x) in state.chunks_exact(dv).zip(x) {
        out.iter_mut().zip(line).for_each(|(out, s)| *out += s * x);
    }
    out
}
