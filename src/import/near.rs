//! How near a dump is to a point of the reference, as it lies or in another order of its axes.
//!
//! This only tells points apart; what a comparison measures is not measured here.

use super::arrange::reshapes;
use super::block::Block;
use super::edit::from_pair;
use crate::tensor::TensorView;

/// So many elements are looked at before all are.
const SAMPLE: usize = 4096;

/// A relative L2 error below which two tensors are one and the same, up to a precision.
pub(super) const SAME: f64 = 1e-2;

/// How a dump may lie, by what the map would say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// `transpose`; empty where the axes are in the point's order.
    pub axes: Vec<usize>,
    /// The width of `pairs`.
    pub pairs: Option<usize>,
    /// Sizes of the axes as they lie.
    shape: Vec<usize>,
}

impl Way {
    /// In the point's own order.
    pub fn plain(point: &[usize]) -> Self {
        Self { axes: Vec::new(), pairs: None, shape: point.to_vec() }
    }

    /// All ways in which `n` elements may become `point`; `lies` is the file's shape, where it states one.
    /// Rotary pairs have `head` values.
    pub fn all(lies: Option<&[usize]>, point: &[usize], head: Option<usize>) -> Vec<Self> {
        let mut ways = Vec::new();
        let plain = Self::plain(point);
        let sizes: Vec<usize> = lies.unwrap_or(point).iter().copied().filter(|n| *n != 1).collect();
        if lies.is_none_or(|lies| reshapes(lies, point)) {
            ways.push(plain.clone());
            let last = point.last().copied().unwrap_or(0);
            let width = if point.len() == 3 { Some(last) } else { head };
            if let Some(width) = width.filter(|w| *w > 2 && w % 2 == 0 && last % w == 0) {
                ways.push(Self { pairs: Some(width), ..plain });
            }
        }
        // The map's axes are those of the file, so that sizes of 1 count.
        let whole = lies.is_none_or(|lies| lies.len() == sizes.len());
        for axes in orders(sizes.len()).into_iter().filter(|_| whole && sizes.len() <= 4) {
            if axes.iter().enumerate().all(|(i, a)| i == *a) {
                continue;
            }
            let shape = match lies {
                Some(_) => sizes.clone(),
                None => {
                    let mut shape = vec![0; sizes.len()];
                    axes.iter().zip(&sizes).for_each(|(axis, size)| shape[*axis] = *size);
                    shape
                }
            };
            let turned: Vec<usize> = axes.iter().map(|a| shape[*a]).collect();
            if reshapes(&turned, point) {
                ways.push(Self { axes, pairs: None, shape });
            }
        }
        ways
    }

    /// In words, for a person who has the map open.
    pub fn words(&self) -> String {
        match (&self.axes[..], self.pairs) {
            ([], None) => "as it lies".into(),
            ([], Some(width)) => {
                format!("with its rotary pairs side by side: `pairs = {{ axis = -1, width = {width} }}`")
            }
            (axes, _) => format!("with other axes: `transpose = {axes:?}`"),
        }
    }

    /// True where a map says the same of both: sizes differ from step to step.
    pub fn is_like(&self, other: &Self) -> bool {
        self.axes == other.axes && self.pairs == other.pairs
    }

    /// Where element `i` of the point lies in the file.
    fn source(&self, mut i: usize) -> usize {
        if let Some(width) = self.pairs {
            return i / width * width + from_pair(i % width, width);
        }
        if self.axes.is_empty() {
            return i;
        }
        let mut index = vec![0; self.shape.len()];
        for axis in self.axes.iter().rev() {
            index[*axis] = i % self.shape[*axis];
            i /= self.shape[*axis];
        }
        index.iter().zip(&self.shape).fold(0, |at, (place, size)| at * size + place)
    }
}

/// All orders of `n` axes.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    if n > 4 {
        return Vec::new();
    }
    let shorter = orders(n - 1);
    let insert = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, n - 1);
        order
    };
    let mut all: Vec<Vec<usize>> =
        shorter.iter().flat_map(|order| (0..n).map(move |at| insert(order, at))).collect();
    all.sort();
    all
}

