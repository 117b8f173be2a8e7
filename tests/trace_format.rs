//! The trace format: every sentence of the specification in `src/trace/mod.rs`, and every way to break it.

mod common;

use common::{Draft, edit_header, edit_manifest, noise, prompt, replace_shard, shard, tree};
use half::{bf16, f16};
use layerdiff::tensor::DType;
use layerdiff::trace::{Evidence, Incoming, MANIFEST, SelfCheck, Status, Trace, TraceWriter};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// A minimal trace in a directory of its own.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Draft::minimal().write(&root.path().join("trace"));
        Self { root }
    }

    /// The same, with a changed manifest.
    fn edited(change: impl FnOnce(&mut Value)) -> Self {
        let fixture = Self::new();
        edit_manifest(&fixture.path(), change);
        fixture
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("trace")
    }

    fn open(&self) -> layerdiff::error::Result<Trace> {
        Trace::open(&self.path())
    }

    /// Opening must fail and say this, where, and what to do.
    #[track_caller]
    fn is_refused(&self, why: &str) {
        let error = self.open().expect_err("the trace is malformed").to_string();
        assert!(error.contains(why), "no {why:?} in {error}");
        assert!(error.contains(&*self.path().to_string_lossy()), "no path in {error}");
        assert!(error.contains("\n  hint: "), "no hint in {error}");
    }

    #[track_caller]
    fn is_read(&self) -> Trace {
        self.open().unwrap()
    }
}

/// A manifest changed by `change` must be refused for `why`.
#[track_caller]
fn refused(change: impl FnOnce(&mut Value), why: &str) {
    Fixture::edited(change).is_refused(why);
}

mod the_directory {
    use super::*;

    #[test]
    fn holds_the_manifest_and_the_shards_that_it_names_and_nothing_else() {
        let fixture = Fixture::new();
        let names: Vec<String> = tree(&fixture.path())
            .keys()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, [MANIFEST, "shard-00000.safetensors", "shard-00001.safetensors"]);
    }

    #[test]
    fn that_is_missing_is_refused() {
        let fixture = Fixture::new();
        std::fs::remove_dir_all(fixture.path()).unwrap();
        fixture.is_refused("cannot read the trace");
    }

    #[test]
    fn that_is_a_file_is_refused() {
        let fixture = Fixture::new();
        std::fs::remove_dir_all(fixture.path()).unwrap();
        std::fs::write(fixture.path(), "").unwrap();
        fixture.is_refused("not a trace");
    }

    #[test]
    fn without_a_manifest_is_refused() {
        let fixture = Fixture::new();
        std::fs::remove_file(fixture.path().join(MANIFEST)).unwrap();
        fixture.is_refused("not a trace");
    }
}

mod the_manifest {
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
}

mod a_prompt {
    use super::*;

    #[test]
    fn has_an_id_of_letters_digits_dashes_underscores_and_dots() {
        for id in ["a", "Code-01", "x_y.z", "...", "-"] {
            let draft = Draft::of(&[prompt(id, &[1])]);
            let root = tempfile::tempdir().unwrap();
            draft.write(&root.path().join("trace"));
            Trace::open(&root.path().join("trace")).unwrap();
        }
    }

    #[test]
    fn with_an_empty_id_is_refused() {
        refused(|m| m["prompts"][0]["id"] = "".into(), "bad prompt id");
    }

    #[test]
    fn with_a_slash_or_another_character_in_its_id_is_refused() {
        for id in ["a/b", "a\\b", "a b", "é", "a\n", "a\0", "a:b", ".", ".."] {
            refused(|m| m["prompts"][0]["id"] = id.into(), "bad prompt id");
        }
    }

    #[test]
    fn that_shares_its_id_is_refused() {
        refused(
            |m| {
                let first = m["prompts"][0].clone();
                m["prompts"].as_array_mut().unwrap().push(first);
            },
            "two prompts of the trace share the id `p-01`",
        );
    }

    #[test]
    fn without_tokens_is_refused() {
        refused(|m| m["prompts"][0]["token_ids"] = json!([]), "`p-01` of the trace has no tokens");
        refused(|m| drop(m["prompts"][0].as_object_mut().unwrap().remove("token_ids")), "has no tokens");
        refused(|m| m["prompts"][0]["token_ids"] = json!([-1]), "malformed");
    }

