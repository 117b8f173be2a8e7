//! A model's `config.json`, nested or flat.

use crate::error::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// The configuration of a model as its checkpoint states it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    root: Value,
}

const AGAIN: &str = "take config.json from the checkpoint again";

impl ModelConfig {
    /// Reads `config.json` in a model's directory.
    pub fn read(model_dir: &Path) -> Result<Self> {
        let path = model_dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::io("read the model's configuration", &path, &e)
                .hint("--model wants a directory with config.json, model.safetensors and tokenizer.json")
        })?;
        let root = serde_json::from_str(&text)
            .map_err(|e| Error::new(format!("config.json is not valid JSON: {e}")).at(&path).hint(AGAIN))?;
        Self::new(root).map_err(|e| e.at(&path).hint(AGAIN))
    }

    /// Takes a parsed configuration.
    pub fn new(root: Value) -> Result<Self> {
        if root.is_object() {
            Ok(Self { root })
        } else {
            Err(Error::new("the model's configuration is not a JSON object"))
        }
    }

    /// The whole configuration.
    pub fn as_json(&self) -> &Value {
        &self.root
    }

    /// The value under a dotted `key`, looked up in the nested `section` first and then at the top.
    pub fn get(&self, section: &str, key: &str) -> Option<&Value> {
        [self.root.get(section), Some(&self.root)]
            .into_iter()
            .flatten()
            .find_map(|start| key.split('.').try_fold(start, |value, part| value.get(part)))
            .filter(|value| !value.is_null())
    }

    /// A number under `key`.
    pub fn number(&self, section: &str, key: &str) -> Result<f64> {
        let value = self.get(section, key).ok_or_else(|| {
            Error::new(format!("the model's configuration lacks `{key}`"))
                .hint("is config.json the one that belongs to this checkpoint?")
        })?;
        value.as_f64().ok_or_else(|| {
            Error::new(format!("the model's configuration has a bad `{key}`")).expected("a number", value)
        })
    }

    /// A whole number, at least 1, under `key`.
    pub fn size(&self, section: &str, key: &str) -> Result<usize> {
        whole(key, self.number(section, key)?)
    }

    /// The model types that the configuration names, the nested one last.
    pub fn model_types(&self) -> Vec<&str> {
        let nested = self.root.as_object().into_iter().flat_map(|o| o.values());
        std::iter::once(&self.root)
            .chain(nested)
            .filter_map(|value| value.get("model_type")?.as_str())
            .collect()
    }
}

/// Checks that `value` is a size: whole, at least 1, and not absurd.
pub(super) fn whole(name: &str, value: f64) -> Result<usize> {
    if value.fract() == 0.0 && (1.0..=1e12).contains(&value) {
        Ok(value as usize)
    } else {
        Err(Error::new(format!("the model's configuration gives a bad size for `{name}`"))
            .expected("a whole number from 1 on", value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_and_flat_configurations_are_read_alike() {
        for root in [json!({"text_config": {"a": {"b": 4}}}), json!({"a": {"b": 4}})] {
            assert_eq!(ModelConfig::new(root).unwrap().size("text_config", "a.b"), Ok(4));
        }
    }

    #[test]
    fn a_missing_key_and_a_fractional_size_are_errors() {
        let config = ModelConfig::new(json!({"x": 1.5, "n": null})).unwrap();
        assert!(config.size("t", "x").is_err());
        assert!(config.size("t", "y").is_err());
        assert!(config.size("t", "n").is_err());
    }
}