/// The relative L2 error of `block`, taken as lying that `way`, against `reference`. Places where both have
/// the same infinity or NaN do not count; where only one has, it is infinite.
pub(super) fn distance(reference: TensorView<'_>, block: &Block, way: &Way) -> f64 {
    let n = reference.len();
    if n != block.view().len() {
        return f64::INFINITY;
    }
    // An odd step meets all places of an axis of even size.
    let step = (n / SAMPLE) | 1;
    let rough = over(reference, block, way, step);
    if step == 1 || rough.is_nan() || rough > 5.0 * SAME { rough } else { over(reference, block, way, 1) }
}

/// Elements that are read at once where they follow each other.
const CHUNK: usize = 4096;

fn over(reference: TensorView<'_>, block: &Block, way: &Way, step: usize) -> f64 {
    let view = block.view();
    let mut sums = Sums::default();
    if step == 1 && way.axes.is_empty() && way.pairs.is_none() {
        let (mut r, mut c) = (vec![0.0; CHUNK], vec![0.0; CHUNK]);
        for start in (0..reference.len()).step_by(CHUNK) {
            let n = CHUNK.min(reference.len() - start);
            reference.read_into(start, &mut r[..n]);
            view.read_into(start, &mut c[..n]);
            r[..n].iter().zip(&c[..n]).for_each(|(r, c)| sums.add(*r, *c));
        }
        return sums.error();
    }
    let one = |view: TensorView<'_>, i: usize| {
        let mut out = [0.0];
        view.read_into(i, &mut out);
        out[0]
    };
    for i in (0..reference.len()).step_by(step) {
        sums.add(one(reference, i), one(view, way.source(i)));
    }
    sums.error()
}

/// Σr² and Σ(c − r)² over the places where both are finite.
#[derive(Default)]
struct Sums {
    rr: f64,
    dd: f64,
    mismatch: bool,
}

impl Sums {
    fn add(&mut self, r: f64, c: f64) {
        let d = c - r;
        if d.is_finite() {
            self.rr += r * r;
            self.dd += d * d;
        } else {
            self.mismatch |= !(r == c || r.is_nan() && c.is_nan());
        }
    }

    fn error(&self) -> f64 {
        match (self.mismatch, self.dd) {
            (true, _) => f64::INFINITY,
            (false, 0.0) => 0.0,
            (false, dd) => (dd / self.rr).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn block(shape: &[usize], values: &[u8]) -> Block {
        let bytes = values.iter().flat_map(|v| f32::from(*v).to_le_bytes()).collect();
        Block { dtype: DType::F32, shape: shape.to_vec(), bytes }
    }

    #[test]
    fn a_transposed_dump_is_near_in_one_way_and_far_in_the_others() {
        let point = block(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let file = block(&[2, 3], &[1, 4, 2, 5, 3, 6]);
        let ways = Way::all(None, &point.shape, None);
        let near: Vec<_> = ways.iter().filter(|way| distance(point.view(), &file, way) == 0.0).collect();
        assert_eq!(near.len(), 1);
        assert_eq!(near[0].axes, [1, 0]);
    }

    #[test]
    fn the_way_says_what_the_map_must_say() {
        let lies = block(&[3, 2, 4], &(0..24).collect::<Vec<u8>>());
        for way in Way::all(Some(&lies.shape), &[2, 3, 4], None) {
            let turned = lies.transposed(&way.axes);
            let expected = Block { shape: vec![2, 3, 4], ..turned };
            assert_eq!(distance(expected.view(), &lies, &way), 0.0, "{way:?}");
        }
    }

    #[test]
    fn a_number_that_is_not_finite_on_one_side_is_far() {
        let point = block(&[2], &[1, 2]);
        let mut file = point.clone();
        file.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let way = &Way::all(None, &[2], None)[0];
        assert_eq!(distance(point.view(), &file, way), f64::INFINITY);
        assert_eq!(distance(file.view(), &file, way), 0.0);
    }
}
