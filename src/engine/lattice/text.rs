//! Text for token ids: lattice's 16-bit and 8-bit engines take text only.

use super::engine_error;
use crate::error::{Error, Result};
use lattice_tokenizer::Tokenizer;
use lattice_tokenizer::bpe::BpeTokenizer;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;

/// A tokenizer and a text that it turns into exactly `ids`.
///
/// Each id gets a special token of its own, and the text is those in a row: whatever the model's
/// tokenizer would do, the engine is given these ids.
pub fn text_for(ids: &[u32]) -> Result<(BpeTokenizer, String)> {
    let name = |id: u32| format!("<t{id:010}>");
    let distinct: BTreeSet<u32> = ids.iter().copied().collect();
    let added: Vec<_> =
        distinct.iter().map(|id| json!({"id": id, "content": name(*id), "special": true})).collect();
    let tokenizer =
        json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": added}).to_string();
    let tokenizer = BpeTokenizer::from_tokenizer_json_str(&tokenizer)
        .map_err(|e| engine_error("make a tokenizer of token ids", &e))?
        .with_max_seq_len(ids.len());
    let mut text = String::new();
    for id in ids {
        let _infallible = write!(text, "{}", name(*id));
    }
    let given = tokenizer.tokenize(&text);
    if given.input_ids[..given.real_length] != *ids {
        return Err(Error::new("lattice's tokenizer does not give back the token ids it was made of"));
    }
    Ok((tokenizer, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_ids_come_back_in_order_with_repeats() {
        let ids: Vec<u32> = (0..5000).map(|i| i * 7919 % 248_320).chain([0, 0, 1, 248_319]).collect();
        assert!(text_for(&ids).is_ok());
    }
}
