//! An item brought into the form of its point, or the reason why it cannot be.

use super::block::Block;
use super::edit::edit;
use super::format::{Item, Kind, Source};
use super::map::Rule;
use super::plan::Part;
use super::sizes::Sizes;
use crate::error::{Error, Result};
use crate::model::{Component, Op};
use crate::tensor::DType;

/// The values of a part, in the shape of its component.
pub(super) fn arrange(
    source: &dyn Source,
    part: &Part<'_>,
    component: &Component,
    sizes: &Sizes<'_>,
) -> Result<Block> {
    let item = &source.items()[part.item];
    let shape = shape_of(component, sizes);
    let about = |e: Error| e.at(&item.path);
    let dtype = element_type(item, part.rule, component).map_err(about)?;
    let lies = lies(item, dtype, part, component, sizes).map_err(about)?;
    // Only now is it known how large it may be.
    let block = read(source, part.item, dtype, component)?;
    let block = Block { shape: lies, ..block };
    let block = edit(block, part, sizes).map_err(|e| {
        let error = Error::new(format!(
            "`{}` cannot be brought into the form of `{}`: {}",
            item.name,
            component.point,
            e.message()
        ))
        .expected(format!("{shape:?}"), item.form())
        .hint("check the entry; `layerdiff import --help` says what the keys do");
        blamed(part.rule, error).at(&item.path)
    })?;
    fits(&block.shape, &shape, item, component, sizes).map_err(about)?;
    Ok(Block { shape, ..block })
}

/// Whether the form of what no map speaks of is that of its point, by what the file says of itself; the reason
/// if it is not.
pub(super) fn form(item: &Item, part: &Part<'_>, component: &Component, sizes: &Sizes<'_>) -> Result<()> {
    let Some(mut shape) = item.shape.clone() else { return Ok(()) };
    if part.first_half
        && let Some(last) = shape.last_mut()
    {
        *last /= 2;
    }
    fits(&shape, &shape_of(component, sizes), item, component, sizes)
}

fn shape_of(component: &Component, sizes: &Sizes<'_>) -> Vec<usize> {
    sizes.target.graph.shape(component, sizes.tokens, sizes.context)
}

/// So many times as many elements as its point may a dump have that is split.
const MOST_JOINED: usize = 64;

/// And one of which a part is kept: a stack of all layers, or padding to the longest context.
const MOST_STACKED: usize = 4096;

/// The type of a mask is a byte, whatever it was stored in.
fn element_type(item: &Item, rule: Option<&Rule>, component: &Component) -> Result<DType> {
    let mask = component.op == Op::CausalMask;
    let stated = rule.and_then(|r| r.dtype);
    let dtype = match (&item.kind, stated) {
        (Kind::Assumed(_), Some(dtype)) => dtype,
        (Kind::Known(dtype), Some(stated)) if *dtype != stated => {
            let error = Error::new(format!("it states another element type than `{}` has", item.name))
                .expected(dtype, stated)
                .hint("`dtype` is for files that do not say it: no values are converted");
            return Err(blamed(rule, error));
        }
        (Kind::Known(dtype) | Kind::Assumed(dtype), _) => *dtype,
        (Kind::Integer(_), _) if mask => DType::U8,
        (Kind::Integer(_) | Kind::Other(_), _) => {
            return Err(Error::new(format!("`{}` has elements that a trace cannot hold", item.name))
                .expected("F64, F32, F16 or BF16, or a mask", &item.kind)
                .hint("save it in the precision that the engine computes in, or leave it out with `ignore = true`"));
        }
    };
    if mask == dtype.is_float() {
        let (expected, hint) = if mask {
            (
                "a mask of 0 and 1, 1 where a token may look",
                "an additive mask has the same where it is 0: save `mask == 0`",
            )
        } else {
            (
                "numbers",
                "bytes are for masks; quantized activations have to be saved as the numbers that they stand for",
            )
        };
        return Err(Error::new(format!("`{}` does not fit `{}`", item.name, component.point))
            .expected(expected, dtype)
            .hint(hint));
    }
    Ok(dtype)
}

