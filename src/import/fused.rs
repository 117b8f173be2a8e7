//! Dumps that hold several points side by side: queries, keys and values of one product, gate and up.

use super::format::Item;
use super::plan::Target;
use crate::model::{Component, Op};

/// The neighbouring linears of one input that have as many elements together as `item`, in a layer whose number is
/// in the name `file`; none where there are none.
pub(super) fn fused(
    item: &Item,
    file: &str,
    (prompt, step): (usize, u32),
    target: &Target<'_>,
) -> Vec<String> {
    let Some(elements) = item.elements() else { return Vec::new() };
    let size = |c: &Component| target.shape(c, prompt, step).iter().product::<usize>();
    for layer in numbers(file) {
        let linears: Vec<&Component> = target
            .graph
            .components()
            .iter()
            .filter(|c| c.layer == Some(layer) && c.op == Op::Linear)
            .collect();
        for of_one_input in linears.chunk_by(|a, b| a.inputs == b.inputs) {
            for count in (2..=of_one_input.len()).rev() {
                let together =
                    |window: &&[&Component]| window.iter().map(|c| size(c)).sum::<usize>() == elements;
                if let Some(found) = of_one_input.windows(count).find(together) {
                    return found.iter().map(|c| c.point.clone()).collect();
                }
            }
        }
    }
    Vec::new()
}

/// The whole numbers in a name.
fn numbers(name: &str) -> impl Iterator<Item = usize> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_in_a_name_may_be_the_layer() {
        assert_eq!(numbers("blk07.fp32_3").collect::<Vec<_>>(), [7, 32, 3]);
        assert_eq!(numbers("99999999999999999999").count(), 0);
    }
}
