use super::*;
use crate::tensor::DType;
use crate::tensor::TensorView;
use proptest::prelude::*;

fn metrics(shape: &[usize], reference: &[f64], candidate: &[f64], axis: Option<usize>) -> Metrics {
    let bytes = |v: &[f64]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (r, c) = (bytes(reference), bytes(candidate));
    let view = |bytes| TensorView { dtype: DType::F64, shape, bytes };
    compare(view(&r), view(&c), axis)
}

#[test]
fn a_tensor_compared_with_itself_differs_by_nothing() {
    let values = [1.0, -2.0, 0.0, -0.0];
    let m = metrics(&[4], &values, &[1.0, -2.0, -0.0, 0.0], None);
    assert_eq!((m.rel_l2, m.max_abs, m.cosine, m.norm_ratio), (0.0, 0.0, 1.0, 1.0));
}

#[test]
fn the_worst_place_is_named_with_both_values() {
    let m = metrics(&[2, 2], &[1.0, 2.0, 3.0, 4.0], &[1.0, 2.5, 3.0, 3.0], None);
    assert_eq!(m.max_abs, 1.0);
    assert_eq!(m.max_abs_at, Some(Place { index: vec![1, 1], reference: 4.0, candidate: 3.0 }));
}

#[test]
fn a_constant_factor_is_invisible_to_the_cosine_and_seen_by_the_norm_ratio() {
    let m = metrics(&[2], &[3.0, 4.0], &[6.0, 8.0], None);
    assert_eq!((m.cosine, m.norm_ratio, m.rel_l2), (1.0, 2.0, 1.0));
}

#[test]
fn nan_on_one_side_makes_the_error_infinite_and_is_counted_and_located() {
    for (r, c) in [
        (f64::NAN, 1.0),
        (1.0, f64::NAN),
        (f64::INFINITY, 1.0),
        (f64::NAN, f64::INFINITY),
        (f64::NEG_INFINITY, f64::INFINITY),
    ] {
        let m = metrics(&[2, 2], &[1.0, 1.0, r, 1.0], &[9.0, 1.0, c, 1.0], Some(0));
        assert_eq!((m.rel_l2, m.max_abs, m.non_finite.mismatches), (f64::INFINITY, f64::INFINITY, 1));
        assert_eq!(m.max_abs_at.unwrap().index, [1, 0]);
        assert!(m.per_token[0].is_some_and(f64::is_finite) && m.per_token[1] == Some(f64::INFINITY));
    }
}

#[test]
fn equal_infinities_and_nan_on_both_sides_agree_but_are_counted() {
    let values = [f64::NEG_INFINITY, f64::NAN, 2.0];
    let m = metrics(&[3], &values, &values, None);
    assert_eq!((m.rel_l2, m.non_finite.mismatches, m.non_finite.both_nan), (0.0, 0, 1));
    assert_eq!((m.non_finite.reference_inf, m.non_finite.candidate_nan), (1, 1));
}

#[test]
fn zero_against_something_is_infinitely_wrong_and_zero_against_zero_is_right() {
    let m = metrics(&[2], &[0.0, 0.0], &[1.0, 0.0], None);
    assert_eq!((m.rel_l2, m.cosine, m.norm_ratio), (f64::INFINITY, 0.0, f64::INFINITY));
    let m = metrics(&[2], &[0.0, 0.0], &[0.0, 0.0], None);
    assert_eq!((m.rel_l2, m.cosine, m.norm_ratio), (0.0, 1.0, 1.0));
}

#[test]
fn the_error_of_each_token_is_told_on_any_axis() {
    // Heads, tokens, channels: only token 1 is wrong.
    let reference = [1.0; 12];
    let mut candidate = reference;
    for i in [2, 3, 8, 9] {
        candidate[i] = 3.0;
    }
    assert_eq!(metrics(&[2, 3, 2], &reference, &candidate, Some(1)).per_token, [0.0, 2.0, 0.0].map(Some));
}

#[test]
fn an_empty_tensor_has_no_error() {
    let m = metrics(&[0], &[], &[], None);
    assert_eq!((m.rel_l2, m.max_abs, m.rms_reference), (0.0, 0.0, 0.0));
}

