//! What an error looks like, where no formula is known that makes it.

mod axes;
mod relation;

use crate::replay::{Rows, Seen};
use crate::tensor::{DType, TensorView};
use half::{bf16, f16};

/// Describes how captured values differ from replayed ones, in a few sentences; `names` are those of the
/// sizes of its shape, and `rows` the tokens that it has.
pub(super) fn describe(captured: TensorView<'_>, names: &[String], rows: Rows<'_>, seen: &Seen) -> String {
    let kept = seen.replayed.len();
    let mut values = vec![0.0; kept];
    captured.read_into(0, &mut values);
    let beyond = seen.beyond.iter().filter(|b| **b).count();
    if beyond == 0 {
        return String::new();
    }
    let mut sentences = vec![format!(
        "{beyond} of {kept} values are beyond rounding{}.",
        axes::places(captured.shape, names, rows, seen)
    )];
    sentences.extend(not_finite(&values, seen));
    sentences.extend(relation::relation(&values, captured.shape, names, seen));
    sentences.extend(grid(&values, captured.dtype));
    sentences.join(" ")
}

/// How many values are not finite though they should be.
fn not_finite(values: &[f64], seen: &Seen) -> Option<String> {
    let lost = || values.iter().zip(&seen.replayed).filter(|(_, r)| r.is_finite()).map(|(c, _)| c);
    let (nan, inf) = (lost().filter(|c| c.is_nan()).count(), lost().filter(|c| c.is_infinite()).count());
    match (nan, inf) {
        (0, 0) => None,
        (nan, 0) => Some(format!("NaN: {nan}.")),
        (0, inf) => Some(format!("Infinite: {inf}.")),
        (nan, inf) => Some(format!("NaN: {nan}, infinite: {inf}.")),
    }
}

/// The coarser type that holds all values exactly.
fn grid(values: &[f64], dtype: DType) -> Option<String> {
    if !matches!(dtype, DType::F32 | DType::F64) || values.iter().all(|v| *v == 0.0 || v.abs() == 1.0) {
        return None;
    }
    let all = |round: fn(f64) -> f64| values.iter().all(|v| !v.is_finite() || round(*v) == *v);
    if all(|v| bf16::from_f64(v).to_f64()) {
        Some("Every value is exactly a bf16 number.".into())
    } else if all(|v| f16::from_f64(v).to_f64()) {
        Some("Every value is exactly an f16 number.".into())
    } else {
        None
    }
}
