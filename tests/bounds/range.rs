//! Numbers that are not finite, and sums that leave the range of 32 bits.

use crate::lab::{Inputs, Lab};
use crate::numbers::{Kind, Rows};
use layerdiff::replay::Replay;

const ACT: &str = "model.layers.0.mlp.act";
const DOWN: &str = "model.layers.0.mlp.down_proj";
const NORM: &str = "model.layers.0.post_attention_layernorm";

fn once(lab: &Lab, point: &str, inputs: &[&[f32]], output: Vec<f32>) -> Replay {
    lab.judge(point, &Inputs::new(inputs), &[output]).remove(0)
}

fn ratio(replay: &Replay) -> f64 {
    replay.local().unwrap_or_else(|| panic!("{replay:?}")).ratio
}

#[test]
fn nan_and_infinity_from_finite_inputs_are_faults() {
    let x = Rows { kind: Kind::Even, scale: 1.0, seed: 1 }.take(8);
    let lab = Lab::new(&[("hidden_size", 8), ("intermediate_size", 8)], 1).weight(
        &format!("{NORM}.weight"),
        &[8],
        &[0.0; 8],
    );
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut out: Vec<f32> = x.iter().map(|v| v / (1.0 + (-v).exp()) * v).collect();
        out[3] = bad;
        assert_eq!(ratio(&once(&lab, ACT, &[&x, &x], out.clone())), f64::INFINITY);
        assert_eq!(ratio(&once(&lab, NORM, &[&x], out)), f64::INFINITY);
    }
}

#[test]
fn what_overflows_32_bits_is_infinite_with_its_sign_and_nothing_else() {
    let lab = Lab::new(&[("intermediate_size", 2)], 1);
    let (gate, up) = ([1e30f32, -1.0], [1e30f32, 1.0]);
    let right = |first: f32| vec![first, -1.0 / (1.0 + 1f32.exp())];
    assert!(ratio(&once(&lab, ACT, &[&gate, &up], right(f32::INFINITY))) <= 1.0);
    for wrong in [f32::NEG_INFINITY, f32::NAN, 0.0, 1e30] {
        assert!(ratio(&once(&lab, ACT, &[&gate, &up], right(wrong))) > 1.0, "{wrong}");
    }
}

#[test]
fn a_sum_that_may_leave_the_range_is_unmeasured_and_never_passed() {
    // Their squares overflow 32 bits.
    let x = [1e25f32, 1.0, 2.0, 3.0];
    let lab = Lab::new(&[("hidden_size", 4), ("intermediate_size", 4)], 1)
        .weight(&format!("{NORM}.weight"), &[4], &[0.0; 4])
        .weight(&format!("{DOWN}.weight"), &[4, 4], &[1e20; 16]);
    for output in [vec![0.0; 4], vec![2.0, 1.0, 0.0, f32::NAN]] {
        assert!(matches!(once(&lab, NORM, &[&x], output), Replay::Unmeasured(_)));
    }
    let cancelling = [3e30f32, -3e30, 1.0, 1.0];
    assert!(matches!(once(&lab, DOWN, &[&cancelling], vec![f32::NAN; 4]), Replay::Unmeasured(_)));
    // A row that stays within the range is judged beside one that does not.
    let lab = Lab::new(&[("hidden_size", 4)], 2).weight(&format!("{NORM}.weight"), &[4], &[0.0; 4]);
    let both = [1e25f32, 1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0];
    let output = vec![0.0, 0.0, 0.0, 0.0, 7.0, 1.0, 1.0, 1.0];
    assert!(ratio(&once(&lab, NORM, &[&both], output)) > 1.0);
}

#[test]
fn what_reads_nan_is_unmeasured_unless_it_agrees() {
    let lab = Lab::new(&[("intermediate_size", 2)], 1);
    let (gate, up) = ([f32::NAN, 0.0], [1.0f32, 1.0]);
    assert!(matches!(once(&lab, ACT, &[&gate, &up], vec![0.0, 0.0]), Replay::Unmeasured(_)));
    assert_eq!(ratio(&once(&lab, ACT, &[&gate, &up], vec![f32::NAN, 0.0])), 0.0);
}
