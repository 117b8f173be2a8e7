//! The manifest, key by key.

use super::*;

fn with_text(text: &[u8], why: &str) {
    let fixture = Fixture::new();
    std::fs::write(fixture.path().join(MANIFEST), text).unwrap();
    fixture.is_refused(why);
}

#[test]
fn is_one_json_object() {
    with_text(b"", "malformed");
    with_text(b"{", "malformed");
    with_text(b"[]", "malformed");
    with_text(b"null", "malformed");
    with_text("[".repeat(100_000).as_bytes(), "malformed");
    let mut twice = std::fs::read(Fixture::new().path().join(MANIFEST)).unwrap_or_default();
    twice.extend_from_slice(b"{}");
    with_text(&twice, "malformed");
}

#[test]
fn is_utf_8() {
    with_text(b"{\"format\": \"\xff\"}", "UTF-8");
}

#[test]
fn cut_off_anywhere_is_refused() {
    let whole = Fixture::new();
    let text = std::fs::read(whole.path().join(MANIFEST)).unwrap();
    for end in (0..text.len()).step_by(37) {
        std::fs::write(whole.path().join(MANIFEST), &text[..end]).unwrap();
        whole.is_refused("malformed");
    }
}

#[test]
fn has_the_format_s_name() {
    refused(|m| m["format"] = "safetensors".into(), "not a layerdiff trace");
    refused(|m| m["format"] = 1.into(), "malformed");
}

#[test]
fn of_another_version_is_refused_with_the_advice_to_update() {
    for version in [0, 2, u32::MAX] {
        refused(|m| m["version"] = version.into(), "unknown version of the trace format");
    }
    refused(|m| m["version"] = "1".into(), "malformed");
    refused(|m| m["version"] = (-1).into(), "malformed");
}

#[test]
fn without_any_one_of_its_keys_is_refused_with_the_key_s_name() {
    let keys = [
        "format",
        "version",
        "architecture",
        "config",
        "provenance",
        "self_check",
        "prompts",
        "shards",
        "tensors",
    ];
    for key in keys {
        refused(|m| drop(m.as_object_mut().unwrap().remove(key)), &format!("`{key}`"));
    }
}

#[test]
fn has_the_model_s_configuration_as_an_object() {
    for config in [json!(null), json!([1]), json!("config.json")] {
        refused(|m| m["config"] = config, "`config` is not the model's configuration");
    }
}

#[test]
fn has_a_self_check_that_may_be_null() {
    assert_eq!(Fixture::new().is_read().manifest().self_check, None);
    let evidence = |mismatches| Evidence {
        what: "logits".into(),
        entry_point: "f".into(),
        elements: 4,
        mismatches,
        rel_l2: None,
    };
    for (mismatches, status) in [(0, Status::BitEqual), (1, Status::Different)] {
        let root = tempfile::tempdir().unwrap();
        let mut draft = Draft::minimal();
        draft.self_check = Some(SelfCheck::new(vec![evidence(mismatches)]));
        draft.write(&root.path().join("trace"));
        let trace = Trace::open(&root.path().join("trace")).unwrap();
        assert_eq!(trace.manifest().self_check, draft.self_check);
        assert_eq!(trace.manifest().self_check.as_ref().unwrap().status, status);
    }
    assert_eq!(SelfCheck::new(Vec::new()).status, Status::Unmeasured);
    refused(|m| m["self_check"] = json!({"status": "fine", "evidence": []}), "malformed");
}

#[test]
fn may_say_which_tokens_the_steps_were_given() {
    let fixture = Fixture::edited(|m| m["prompts"][0]["step_token_ids"] = json!([7, 8]));
    assert_eq!(fixture.is_read().manifest().prompts[0].step_token_ids, [7, 8]);
}

#[test]
fn whose_self_check_contradicts_its_evidence_is_refused() {
    let evidence = |elements: u64, mismatches: u64| json!([{"what": "x", "entry_point": "f", "elements": elements, "mismatches": mismatches}]);
    for evidence in [json!([]), evidence(10, 10), evidence(0, 0)] {
        let fixture =
            Fixture::edited(|m| m["self_check"] = json!({"status": "bit-equal", "evidence": evidence}));
        fixture.is_refused("contradicts its own evidence");
    }
}

/// A cross-check is not bit-equal by nature: it can spoil the status and adds nothing to it.
#[test]
fn has_a_status_that_a_cross_check_can_only_spoil() {
    let evidence = |elements, mismatches, rel_l2| Evidence {
        what: "logits".into(),
        entry_point: "f".into(),
        elements,
        mismatches,
        rel_l2,
    };
    let bits = evidence(4, 0, None);
    let status = |all: &[&Evidence]| SelfCheck::new(all.iter().copied().cloned().collect()).status;
    for elements in [0, 4] {
        let cross = evidence(elements, 0, Some(1e-6));
        assert_eq!(status(&[&bits, &cross]), Status::BitEqual);
        assert_eq!(status(&[&cross]), Status::Unmeasured);
        assert_eq!(status(&[&evidence(0, 0, None), &cross]), Status::Unmeasured);
    }
    assert_eq!(status(&[&bits, &evidence(4, 4, Some(0.5))]), Status::Different);
    for distance in [f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(status(&[&bits, &evidence(4, 0, Some(distance))]), Status::Different, "{distance}");
    }
}

