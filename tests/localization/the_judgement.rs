//! The judgement alone, without traces.

use super::*;

/// Judges points, in order of execution, whose errors and floors are these; the numbers are F64, so that rounding is no excuse.
fn judge(floors: &[(&str, f64)], errors: &[(&str, f64)], parameter_error: &[(&str, f64)]) -> Vec<Judgement> {
    let graph = graph();
    let point = |(point, rel_l2): &(&str, f64)| {
        let rel_l2 = if rel_l2.is_finite() { json!(rel_l2) } else { json!(rel_l2.to_string()) };
        json!({"point": point, "step": 0, "prompt": "p-01", "rel_l2": rel_l2})
    };
    let hashes = json!({"weights": null, "tokenizer": null, "config": null});
    let side = json!({"engine": "test", "dtype": "float64", "hashes": hashes});
    let hashes = json!({"weights": "w", "tokenizer": "t", "config": "c"});
    let other = json!({"engine": "test", "dtype": "float32", "hashes": hashes});
    let report = json!({
        "engine": "arm", "prompts": [], "provenance": {"candidate": side, "reference": other},
        "points": floors.iter().map(point).collect::<Vec<_>>(),
    });
    let root = tempfile::tempdir().unwrap();
    let mut draft = Draft::tiny();
    draft.tensors.retain(|t| errors.iter().any(|(point, _)| *point == t.point));
    for tensor in &mut draft.tensors {
        tensor.bytes = tensor.values().iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        tensor.dtype = DType::F64;
    }
    draft.write(&root.path().join("trace"));
    let trace = Trace::open(&root.path().join("trace")).unwrap();
    let floor = if floors.is_empty() {
        Floor::Preset
    } else {
        Floor::from_report(&report.to_string(), &trace).unwrap()
    };
    let mut pairs = align(&graph, &trace, &trace, &PointFilter::default(), &Gains::default()).unwrap();
    pairs.retain(|pair| pair.note().is_none());
    let metrics: Vec<Metrics> = errors.iter().map(|(_, error)| with_error(*error)).collect();
    let parameter_error: BTreeMap<String, f64> =
        parameter_error.iter().map(|(n, e)| ((*n).to_owned(), *e)).collect();
    let evidence = |(pair, metrics)| Evidence { pair, metrics: Some(metrics), local: None, reference: None };
    let step: Vec<Evidence<'_>> = pairs.iter().zip(&metrics).map(evidence).collect();
    let storage = Storage { parameter_error, ..Storage::default() };
    localize(&graph, &floor, &storage, &step).into_iter().map(Option::unwrap).collect()
}

/// The metrics of 1 against 1 + `error`.
fn with_error(error: f64) -> Metrics {
    let (one, other) = (1f64.to_le_bytes(), (1.0 + error).to_le_bytes());
    let view = |bytes| TensorView { dtype: DType::F64, shape: &[1], bytes };
    metrics::compare(view(&one), view(&other), None)
}

fn states(judgements: &[Judgement]) -> Vec<State> {
    judgements.iter().map(|j| j.state).collect()
}

const LAYER: &str = "model.layers.0";
const NORM: &str = "model.layers.1.input_layernorm";
const QKV: &str = "model.layers.1.linear_attn.in_proj_qkv";

#[test]
fn an_error_up_to_the_margin_over_the_floor_is_explained() {
    let floors = [(LAYER, 1e-6)];
    assert_eq!(states(&judge(&floors, &[(LAYER, 0.99e-6 * MARGIN)], &[])), [State::Explained]);
    assert_eq!(states(&judge(&floors, &[(LAYER, 1.01e-6 * MARGIN)], &[])), [State::Born]);
}

#[test]
fn an_explained_error_may_grow_as_the_floor_does_where_the_floor_is_low_by_chance() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-6)];
    let errors = |input, output| [(LAYER, input), (NORM, output)];
    // Ten times as large as at its input, as is the floor: more than the floor here alone excuses.
    let grown = judge(&floors, &errors(2e-7, 1.9e-6 * MARGIN), &[]);
    assert_eq!(states(&grown), [State::Explained; 2]);
    let too_much = judge(&floors, &errors(2e-7, 2.1e-6 * MARGIN), &[]);
    assert_eq!(states(&too_much), [State::Explained, State::Born]);
    let out_of_nothing = judge(&floors, &errors(0.0, 1.9e-6 * MARGIN), &[]);
    assert_eq!(states(&out_of_nothing), [State::Explained, State::Born]);
}

#[test]
fn an_error_that_creeps_up_from_point_to_point_is_excused_up_to_the_cap_only() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let errors = [(LAYER, 0.99e-7 * MARGIN), (NORM, 0.9e-7 * CAP), (QKV, 1.1e-7 * CAP)];
    assert_eq!(states(&judge(&floors, &errors, &[])), [State::Explained, State::Explained, State::Born]);
}