    #[test]
    fn may_have_a_category_and_a_text_or_null() {
        let fixture = Fixture::edited(|m| {
            m["prompts"][0]["category"] = "code".into();
            m["prompts"][0]["text"] = "fn".into();
        });
        let prompt = fixture.is_read().manifest().prompts[0].clone();
        assert_eq!((prompt.category.as_deref(), prompt.text.as_deref()), (Some("code"), Some("fn")));
        let fixture = Fixture::edited(|m| m["prompts"][0]["text"] = Value::Null);
        assert_eq!(fixture.is_read().manifest().prompts[0].text, None);
    }
}

mod a_shard_s_name {
    use super::*;

    fn is_refused(name: &str) {
        refused(|m| m["shards"][0]["file"] = name.into(), "names a shard outside the trace's directory");
    }

    #[test]
    fn with_a_separator_is_refused() {
        is_refused("sub/shard.safetensors");
        is_refused("sub\\shard.safetensors");
        is_refused("C:shard.safetensors");
        is_refused("a\0.safetensors");
    }

    #[test]
    fn that_leads_out_of_the_directory_is_refused_though_the_file_is_there() {
        let fixture = Fixture::new();
        std::fs::rename(
            fixture.path().join("shard-00000.safetensors"),
            fixture.root.path().join("x.safetensors"),
        )
        .unwrap();
        edit_manifest(&fixture.path(), |m| m["shards"][0]["file"] = "../x.safetensors".into());
        fixture.is_refused("names a shard outside the trace's directory");
        is_refused("..");
        is_refused("..safetensors");
    }

    #[test]
    fn that_is_absolute_is_refused() {
        is_refused("/etc/shard.safetensors");
    }

    #[test]
    fn that_is_hidden_is_refused() {
        is_refused(".shard.safetensors");
        is_refused(".safetensors");
    }

    #[test]
    fn with_another_ending_is_refused() {
        for name in ["", "shard", "shard.bin", "shard.safetensors.gz", "manifest.json", "shard.SAFETENSORS"] {
            is_refused(name);
        }
    }

    #[test]
    fn that_comes_twice_is_refused() {
        refused(
            |m| m["shards"][1] = m["shards"][0].clone(),
            "lists the shard \"shard-00000.safetensors\" twice",
        );
    }
}

mod a_shard_s_file {
    use super::*;

