//! The description of an architecture: a TOML file that both sides of layerdiff read.
//!
//! | key | meaning |
//! |---|---|
//! | `name`, `title` | short name for traces, long one for people |
//! | `model_types` | the `model_type`s in `config.json` that this describes |
//! | `config_section` | the nested object that holds the decoder's keys, if there is one |
//! | `weight_prefixes` | what may stand for `model.` in the checkpoint's tensor names |
//! | `ignored_weights` | prefixes of tensors that belong to other parts |
//! | `[layers]` | number of layers and how to know each one's type |
//! | `[torch]` | read by the Python side only; a component's `torch` by `import` too |
//! | `[requires]` | values that keys of the configuration must have where they are there; an array stands for any of its values |
//! | `[defaults]` | numbers, as expressions, for keys that the configuration may lack |
//! | `[split]` | read by the Python side only: of which linear's output a size counts the heads or channels |
//! | `[dims]` | sizes by name, as expressions over the configuration |
//! | `[[component]]` | the computations, in order of execution |
//!
//! In a component, `{i}` is the layer's number; a component with it exists once for each layer of
//! its `layer_type`, or for each layer when it names none. `inputs` are points; `@layer_input` is
//! the previous layer's output (the embedding for layer 0) and `@last_layer` the last one's. An
//! input that the layer's type does not have is left out. `carried` are points of the step before:
//! states and caches.

use super::config::ModelConfig;
use super::expression::evaluate;
use crate::error::{Error, Result, nearest};
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The descriptions that are built in. A new architecture is one more file and one more line.
pub const ARCHITECTURES: [&str; 3] = [
    include_str!("../../hooks/layerdiff_hooks/architectures/qwen3_5.toml"),
    include_str!("../../hooks/layerdiff_hooks/architectures/llama.toml"),
    include_str!("../../hooks/layerdiff_hooks/architectures/qwen3.toml"),
];

/// What a component computes. The formula of each stands where it is recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Op {
    Embedding,
    RopeTable,
    RmsNorm,
    GatedRmsNorm,
    L2Norm,
    Linear,
    SplitHeads,
    Rope,
    CausalMask,
    KvCache,
    AttentionScores,
    Softmax,
    AttentionContext,
    SigmoidGate,
    Sigmoid,
    CausalConvSilu,
    ConvState,
    GdnDecay,
    DeltaRule,
    DeltaRuleState,
    Add,
    AddScaled,
    SiluMul,
}

/// The basis that a component's output is in when the checkpoint's residual stream is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Rotation does not touch it.
    #[default]
    Original,
    /// Rotated as the residual stream is.
    Residual,
    /// Rotated, and the norm's gain has been folded into the linears that follow.
    ResidualNormed,
    /// Rotated, and the norm's gain has been folded into the head.
    ResidualFinalNormed,
}

/// One architecture, as its TOML file states it.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Description {
    pub name: String,
    pub title: String,
    pub model_types: Vec<String>,
    pub config_section: String,
    pub weight_prefixes: Vec<String>,
    #[serde(default)]
    pub ignored_weights: Vec<String>,
    pub(super) layers: Layers,
    #[serde(default)]
    pub(super) requires: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) defaults: BTreeMap<String, String>,
    pub(super) dims: BTreeMap<String, String>,
    #[serde(rename = "component")]
    pub(super) components: Vec<Template>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Layers {
    pub count: String,
    pub types_key: String,
    pub interval_key: String,
    pub interval_default: usize,
    pub interval_type: String,
    pub other_type: String,
}

/// A component before the layer's number is put in.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Template {
    pub point: String,
    pub family: String,
    pub layer_type: Option<String>,
    pub op: Op,
    pub inputs: Vec<String>,
    #[serde(default)]
    pub carried: Vec<String>,
    pub params: Vec<String>,
    pub tied: Option<Tied>,
    #[serde(default)]
    pub attrs: BTreeMap<String, Value>,
    pub shape: Vec<String>,
    #[serde(default)]
    pub basis: Basis,
    pub dtype: Option<DType>,
    #[serde(default)]
    pub torch: Option<Shown>,
}

/// Where Transformers shows a point: what capture on the Python side hooks, and how dumps of modules are named.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Shown {
    /// Path of the module, within the layer for a component of one.
    pub module: String,
    /// `input`, `output`, or an element of it: `output.0`.
    pub take: String,
    /// Function inside the module whose argument or result it is; none for the module's own.
    #[serde(default)]
    pub call: Option<Value>,
    /// How its axes lie there, where that is not as in the point.
    #[serde(default)]
    pub layout: Option<String>,
}

/// Other parameters for a component when the configuration's `flag` is true.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Tied {
    pub flag: String,
    pub params: Vec<String>,
}

