//! Points with a row over the context for each query token: only the rows that a hook wants are in memory.

use super::pass::Pass;
use crate::error::Result;
use crate::hook::{At, Rows, offer};
use crate::tensor::{Tensor, Values};

/// Some rows of a matrix `[tokens, seen]` of each head.
#[derive(Debug)]
pub(super) struct Kept<T> {
    /// None where all heads share one.
    heads: Option<usize>,
    tokens: usize,
    seen: usize,
    /// The query tokens of the rows, ascending.
    rows: Vec<usize>,
    /// The row of each query token, if it has one.
    places: Vec<Option<usize>>,
    /// `[heads, rows, seen]`.
    values: Vec<T>,
}

impl<T: Copy> Kept<T> {
    /// These rows of so many heads, or of one matrix for all, filled with `value`.
    pub fn new(heads: Option<usize>, (tokens, seen): (usize, usize), rows: Vec<usize>, value: T) -> Self {
        let mut places = vec![None; tokens];
        rows.iter().enumerate().for_each(|(place, row)| places[*row] = Some(place));
        let values = vec![value; heads.unwrap_or(1) * rows.len() * seen];
        Self { heads, tokens, seen, rows, places, values }
    }

    /// The query tokens of the rows, ascending.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// True where a query token has a row.
    pub fn has(&self, token: usize) -> bool {
        self.places[token].is_some()
    }

    fn range(&self, head: usize, token: usize) -> Option<std::ops::Range<usize>> {
        let start = (head * self.rows.len() + self.places[token]?) * self.seen;
        Some(start..start + self.seen)
    }

    /// A query token's row, if it has one.
    pub fn row(&self, head: usize, token: usize) -> Option<&[T]> {
        self.range(head, token).map(|range| &self.values[range])
    }

    /// The same, to be written.
    pub fn row_mut(&mut self, head: usize, token: usize) -> Option<&mut [T]> {
        self.range(head, token).map(|range| &mut self.values[range])
    }
}

impl Pass<'_> {
    /// The rows of a point that its hook wants.
    pub(super) fn wanted(&self, point: &str, (tokens, seen): (usize, usize)) -> Vec<usize> {
        if !self.hook.wants(point) {
            return Vec::new();
        }
        let at = At { point, step: self.step, derived: false, rows: None };
        self.hook.rows(at, tokens, seen).unwrap_or_else(|| (0..tokens).collect())
    }

    /// Offers rows of numbers to the hook; true when it changed a bit of them.
    pub(super) fn offer_rows(&mut self, point: &str, derived: bool, kept: &mut Kept<f32>) -> Result<bool> {
        // What the hook returns is compared with what it was given only where the engine holds something else.
        let before = if derived && self.hook.wants(point) { kept.values.clone() } else { Vec::new() };
        let values = Values::F32(std::mem::take(&mut kept.values));
        kept.values = self.offer_kept(point, derived, kept, values)?.into_f32()?;
        Ok(before.iter().zip(&kept.values).any(|(a, b)| a.to_bits() != b.to_bits()))
    }

    /// Offers rows of a mask.
    pub(super) fn offer_mask(&mut self, point: &str, kept: &mut Kept<u8>) -> Result<()> {
        let values = Values::U8(std::mem::take(&mut kept.values));
        kept.values = self.offer_kept(point, true, kept, values)?.into_mask()?;
        Ok(())
    }

    fn offer_kept<T>(
        &mut self,
        point: &str,
        derived: bool,
        kept: &Kept<T>,
        values: Values,
    ) -> Result<Tensor> {
        let rows = kept.rows.len();
        let shape = kept.heads.into_iter().chain([rows, kept.seen]).collect();
        let tensor = Tensor { shape, values };
        if rows == 0 {
            return Ok(tensor);
        }
        let some = (rows < kept.tokens).then_some(Rows { kept: &kept.rows, tokens: kept.tokens });
        offer(self.hook, At { point, step: self.step, derived, rows: some }, tensor)
    }
}
