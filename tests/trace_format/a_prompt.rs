//! What a prompt is described by.

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