fn with_adapter(rank: Value, scale: Value) -> impl FnOnce(&mut Value) {
    move |m| m["adapter"] = json!({"modules": {"model.norm": {"rank": rank, "scale": scale}}})
}

#[test]
fn may_state_the_adapter_that_the_trace_was_asked_to_run_with() {
    let trace = Fixture::edited(with_adapter(json!(4), json!(2.0))).is_read();
    assert_eq!(trace.manifest().adapter, Some(common::adapter("model.norm", 4, 2.0)));
    assert_eq!(Fixture::edited(|m| m["adapter"] = Value::Null).is_read().manifest().adapter, None);
}

#[test]
fn with_an_adapter_of_nothing_or_of_an_impossible_rank_or_scale_is_refused() {
    refused(|m| m["adapter"] = json!({"modules": {}}), "the adapter changes no module");
    refused(|m| m["adapter"] = json!({}), "modules");
    for rank in [json!(0), json!(1_000_000_000)] {
        refused(with_adapter(rank, json!(1.0)), "impossible rank");
    }
    refused(with_adapter(json!(-1), json!(1.0)), "malformed");
    refused(with_adapter(json!(4), Value::Null), "malformed");
    refused(with_adapter(json!(4), json!("NaN")), "malformed");
}

fn split(processes: u64, point: &str, axis: u64, shares: &[u64]) -> impl FnOnce(&mut Value) {
    let split = json!({point: {"axis": axis, "shares": shares}});
    let parallel = json!({"processes": processes, "backend": "gloo", "split": split});
    move |m| m["provenance"]["parallel"] = parallel
}

#[test]
fn may_say_which_share_of_a_point_each_process_had() {
    let mut first = (String::new(), Vec::new());
    let fixture = Fixture::edited(|m| {
        let shape = serde_json::from_value::<Vec<u64>>(m["tensors"][0]["shape"].clone()).unwrap();
        first = (m["tensors"][0]["point"].as_str().unwrap().to_owned(), shape);
        split(2, &first.0, 0, &[1, first.1[0] - 1])(m);
    });
    let (point, shape) = first;
    let parallel = fixture.is_read().manifest().provenance.parallel.clone().unwrap();
    assert_eq!((parallel.processes, parallel.split[&point].shares.len()), (2, 2));
    let size = shape[0];
    let why = "impossible shares";
    refused(split(3, &point, 0, &[1, size - 1]), why);
    refused(split(2, &point, 0, &[size, size]), why);
    refused(split(2, &point, 9, &[1, size - 1]), why);
    refused(split(2, &point, 0, &[u64::MAX, 1]), why);
    refused(split(2, "model.layers.0.nowhere", 0, &[1, size - 1]), why);
    refused(split(0, &point, 0, &[]), "impossible number of processes");
}

#[test]
fn with_an_impossible_storage_error_is_refused() {
    for error in [json!("inf"), json!("NaN"), json!(-1.0)] {
        let fixture = Fixture::edited(|m| m["provenance"]["parameter_error"] = json!({"w": error}));
        fixture.is_refused("impossible storage error");
    }
}

#[test]
fn may_say_which_points_the_run_cannot_show_and_then_has_none_of_them() {
    let left_out = |step: u32, point: &'static str| {
        move |m: &mut Value| m["left_out"] = json!([{"step": step, "point": point}])
    };
    let trace = Fixture::edited(left_out(0, "model.layers.0.linear_attn.conv_state")).is_read();
    assert!(trace.manifest().leaves_out(0, "model.layers.0.linear_attn.conv_state"));
    assert!(!trace.manifest().leaves_out(1, "model.layers.0.linear_attn.conv_state"));
    assert!(!Fixture::edited(left_out(1, "model.norm")).is_read().manifest().leaves_out(0, "model.norm"));
    refused(left_out(0, "model.norm"), "which it says is left out");
}

#[test]
fn may_say_what_the_engine_goes_on_with_after_its_only_prompt() {
    let said = |seconds: f64| json!({"token_ids": [1, 2], "text": null, "seconds": seconds});
    let trace = Fixture::edited(|m| m["generated"] = said(0.5)).is_read();
    assert_eq!(trace.manifest().generated.as_ref().unwrap().token_ids, [1, 2]);
    refused(|m| m["generated"] = said(-0.5), "impossible time");
    refused(
        |m| {
            m["generated"] = said(0.5);
            let mut other = m["prompts"][0].clone();
            other["id"] = "other".into();
            m["prompts"].as_array_mut().unwrap().push(other);
        },
        "after which prompt",
    );
}

#[test]
fn may_have_keys_that_are_not_listed() {
    let plain = Fixture::new();
    let fixture = Fixture::edited(|m| {
        m["written_by"] = json!({"name": "a later version"});
        m["provenance"]["git"] = "abc".into();
        m["prompts"][0]["license"] = "x".into();
        m["shards"][0]["sha256"] = "abc".into();
        m["tensors"][0]["stride"] = json!([1]);
    });
    assert_eq!(fixture.is_read().manifest(), plain.is_read().manifest());
}