proptest! {
    #[test]
    fn the_metrics_agree_with_their_formulas(pairs in prop::collection::vec((-1e3f64..1e3, -1e3f64..1e3), 1..300)) {
        let (r, c): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let m = metrics(&[r.len()], &r, &c, Some(0));
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let d: Vec<f64> = r.iter().zip(&c).map(|(r, c)| c - r).collect();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * (1.0 + b.abs());
        prop_assert!(close(m.rel_l2, norm(&d) / norm(&r)));
        prop_assert!(close(m.norm_ratio, norm(&c) / norm(&r)));
        prop_assert!(close(m.cosine, r.iter().zip(&c).map(|(r, c)| r * c).sum::<f64>() / (norm(&r) * norm(&c))));
        prop_assert_eq!(m.max_abs, d.iter().fold(0.0, |a: f64, x| a.max(x.abs())));
    }
}

#[test]
fn the_cosine_of_a_tensor_with_itself_is_exactly_1_at_any_scale() {
    for scale in [1e-100, 1e-30, 1.0, 1.1, 7.0, 1e30, 1e100] {
        let values: Vec<f64> = (1..50).map(|i| f64::from(i) * scale).collect();
        let cosine = metrics(&[49], &values, &values, None).cosine;
        assert!((cosine - 1.0).abs() < 1e-15, "{scale}: {cosine}");
        assert!(cosine == 1.0 || !(1e-70..1e70).contains(&scale), "{scale}: {cosine}");
    }
}

/// A number of any kind: usual ones, zeros, the largest, and what is not finite.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -1e3f32..1e3,
        1 => Just(0.0),
        1 => prop_oneof![Just(f32::MAX), Just(f32::MIN), Just(1e-44)],
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ]
}

proptest! {
    #[test]
    fn numbers_of_32_bits_give_the_metrics_of_the_same_numbers_in_64(
        pairs in prop::collection::vec((number(), number(), any::<bool>()), 24..6000),
        axis in prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), Just(Some(2))],
        shift in 0usize..4,
    ) {
        // Half of the places agree.
        let pairs: Vec<(f32, f32)> = pairs.into_iter().map(|(r, c, same)| (r, if same { r } else { c })).collect();
        let n = pairs.len() / 12 * 12;
        let shape = [3, n / 12, 4];
        let (r, c): (Vec<f32>, Vec<f32>) = pairs[..n].iter().copied().unzip();
        let narrow = |v: &[f32]| {
            // Where a shard puts a tensor no alignment is promised.
            let bytes = v.iter().flat_map(|x| x.to_le_bytes());
            std::iter::repeat_n(0, shift).chain(bytes).collect::<Vec<u8>>()
        };
        let wide = |v: &[f32]| v.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect::<Vec<u8>>();
        let (r32, c32, r64, c64) = (narrow(&r), narrow(&c), wide(&r), wide(&c));
        let view = |dtype, bytes| TensorView { dtype, shape: &shape, bytes };
        let one = compare(view(DType::F32, &r32[shift..]), view(DType::F32, &c32[shift..]), axis);
        let other = compare(view(DType::F64, &r64), view(DType::F64, &c64), axis);
        let mixed = compare(view(DType::F32, &r32[shift..]), view(DType::F64, &c64), axis);
        for (q, exact) in [(one.quantiles.p50, other.quantiles.p50), (one.quantiles.p99, other.quantiles.p99)] {
            // A difference is counted as an f32, and may be so in the neighbouring bin.
            prop_assert!((q - exact).abs() <= 0.033 * exact.max(1e-37), "{q} {exact}");
        }
        let counted = |m: &Metrics| m.magnitudes.zeros + m.magnitudes.counts.iter().sum::<u64>();
        prop_assert_eq!((one.magnitudes.zeros, counted(&one)), (other.magnitudes.zeros, counted(&other)));
        // Text, since NaN is not equal to itself.
        let rest = |m: &Metrics| {
            let rest = Metrics { quantiles: Quantiles::default(), magnitudes: Magnitudes::default(), ..m.clone() };
            format!("{rest:?}")
        };
        prop_assert_eq!(rest(&one), rest(&other));
        prop_assert_eq!(format!("{mixed:?}"), format!("{other:?}"));
    }
}

/// Numbers of a type, given by bits in the upper part of 32.
fn bytes(dtype: DType, bits: &[u32]) -> Vec<u8> {
    bits.iter().flat_map(|b| b.to_le_bytes()[4 - dtype.size()..].to_vec()).collect()
}

