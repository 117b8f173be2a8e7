//! One pass over two tensors: runs of one token each, with what is not finite left out and counted.

use super::kernel::number::Number;
use super::kernel::{self, Run, SHIFT};
use super::{Histogram, Metrics, NonFinite, Quantiles, Sums};
use std::marker::PhantomData;
use std::ops::Range;

/// Places of two tensors that follow each other.
pub(super) trait Places: Copy {
    /// How many there are.
    fn len(self) -> usize;

    /// Those within a range.
    fn part(self, range: Range<usize>) -> Self;

    /// What they come to. With `sizes`, differences may be counted there on the way.
    fn run(self, sizes: Option<&mut Histogram>) -> Run;

    /// Those whose difference is finite.
    fn masked(self) -> Run;

    /// Counts the finite differences that [`Places::run`] has not, of which `least` and `max` are what it gave.
    fn count_rest(self, least: u32, max: f64, sizes: &mut Histogram);

    /// Both values of each.
    fn values(self) -> impl Iterator<Item = (f64, f64)>;
}

/// Numbers of at most 32 bits, as they lie in a trace.
#[derive(Debug)]
pub(super) struct Narrow<'a, R, C> {
    reference: &'a [u8],
    candidate: &'a [u8],
    types: PhantomData<(R, C)>,
}

impl<'a, R, C> Narrow<'a, R, C> {
    pub(super) fn new(reference: &'a [u8], candidate: &'a [u8]) -> Self {
        Self { reference, candidate, types: PhantomData }
    }
}

impl<R, C> Clone for Narrow<'_, R, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, C> Copy for Narrow<'_, R, C> {}

impl<R: Number, C: Number> Places for Narrow<'_, R, C> {
    fn len(self) -> usize {
        self.reference.len() / R::SIZE
    }

    fn part(self, range: Range<usize>) -> Self {
        Self::new(
            &self.reference[range.start * R::SIZE..range.end * R::SIZE],
            &self.candidate[range.start * C::SIZE..range.end * C::SIZE],
        )
    }

    fn run(self, sizes: Option<&mut Histogram>) -> Run {
        match sizes {
            Some(sizes) => kernel::counted::<R, C>(self.reference, self.candidate, sizes.table()),
            None => kernel::run::<R, C>(self.reference, self.candidate),
        }
    }

    fn masked(self) -> Run {
        kernel::masked::<R, C>(self.reference, self.candidate)
    }

    fn count_rest(self, least: u32, max: f64, sizes: &mut Histogram) {
        let narrow = |(r, c): (f64, f64)| c as f32 - r as f32;
        if least < (1 << SHIFT) - 1 {
            // Not all that is in the least bin is 0.
            let is_tiny = |d: f32| d != 0.0 && d.abs().to_bits() >> SHIFT == 0;
            sizes.not_zero(self.values().filter(|place| is_tiny(narrow(*place))).count());
        }
        if (max as f32).is_infinite() {
            // A difference of two f32 may be none.
            let large = self.values().filter(|place| narrow(*place).is_infinite());
            large.map(|(r, c)| (c - r).abs()).filter(|d| d.is_finite()).for_each(|d| sizes.add(d));
        }
        sizes.counted(self.len(), least, max);
    }

    fn values(self) -> impl Iterator<Item = (f64, f64)> {
        let r = self.reference.chunks_exact(R::SIZE).map(|bytes| f64::from(R::widen(bytes)));
        r.zip(self.candidate.chunks_exact(C::SIZE).map(|bytes| f64::from(C::widen(bytes))))
    }
}

/// Numbers of 64 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wide<'a> {
    pub reference: &'a [f64],
    pub candidate: &'a [f64],
}