    #[test]
    fn that_was_cut_off_is_refused() {
        let fixture = Fixture::new();
        let bytes = shard(&fixture.path(), 0);
        std::fs::write(fixture.path().join("shard-00000.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
        fixture.is_refused("wrong size");
    }

    #[test]
    fn that_was_extended_is_refused() {
        let fixture = Fixture::new();
        let mut bytes = shard(&fixture.path(), 0);
        bytes.push(0);
        std::fs::write(fixture.path().join("shard-00000.safetensors"), &bytes).unwrap();
        fixture.is_refused("wrong size");
        replace_shard(&fixture.path(), 0, &bytes);
        fixture.is_refused("a shard of the trace is malformed");
    }

    #[test]
    fn of_another_size_than_the_manifest_says_is_refused() {
        refused(|m| m["shards"][1]["bytes"] = 0.into(), "wrong size");
        refused(|m| m["shards"][1]["bytes"] = u64::MAX.into(), "wrong size");
    }

    #[test]
    fn that_is_missing_is_refused() {
        let fixture = Fixture::new();
        std::fs::remove_file(fixture.path().join("shard-00001.safetensors")).unwrap();
        fixture.is_refused("cannot read a shard of the trace");
    }

    #[test]
    fn that_is_empty_is_refused() {
        let fixture = Fixture::new();
        replace_shard(&fixture.path(), 0, b"");
        fixture.is_refused("a shard of the trace is malformed");
    }

    #[test]
    #[cfg(unix)]
    fn that_is_a_symbolic_link_is_refused() {
        let fixture = Fixture::new();
        let file = fixture.path().join("shard-00000.safetensors");
        let away = fixture.root.path().join("away.safetensors");
        std::fs::rename(&file, &away).unwrap();
        std::os::unix::fs::symlink(&away, &file).unwrap();
        fixture.is_refused("not a regular file");
    }

    #[test]
    fn that_is_a_directory_is_refused() {
        let fixture = Fixture::new();
        let file = fixture.path().join("shard-00000.safetensors");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        fixture.is_refused("not a regular file");
    }
}

mod a_shard_s_header {
    use super::*;

    fn with_length(length: u64) {
        let fixture = Fixture::new();
        let mut bytes = shard(&fixture.path(), 0);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        replace_shard(&fixture.path(), 0, &bytes);
        fixture.is_refused("a shard of the trace is malformed");
    }

    #[test]
    fn longer_than_the_file_is_refused() {
        let bytes = shard(&Fixture::new().path(), 0).len() as u64;
        with_length(bytes - 7);
        with_length(bytes);
        with_length(99_000_000);
    }

    #[test]
    fn of_a_length_that_overflows_is_refused() {
        for length in [1 << 63, (1 << 63) - 1, u64::MAX, u64::MAX - 7, 1 << 32] {
            with_length(length);
        }
    }

    #[test]
    fn of_more_than_100_mb_is_refused() {
        let fixture = Fixture::new();
        let file = fixture.path().join("shard-00000.safetensors");
        std::fs::write(&file, 100_000_001_u64.to_le_bytes()).unwrap();
        // Holes take no room on the disk.
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(100_000_100).unwrap();
        edit_manifest(&fixture.path(), |m| m["shards"][0]["bytes"] = 100_000_100.into());
        fixture.is_refused("a shard of the trace is malformed");
    }

    #[test]
    fn that_is_not_json_is_refused() {
        for header in [&b"x"[..], b"[]", b"{\"a\": 1}", b"{\xff}", b"{", b""] {
            let fixture = Fixture::new();
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header);
            replace_shard(&fixture.path(), 0, &bytes);
            fixture.is_refused("a shard of the trace");
        }
    }

    #[test]
    fn whose_offsets_leave_the_data_or_overlap_is_refused() {
        let key = "p-01/0/model.embed_tokens";
        for offsets in
            [json!([0, 1_u64 << 40]), json!([0, u64::MAX]), json!([4, 164]), json!([160, 0]), json!([0, 156])]
        {
            let fixture = Fixture::new();
            edit_header(&fixture.path(), 0, |h| h[key]["data_offsets"] = offsets);
            fixture.is_refused("a shard of the trace is malformed");
        }
    }
}

mod an_entry {
    use super::*;

    #[test]
    fn without_any_one_of_its_keys_is_refused_with_the_key_s_name() {
        for key in ["order", "prompt", "step", "point", "dtype", "shape", "basis", "derived", "shard"] {
            refused(|m| drop(m["tensors"][0].as_object_mut().unwrap().remove(key)), &format!("`{key}`"));
        }
    }

    #[test]
    fn has_its_position_in_the_order_of_execution() {
        for order in [1, 3, u64::MAX] {
            refused(
                |m| m["tensors"][0]["order"] = order.into(),
                "the order of execution has a gap or a repeat",
            );
        }
        refused(
            |m| m["tensors"][1]["order"] = 0.into(),
            "a repeat at `model.layers.3.self_attn.attention_mask`",
        );
        refused(|m| m["tensors"].as_array_mut().unwrap().swap(0, 1), "the order of execution");
    }

    #[test]
    fn of_an_unknown_prompt_is_refused() {
        refused(|m| m["tensors"][0]["prompt"] = "p-02".into(), "belongs to no prompt of the trace");
    }

    #[test]
    fn may_belong_to_any_step() {
        let root = tempfile::tempdir().unwrap();
        let mut draft = Draft::minimal();
        let mut later = draft.tensors[0].clone();
        later.step = u32::MAX;
        draft.tensors.push(later);
        draft.write(&root.path().join("trace"));
        let trace = Trace::open(&root.path().join("trace")).unwrap();
        assert!(trace.find("p-01", u32::MAX, "model.embed_tokens").is_some());
        assert!(trace.find("p-01", 1, "model.embed_tokens").is_none());
        refused(|m| m["tensors"][0]["step"] = (-1).into(), "malformed");
        refused(|m| m["tensors"][0]["step"] = (1u64 << 32).into(), "malformed");
    }