proptest! {
    #[test]
    fn types_of_16_bits_and_any_two_types_give_the_metrics_of_the_same_numbers_in_64(
        pairs in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 24..3000),
        axis in prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), Just(Some(2))],
        types in prop::sample::select(vec![
            (DType::BF16, DType::BF16), (DType::F16, DType::F16), (DType::F32, DType::BF16),
            (DType::F16, DType::BF16), (DType::F16, DType::F32), (DType::U8, DType::U8),
        ]),
    ) {
        let n = pairs.len() / 12 * 12;
        let shape = [3, n / 12, 4];
        let (r, c): (Vec<u32>, Vec<u32>) =
            pairs[..n].iter().map(|(r, c, same)| (*r, if *same { *r } else { *c })).unzip();
        let (r, c) = (bytes(types.0, &r), bytes(types.1, &c));
        let (r, c) = (
            TensorView { dtype: types.0, shape: &shape, bytes: &r },
            TensorView { dtype: types.1, shape: &shape, bytes: &c },
        );
        let wide = |view: TensorView<'_>| view.to_f64().iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (r64, c64) = (wide(r), wide(c));
        let view = |bytes| TensorView { dtype: DType::F64, shape: &shape, bytes };
        let one = compare(r, c, axis);
        let other = compare(view(&r64), view(&c64), axis);
        for (q, exact) in [(one.quantiles.p50, other.quantiles.p50), (one.quantiles.p99, other.quantiles.p99)] {
            prop_assert!((q - exact).abs() <= 0.033 * exact.max(1e-37), "{q} {exact}");
        }
        let counted = |m: &Metrics| m.magnitudes.zeros + m.magnitudes.counts.iter().sum::<u64>();
        prop_assert_eq!((one.magnitudes.zeros, counted(&one)), (other.magnitudes.zeros, counted(&other)));
        let rest = |m: &Metrics| {
            let rest = Metrics { quantiles: Quantiles::default(), magnitudes: Magnitudes::default(), ..m.clone() };
            format!("{rest:?}")
        };
        prop_assert_eq!(rest(&one), rest(&other));
        if let Some(axis) = axis {
            let text = |list: Vec<f64>| format!("{list:?}");
            prop_assert_eq!(text(rel_l2_along(r, c, axis)), text(one.per_token.into_iter().flatten().collect()));
        }
    }
}

#[test]
fn no_count_overflows_however_many_are_alike() {
    // More than 16 bits count, in each copy of a bin, and in one copy alone.
    for (shape, axis) in [([1, 600_000], None), ([70_000, 1], Some(0))] {
        let n: usize = shape.iter().product();
        let side = |value: f32| value.to_le_bytes().repeat(n);
        let (zeros, ones, mut few) = (side(0.0), side(1.0), side(1.0));
        few[..8].fill(0);
        let view = |bytes| TensorView { dtype: DType::F32, shape: &shape, bytes };
        let of = |r, c| compare(view(r), view(c), axis).magnitudes;
        assert_eq!(of(&zeros, &ones), Magnitudes { zeros: 0, from: 0, counts: vec![n as u64] });
        assert_eq!(of(&zeros, &few), Magnitudes { zeros: 2, from: 0, counts: vec![n as u64 - 2] });
        assert_eq!(of(&ones, &ones), Magnitudes { zeros: n as u64, ..Magnitudes::default() });
    }
}

#[test]
fn the_half_precisions_are_widened_before_they_are_compared() {
    use half::{bf16, f16};
    let values: Vec<f32> = (0..5000).map(|i| ((i * 37 % 1001) as f32 - 500.0) / 64.0).collect();
    let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    let shape = [5000];
    let (f, b) = (
        TensorView { dtype: DType::F16, shape: &shape, bytes: &f16s },
        TensorView { dtype: DType::BF16, shape: &shape, bytes: &bf16s },
    );
    let m = compare(f, b, None);
    let d = f.to_f64().into_iter().zip(b.to_f64()).map(|(r, c)| (c - r).powi(2)).sum::<f64>().sqrt();
    let size = f.to_f64().into_iter().map(|r| r * r).sum::<f64>().sqrt();
    assert!((m.rel_l2 - d / size).abs() < 1e-14 && m.rel_l2 > 1e-4, "{}", m.rel_l2);
}
