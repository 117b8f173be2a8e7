//! Prompts: the sets in `prompts/`, and the token ids that both engines get.

#[cfg(feature = "cli")]
mod tokenize;

#[cfg(feature = "cli")]
pub use tokenize::{token_texts, tokenize};

use crate::error::{Error, Result, nearest};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

/// A prompt with its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Unique name: letters, digits, `-`, `_`, `.`; not `.` or `..`.
    pub id: String,
    /// Group, for example `code`.
    #[serde(default)]
    pub category: Option<String>,
    /// The text; none when only tokens are known.
    #[serde(default)]
    pub text: Option<String>,
    /// The token ids that the engine was given.
    #[serde(default)]
    pub token_ids: Vec<u32>,
    /// The token that each decode step was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_token_ids: Vec<u32>,
}

/// Refuses the first of these prompts whose length is above `most`, which is what `whose` takes; `included`
/// is what its length counts beside the prompt, and `option` what makes that shorter.
pub fn refuse_too_long<'a>(
    prompts: impl IntoIterator<Item = (&'a Prompt, usize)>,
    (whose, most): (&str, usize),
    (included, option): (&str, &str),
) -> Result<()> {
    match prompts.into_iter().find(|(_, length)| *length > most) {
        Some((long, length)) => Err(Error::new(format!("prompt `{}` is too long for this {whose}", long.id))
            .expected(format!("at most {most} tokens, {included} included"), length)
            .hint(format!("choose shorter prompts with --prompt ID, or fewer {option}"))),
        None => Ok(()),
    }
}

/// What an id consists of.
pub const PLAIN_ID: &str = "letters, digits, `-`, `_`, `.`, and not `.` or `..` alone";

/// True for a name that can be a prompt's id: also for one of a directory that stays in its parent.
pub fn is_plain_id(id: &str) -> bool {
    !["", ".", ".."].contains(&id) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Reads a JSONL file of prompts: `id`, `text`, and optionally `category`, `token_ids` and
/// `step_token_ids`.
pub fn read_prompts(path: &Path) -> Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the prompts", path, &e))?;
    parse_prompts(&text).map_err(|e| e.at(path))
}

const LINE: &str = r#"each line is an object such as {"id": "code-01", "category": "code", "text": "…"}"#;

/// Parses JSONL; blank lines are skipped.
pub fn parse_prompts(text: &str) -> Result<Vec<Prompt>> {
    let mut prompts: Vec<Prompt> = Vec::new();
    let mut ids = HashSet::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let prompt: Prompt = serde_json::from_str(line).map_err(|e| {
            Error::new(format!("line {} of the prompts is malformed: {e}", number + 1)).hint(LINE)
        })?;
        if !is_plain_id(&prompt.id) {
            return Err(Error::new(format!("line {} of the prompts has a bad id", number + 1))
                .expected(PLAIN_ID, format!("{:?}", prompt.id))
                .hint("an id becomes part of names: rename the prompt"));
        }
        if prompt.text.as_deref().unwrap_or_default().is_empty() && prompt.token_ids.is_empty() {
            return Err(
                Error::new(format!("prompt `{}` has neither text nor token_ids", prompt.id)).hint(LINE)
            );
        }
        if !ids.insert(prompt.id.clone()) {
            return Err(
                Error::new(format!("two prompts share the id `{}`", prompt.id)).hint("rename one of them")
            );
        }
        prompts.push(prompt);
    }
    if prompts.is_empty() {
        return Err(Error::new("the set of prompts is empty").hint(LINE));
    }
    Ok(prompts)
}

/// Keeps the prompts with the `wanted` ids, in the set's order; all when none is named.
pub fn select(prompts: Vec<Prompt>, wanted: &[String]) -> Result<Vec<Prompt>> {
    if wanted.is_empty() {
        return Ok(prompts);
    }
    for id in wanted {
        if !prompts.iter().any(|p| p.id == *id) {
            let known = prompts.iter().map(|p| p.id.as_str());
            let hint = match nearest(id, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let known: Vec<&str> = prompts.iter().take(5).map(|p| p.id.as_str()).collect();
                    let more = if prompts.len() > known.len() { ", …" } else { "" };
                    format!("known: {}{more}", known.join(", "))
                }
            };
            return Err(Error::new(format!("no prompt `{id}`")).hint(hint));
        }
    }
    Ok(prompts.into_iter().filter(|p| wanted.contains(&p.id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_prompts_are_refused_with_their_line() {
        for (text, part) in [
            ("", "empty"),
            ("{\"id\": \"a\"}", "neither text nor token_ids"),
            ("{\"id\": \"a/b\", \"text\": \"x\"}", "bad id"),
            ("{\"id\": \".\", \"text\": \"x\"}", "bad id"),
            ("{\"id\": \"..\", \"text\": \"x\"}", "bad id"),
            ("\n{\"id\": 3}", "line 2"),
            ("{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"a\",\"text\":\"y\"}", "share the id"),
        ] {
            let error = parse_prompts(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_id_may_have_dots_and_be_no_way_out_of_a_directory() {
        assert!(["a", "a.b", ".a", "..."].into_iter().all(is_plain_id));
        assert!(!["", ".", "..", "../a"].into_iter().any(is_plain_id));
    }

    #[test]
    fn selecting_an_unknown_prompt_offers_the_nearest() {
        let prompts = parse_prompts("{\"id\":\"code-01\",\"text\":\"x\"}").unwrap();
        let error = select(prompts, &["code-1".into()]).unwrap_err().to_string();
        assert!(error.contains("did you mean `code-01`"), "{error}");
    }
}