    #[test]
    fn without_a_point_or_a_basis_is_refused() {
        refused(|m| m["tensors"][0]["point"] = "".into(), "tensor 0 of the trace has no point");
        refused(|m| m["tensors"][2]["basis"] = "".into(), "tensor 2 of the trace has no basis");
    }

    #[test]
    fn of_a_dtype_that_the_format_lacks_is_refused() {
        for dtype in ["I64", "I32", "BOOL", "F8_E4M3", "f32", "float32", ""] {
            refused(|m| m["tensors"][0]["dtype"] = dtype.into(), "malformed");
        }
    }

    #[test]
    fn of_a_shape_that_overflows_is_refused() {
        let huge = u64::MAX / 2;
        for shape in
            [json!([huge, huge]), json!([huge]), json!([1_u64 << 32, 1_u64 << 32]), json!([huge, huge, 0])]
        {
            refused(|m| m["tensors"][0]["shape"] = shape, "is impossibly large");
        }
        refused(|m| m["tensors"][0]["shape"] = json!([5, -8]), "malformed");
        refused(|m| m["tensors"][0]["shape"] = json!([0, huge, huge]), "another shape");
    }

    #[test]
    fn in_a_shard_that_is_not_listed_is_refused() {
        for shard in [2_u64, u64::MAX] {
            refused(|m| m["tensors"][0]["shard"] = shard.into(), "is in a shard that is not listed");
        }
    }

    #[test]
    fn that_shares_prompt_step_and_point_is_refused_with_the_usual_cause() {
        let fixture = Fixture::edited(|m| m["tensors"][2]["point"] = m["tensors"][0]["point"].clone());
        fixture.is_refused("the trace holds `model.embed_tokens` (step 0, prompt `p-01`) twice");
        fixture.is_refused("a warm-up pass or a graph replay");
    }

    #[test]
    fn keeps_basis_and_derivation() {
        let root = tempfile::tempdir().unwrap();
        let mut draft = Draft::minimal();
        draft.tensors[0].basis = "quarot".into();
        draft.tensors[0].derived = true;
        draft.write(&root.path().join("trace"));
        let trace = Trace::open(&root.path().join("trace")).unwrap();
        assert_eq!((trace.entries()[0].basis.as_str(), trace.entries()[0].derived), ("quarot", true));
        assert_eq!((trace.entries()[2].basis.as_str(), trace.entries()[2].derived), ("original", false));
    }
}

mod a_tensor {
    use super::*;

    const KEY: &str = "p-01/0/model.embed_tokens";

    fn with_header(change: impl FnOnce(&mut Value), why: &str) {
        let fixture = Fixture::new();
        edit_header(&fixture.path(), 0, change);
        fixture.is_refused(why);
    }

    #[test]
    fn is_stored_as_prompt_step_point() {
        let bytes = shard(&Fixture::new().path(), 0);
        let names = safetensors::SafeTensors::deserialize(&bytes)
            .unwrap()
            .names()
            .iter()
            .map(|n| (*n).to_owned())
            .collect::<Vec<_>>();
        assert_eq!(names, [KEY]);
    }

    #[test]
    fn of_another_dtype_than_its_entry_s_is_refused() {
        refused(|m| m["tensors"][0]["dtype"] = "BF16".into(), "another dtype than the manifest says");
        with_header(
            |h| h[KEY] = json!({"dtype": "F64", "shape": [5, 4], "data_offsets": [0, 160]}),
            "another dtype than the manifest says",
        );
    }

    #[test]
    fn of_a_dtype_that_the_format_lacks_is_refused() {
        with_header(
            |h| h[KEY] = json!({"dtype": "I64", "shape": [5, 4], "data_offsets": [0, 160]}),
            "another dtype than the manifest says",
        );
        with_header(|h| h[KEY]["dtype"] = "F31".into(), "malformed");
    }

