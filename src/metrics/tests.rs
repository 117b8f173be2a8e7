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
        assert!(m.per_token[0].is_finite() && m.per_token[1].is_infinite());
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
    assert_eq!(metrics(&[2, 3, 2], &reference, &candidate, Some(1)).per_token, [0.0, 2.0, 0.0]);
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