/// The shape in which the values lie: the map's, the file's, or for raw numbers the point's.
fn lies(
    item: &Item,
    dtype: DType,
    part: &Part<'_>,
    component: &Component,
    sizes: &Sizes<'_>,
) -> Result<Vec<usize>> {
    let point = &*shape_of(component, sizes);
    let size =
        item.kind.size().filter(|_| matches!(item.kind, Kind::Integer(_))).unwrap_or(dtype.size()) as u64;
    if !item.bytes.is_multiple_of(size) {
        return Err(Error::new(format!("`{}` is no whole number of elements", item.name))
            .expected(format!("a multiple of {size} bytes, as {dtype} has"), format!("{} bytes", item.bytes))
            .hint("say what the elements are with `dtype` in the map, or write the dump again"));
    }
    let n = (item.bytes / size) as usize;
    // An axis of size 0 lets the others be of any size.
    if n == 0 {
        return Err(Error::new(format!("`{}` has no elements", item.name))
            .expected(format!("{point:?}"), item.form())
            .hint("was the engine given the prompt, and the dump written to its end?"));
    }
    let stated = match part.rule.and_then(|r| r.shape.as_ref()) {
        Some(shape) => Some(
            shape
                .iter()
                .map(|s| sizes.get(s))
                .collect::<Result<Vec<_>>>()
                .map_err(|e| blamed(part.rule, e))?,
        ),
        None => None,
    };
    let product = |shape: &[usize]| shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    // Parts and paddings are other sizes than the point's; a limit keeps a hostile file from filling memory.
    let expected = product(point).unwrap_or(usize::MAX);
    let crop = part.rule.and_then(|r| r.crop.as_ref());
    let most = if crop.is_some() { MOST_STACKED } else { MOST_JOINED };
    if n / most > expected {
        return Err(Error::new(format!("`{}` is far larger than `{}`", item.name, component.point))
            .expected(format!("at most {most} times {point:?}"), item.form())
            .hint("write what belongs to the point into a file of its own"));
    }
    if let Some(shape) = stated {
        if product(&shape) != Some(n) {
            let error =
                Error::new(format!("`{}` has another number of elements than its `shape`", item.name))
                    .expected(format!("{shape:?}"), item.form())
                    .hint(format!("the prompt has {} tokens here; check `shape` in the map", sizes.tokens));
            return Err(blamed(part.rule, error));
        }
        return Ok(shape);
    }
    let changes = part.first_half || part.rule.is_some_and(|r| r.split.is_some() || r.crop.is_some());
    if !changes && n != expected {
        return Err(wrong_count(item, n, point, sizes));
    }
    match (&item.shape, changes) {
        (Some(shape), _) => Ok(shape.clone()),
        (None, false) => match part.rule.and_then(|r| r.transpose.as_ref()) {
            Some(axes) if axes.len() == point.len() && axes.iter().all(|a| *a < axes.len()) => {
                // What lies there has the point's sizes, each at the axis that it comes from.
                let mut shape = vec![0; point.len()];
                axes.iter().zip(point).for_each(|(axis, size)| shape[*axis] = *size);
                Ok(shape)
            }
            _ => Ok(point.to_vec()),
        },
        (None, true) => {
            let error = Error::new(format!("nothing says how the raw numbers of `{}` lie", item.name))
                .hint("`split` and `crop` of raw numbers need `shape` in the map, such as shape = [\"tokens\", 512]");
            Err(blamed(part.rule, error))
        }
    }
}

/// An error of the map's entry, where there is one.
fn blamed(rule: Option<&Rule>, error: Error) -> Error {
    match rule {
        Some(rule) => rule.blame(error),
        None => error,
    }
}

fn wrong_count(item: &Item, n: usize, point: &[usize], sizes: &Sizes<'_>) -> Error {
    let rows = point.iter().skip(1).product::<usize>().max(1);
    let error = Error::new(format!("`{}` has another number of elements than its point", item.name))
        .expected(format!("{point:?}"), item.form());
    if point.first() != Some(&sizes.tokens) || !n.is_multiple_of(rows) {
        return error.hint(
            "is it another point? `--suggest` compares it with all; padding is taken away by `crop` in a map",
        );
    }
    match n / rows {
        k if sizes.step > 0 && k == sizes.context - sizes.step as usize => error.hint(format!(
            "it is of {k} tokens, as the prefill, and step {} takes one: leave out `--step`, or put it into a directory `step_0`",
            sizes.step
        )),
        1 => error.hint(format!(
            "it is of one token, and the prompt has {}: dump all positions, as the reference has them; what has the last one only is left out with `ignore = true` in a map",
            sizes.tokens
        )),
        k => error.hint(format!(
            "it is of {k} tokens, and the prompt has {}: give the engine the reference's token ids, without a BOS token or a template of its own; padding is taken away by `crop` in a map",
            sizes.tokens
        )),
    }
}