#[test]
fn what_grows_out_of_a_fault_is_inherited_however_much_it_grows() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let errors = [(LAYER, 1e-2), (NORM, 0.3), (QKV, 40.0)];
    assert_eq!(states(&judge(&floors, &errors, &[])), [State::Born, State::Inherited, State::Inherited]);
}

#[test]
fn what_a_component_evens_out_is_absorbed_and_may_grow_again_without_a_new_fault() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let errors = [(LAYER, 1e-2), (NORM, 1e-7), (QKV, 1e-2)];
    assert_eq!(states(&judge(&floors, &errors, &[])), [State::Born, State::Absorbed, State::Inherited]);
}

#[test]
fn an_error_that_the_storage_of_the_parameters_makes_is_explained_there_and_downstream_only() {
    let floors = [(LAYER, 1e-7), (NORM, 1e-7), (QKV, 1e-7)];
    let stored = [("model.layers.1.input_layernorm.weight", 1e-4)];
    let error = 0.5e-4 * MARGIN;
    let downstream = judge(&floors, &[(LAYER, 1e-7), (NORM, error), (QKV, error)], &stored);
    assert_eq!(states(&downstream), [State::Explained; 3]);
    assert_eq!(states(&judge(&floors, &[(LAYER, error)], &stored)), [State::Born]);
}

#[test]
fn where_more_than_a_tenth_would_be_excused_nothing_is_judged() {
    let floors = [(NORM, 1e-7)];
    let stored = [("model.layers.1.input_layernorm.weight", 1e-2)];
    for (error, state) in
        [(0.0, State::Explained), (0.05, State::Unmeasured), (0.15, State::Unmeasured), (1.0, State::Born)]
    {
        assert_eq!(states(&judge(&floors, &[(NORM, error)], &stored)), [state], "{error}");
    }
}

#[test]
fn storage_that_a_long_chain_passes_on_does_not_grow() {
    let stored = [("model.layers.0.input_layernorm.weight", 1e-4)];
    let floors: Vec<(&str, f64)> = [(LAYER, 1e-7), (NORM, 1e-6), (QKV, 1e-7)].to_vec();
    let errors = [("model.layers.0.input_layernorm", 1e-4), (LAYER, 1e-4), (NORM, 1e-4), (QKV, 1e-4)];
    let floors = [vec![("model.layers.0.input_layernorm", 1e-7)], floors].concat();
    let judged = judge(&floors, &errors, &stored);
    let explained: Vec<f64> = judged.iter().map(|j| j.explained / MARGIN).collect();
    assert!((explained[1] / explained[0] - 1.0).abs() < 1e-9, "{explained:?}");
    assert!((explained[2] / explained[0] - 10.0).abs() < 1e-9, "{explained:?}");
    assert!((explained[3] / explained[0] - 1.0).abs() < 1e-9, "{explained:?}");
}

#[test]
fn the_nearest_measured_point_upstream_stands_for_those_that_were_not_measured() {
    let judgements = judge(&[(LAYER, 1e-7), (QKV, 1e-7)], &[(LAYER, 1e-9), (QKV, 1e-2)], &[]);
    assert_eq!(judgements[1].inputs, [(LAYER.to_owned(), with_error(1e-9).rel_l2)]);
    assert_eq!(judgements[1].state, State::Born);
    let judgements = judge(&[(LAYER, 1e-7), (QKV, 1e-7)], &[(LAYER, 1e-2), (QKV, 1e-2)], &[]);
    assert_eq!(judgements[1].state, State::Inherited);
}

#[test]
fn a_floor_that_is_not_finite_excuses_nothing() {
    for floor in [f64::INFINITY, f64::NAN] {
        assert_eq!(states(&judge(&[(LAYER, floor)], &[(LAYER, 1e-2)], &[])), [State::Born], "{floor}");
        assert_eq!(states(&judge(&[(LAYER, floor)], &[(LAYER, f64::NAN)], &[])), [State::Born], "{floor}");
        assert_eq!(states(&judge(&[(LAYER, floor)], &[(LAYER, 1e-7)], &[])), [State::Explained], "{floor}");
    }
}

#[test]
fn an_error_that_is_not_finite_is_never_explained() {
    for error in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(states(&judge(&[(LAYER, 1e300)], &[(LAYER, error)], &[])), [State::Born], "{error}");
        assert_eq!(states(&judge(&[], &[(LAYER, error)], &[])), [State::Born], "{error}");
        let stored = [("model.layers.0.mlp.down_proj.weight", f64::INFINITY)];
        let point = "model.layers.0.mlp.down_proj";
        assert_eq!(states(&judge(&[(point, 1e-7)], &[(point, error)], &stored)), [State::Born], "{error}");
    }
}
