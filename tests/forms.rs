//! Every engine of lattice on every form in which a checkpoint may come.

mod common;

use common::Form;
use layerdiff::capture::{Request, capture, open_engine};
use layerdiff::checkpoint::ModelDir;
use layerdiff::engine::CANDIDATES;
use layerdiff::model::PointFilter;
use layerdiff::tensor::DType;
use layerdiff::trace::{Status, Trace};
use safetensors::Dtype;
use std::path::Path;
use tempfile::TempDir;

/// One thing at a time, and all at once.
const FORMS: [Form; 6] = [
    Form::F32,
    Form { dtype: Dtype::F16, ..Form::F32 },
    Form { dtype: Dtype::BF16, ..Form::F32 },
    Form { shards: 3, ..Form::F32 },
    Form { flat: true, ..Form::F32 },
    Form { dtype: Dtype::F16, shards: 2, flat: true, untied: false },
];

/// The bundled model in a form, with weights that all three element types hold exactly.
fn written(form: Form) -> TempDir {
    // bf16 has less precision than f16 but a wider range; what is smaller than f16's smallest goes.
    form.write(|_, values| values.iter_mut().filter(|v| v.abs() < 1e-4).for_each(|v| *v = 0.0))
}

/// The trace of a short prompt and one step.
fn captured(engine: &str, model: &Path) -> (TempDir, Trace) {
    let root = tempfile::tempdir().unwrap();
    let model = ModelDir::open(model).unwrap();
    let prompts = [common::prompt("p", &[5, 900, 17, 2, 1999, 30])];
    let points = PointFilter::default();
    let mut opened = open_engine(engine, &model, None).unwrap();
    let request = Request {
        model: &model,
        prompts: &prompts,
        steps: 1,
        points: &points,
        dequantized: None,
        quiet: true,
    };
    let out = root.path().join("trace");
    capture(opened.as_mut(), &request, &out).unwrap();
    let trace = Trace::open(&out).unwrap();
    assert_eq!(trace.entries().len(), 2 * model.graph().components().len(), "{engine}");
    assert_eq!(trace.manifest().self_check.as_ref().unwrap().status, Status::BitEqual, "{engine}");
    (root, trace)
}

/// The bytes of a point in both steps.
fn bytes(trace: &Trace, point: &str) -> Vec<u8> {
    let entries = [0, 1].map(|step| trace.find("p", step, point).unwrap());
    assert!(entries.iter().all(|entry| entry.dtype == DType::F32));
    entries.iter().flat_map(|entry| trace.view(entry).bytes.to_vec()).collect()
}

#[track_caller]
fn the_form_changes_no_bit(untied: bool) {
    let models = FORMS.map(|form| written(Form { untied, ..form }));
    for engine in CANDIDATES {
        let (_root, first) = captured(engine, models[0].path());
        for (form, model) in FORMS.iter().zip(&models).skip(1) {
            let (_root, other) = captured(engine, model.path());
            for point in ["model.layers.0", "model.layers.3", "model.norm", "lm_head"] {
                assert!(bytes(&first, point) == bytes(&other, point), "{engine}, {point}: {form:?}");
            }
        }
    }
}

#[test]
fn a_model_with_a_tied_head_gives_the_same_bits_in_every_form_on_every_engine() {
    the_form_changes_no_bit(false);
}

#[test]
fn a_model_with_a_head_of_its_own_gives_the_same_bits_in_every_form_on_every_engine() {
    the_form_changes_no_bit(true);
}
