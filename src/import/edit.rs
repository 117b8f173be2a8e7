//! What a map does to the order of a dump's values.

use super::block::Block;
use super::plan::Part;
use super::sizes::Sizes;
use crate::error::{Error, Result};

/// What the map does to the values, in the order that its documentation states.
pub(super) fn edit(mut block: Block, part: &Part<'_>, sizes: &Sizes<'_>) -> Result<Block> {
    if part.first_half {
        let last = block.shape.len().checked_sub(1).ok_or_else(|| Error::new("it has no axis"))?;
        return Ok(block.chosen(last, 0..block.shape[last] / 2));
    }
    let Some(rule) = part.rule else { return Ok(block) };
    let axis = |block: &Block, axis: isize| {
        let n = block.shape.len();
        let place = if axis < 0 { n.checked_add_signed(axis) } else { usize::try_from(axis).ok() };
        place
            .filter(|a| *a < n)
            .ok_or_else(|| Error::new(format!("its shape {:?} has no axis {axis}", block.shape)))
    };
    if let Some(crop) = &rule.crop {
        let at = axis(&block, crop.axis)?;
        let end = crop.start.checked_add(sizes.get(&crop.keep)?).filter(|end| *end <= block.shape[at]);
        let end = end.ok_or_else(|| {
            Error::new(format!("`crop` keeps more than axis {} of {:?} has", crop.axis, block.shape))
        })?;
        block = block.chosen(at, crop.start..end);
    }
    if let Some(axes) = &rule.transpose {
        if !is_order(axes, block.shape.len()) {
            return Err(Error::new(format!(
                "`transpose` {axes:?} does not name each axis of {:?} once",
                block.shape
            )));
        }
        block = block.transposed(axes);
    }
    if let (Some(split), Some(cut)) = (&rule.split, part.cut) {
        let at = axis(&block, split.axis)?;
        let widths = match &split.sizes {
            Some(sizes_) => sizes_.iter().map(|s| sizes.get(s)).collect::<Result<Vec<_>>>()?,
            None => widths(split.points.as_slice(), &block, at, sizes)?,
        };
        let total = widths.iter().try_fold(0usize, |sum, width| sum.checked_add(*width));
        if total != Some(block.shape[at]) {
            return Err(Error::new(format!(
                "`split` has parts of {widths:?}, and axis {} of {:?} has another size",
                split.axis, block.shape
            )));
        }
        let start: usize = widths[..cut].iter().sum();
        block = block.chosen(at, start..start + widths[cut]);
    }
    if let Some(reorder) = &rule.reorder {
        let at = axis(&block, reorder.axis)?;
        if !is_order(&reorder.order, block.shape[at]) {
            return Err(Error::new(format!(
                "`reorder` does not name each of the {} places of axis {} once",
                block.shape[at], reorder.axis
            )));
        }
        block = block.chosen(at, reorder.order.iter().copied());
    }
    if let Some(pairs) = &rule.pairs {
        // Heads may be an axis of their own only in the point.
        let at = axis(&block, pairs.axis)?;
        let width = sizes.get(&pairs.width)?;
        if width == 0 || width % 2 != 0 || !block.shape[at].is_multiple_of(width) {
            return Err(Error::new(format!(
                "axis {} of {:?} does not consist of groups of {width}",
                pairs.axis, block.shape
            )));
        }
        block =
            block.chosen(at, (0..block.shape[at]).map(|j| j / width * width + from_pair(j % width, width)));
    }
    Ok(block)
}

/// Where in a group of pairs a place of the halves comes from.
pub(super) fn from_pair(place: usize, width: usize) -> usize {
    let half = width / 2;
    if place < half { 2 * place } else { 2 * (place - half) + 1 }
}

/// How wide each part is, by its point.
fn widths(points: &[String], block: &Block, at: usize, sizes: &Sizes<'_>) -> Result<Vec<usize>> {
    let others: usize = block.shape.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, n)| n).product();
    let graph = sizes.target.graph;
    let width = |point: &String| {
        // A part is as wide in every layer that has it.
        let (before, after) = point.split_once("{i}").unwrap_or((point, ""));
        let component = graph.components().iter().find(|c| {
            c.point == *point
                || (c.point.starts_with(before)
                    && c.point.ends_with(after)
                    && c.layer.is_some_and(|i| c.point == point.replace("{i}", &i.to_string())))
        });
        let component = component
            .ok_or_else(|| Error::new(format!("`split` names `{point}`, which the model does not have")))?;
        let n: usize = graph.shape(component, sizes.tokens, sizes.context).iter().product();
        if others == 0 || !n.is_multiple_of(others) {
            return Err(Error::new(format!(
                "the width of `{point}` does not follow from {:?}: give `sizes`",
                block.shape
            )));
        }
        Ok(n / others)
    };
    points.iter().map(width).collect()
}

fn is_order(order: &[usize], n: usize) -> bool {
    let mut seen = vec![false; n];
    order.len() == n
        && order.iter().all(|i| seen.get_mut(*i).is_some_and(|seen| !std::mem::replace(seen, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_side_by_side_become_halves() {
        assert_eq!([0, 1, 2, 3].map(|place| from_pair(place, 4)), [0, 2, 1, 3]);
    }
}