impl Description {
    /// Parses a description.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::new(format!("malformed architecture description: {e}")))
    }

    /// The components, `{i}` for the layer's number, in order of execution.
    pub fn templates(&self) -> &[Template] {
        &self.components
    }

    /// The number under a key of the configuration, or what stands for it where the configuration lacks it.
    pub fn number(&self, config: &ModelConfig, key: &str) -> Result<f64> {
        let section = self.config_section.as_str();
        match self.defaults.get(key).filter(|_| config.get(section, key).is_none()) {
            Some(text) => evaluate(text, &|key| self.number(config, key)),
            None => config.number(section, key),
        }
    }

    /// Refuses a model that differs from the described ones though its type is theirs.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<()> {
        for (key, wanted) in &self.requires {
            let fits = |value: &Value| wanted.as_array().map_or(value == wanted, |any| any.contains(value));
            if let Some(value) = config.get(&self.config_section, key).filter(|value| !fits(value)) {
                return Err(Error::new(format!("the description of {} is of other models", self.title))
                    .expected(format!("{key}: {wanted}"), value)
                    .hint("a model of that kind needs a description of its own, or more of this one"));
            }
        }
        Ok(())
    }

    /// The parameter that a tied checkpoint does without, and the key that says that it does:
    /// `lm_head.weight`, `tie_word_embeddings`.
    pub fn tied(&self) -> Option<(&str, &str)> {
        self.components
            .iter()
            .find_map(|t| Some((t.params.first()?.as_str(), t.tied.as_ref()?.flag.as_str())))
    }

    /// The names under which a checkpoint may keep a parameter, the usual one first.
    pub fn stored_names(&self, param: &str) -> impl Iterator<Item = String> {
        let names: Vec<String> = match param.strip_prefix("model.") {
            Some(local) => self.weight_prefixes.iter().map(|prefix| format!("{prefix}{local}")).collect(),
            None => vec![param.to_owned()],
        };
        names.into_iter()
    }

    /// The built-in description with this name, as a trace's manifest has it.
    pub fn named(name: &str) -> Result<Self> {
        find(|d| d.name == name)?.ok_or_else(|| unknown("architecture", name))
    }

    /// The built-in description for a model whose configuration names these types.
    pub fn for_model_types(types: &[&str]) -> Result<Self> {
        find(|d| types.iter().any(|t| d.model_types.iter().any(|known| known == t)))?
            .ok_or_else(|| unknown("model_type", types.first().copied().unwrap_or("(none)")))
    }
}

fn find(accept: impl Fn(&Description) -> bool) -> Result<Option<Description>> {
    for text in ARCHITECTURES {
        let description = Description::parse(text)?;
        if accept(&description) {
            return Ok(Some(description));
        }
    }
    Ok(None)
}

fn unknown(what: &str, name: &str) -> Error {
    let mut known: Vec<String> = ARCHITECTURES
        .iter()
        .filter_map(|text| Description::parse(text).ok())
        .flat_map(|d| std::iter::once(d.name).chain(d.model_types))
        .collect();
    known.dedup();
    let list = known.join(", ");
    Error::new(format!("no description for {what} `{name}`")).hint(
        match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? known: {list}"),
            None => format!("known: {list}"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_description_parses() {
        for text in ARCHITECTURES {
            Description::parse(text).unwrap();
        }
    }

    #[test]
    fn an_unknown_architecture_offers_the_nearest() {
        let error = Description::named("qwen35").unwrap_err().to_string();
        assert!(
            error.contains("did you mean `qwen3_5`") || error.contains("did you mean `qwen3`"),
            "{error}"
        );
    }

    fn config(of: serde_json::Value) -> ModelConfig {
        ModelConfig::new(of).unwrap()
    }

    #[test]
    fn what_an_older_configuration_lacks_is_taken_from_the_description() {
        let llama = Description::named("llama").unwrap();
        let old = config(serde_json::json!({"hidden_size": 96, "num_attention_heads": 6}));
        let number = |key: &str| llama.number(&old, key).unwrap();
        assert_eq!([number("head_dim"), number("num_key_value_heads")], [16.0, 6.0]);
        assert_eq!(number("rope_parameters.rope_theta"), 1e4);
        let middle = config(serde_json::json!({"rope_theta": 5e5}));
        assert_eq!(llama.number(&middle, "rope_parameters.rope_theta"), Ok(5e5));
        assert!(llama.number(&old, "intermediate_size").is_err());
    }

    #[test]
    fn a_model_that_differs_from_the_described_ones_is_refused() {
        let llama = Description::named("llama").unwrap();
        for other in [
            serde_json::json!({"attention_bias": true}),
            serde_json::json!({"rope_parameters": {"rope_type": "yarn"}}),
            serde_json::json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ] {
            let error = llama.check(&config(other)).unwrap_err().to_string();
            assert!(error.contains("expected") && error.contains("description of Llama decoder"), "{error}");
        }
        for described in [
            serde_json::json!({"attention_bias": false, "rope_scaling": null}),
            serde_json::json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            serde_json::json!({"rope_parameters": {"rope_type": "llama3"}}),
        ] {
            llama.check(&config(described)).unwrap();
        }
    }
}