    #[test]
    fn of_another_shape_than_its_entry_s_is_refused() {
        refused(|m| m["tensors"][0]["shape"] = json!([8, 5]), "another shape than the manifest says");
        refused(|m| m["tensors"][0]["shape"] = json!([40]), "another shape than the manifest says");
        with_header(|h| h[KEY]["shape"] = json!([5, 8, 1]), "another shape than the manifest says");
    }

    #[test]
    fn without_an_entry_is_refused() {
        with_header(
            |h| {
                h[KEY] = json!({"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]});
                h["stray"] = json!({"dtype": "F32", "shape": [5, 4], "data_offsets": [80, 160]});
            },
            "another shape",
        );
        let fixture = Fixture::new();
        let mut bytes = shard(&fixture.path(), 0);
        bytes.extend([0; 4]);
        replace_shard(&fixture.path(), 0, &bytes);
        edit_header(&fixture.path(), 0, |h| {
            h["stray"] = json!({"dtype": "F32", "shape": [1], "data_offsets": [160, 164]});
        });
        fixture.is_refused("holds `stray`, which the manifest does not list");
    }

    #[test]
    fn that_is_missing_is_refused() {
        with_header(
            |h| {
                let tensor = h.as_object_mut().unwrap().remove(KEY).unwrap();
                h["p-01/0/other"] = tensor;
            },
            "lacks `p-01/0/model.embed_tokens`",
        );
        refused(|m| m["tensors"][0]["shard"] = 1.into(), "no tensor of the manifest is in shard");
    }

    #[test]
    fn is_in_every_shard() {
        let fixture = Fixture::new();
        std::fs::copy(
            fixture.path().join("shard-00000.safetensors"),
            fixture.path().join("more.safetensors"),
        )
        .unwrap();
        edit_manifest(&fixture.path(), |m| {
            let bytes = m["shards"][0]["bytes"].clone();
            m["shards"].as_array_mut().unwrap().push(json!({"file": "more.safetensors", "bytes": bytes}));
        });
        fixture.is_refused("no tensor of the manifest is in shard \"more.safetensors\"");
    }
}

mod rows {
    use super::*;

    /// A trace of a prompt of five tokens and a step, with these rows in the entry of the prefill or of the step.
    fn with_rows(step: u32, shape: &[usize], rows: &Value) -> Fixture {
        let fixture = Fixture { root: tempfile::tempdir().unwrap() };
        let mut writer = TraceWriter::create(&fixture.path(), Draft::minimal().options).unwrap();
        let mut of = prompt("p", &[1, 2, 3, 4, 5]);
        of.step_token_ids = vec![6];
        writer.start_prompt(&of);
        let n = shape.iter().product();
        writer.push(step, "a", DType::U8, shape, vec![1; n], "original", false).unwrap();
        writer.finish(None).unwrap();
        edit_manifest(&fixture.path(), |m| m["tensors"][0]["rows"] = rows.clone());
        fixture
    }

    #[test]
    fn of_some_query_tokens_are_listed_and_come_back() {
        let trace = with_rows(0, &[2, 5], &json!([0, 4])).is_read();
        assert_eq!(trace.entries()[0].rows, Some(vec![0, 4]));
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("trace");
        let mut writer = TraceWriter::create(&path, Draft::minimal().options).unwrap();
        writer.start_prompt(&prompt("p", &[1, 2, 3]));
        let (shape, rows) = (&[1usize, 3][..], Some(vec![2]));
        let (step, point, dtype, basis) = (0, "a", DType::U8, "original");
        writer.take(Incoming { step, point, dtype, shape, rows, basis, derived: false }, vec![1; 3]).unwrap();
        writer.push(0, "b", DType::U8, &[3, 3], vec![1; 9], "original", false).unwrap();
        writer.finish(None).unwrap();
        let rows: Vec<_> = Trace::open(&path).unwrap().entries().iter().map(|e| e.rows.clone()).collect();
        assert_eq!(rows, [Some(vec![2]), None]);
        let text = std::fs::read_to_string(path.join(MANIFEST)).unwrap();
        assert_eq!(text.matches("\"rows\"").count(), 1, "an entry with all rows does not list any");
    }

    #[test]
    fn out_of_order_or_twice_are_refused() {
        for rows in [json!([4, 0]), json!([2, 2])] {
            with_rows(0, &[2, 5], &rows).is_refused("not in order, or one is listed twice");
        }
    }

    #[test]
    fn of_a_token_that_the_step_has_not_are_refused() {
        with_rows(0, &[2, 5], &json!([0, 5])).is_refused("a token that the step does not have");
        with_rows(0, &[2, 5], &json!([0, u64::MAX])).is_refused("a token that the step does not have");
        with_rows(1, &[1, 6], &json!([3])).is_refused("a token that the step does not have");
    }

    #[test]
    fn that_are_all_or_none_are_refused() {
        with_rows(0, &[5, 5], &json!([0, 1, 2, 3, 4])).is_refused("no part of the rows");
        with_rows(0, &[0, 5], &json!([])).is_refused("no part of the rows");
        with_rows(1, &[1, 6], &json!([0])).is_refused("no part of the rows");
    }

    #[test]
    fn of_another_number_than_the_shape_has_are_refused() {
        with_rows(0, &[3, 5], &json!([0, 4])).is_refused("another number of rows than are listed");
    }

    #[test]
    fn that_are_no_list_of_positions_are_refused() {
        for rows in [json!(3), json!("all"), json!([-1]), json!([0.5]), json!([[0]])] {
            with_rows(0, &[2, 5], &rows).is_refused("malformed");
        }
    }
}

mod values {
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
}

mod a_writer {
    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn works_in_one_hidden_sibling_and_renames_it_when_complete() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("trace");
        let mut writer = TraceWriter::create(&target, Draft::minimal().options).unwrap();
        writer.start_prompt(&prompt("p", &[1]));
        writer.push(0, "a", DType::U8, &[200], vec![1; 200], "original", false).unwrap();
        let during = names(root.path());
        assert!(during.len() == 1 && during[0].starts_with(".trace."), "{during:?}");
        writer.finish(None).unwrap();
        assert_eq!(names(root.path()), ["trace"]);
        Trace::open(&target).unwrap();
    }

    #[test]
    fn that_is_dropped_midway_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        for target in ["trace", "new/deep/trace"] {
            let mut writer =
                TraceWriter::create(&root.path().join(target), Draft::minimal().options).unwrap();
            writer.start_prompt(&prompt("p", &[1]));
            writer.push(0, "a", DType::U8, &[200], vec![1; 200], "original", false).unwrap();
            drop(writer);
            assert!(names(root.path()).is_empty());
        }
    }

