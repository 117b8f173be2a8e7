//! What kernels make of sums: some of a component's are added up in 32 bits, as kernels do it.
//!
//! The bound of a sum is made for the worst that may happen, and is far above what happens: against a usual
//! output it grows as k u, and what all elements of an output lose by, as by inputs that were rounded to 16
//! bits on the way, is lost in it. Their *usual* error is not: over thousands of elements the median hardly
//! moves. It is held against that of kernels on the same numbers.

use std::ops::Range;

/// How many times the error of the kernels tried a usual error may be: they are few, and others add in another
/// order. Orders that kernels use differ from the serial one by less than that, and to the better side
/// (tests/bounds states the largest seen).
const MARGIN: f64 = 8.0;

/// How many sums of an output are added up.
const CHOSEN: usize = 64;

/// Codes with one scale and bias.
const BLOCK: usize = 32;

/// Sums side by side.
const LANES: usize = 8;

/// The kernels' errors.
pub(super) struct Tried {
    quantized: bool,
    chosen: Vec<usize>,
    /// As multiples of the elements' bounds.
    ratios: Vec<f64>,
    /// True where numbers are too small for rounding to be all that is lost.
    small: bool,
    /// How many sums were beyond their bounds, and the largest error of the kernels there, as a multiple of
    /// the bound.
    beyond: usize,
    largest: f64,
}

impl Tried {
    /// Of an output of `len` elements.
    pub fn new(len: usize, quantized: bool) -> Self {
        let count = CHOSEN.min(len);
        let chosen = (0..count).map(|i| (2 * i + 1) * len / (2 * count)).collect();
        Self { quantized, chosen, ratios: Vec::new(), small: false, beyond: 0, largest: 0.0 }
    }

    /// Elements of the output within the range that are added up for their usual error.
    pub fn chosen(&self, range: Range<usize>) -> Vec<usize> {
        let from = self.chosen.partition_point(|i| *i < range.start);
        self.chosen[from..].iter().copied().take_while(|i| *i < range.end).collect()
    }

    /// Adds up one of the chosen elements.
    pub fn try_usual(&mut self, x: &[f64], w: &[f64], exact: f64, bound: f64, small: bool) {
        self.small |= small;
        // No kernel can be asked for more than the nearest number.
        let least = f64::from(f32::EPSILON) / 2.0 * exact.abs();
        let ratio = self.error(x, w, exact).max(least) / bound;
        if ratio.is_finite() {
            self.ratios.push(ratio);
        }
    }

    /// The largest median ratio that a kernel may have; 0 where nothing can be said.
    pub fn usual(mut self) -> f64 {
        if self.small || self.ratios.is_empty() {
            return 0.0;
        }
        // Sums of terms of one sign lose more than others: where those are few they must not be missed.
        let at = self.ratios.len() * 3 / 4;
        let (_, upper, _) = self.ratios.select_nth_unstable_by(at, f64::total_cmp);
        MARGIN * *upper
    }

    /// What a sum that is beyond its bound may err besides: nothing, but where the terms are alike, and
    /// their roundings too.
    pub fn try_beyond(&mut self, x: &[f64], w: &[f64], exact: f64, bound: f64) -> f64 {
        self.beyond += 1;
        // After so many the others are taken to be like them.
        if self.beyond <= CHOSEN {
            self.largest = self.largest.max(self.error(x, w, exact) / bound);
        }
        // Below that no kernel gets near its bound.
        if self.largest > 0.5 { MARGIN * self.largest * bound } else { 0.0 }
    }

    /// The largest error of the kernels.
    fn error(&self, x: &[f64], w: &[f64], exact: f64) -> f64 {
        let terms = || x.iter().zip(w).map(|(x, w)| (*x as f32, *w as f32));
        let forward = terms().fold(0.0f32, |sum, (x, w)| sum + x * w);
        let backward = terms().rev().fold(0.0f32, |sum, (x, w)| x.mul_add(w, sum));
        let mut lanes = [0.0f32; LANES];
        terms().enumerate().for_each(|(i, (x, w))| lanes[i % LANES] = x.mul_add(w, lanes[i % LANES]));
        let lanes = lanes.iter().sum::<f32>();
        let coded = if self.quantized { on_codes(x, w) } else { forward };
        [forward, backward, lanes, coded]
            .into_iter()
            .map(|sum| (f64::from(sum) - exact).abs())
            .fold(0.0, f64::max)
    }
}

/// As a kernel on codes adds them: what a block's weights exceed its smallest by, and that one times the
/// block's inputs.
fn on_codes(x: &[f64], w: &[f64]) -> f32 {
    let block = |(x, w): (&[f64], &[f64])| {
        let least = w.iter().fold(f64::INFINITY, |m, w| m.min(*w)) as f32;
        let terms = || x.iter().zip(w).map(|(x, w)| (*x as f32, *w as f32));
        let codes = terms().fold(0.0f32, |sum, (x, w)| sum + x * (w - least));
        let inputs = terms().fold(0.0f32, |sum, (x, _)| sum + x);
        codes + least * inputs
    };
    x.chunks(BLOCK).zip(w.chunks(BLOCK)).map(block).fold(0.0f32, |sum, block| sum + block)
}
