//! Text to tokens, with the tokenizer of the model.

use super::Prompt;
use crate::error::{Error, Result};
use std::path::Path;
use tokenizers::Tokenizer;

/// Gives every prompt without tokens those that the model's `tokenizer.json` makes of its text,
/// without special tokens; checks that all ids are in the vocabulary.
pub fn tokenize(prompts: &mut [Prompt], model_dir: &Path, vocab: usize) -> Result<()> {
    let path = model_dir.join("tokenizer.json");
    let mut tokenizer = None;
    for prompt in prompts {
        if prompt.token_ids.is_empty() {
            if tokenizer.is_none() {
                tokenizer = Some(Tokenizer::from_file(&path).map_err(|e| {
                    Error::new(format!("cannot read the tokenizer: {e}"))
                        .at(&path)
                        .hint("a model's directory needs tokenizer.json, or the prompts need token_ids")
                })?);
            }
            let text = prompt.text.as_deref().unwrap_or_default();
            let encoding = tokenizer
                .as_ref()
                .expect("set above")
                .encode(text, false)
                .map_err(|e| Error::new(format!("cannot tokenize prompt `{}`: {e}", prompt.id)))?;
            prompt.token_ids = encoding.get_ids().to_vec();
        }
        if prompt.token_ids.is_empty() {
            return Err(Error::new(format!("prompt `{}` has no tokens", prompt.id)));
        }
        let ids = prompt.token_ids.iter().chain(&prompt.step_token_ids);
        if let Some(id) = ids.into_iter().find(|id| **id as usize >= vocab) {
            return Err(Error::new(format!(
                "prompt `{}` has a token outside the model's vocabulary",
                prompt.id
            ))
            .expected(format!("an id below {vocab}"), id)
            .hint("does the tokenizer belong to this model?"));
        }
    }
    Ok(())
}

/// What a model's tokens stand for, each alone; none where the model has no tokenizer that can be read. A token
/// that is only a part of a character stands for the sign of what is no character.
pub fn token_texts(model_dir: &Path) -> Option<impl Fn(u32) -> Option<String>> {
    let tokenizer = Tokenizer::from_file(model_dir.join("tokenizer.json")).ok()?;
    Some(move |id| tokenizer.decode(&[id], false).ok())
}
