//! Holding captured values against replayed ones and their bounds.

use crate::tensor::{DType, TensorView};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// The local error of a component: what it computed against what its own inputs and parameters give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Local {
    /// The largest error of an element, as a multiple of the rounding error that a correct kernel may
    /// make there, or [`Local::usual`], if that is larger; infinite where an element must be exact and is not, or is finite on one side only.
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// `√Σd² / √Σr²` of the captured values against the replayed ones; infinite where an element is
    /// finite on one side only.
    #[serde(with = "crate::number")]
    pub rel_l2: f64,
    /// Number of elements that were replayed.
    pub elements: u64,
    /// How many of them are beyond their bound.
    pub beyond: u64,
    /// How many have no bound: sums that may leave the range of 32 bits, of which a correct kernel may make
    /// anything.
    pub unbounded: u64,
    /// For sums, the usual error of an element as a multiple of the largest usual error that kernels may have:
    /// what all elements suffer shows here long before one of them leaves its bound. Else 0.
    #[serde(default, with = "crate::number")]
    pub usual: f64,
    /// How many were left out: what they read is not finite.
    #[serde(default)]
    pub undefined: u64,
    /// How many beyond their bounds were replayed from further back than the component's own inputs, of which not
    /// all rows were captured: the fault may be that of a component between.
    #[serde(default)]
    pub further: u64,
    /// Where the ratio is largest.
    pub worst: Option<Spot>,
}

/// An element with what was expected there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Spot {
    /// In the flattened tensor.
    pub index: usize,
    #[serde(with = "crate::number")]
    pub captured: f64,
    #[serde(with = "crate::number")]
    pub replayed: f64,
    #[serde(with = "crate::number")]
    pub bound: f64,
}

impl Local {
    /// True when rounding explains every element.
    pub fn is_rounding(&self) -> bool {
        self.ratio <= 1.0
    }
}

/// Collects the local error of one captured tensor.
pub(crate) struct Judge<'a> {
    captured: TensorView<'a>,
    largest: f64,
    differences: f64,
    norm: f64,
    mismatch: bool,
    local: Local,
    after: Option<After<'a>>,
    hopeless: f64,
    seen: Option<Seen>,
    sample: Option<Sample>,
    left_out: Vec<bool>,
    is_further: bool,
    unseen: Option<String>,
}

/// Ratios of some elements, evenly chosen.
struct Sample {
    every: usize,
    ratios: Vec<f64>,
}

impl Sample {
    /// One of `every` elements, in no order that a row's length could fall in with.
    fn has(&self, index: usize) -> bool {
        let mixed = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (mixed as usize).is_multiple_of(self.every)
    }
}

/// How many elements a usual error is told from, at the least and about the most.
const SAMPLE: [usize; 2] = [32, 4096];

/// What becomes of a replayed element before it is held against the captured one: of index, value and
/// bound, value and bound.
type After<'a> = Box<dyn Fn(usize, f64, f64) -> (f64, f64) + 'a>;

/// What was held against the captured elements, in their order, as far as it was kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Replayed values; those that were not replayed are NaN.
    pub replayed: Vec<f64>,
    /// Whether the captured ones are beyond their bounds.
    pub beyond: Vec<bool>,
}

impl<'a> Judge<'a> {
    pub fn new(captured: TensorView<'a>) -> Self {
        let local = Local {
            ratio: 0.0,
            rel_l2: 0.0,
            elements: 0,
            beyond: 0,
            unbounded: 0,
            undefined: 0,
            further: 0,
            usual: 0.0,
            worst: None,
        };
        Self {
            captured,
            largest: largest(captured.dtype),
            differences: 0.0,
            norm: 0.0,
            mismatch: false,
            local,
            after: None,
            hopeless: f64::INFINITY,
            seen: None,
            sample: None,
            left_out: Vec::new(),
            is_further: false,
            unseen: None,
        }
    }

    /// Keeps ratios of elements evenly chosen, for [`Judge::expect`]; false where they are too few.
    pub fn sample(&mut self) -> bool {
        let enough = self.len() >= SAMPLE[0];
        if enough {
            self.sample = Some(Sample { every: self.len().div_ceil(SAMPLE[1]), ratios: Vec::new() });
        }
        enough
    }

    /// Tells the largest median ratio that a correct kernel may have; nothing is known of it where it is 0.
    pub fn expect(&mut self, most: f64) {
        let Some(mut sample) = self.sample.take().filter(|s| most > 0.0 && s.ratios.len() >= SAMPLE[0])
        else {
            return;
        };
        let middle = sample.ratios.len() / 2;
        let (_, median, _) = sample.ratios.select_nth_unstable_by(middle, f64::total_cmp);
        self.local.usual = *median / most;
    }

    /// Which of the elements from `start` on are beyond their bounds.
    pub fn beyond(&self, start: usize, replayed: &[f64], bounds: &[f64]) -> Vec<usize> {
        if self.after.is_some() {
            return Vec::new();
        }
        let mut captured = vec![0.0; replayed.len()];
        self.captured.read_into(start, &mut captured);
        let beyond = |i: &usize| (captured[*i] - replayed[*i]).abs() > bounds[*i];
        (0..replayed.len()).filter(beyond).collect()
    }

