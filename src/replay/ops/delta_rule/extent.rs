//! How large the numbers are that the recurrence adds up: what its rounding errors are relative to.
//!
//! The columns of the state are recurrences of their own: `s ← g s + k β (v − (g s)ᵀ k)`. With ‖k‖ ≤ 1 and
//! 0 ≤ β ≤ 1 the matrix `I − β k kᵀ` lengthens nothing, so that an error of a column fades with g and does not
//! grow; what a token adds to it is some units of the numbers that it adds up, `g ‖s‖` and
//! `β ‖k‖ (|v| + g ‖s‖ ‖k‖)`, however much of them cancels.

use super::CHUNK;

/// Sizes of one head, column by column.
pub(super) struct Extent {
    unit: f64,
    /// The largest that was added up so far, as it fades.
    size: Vec<f64>,
    /// The largest that has been there so far, unfaded.
    largest: Vec<f64>,
    /// The error of decays that are kept as logarithms.
    logs: Vec<f64>,
    /// Logarithm of the decay since the chunk began, and the number of tokens so far.
    log: f64,
    tokens: usize,
    outputs: Vec<Bound>,
}

/// What an element's rounding is relative to, and what a chunked kernel may add.
#[derive(Clone, Copy, Default)]
pub(super) struct Bound {
    pub size: f64,
    pub logs: f64,
    /// By how much a factor that is lost below the smallest number may be enlarged. In chunks that factor may be
    /// the decay since an earlier token, and what it is multiplied with has not faded.
    pub lost: f64,
}

/// The length of a vector.
pub(super) fn length(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

impl Extent {
    pub fn new(columns: usize, unit: f64) -> Self {
        let zeros = || vec![0.0; columns];
        Self {
            unit,
            size: zeros(),
            largest: zeros(),
            logs: zeros(),
            log: 0.0,
            tokens: 0,
            outputs: Vec::new(),
        }
    }

    /// Takes a token in, before the state has changed.
    ///
    /// A kernel that works in chunks keeps the sum of log g up to each token and takes e to the power of
    /// differences of it: an error of a unit of that sum is a relative one of all that has faded since. And
    /// the captured g was itself rounded from its logarithm.
    pub fn token(&mut self, state: &[f64], k: &[f64], v: &[f64], beta: f64, g: f64) {
        if self.tokens.is_multiple_of(CHUNK) {
            self.log = 0.0;
        }
        self.tokens += 1;
        // A decay of 0 was a logarithm beyond the range; what it was is not known.
        self.log += g.abs().max(f64::from(f32::from_bits(1))).ln().abs();
        let mut squares = vec![0.0; v.len()];
        for line in state.chunks_exact(v.len()) {
            squares.iter_mut().zip(line).for_each(|(sum, m)| *sum += m * m);
        }
        // A wrong rule may have any decay.
        let (k, beta, g) = (length(k), beta.abs(), g.abs());
        let columns = self.size.iter_mut().zip(&mut self.logs).zip(&mut self.largest);
        for ((v, squares), ((size, logs), largest)) in v.iter().zip(squares).zip(columns) {
            let old = squares.sqrt();
            let kept = g * old;
            let written = beta * k * (v.abs() + kept * k);
            *size = (g * *size).max(kept + written);
            *largest = largest.max(old).max(*size);
            *logs = g * *logs + self.unit * (2.0 * self.log + 1.0) * kept * (1.0 + beta * k * k);
        }
    }

    /// Each column's, of what is read with a factor of this size.
    fn columns(&self, factor: f64) -> impl Iterator<Item = Bound> {
        let columns = self.size.iter().zip(&self.logs).zip(&self.largest);
        columns.map(move |((size, logs), largest)| Bound {
            size: factor * size,
            logs: factor * logs,
            lost: (1.0 + factor) * (1.0 + largest),
        })
    }

    /// The token's output, for a query of a length after its scale.
    pub fn read(&mut self, query: f64) {
        let bounds: Vec<Bound> = self.columns(query).collect();
        self.outputs.extend(bounds);
    }

    /// Those of the outputs `[tokens, columns]`.
    pub fn outputs(&self) -> &[Bound] {
        &self.outputs
    }

    /// Those of a state of so many lines.
    pub fn state(&self, lines: usize) -> Vec<Bound> {
        let line: Vec<Bound> = self.columns(1.0).collect();
        line.repeat(lines)
    }
}