    #[test]
    fn that_makes_an_invalid_trace_fails_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("trace");
        let mut writer = TraceWriter::create(&target, Draft::minimal().options).unwrap();
        writer.start_prompt(&prompt("p", &[1]));
        for _ in 0..2 {
            writer.push(0, "a", DType::U8, &[1], vec![1], "original", false).unwrap();
        }
        let error = writer.finish(None).unwrap_err().to_string();
        assert!(error.contains("holds `a` (step 0, prompt `p`) twice"), "{error}");
        assert!(error.contains(target.to_str().unwrap()), "{error}");
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn never_touches_what_exists() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("trace");
        Draft::minimal().write(&target);
        let before = tree(root.path());
        let error = TraceWriter::create(&target, Draft::tiny().options).unwrap_err().to_string();
        assert!(error.contains("already exists") && error.contains("hint: "), "{error}");
        assert_eq!(tree(root.path()), before);
    }

    #[test]
    fn does_not_replace_a_trace_that_came_into_being_meanwhile() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("trace");
        let mut writer = TraceWriter::create(&target, Draft::minimal().options).unwrap();
        writer.start_prompt(&prompt("p", &[1]));
        writer.push(0, "a", DType::U8, &[1], vec![1], "original", false).unwrap();
        Draft::minimal().write(&target);
        let before = tree(&target);
        let error = writer.finish(None).unwrap_err().to_string();
        assert!(error.contains("cannot put the output in place") && error.contains("hint: "), "{error}");
        assert_eq!(tree(&target), before);
        assert_eq!(names(root.path()), ["trace"]);
    }

    #[test]
    fn keeps_a_few_shards_in_memory_and_no_more() {
        let root = tempfile::tempdir().unwrap();
        let mut options = Draft::minimal().options;
        options.shard_bytes = 1000;
        let mut writer = TraceWriter::create(&root.path().join("trace"), options).unwrap();
        writer.start_prompt(&prompt("p", &[1]));
        // A shard that is being written has another name, which may be gone when it is looked at.
        let on_disk = || -> usize {
            let staged = std::fs::read_dir(root.path()).unwrap().map(|dir| dir.unwrap().path());
            let shards = (0..7).map(|i| format!("shard-{i:05}.safetensors"));
            let files = staged.flat_map(|dir| shards.clone().map(move |shard| dir.join(shard)));
            files.filter_map(|file| file.metadata().ok()).map(|file| file.len() as usize).sum()
        };
        // The next one, one that waits, and one that is being written.
        let few = 1000 + 2 * 8 * 130;
        for i in 0..50 {
            writer.push(0, &format!("t{i}"), DType::U8, &[130], vec![1; 130], "original", false).unwrap();
            let pending = ((i + 1) * 130_usize).saturating_sub(on_disk());
            assert!(pending < few, "{pending} bytes are pending after {i} tensors");
        }
        writer.finish(None).unwrap();
        let trace = Trace::open(&root.path().join("trace")).unwrap();
        // The eighth tensor is the one that reaches the limit.
        let shards: Vec<usize> = trace.entries().iter().map(|e| e.shard).collect();
        assert_eq!(shards, (0..50).map(|i| i / 8).collect::<Vec<_>>());
        assert!(trace.entries().iter().all(|e| trace.view(e).bytes == [1; 130]));
    }

    #[test]
    fn writes_the_same_bytes_again() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut draft = Draft::of(&[prompt("b", &[1, 2]), prompt("a", &[3])]);
        draft.options.shard_bytes = 5000;
        for root in [&one, &two] {
            draft.write(&root.path().join("trace"));
        }
        let relative = |root: &TempDir| -> Vec<_> {
            tree(root.path())
                .into_iter()
                .map(|(p, c)| (p.strip_prefix(root.path()).unwrap().to_owned(), c))
                .collect()
        };
        assert!(relative(&one).len() > 4);
        assert_eq!(relative(&one), relative(&two));
    }
}

