//! What an engine computed in, where its dumps are wider.
//!
//! A dump of a bfloat16 engine that was saved as f32 has bfloat16 values. Stored as what they are, they are
//! held against bfloat16's tolerances and replayed with its roundings; no value changes.

use super::block::Block;
use crate::error::{Error, Result};
use crate::tensor::DType;
use half::{bf16, f16};

/// Elements that are read at once.
const CHUNK: usize = 4096;

/// The same numbers in another element type, or an error for the first that it does not have. Masks stay.
pub(super) fn stored_as(block: Block, dtype: DType) -> Result<Block> {
    if !block.dtype.is_float() || block.dtype == dtype {
        return Ok(block);
    }
    let mut bytes = Vec::with_capacity(block.view().len() * dtype.size());
    let mut at = 0;
    let mut lost = None;
    each(&block, |value| {
        let same = put(value, dtype, &mut bytes);
        if !same && lost.is_none() {
            lost = Some((at, value));
        }
        at += 1;
        same
    });
    if let Some((at, value)) = lost {
        let name = word(dtype);
        return Err(Error::new(format!("not all values are {name} numbers"))
            .expected(format!("values of {name}"), format!("{value:e} at element {at}"))
            .hint("what an engine keeps in another precision, such as its softmax, a map states by `precision` in the entry of these files"));
    }
    Ok(Block { dtype, shape: block.shape, bytes })
}

/// The narrowest of the 16-bit types whose numbers all of the values are; none where some are not, or where
/// all are 0, which says nothing.
pub(super) fn sixteen_bits(block: &Block) -> Option<DType> {
    let of = |dtype| {
        let mut some = false;
        let mut scratch = Vec::new();
        let all = each(block, |value| {
            scratch.clear();
            some |= value != 0.0;
            put(value, dtype, &mut scratch)
        });
        (all && some).then_some(dtype)
    };
    of(DType::BF16).or_else(|| of(DType::F16))
}

/// PyTorch's word for an element type.
pub(super) fn word(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "float64",
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::U8 => "uint8",
    }
}

/// Calls `f` with each value until it says false; true where it never did.
fn each(block: &Block, mut f: impl FnMut(f64) -> bool) -> bool {
    let view = block.view();
    let mut values = vec![0.0; CHUNK];
    (0..view.len()).step_by(CHUNK).all(|start| {
        let values = &mut values[..CHUNK.min(view.len() - start)];
        view.read_into(start, values);
        values.iter().all(|value| f(*value))
    })
}

/// Appends a value; false where it is another one then. NaN stays NaN.
fn put(value: f64, dtype: DType, out: &mut Vec<u8>) -> bool {
    let back = match dtype {
        DType::BF16 => {
            let n = bf16::from_f64(value);
            out.extend(n.to_le_bytes());
            n.to_f64()
        }
        DType::F16 => {
            let n = f16::from_f64(value);
            out.extend(n.to_le_bytes());
            n.to_f64()
        }
        DType::F32 => {
            let n = value as f32;
            out.extend(n.to_le_bytes());
            f64::from(n)
        }
        DType::F64 => {
            out.extend(value.to_le_bytes());
            value
        }
        DType::U8 => return false,
    };
    back == value || (back.is_nan() && value.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(values: &[f32]) -> Block {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Block { dtype: DType::F32, shape: vec![values.len()], bytes }
    }

    #[test]
    fn numbers_of_the_stated_type_are_stored_as_it_and_others_refused() {
        let wide = block(&[1.5, -0.0, f32::NAN, f32::INFINITY, 4.0]);
        for dtype in [DType::BF16, DType::F16, DType::F64, DType::F32] {
            let stored = stored_as(wide.clone(), dtype).unwrap();
            assert_eq!((stored.dtype, &stored.shape), (dtype, &wide.shape));
            let back = stored_as(stored, DType::F32).unwrap();
            assert_eq!(back.bytes[..8], wide.bytes[..8]);
            let mut third = [0.0];
            back.view().read_into(2, &mut third);
            assert!(third[0].is_nan());
        }
        let error = stored_as(block(&[1.0, 1.001]), DType::BF16).unwrap_err().to_string();
        assert!(error.contains("at element 1"), "{error}");
        assert!(stored_as(block(&[1e6]), DType::F16).is_err());
    }

    #[test]
    fn values_of_16_bits_are_known_as_such() {
        assert_eq!(sixteen_bits(&block(&[1.5, 2f32.powi(100)])), Some(DType::BF16));
        assert_eq!(sixteen_bits(&block(&[1.0 + 2f32.powi(-10)])), Some(DType::F16));
        assert_eq!(sixteen_bits(&block(&[0.1])), None);
        assert_eq!(sixteen_bits(&block(&[0.0; 3])), None);
    }
}
