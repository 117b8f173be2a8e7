//! What kernels make of sums: some of a component's are added up in 32 bits, as kernels do it.
//!
//! The bound of a sum is made for the worst that may happen, and is far above what happens: against a usual
//! output it grows as k u, and what all elements of an output lose by, as by inputs that were rounded to 16
//! bits on the way, is lost in it. Their *usual* error is not: over thousands of elements the median hardly
//! moves. It is held against that of kernels on the same numbers: a measured floor, with a margin that was chosen.

use super::matmul::BLOCK;
use std::collections::BTreeSet;
use std::ops::Range;

/// How many times the error of the kernels tried a usual error may be: they are few, and others add in another
/// order. Orders that kernels use differ from the serial one by less than that, and to the better side
/// (tests/bounds states the largest seen).
const MARGIN: f64 = 8.0;

/// How many sums of an output are added up: one in so many, and between these numbers.
const ONE_IN: usize = 16;
const CHOSEN: [usize; 2] = [16, 32];

/// The golden ratio's fraction: its multiples are spread evenly, whatever their number.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Sums side by side.
const LANES: usize = 8;

/// The kernels' errors.
pub(super) struct Tried {
    quantized: bool,
    chosen: Vec<usize>,
    /// As multiples of the elements' bounds.
    ratios: Vec<f64>,
    /// How many of the chosen are too small for rounding to be all that they lose.
    small: usize,
    /// How many sums were beyond their bounds, and the largest error of the kernels there, as a multiple of
    /// the bound.
    beyond: usize,
    largest: f64,
}

impl Tried {
    /// Of an output of so many tokens and columns, where its usual error is asked for: tokens one after the
    /// other, and columns in an order that has no period, for no row of the weight to speak for all.
    pub fn new(sampled: Option<[usize; 2]>, quantized: bool) -> Self {
        let [tokens, columns] = sampled.unwrap_or_default();
        let len = tokens * columns;
        let count = (len / ONE_IN).clamp(CHOSEN[0], CHOSEN[1]).min(len);
        let column = |i: usize| ((i as f64 * GOLDEN).fract() * columns as f64) as usize;
        let chosen: BTreeSet<usize> = (0..count).map(|i| i * tokens / count * columns + column(i)).collect();
        let chosen = chosen.into_iter().collect();
        Self { quantized, chosen, ratios: Vec::new(), small: 0, beyond: 0, largest: 0.0 }
    }

    /// Elements of the output within the range that are added up for their usual error.
    pub fn chosen(&self, range: Range<usize>) -> Vec<usize> {
        let from = self.chosen.partition_point(|i| *i < range.start);
        self.chosen[from..].iter().copied().take_while(|i| *i < range.end).collect()
    }

    /// Adds up one of the chosen elements, unless it is `small`.
    pub fn try_usual(&mut self, x: &[f64], w: &[f64], exact: f64, bound: f64, small: bool) {
        if small {
            self.small += 1;
            return;
        }
        // No kernel can be asked for more than the nearest number.
        let least = f64::from(f32::EPSILON) / 2.0 * exact.abs();
        let ratio = self.error(x, w, exact).max(least) / bound;
        // Sums of zeros say nothing of the others.
        if ratio.is_finite() && ratio > 0.0 {
            self.ratios.push(ratio);
        }
    }

    /// The largest median ratio that a kernel may have; 0 where nothing can be said.
    pub fn usual(mut self) -> f64 {
        if 3 * self.small > self.ratios.len() || self.ratios.is_empty() {
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
        let ratio = if self.beyond <= CHOSEN[1] {
            let own = self.error(x, w, exact) / bound;
            self.largest = self.largest.max(own);
            own
        } else {
            // After so many the others are taken to be like them.
            self.largest
        };
        // Below that no kernel gets near its bound.
        if ratio > 0.5 { MARGIN * ratio * bound } else { 0.0 }
    }

    /// The largest error of the kernels.
    fn error(&self, x: &[f64], w: &[f64], exact: f64) -> f64 {
        let terms = || x.iter().zip(w).map(|(x, w)| (*x as f32, *w as f32));
        let forward = terms().fold(0.0f32, |sum, (x, w)| sum + x * w);
        let mut lanes = [0.0f32; LANES];
        terms().enumerate().for_each(|(i, (x, w))| lanes[i % LANES] += x * w);
        let lanes = lanes.iter().sum::<f32>();
        let coded = if self.quantized { on_codes(x, w) } else { forward };
        [forward, lanes, coded].into_iter().map(|sum| (f64::from(sum) - exact).abs()).fold(0.0, f64::max)
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