fn any_dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F64, DType::F32, DType::F16, DType::BF16, DType::U8])
}

fn any_tensor() -> impl Strategy<Value = (DType, Vec<usize>, Vec<u8>, u32)> {
    (any_dtype(), prop::collection::vec(0_usize..5, 0..4), 0_u32..3).prop_flat_map(|(dtype, shape, step)| {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let largest = if dtype == DType::U8 { 1 } else { u8::MAX };
        (Just(dtype), Just(shape), prop::collection::vec(0..=largest, bytes), Just(step))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_is_what_was_written(
        tensors in prop::collection::vec((any_tensor(), "[a-z./ \"é\\\\]{0,8}"), 1..12),
        shard_bytes in 1_usize..200,
    ) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("trace");
        let mut options = Draft::minimal().options;
        options.shard_bytes = shard_bytes;
        let mut writer = TraceWriter::create(&path, options).unwrap();
        writer.start_prompt(&prompt("p", &[1]));
        let named: Vec<_> = tensors.iter().enumerate().map(|(i, (t, name))| (format!("{i}{name}"), t)).collect();
        for (point, (dtype, shape, bytes, step)) in &named {
            writer.push(*step, point, *dtype, shape, bytes.clone(), "original", false).unwrap();
        }
        writer.finish(None).unwrap();
        let trace = Trace::open(&path).unwrap();
        prop_assert_eq!(trace.entries().len(), named.len());
        for (i, (point, (dtype, shape, bytes, step))) in named.iter().enumerate() {
            let entry = trace.find("p", *step, point).unwrap();
            prop_assert_eq!(entry.order, i as u64);
            let view = trace.view(entry);
            prop_assert_eq!((view.dtype, view.shape, view.bytes), (*dtype, &shape[..], &bytes[..]));
            prop_assert_eq!(view.to_f64().len(), view.len());
        }
    }
}

/// The files of a small trace: manifest, two shards.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let fixture = Fixture::new();
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    tree(&fixture.path()).into_iter().map(|(path, bytes)| (name(path), bytes.unwrap())).collect()
});

