//! Masks, and numbers that are not finite.

use super::*;

#[test]
fn of_a_mask_are_0_and_1_only() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("trace");
    let mut writer = TraceWriter::create(&path, Draft::minimal().options).unwrap();
    writer.start_prompt(&prompt("p", &[1]));
    writer.push(0, "a", DType::U8, &[3], vec![0, 1, 7], "original", false).unwrap();
    writer.finish(None).unwrap();
    let error = Trace::open(&path).unwrap_err().to_string();
    assert!(error.contains("is not a mask") && error.contains("got: 7"), "{error}");
}

#[test]
fn that_are_not_finite_come_back_bit_for_bit_in_every_dtype() {
    let nan = |bits: u64| f64::from_bits(bits);
    let wide = [
        f64::NAN,
        -f64::NAN,
        nan(0x7ff0_0000_0000_0001),
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.0,
        f64::MIN_POSITIVE / 4.0,
    ];
    let bytes = [
        (DType::F64, wide.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
        (
            DType::F32,
            [0x7fc0_0000_u32, 0xffc0_0001, 0x7f80_0001, 0x7f80_0000, 0xff80_0000, 0x8000_0000, 0, 1]
                .iter()
                .flat_map(|b| b.to_le_bytes())
                .collect(),
        ),
        (
            DType::F16,
            [0x7e00_u16, 0xfe01, 0x7c01, 0x7c00, 0xfc00, 0x8000, 0, 1]
                .iter()
                .flat_map(|b| b.to_le_bytes())
                .collect(),
        ),
        (
            DType::BF16,
            [0x7fc0_u16, 0xffc1, 0x7f81, 0x7f80, 0xff80, 0x8000, 0, 1]
                .iter()
                .flat_map(|b| b.to_le_bytes())
                .collect(),
        ),
        (DType::U8, vec![0, 1, 1, 0, 0, 0, 1, 1]),
    ];
    let root = tempfile::tempdir().unwrap();
    let mut draft = Draft::minimal();
    let pattern = draft.tensors[0].clone();
    draft.tensors = bytes
        .iter()
        .map(|(dtype, bytes)| common::Captured {
            point: dtype.to_string(),
            dtype: *dtype,
            shape: vec![2, 4],
            bytes: bytes.clone(),
            ..pattern.clone()
        })
        .collect();
    draft.write(&root.path().join("trace"));
    let trace = Trace::open(&root.path().join("trace")).unwrap();
    for (entry, (dtype, bytes)) in trace.entries().iter().zip(&bytes) {
        assert_eq!((entry.dtype, trace.view(entry).bytes), (*dtype, &bytes[..]));
        let values = trace.view(entry).to_f64();
        if dtype.is_float() {
            assert!(values[..3].iter().all(|v| v.is_nan()), "{dtype}");
            assert_eq!(values[3..5], [f64::INFINITY, f64::NEG_INFINITY], "{dtype}");
            assert!(values[5] == 0.0 && values[5].is_sign_negative(), "{dtype}");
            assert!(values[7] > 0.0, "{dtype}");
        }
    }
    assert_eq!(trace.view(&trace.entries()[2]).to_f64()[7], f16::from_bits(1).to_f64());
    assert_eq!(trace.view(&trace.entries()[3]).to_f64()[7], bf16::from_bits(1).to_f64());
}

#[test]
fn of_a_mask_are_1_where_a_token_may_look_and_scores_are_minus_infinity_where_it_may_not() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("trace");
    let prompts = root.path().join("prompts.jsonl");
    std::fs::write(&prompts, r#"{"id": "p", "token_ids": [5, 6, 7]}"#).unwrap();
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let [model, prompts, target] = [&common::bundled_model(), &prompts, &out].map(|p| path(p));
    let run = common::layerdiff(&[
        "capture",
        "--engine",
        "lattice-f32",
        "--model",
        &model,
        "--prompts",
        &prompts,
        "--out",
        &target,
        "--steps",
        "0",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let trace = Trace::open(&out).unwrap();
    let masks: Vec<_> = trace.entries().iter().filter(|e| e.point.ends_with(".attention_mask")).collect();
    assert!(!masks.is_empty());
    for mask in masks {
        assert_eq!(mask.dtype, DType::U8);
        let allowed = trace.view(mask).bytes;
        assert_eq!(allowed, [1, 0, 0, 1, 1, 0, 1, 1, 1]);
        let scores = trace.find("p", 0, &mask.point.replace("attention_mask", "scores")).unwrap();
        for (i, score) in trace.view(scores).to_f64().iter().enumerate() {
            assert_eq!(*score == f64::NEG_INFINITY, allowed[i % 9] == 0, "{} {i}", scores.point);
        }
    }
}
