use super::number::{BF16, F16, F32, U8};
use super::*;
use proptest::prelude::*;

fn table() -> Box<Table> {
    vec![0; TABLE].into_boxed_slice().try_into().unwrap()
}

/// The bits of a run; which NaN a sum is depends on the order of the operands.
fn bits(run: &Run) -> [(bool, u64); 5] {
    [run.rr, run.cc, run.rc, run.dd, run.max].map(|v| (v.is_nan(), if v.is_nan() { 0 } else { v.to_bits() }))
}

/// Runs all loops of this processor over numbers of two types, each given by random bits, and holds them
/// against the plain one.
fn agree<R: Number, C: Number>(bytes: &[(u32, u32, bool)]) -> Result<(), TestCaseError> {
    let side = |size: usize, of: fn(&(u32, u32, bool)) -> u32| {
        bytes.iter().flat_map(|b| of(b).to_le_bytes()[4 - size..].to_vec()).collect::<Vec<u8>>()
    };
    let r = side(R::SIZE, |b| b.0);
    // Some places are equal where the types are.
    let c = side(C::SIZE, |b| if b.2 { b.0 } else { b.1 });
    let (mut expected, mut none) = (table(), table());
    let masked = plain::run::<R, C>(&r, &c, true, None);
    let all = plain::run::<R, C>(&r, &c, false, Some(&mut *expected));
    let check = |masked_here: &Run, all_here: &Run, counted: &Run, table: &Table| {
        prop_assert_eq!(bits(masked_here), bits(&masked));
        for run in [all_here, counted] {
            if all.dd.is_finite() {
                prop_assert_eq!(bits(run), bits(&all));
            } else {
                prop_assert!(!run.dd.is_finite());
            }
        }
        prop_assert_eq!(counted.least, all.least);
        // Copies too: each lane has its own everywhere.
        prop_assert!(*table == *expected);
        Ok(())
    };
    let all_counted = counted::<R, C>(&r, &c, &mut none);
    check(&super::masked::<R, C>(&r, &c), &run::<R, C>(&r, &c), &all_counted, &none)?;
    #[cfg(target_arch = "x86_64")]
    for level in x86_64::Level::here().into_iter().chain([x86_64::Level::Avx2]) {
        if x86_64::Level::here().is_none() {
            continue;
        }
        let mut counts = table();
        check(
            &x86_64::run::<R, C, true>(level, &r, &c, None),
            &x86_64::run::<R, C, false>(level, &r, &c, None),
            &x86_64::run::<R, C, false>(level, &r, &c, Some(&mut *counts)),
            &counts,
        )?;
    }
    Ok(())
}

/// The bits of numbers in their upper part: of f32 any, or such as there are in a tensor; of the shorter types too.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (-1e3f32..1e3).prop_map(f32::to_bits),
        (0x3c00u32..0x4400).prop_map(|b| b << 16)
    ]
}

proptest! {
    #[test]
    fn a_run_is_the_same_bit_for_bit_on_every_processor_from_every_type(
        pairs in prop::collection::vec((number(), number(), any::<bool>()), 0..300),
    ) {
        agree::<F32, F32>(&pairs)?;
        agree::<F32, BF16>(&pairs)?;
        agree::<F32, F16>(&pairs)?;
        agree::<BF16, F32>(&pairs)?;
        agree::<BF16, BF16>(&pairs)?;
        agree::<BF16, F16>(&pairs)?;
        agree::<F16, F32>(&pairs)?;
        agree::<F16, BF16>(&pairs)?;
        agree::<F16, F16>(&pairs)?;
        agree::<U8, U8>(&pairs)?;
    }

    #[test]
    fn numbers_without_nan_are_the_same_bit_for_bit_on_every_processor(
        pairs in prop::collection::vec(
            ((-1e3f32..1e3).prop_map(f32::to_bits), (-1e3f32..1e3).prop_map(f32::to_bits), any::<bool>()), 0..300),
    ) {
        agree::<F32, F32>(&pairs)?;
        agree::<BF16, F32>(&pairs)?;
        agree::<BF16, BF16>(&pairs)?;
    }

    #[test]
    fn the_largest_difference_is_exact(
        pairs in prop::collection::vec((any::<f32>(), prop_oneof![any::<f32>(), -1e3f32..1e3]), 1..100),
    ) {
        let bytes = |f: fn(&(f32, f32)) -> f32| pairs.iter().flat_map(|p| f(p).to_le_bytes()).collect::<Vec<u8>>();
        let run = masked::<F32, F32>(&bytes(|p| p.0), &bytes(|p| p.1));
        let sizes = pairs.iter().map(|(r, c)| (f64::from(*c) - f64::from(*r)).abs()).filter(|d| d.is_finite());
        prop_assert_eq!(run.max, sizes.fold(0.0, f64::max));
    }

    #[test]
    fn sums_are_within_the_stated_bound_of_exact_ones(
        pairs in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..RUN),
    ) {
        let bytes = |f: fn(&(f32, f32)) -> f32| pairs.iter().flat_map(|p| f(p).to_le_bytes()).collect::<Vec<u8>>();
        let (r, c) = (bytes(|p| p.0), bytes(|p| p.1));
        let n = pairs.len() as f64;
        let exact = |values: &dyn Fn(&(f32, f32)) -> f64| {
            let squares = pairs.iter().map(|p| values(p) * values(p));
            let errors = pairs.iter().map(|p| values(p).mul_add(values(p), -(values(p) * values(p))));
            squares.chain(errors).fold((0.0, 0.0), two_sum)
        };
        let bound = (n / 8.0 + 11.0) * f64::EPSILON / 2.0;
        let mut table = table();
        for run in [run::<F32, F32>(&r, &c), counted::<F32, F32>(&r, &c, &mut table)] {
            let (high, low) = exact(&|p| f64::from(p.0));
            prop_assert!((run.rr - high - low).abs() <= bound * high);
            let (high, low) = exact(&|p| f64::from(p.1) - f64::from(p.0));
            prop_assert!((run.dd - high - low).abs() <= bound * high);
        }
    }
}

/// A sum whose rounding errors are kept: Knuth, The Art of Computer Programming, vol. 2, 4.2.2.
fn two_sum((high, low): (f64, f64), x: f64) -> (f64, f64) {
    let sum = high + x;
    let part = sum - high;
    (sum, low + ((high - (sum - part)) + (x - part)))
}