    /// Leaves these elements out: what reaches them is not finite.
    pub fn leaving_out(mut self, elements: Vec<bool>) -> Self {
        self.left_out = elements;
        self
    }

    /// A judge of the same elements that ends early.
    pub fn probe(&self, hopeless: f64) -> Self {
        Self::new(self.captured).leaving_out(self.left_out.clone()).until(hopeless)
    }

    /// Changes each replayed element before it is held against the captured one.
    pub fn then(&mut self, after: impl Fn(usize, f64, f64) -> (f64, f64) + 'a) {
        self.after = Some(Box::new(after));
    }

    /// Lets a formula that works in pieces end early: nobody asks for ratios beyond this.
    pub fn until(mut self, hopeless: f64) -> Self {
        self.hopeless = hopeless;
        self
    }

    /// True when the ratio is beyond what anybody asks for.
    pub fn is_hopeless(&self) -> bool {
        self.local.ratio > self.hopeless
    }

    /// Keeps what the first elements are held against.
    pub fn keeping(mut self, most: usize) -> Self {
        let kept = self.len().min(most);
        self.seen = Some(Seen { replayed: vec![f64::NAN; kept], beyond: vec![false; kept] });
        self
    }

    /// What was kept.
    pub fn seen(&mut self) -> Seen {
        self.seen.take().unwrap_or_default()
    }

    /// Number of elements to check.
    pub fn len(&self) -> usize {
        self.captured.len()
    }

    /// Holds the elements from `start` on against `replayed`, with the bounds of their errors.
    pub fn check(&mut self, start: usize, replayed: &[f64], bounds: &[f64]) {
        debug_assert_eq!(replayed.len(), bounds.len());
        let mut captured = vec![0.0; replayed.len()];
        self.captured.read_into(start, &mut captured);
        for (i, ((&c, &r), &bound)) in captured.iter().zip(replayed).zip(bounds).enumerate() {
            self.element(start + i, c, r, bound);
        }
    }

    /// As [`Judge::check`], for values that were replayed from further back than the component's inputs.
    pub fn check_further(&mut self, start: usize, replayed: &[f64], bounds: &[f64]) {
        self.is_further = true;
        self.check(start, replayed, bounds);
        self.is_further = false;
    }

    /// Says that some elements are not checked, and why: what is within its bounds elsewhere is not all there is.
    pub fn leave_unseen(&mut self, why: String) {
        self.unseen = Some(why);
    }

    /// Why some elements were not checked; none where all were.
    pub fn unseen(&mut self) -> Option<String> {
        self.unseen.take()
    }

    /// As [`Judge::check`], for values that must be equal.
    pub fn check_exact(&mut self, start: usize, replayed: &[f64]) {
        self.check(start, replayed, &vec![0.0; replayed.len()]);
    }

    fn element(&mut self, index: usize, captured: f64, replayed: f64, bound: f64) {
        let (replayed, bound) =
            self.after.as_ref().map_or((replayed, bound), |after| after(index, replayed, bound));
        self.local.elements += 1;
        if self.left_out.get(index) == Some(&true) {
            self.local.undefined += 1;
            return;
        }
        let same = captured == replayed || (captured.is_nan() && replayed.is_nan());
        if bound == f64::INFINITY {
            self.local.unbounded += u64::from(!same);
            return;
        }
        let same = same || self.overflows(captured, replayed, bound);
        let difference = captured - replayed;
        if difference.is_finite() {
            self.differences += difference * difference;
            self.norm += replayed * replayed;
        } else if !same {
            self.mismatch = true;
        }
        // A bound that is not a number explains nothing.
        let ratio = difference.abs() / bound;
        if let Some(seen) = self.seen.as_mut().filter(|seen| index < seen.replayed.len()) {
            seen.replayed[index] = replayed;
            seen.beyond[index] = !same && (ratio.is_nan() || ratio > 1.0);
        }
        if let Some(sample) = self.sample.as_mut().filter(|sample| sample.has(index)) {
            sample.ratios.push(if same { 0.0 } else { ratio });
        }
        if same {
            return;
        }
        let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
        self.local.beyond += u64::from(ratio > 1.0);
        self.local.further += u64::from(ratio > 1.0 && self.is_further);
        if self.local.worst.is_none() || ratio > self.local.ratio {
            self.local.ratio = ratio;
            self.local.worst = Some(Spot { index, captured, replayed, bound });
        }
    }

    /// True where a number that the type cannot hold became infinite, with its sign.
    fn overflows(&self, captured: f64, replayed: f64, bound: f64) -> bool {
        captured.is_infinite() && replayed * captured.signum() + bound > self.largest
    }

    pub fn finish(mut self) -> Local {
        self.local.rel_l2 = if self.mismatch {
            f64::INFINITY
        } else if self.differences == 0.0 {
            0.0
        } else {
            (self.differences / self.norm).sqrt()
        };
        if self.local.usual > self.local.ratio {
            self.local.ratio = self.local.usual;
        }
        self.local
    }
}

/// The largest finite number of a type.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f64::from(f16::MAX),
        DType::BF16 => f64::from(bf16::MAX),
        DType::F32 => f64::from(f32::MAX),
        DType::F64 | DType::U8 => f64::INFINITY,
    }
}