impl Places for Wide<'_> {
    fn len(self) -> usize {
        self.reference.len()
    }

    fn part(self, range: Range<usize>) -> Self {
        Self { reference: &self.reference[range.clone()], candidate: &self.candidate[range] }
    }

    fn run(self, _: Option<&mut Histogram>) -> Run {
        kernel::run_f64(self.reference, self.candidate, false)
    }

    fn masked(self) -> Run {
        kernel::run_f64(self.reference, self.candidate, true)
    }

    fn count_rest(self, _: u32, _: f64, sizes: &mut Histogram) {
        let all = self.values().map(|(r, c)| (c - r).abs());
        all.filter(|size| size.is_finite()).for_each(|size| sizes.add(size));
    }

    fn values(self) -> impl Iterator<Item = (f64, f64)> {
        self.reference.iter().copied().zip(self.candidate.iter().copied())
    }
}

/// A place, and the size of its difference.
#[derive(Debug, Clone, Copy)]
pub(super) struct Worst {
    pub size: f64,
    pub at: usize,
    pub reference: f64,
    pub candidate: f64,
}

/// What has been seen so far.
pub(super) struct Pass<'a> {
    shape: &'a [usize],
    has_tokens: bool,
    /// Elements that follow each other and belong to one token.
    inner: usize,
    tokens: Vec<Sums>,
    /// None where nobody asks how differences are distributed.
    sizes: Option<Histogram>,
    non_finite: NonFinite,
    first_mismatch: Option<Worst>,
    worst: Option<Worst>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(shape: &'a [usize], token_axis: Option<usize>, sizes: Option<Histogram>) -> Self {
        let inner = token_axis.map_or(usize::MAX, |axis| shape[axis + 1..].iter().product::<usize>().max(1));
        let tokens = token_axis.map_or(1, |axis| shape[axis].max(1));
        Self {
            shape,
            has_tokens: token_axis.is_some(),
            inner,
            tokens: vec![Sums::default(); tokens],
            sizes,
            non_finite: NonFinite::default(),
            first_mismatch: None,
            worst: None,
        }
    }

    /// The places from `start` on.
    pub(super) fn chunk(&mut self, start: usize, places: impl Places) {
        let (mut from, n) = (0, places.len());
        while from < n {
            let at = start + from;
            let to = n.min((self.inner - at % self.inner).saturating_add(from));
            let token = if self.has_tokens { at / self.inner % self.tokens.len() } else { 0 };
            self.run(at, token, places.part(from..to));
            from = to;
        }
    }

    /// A run of one token.
    fn run(&mut self, at: usize, token: usize, places: impl Places) {
        let mut run = places.run(self.sizes.as_mut());
        let least = run.least;
        if !run.dd.is_finite() {
            run = places.masked();
            for (i, (r, c)) in places.values().enumerate().filter(|(_, (r, c))| !(c - r).is_finite()) {
                if self.non_finite.count(r, c) {
                    self.tokens[token].mismatch = true;
                    let worst = Worst { size: f64::INFINITY, at: at + i, reference: r, candidate: c };
                    self.first_mismatch.get_or_insert(worst);
                }
            }
        }
        self.tokens[token].add(&run);
        if let Some(sizes) = &mut self.sizes {
            places.count_rest(least, run.max, sizes);
        }
        let before = self.worst.map(|worst| worst.size);
        if before.is_none_or(|before| run.max > before) {
            let found = places.values().enumerate().find(|(_, (r, c))| (c - r).abs() == run.max);
            if let Some((i, (r, c))) = found {
                self.worst = Some(Worst { size: run.max, at: at + i, reference: r, candidate: c });
            }
        }
    }

    /// The relative L2 error of each token's elements; empty without a token axis.
    pub(super) fn per_token(&self) -> Vec<f64> {
        self.tokens.iter().filter(|_| self.has_tokens).map(Sums::rel_l2).collect()
    }

    pub(super) fn finish(self, elements: usize) -> Metrics {
        let mut total = Sums::default();
        self.tokens.iter().for_each(|token| total.merge(token));
        let per_token = self.per_token().into_iter().map(Some).collect();
        let counted = self.sizes.map(Histogram::finish).unwrap_or_default();
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|q| counted.quantile(q));
        Metrics {
            quantiles: Quantiles { p50, p90, p99, p999 },
            magnitudes: counted.magnitudes(),
            non_finite: self.non_finite,
            per_token,
            ..Metrics::new(self.shape, elements, &total, self.first_mismatch.or(self.worst))
        }
    }
}