/// Opens the trace with one file replaced; all that was accepted must be readable.
fn open_with(file: usize, bytes: &[u8]) {
    let root = tempfile::tempdir().unwrap();
    for (i, (name, original)) in FILES.iter().enumerate() {
        std::fs::write(root.path().join(name), if i == file { bytes } else { original }).unwrap();
    }
    match Trace::open(root.path()) {
        Ok(trace) => {
            for entry in trace.entries() {
                assert_eq!(trace.view(entry).to_f64().len(), entry.shape.iter().product::<usize>());
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("path: ") && error.contains("hint: "), "{error}");
        }
    }
}

/// All places in a JSON document.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, v)| pointers(v, &format!("{at}/{}", key.replace('/', "~1")), out))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), out))
        }
        _ => {}
    }
}

/// What hostile writers like to put there.
fn nasty() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(u64::MAX),
        json!(1e308),
        json!(i64::MAX),
        json!(""),
        json!("F64"),
        json!("../x"),
        json!("shard-00001.safetensors"),
        json!("p-01"),
        json!([]),
        json!({}),
        json!([u64::MAX, u64::MAX]),
        json!([0, u64::MAX]),
        json!([1_u64 << 62, 0]),
        json!([[]]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn flipped_bytes_never_panic(file in 0_usize..3, flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..6)) {
        let mut bytes = FILES[file].1.clone();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        open_with(file, &bytes);
    }

    #[test]
    fn flipped_bytes_of_a_header_never_panic(file in 1_usize..3, flips in prop::collection::vec((0_usize..120, 1_u8..), 1..3)) {
        let mut bytes = FILES[file].1.clone();
        for (at, flip) in flips {
            bytes[at] ^= flip;
        }
        open_with(file, &bytes);
    }

    #[test]
    fn truncated_files_never_panic(file in 0_usize..3, end in any::<prop::sample::Index>()) {
        open_with(file, &FILES[file].1[..end.index(FILES[file].1.len())]);
    }

    #[test]
    fn values_out_of_place_in_the_manifest_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(nasty())), 1..4),
    ) {
        let mut manifest: Value = serde_json::from_slice(&FILES[0].1).unwrap();
        for (at, value) in changes {
            let mut places = Vec::new();
            pointers(&manifest, "", &mut places);
            *manifest.pointer_mut(&places[at.index(places.len())]).unwrap() = value;
        }
        open_with(0, manifest.to_string().as_bytes());
    }

    #[test]
    fn values_out_of_place_in_a_header_never_panic(
        file in 1_usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(nasty())), 1..3),
    ) {
        let bytes = &FILES[file].1;
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
        for (at, value) in changes {
            let mut places = Vec::new();
            pointers(&header, "", &mut places);
            *header.pointer_mut(&places[at.index(places.len())]).unwrap() = value;
        }
        let header = header.to_string();
        let mut damaged = (header.len() as u64).to_le_bytes().to_vec();
        damaged.extend(header.bytes());
        damaged.extend(&bytes[8 + len..]);
        // The manifest has to state the new size, or the header would not be looked at.
        let root = tempfile::tempdir().unwrap();
        for (name, original) in FILES.iter() {
            std::fs::write(root.path().join(name), original).unwrap();
        }
        replace_shard(root.path(), file - 1, &damaged);
        if let Err(error) = Trace::open(root.path()) {
            prop_assert!(error.to_string().contains("path: "));
        }
    }
}

#[test]
fn a_restricted_trace_shows_the_chosen_prompts_with_their_own_values() {
    let root = tempfile::tempdir().unwrap();
    let prompts = [prompt("a", &[1, 2]), prompt("b", &[3])];
    Draft::of(&prompts).write(&root.path().join("trace"));
    let trace = Trace::open(&root.path().join("trace")).unwrap().restricted_to(&prompts[1..], 0);
    assert!(trace.find("a", 0, "model.norm").is_none());
    let values = trace.view(trace.find("b", 0, "model.norm").unwrap()).to_f64();
    assert_eq!(values, noise("b/0/model.norm", 8).iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
    assert!(trace.entries().iter().all(|e| e.prompt == "b"));
}
