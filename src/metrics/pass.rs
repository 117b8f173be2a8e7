//! One pass over two tensors: runs of one token each, with what is not finite left out and counted.

use super::kernel::{self, Run};
use super::{Histogram, Metrics, NonFinite, Quantiles, Sums};

/// The numbers that a kernel takes.
pub(super) trait Number: Copy + Into<f64> {
    /// All places of a run.
    fn run(reference: &[Self], candidate: &[Self]) -> Run;
    /// Those whose difference is finite.
    fn masked(reference: &[Self], candidate: &[Self]) -> Run;
    /// Counts the sizes of differences, of which `max` is the largest; false where another way has to.
    fn count(
        reference: &[Self],
        candidate: &[Self],
        max: f64,
        bins: &mut [u16],
        into: &mut Histogram,
    ) -> bool;
}

impl Number for f32 {
    fn run(reference: &[Self], candidate: &[Self]) -> Run {
        kernel::run_f32::<false>(reference, candidate)
    }

    fn masked(reference: &[Self], candidate: &[Self]) -> Run {
        kernel::run_f32::<true>(reference, candidate)
    }

    fn count(
        reference: &[Self],
        candidate: &[Self],
        max: f64,
        bins: &mut [u16],
        into: &mut Histogram,
    ) -> bool {
        // A difference of two f32 may be none.
        if max > f64::from(f32::MAX) {
            return false;
        }
        let bins = &mut bins[..reference.len()];
        let zeros = kernel::bins(reference, candidate, bins);
        into.add_bins(bins, zeros);
        true
    }
}

impl Number for f64 {
    fn run(reference: &[Self], candidate: &[Self]) -> Run {
        kernel::run_f64::<false>(reference, candidate)
    }

    fn masked(reference: &[Self], candidate: &[Self]) -> Run {
        kernel::run_f64::<true>(reference, candidate)
    }

    fn count(_: &[Self], _: &[Self], _: f64, _: &mut [u16], _: &mut Histogram) -> bool {
        false
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
    histogram: Histogram,
    bins: Vec<u16>,
    non_finite: NonFinite,
    first_mismatch: Option<Worst>,
    worst: Option<Worst>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(shape: &'a [usize], token_axis: Option<usize>) -> Self {
        let inner = token_axis.map_or(usize::MAX, |axis| shape[axis + 1..].iter().product::<usize>().max(1));
        let tokens = token_axis.map_or(1, |axis| shape[axis].max(1));
        Self {
            shape,
            has_tokens: token_axis.is_some(),
            inner,
            tokens: vec![Sums::default(); tokens],
            histogram: Histogram::default(),
            bins: vec![0; kernel::RUN],
            non_finite: NonFinite::default(),
            first_mismatch: None,
            worst: None,
        }
    }

    /// The elements from `start` on.
    pub(super) fn chunk<T: Number>(&mut self, start: usize, reference: &[T], candidate: &[T]) {
        let (mut from, mut max) = (0, 0.0f64);
        while from < reference.len() {
            let at = start + from;
            let to = reference.len().min((self.inner - at % self.inner).saturating_add(from));
            let token = if self.has_tokens { at / self.inner % self.tokens.len() } else { 0 };
            max = max.max(self.run(at, token, &reference[from..to], &candidate[from..to]));
            from = to;
        }
        if !T::count(reference, candidate, max, &mut self.bins, &mut self.histogram) {
            let sizes = reference.iter().zip(candidate).map(|(r, c)| ((*c).into() - (*r).into()).abs());
            sizes.filter(|size| size.is_finite()).for_each(|size| self.histogram.add(size));
        }
    }

    /// A run of one token; returns the largest difference that is finite.
    fn run<T: Number>(&mut self, at: usize, token: usize, reference: &[T], candidate: &[T]) -> f64 {
        let mut run = T::run(reference, candidate);
        let places = || reference.iter().zip(candidate).map(|(r, c)| ((*r).into(), (*c).into()));
        if !run.dd.is_finite() {
            run = T::masked(reference, candidate);
            for (i, (r, c)) in places().enumerate().filter(|(_, (r, c))| !(c - r).is_finite()) {
                if self.non_finite.count(r, c) {
                    self.tokens[token].mismatch = true;
                    let worst = Worst { size: f64::INFINITY, at: at + i, reference: r, candidate: c };
                    self.first_mismatch.get_or_insert(worst);
                }
            }
        }
        self.tokens[token].add(&run);
        let before = self.worst.map(|worst| worst.size);
        if before.is_none_or(|before| run.max > before) {
            let found = places().enumerate().find(|(_, (r, c))| (c - r).abs() == run.max);
            if let Some((i, (r, c))) = found {
                self.worst = Some(Worst { size: run.max, at: at + i, reference: r, candidate: c });
            }
        }
        run.max
    }

    pub(super) fn finish(self, elements: usize) -> Metrics {
        let mut total = Sums::default();
        self.tokens.iter().for_each(|token| total.merge(token));
        let counted = self.histogram.finish();
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|q| counted.quantile(q));
        let per_token =
            self.tokens.iter().filter(|_| self.has_tokens).map(|sums| Some(sums.rel_l2())).collect();
        Metrics {
            quantiles: Quantiles { p50, p90, p99, p999 },
            magnitudes: counted.magnitudes(),
            non_finite: self.non_finite,
            per_token,
            ..Metrics::new(self.shape, elements, &total, self.first_mismatch.or(self.worst))
        }
    }
}