fn read(source: &dyn Source, index: usize, dtype: DType, component: &Component) -> Result<Block> {
    let item = &source.items()[index];
    let mut bytes = source.read(index)?;
    if bytes.len() as u64 != item.bytes {
        return Err(Error::new(format!("`{}` is not as long as it was", item.name))
            .expected(format!("{} bytes", item.bytes), format!("{} bytes", bytes.len()))
            .at(&item.path)
            .hint("was it written to meanwhile, or is the archive damaged?"));
    }
    if component.op == Op::CausalMask {
        let size = item.kind.size().unwrap_or(1);
        let bad = bytes.chunks_exact(size).find(|e| e[0] > 1 || e[1..].iter().any(|b| *b != 0));
        if let Some(bad) = bad {
            return Err(Error::new(format!("`{}` is not a mask", item.name))
                .expected("0 and 1 only", format!("the bytes {bad:?}"))
                .at(&item.path)
                .hint("1 where a token may look, 0 elsewhere: save `mask == 0` of an additive mask"));
        }
        bytes = bytes.chunks_exact(size).map(|e| e[0]).collect();
    }
    Ok(Block { dtype, shape: Vec::new(), bytes })
}

/// Whether axes of size 1 that fall away, and neighbouring axes that are joined or cut, make one of the other.
fn fits(
    lies: &[usize],
    shape: &[usize],
    item: &Item,
    component: &Component,
    sizes: &Sizes<'_>,
) -> Result<()> {
    // A file's own sizes were multiplied when it was opened.
    let n: usize = lies.iter().product();
    if n != shape.iter().product::<usize>() {
        return Err(wrong_count(&Item { shape: Some(lies.to_vec()), ..item.clone() }, n, shape, sizes));
    }
    if !reshapes(lies, shape) {
        return Err(Error::new(format!("the axes of `{}` are not those of `{}`", item.name, component.point))
            .expected(format!("{shape:?}"), format!("{lies:?}"))
            .hint("a map says how they lie: `transpose = [1, 0]` brings the second axis to the front; `--suggest` tries them"));
    }
    Ok(())
}

/// True where one shape becomes the other by joining and cutting neighbouring axes, so that no element
/// changes its meaning: the products of the leading sizes of one are among those of the other.
pub(super) fn reshapes(from: &[usize], to: &[usize]) -> bool {
    let leading = |shape: &[usize]| {
        let mut products: Vec<usize> = shape
            .iter()
            .scan(1usize, |n, size| {
                *n = n.saturating_mul(*size);
                Some(*n)
            })
            .collect();
        products.retain(|n| *n != 1);
        products.dedup();
        products
    };
    let (a, b) = (leading(from), leading(to));
    let within = |a: &[usize], b: &[usize]| a.iter().all(|n| b.contains(n));
    from.contains(&0) == to.contains(&0) && (within(&a, &b) || within(&b, &a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_axes_may_be_joined_or_cut_and_never_swapped() {
        for (from, to) in [
            (&[1, 4, 128][..], &[4, 128][..]),
            (&[4, 128], &[4, 2, 64]),
            (&[8, 64], &[4, 2, 64]),
            (&[512], &[4, 128]),
            (&[4, 1, 128], &[4, 128]),
        ] {
            assert!(reshapes(from, to), "{from:?} {to:?}");
        }
        for (from, to) in
            [(&[128, 4][..], &[4, 128][..]), (&[2, 4, 64], &[4, 2, 64]), (&[4, 64, 2], &[4, 2, 64])]
        {
            assert!(!reshapes(from, to), "{from:?} {to:?}");
        }
    }
}
