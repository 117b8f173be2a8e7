//! The components of one model: its architecture's description with its configuration put in.

use super::config::{ModelConfig, whole};
use super::description::{Basis, Description, Op, Template};
use super::expression::evaluate;
use crate::error::{Error, Result, nearest_point};
use crate::tensor::DType;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// One computation between points.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The point where its output is captured; it names the component too.
    pub point: String,
    /// The curve that it belongs to in the report: `residual`, `norm`, `projection`, ….
    pub family: String,
    /// The layer's number; none before and after the layers.
    pub layer: Option<usize>,
    /// The point's name within its layer: `self_attn.k_rope`; empty for the layer's output.
    pub local: String,
    /// What it computes.
    pub op: Op,
    /// The points it reads.
    pub inputs: Vec<String>,
    /// The points of the step before that it reads.
    pub carried: Vec<String>,
    /// The parameter tensors it reads, with `model.` as prefix.
    pub params: Vec<String>,
    /// Constants: numbers, or keys of the configuration.
    pub attrs: BTreeMap<String, Value>,
    /// Basis of the output.
    pub basis: Basis,
    /// Element type that the output must have; any floating-point type when none.
    pub dtype: Option<DType>,
    /// Sizes of the output, by name.
    pub(super) shape: Vec<String>,
}

impl Component {
    /// The point's name within its layer, or the whole name outside: `self_attn.k_rope`,
    /// `model.norm`; `output` for a layer's output.
    pub fn name(&self) -> &str {
        if self.local.is_empty() { "output" } else { &self.local }
    }
}

/// All components of one model, in order of execution.
#[derive(Debug, Clone)]
pub struct Graph {
    description: Description,
    layer_types: Vec<String>,
    dims: BTreeMap<String, usize>,
    components: Vec<Component>,
    index: HashMap<String, usize>,
}

impl Graph {
    /// Expands the built-in description that fits the configuration.
    pub fn for_config(config: &ModelConfig) -> Result<Self> {
        Self::new(Description::for_model_types(&config.model_types())?, config)
    }

    /// Expands `description` for a model's configuration.
    pub fn new(description: Description, config: &ModelConfig) -> Result<Self> {
        description.check(config)?;
        let layer_types = layer_types(&description, config)?;
        let dims = description
            .dims
            .iter()
            .map(|(name, text)| {
                let value = evaluate(text, &|key| description.number(config, key))?;
                Ok((name.clone(), whole(name, value)?))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let mut graph =
            Self { layer_types, dims, components: Vec::new(), index: HashMap::new(), description };
        graph.expand(config)?;
        Ok(graph)
    }

    fn expand(&mut self, config: &ModelConfig) -> Result<()> {
        let templates = self.description.components.clone();
        let first = templates.iter().position(|t| t.point.contains("{i}")).unwrap_or(templates.len());
        let last = templates.iter().rposition(|t| t.point.contains("{i}")).map_or(first, |p| p + 1);
        let (before, rest) = templates.split_at(first);
        let (inside, after) = rest.split_at(last - first);
        for template in before {
            self.add(template, None, &templates, config)?;
        }
        for layer in 0..self.layer_types.len() {
            for template in inside {
                self.add(template, Some(layer), &templates, config)?;
            }
        }
        for template in after {
            self.add(template, None, &templates, config)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        template: &Template,
        layer: Option<usize>,
        all: &[Template],
        config: &ModelConfig,
    ) -> Result<()> {
        if !self.exists_in(template, layer) {
            return Ok(());
        }
        let named =
            |text: &str| layer.map_or_else(|| text.to_owned(), |i| text.replace("{i}", &i.to_string()));
        let mut inputs = Vec::new();
        for input in &template.inputs {
            match input.as_str() {
                "@layer_input" => inputs.push(self.layer_input(layer.unwrap_or(0))),
                "@last_layer" => inputs.push(self.layer_input(self.layer_types.len())),
                _ => {
                    let source = all.iter().find(|t| t.point == *input).ok_or_else(|| {
                        Error::new(format!(
                            "`{}` reads `{input}`, which no component computes",
                            template.point
                        ))
                    })?;
                    if self.exists_in(source, layer) {
                        inputs.push(named(input));
                    }
                }
            }
        }
        let section = self.description.config_section.as_str();
        let params = match &template.tied {
            Some(tied) if config.get(section, &tied.flag) == Some(&Value::Bool(true)) => &tied.params,
            _ => &template.params,
        };
        let point = named(&template.point);
        let prefix = layer.map_or_else(String::new, |i| format!("model.layers.{i}"));
        let component = Component {
            family: template.family.clone(),
            layer,
            local: point.strip_prefix(&prefix).unwrap_or(&point).trim_start_matches('.').to_owned(),
            op: template.op,
            inputs,
            carried: template.carried.iter().map(|point| named(point)).collect(),
            params: params.iter().map(|p| named(p)).collect(),
            attrs: template.attrs.clone(),
            basis: template.basis,
            dtype: template.dtype,
            shape: template.shape.clone(),
            point: point.clone(),
        };
        for name in &component.shape {
            if !matches!(name.as_str(), "tokens" | "context") && !self.dims.contains_key(name) {
                return Err(Error::new(format!("`{point}` has an unknown size `{name}` in its shape")));
            }
        }
        self.push(component)
    }

    /// Adds the next component in the order of execution.
    pub(super) fn push(&mut self, component: Component) -> Result<()> {
        if self.index.insert(component.point.clone(), self.components.len()).is_some() {
            return Err(Error::new(format!("two components are named `{}`", component.point)));
        }
        self.components.push(component);
        Ok(())
    }

    /// The same model, its components yet to be added.
    pub(super) fn without_components(&self) -> Self {
        Self { components: Vec::new(), index: HashMap::new(), ..self.clone() }
    }

    /// Gives a size a name that shapes may use, and returns the name.
    pub(super) fn named_size(&mut self, name: String, size: usize) -> String {
        self.dims.insert(name.clone(), size);
        name
    }

    fn exists_in(&self, template: &Template, layer: Option<usize>) -> bool {
        match (&template.layer_type, layer) {
            (Some(wanted), Some(i)) => *wanted == self.layer_types[i],
            _ => true,
        }
    }

    /// The point that layer `i` reads: the embedding, or the output of the layer before.
    fn layer_input(&self, i: usize) -> String {
        match i {
            0 => self.components[0].point.clone(),
            _ => format!("model.layers.{}", i - 1),
        }
    }

    /// The architecture's description.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The components, in order of execution.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The type of each layer.
    pub fn layer_types(&self) -> &[String] {
        &self.layer_types
    }

    /// The size that the description calls `name`.
    ///
    /// # Panics
    /// When the description has no such size.
    pub fn dim(&self, name: &str) -> usize {
        self.dims[name]
    }

    /// The same for a name that the description may not have.
    pub fn size(&self, name: &str) -> Option<usize> {
        self.dims.get(name).copied()
    }

    /// What the description calls its sizes.
    pub fn size_names(&self) -> impl Iterator<Item = &str> {
        self.dims.keys().map(String::as_str)
    }

    /// The name of a size, or of the layers, that another model has otherwise; none for a model of the same
    /// form.
    pub fn differs_in(&self, other: &Self) -> Option<&str> {
        if self.layer_types != other.layer_types {
            return Some("layers");
        }
        self.dims
            .iter()
            .find(|(name, size)| other.dims.get(*name) != Some(size))
            .map(|(name, _)| name.as_str())
    }

    /// The component at `point`; an error that offers the nearest name when there is none.
    pub fn component(&self, point: &str) -> Result<&Component> {
        self.get(point).ok_or_else(|| {
            let error = Error::new(format!("no point `{point}` in this model"));
            match nearest_point(point, self.components.iter().map(|c| c.point.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`layerdiff inspect TRACE` lists the points"),
            }
        })
    }

    /// The component at `point`, if there is one.
    pub fn get(&self, point: &str) -> Option<&Component> {
        self.index.get(point).map(|&i| &self.components[i])
    }

    /// Where `point` stands in the order of execution, if there is such a component.
    pub fn position(&self, point: &str) -> Option<usize> {
        self.index.get(point).copied()
    }

    /// The shape of a component's output in a step of `tokens` tokens that sees `context` tokens.
    pub fn shape(&self, component: &Component, tokens: usize, context: usize) -> Vec<usize> {
        component
            .shape
            .iter()
            .map(|name| match name.as_str() {
                "tokens" => tokens,
                "context" => context,
                name => self.dims[name],
            })
            .collect()
    }

    /// How many terms the longest sum has that this component computes for one element.
    pub fn summands(&self, component: &Component, tokens: usize, context: usize) -> usize {
        let last = |c: &Component| self.shape(c, tokens, context).last().copied().unwrap_or(1);
        // All but the token axis: a linear may read heads that lie side by side.
        let width = |c: &Component| {
            let axis = self.token_axis(c);
            let sizes = self.shape(c, tokens, context).into_iter().enumerate();
            sizes.filter(|(i, _)| Some(*i) != axis).map(|(_, n)| n).product()
        };
        let input = component.inputs.first().and_then(|point| self.get(point));
        match component.op {
            Op::RmsNorm | Op::GatedRmsNorm | Op::L2Norm | Op::Softmax => last(component),
            Op::Linear => input.map_or(1, width),
            Op::AttentionContext => context,
            // What the recurrence adds up over the tokens fades with the decay, and shows in the floor.
            Op::AttentionScores | Op::DeltaRule | Op::DeltaRuleState => input.map_or(1, last),
            Op::Embedding
            | Op::RopeTable
            | Op::SplitHeads
            | Op::Rope
            | Op::CausalMask
            | Op::KvCache
            | Op::SigmoidGate
            | Op::Sigmoid
            | Op::CausalConvSilu
            | Op::ConvState
            | Op::GdnDecay
            | Op::Add
            | Op::AddScaled
            | Op::SiluMul => 1,
        }
    }

    /// Which axis of the component's output counts tokens, if one does.
    pub fn token_axis(&self, component: &Component) -> Option<usize> {
        component.shape.iter().position(|name| name == "tokens")
    }

    /// Names of the sizes in the component's shape.
    pub fn axes<'a>(&self, component: &'a Component) -> &'a [String] {
        &component.shape
    }
}

fn layer_types(description: &Description, config: &ModelConfig) -> Result<Vec<String>> {
    let section = description.config_section.as_str();
    let layers = &description.layers;
    let count = config.size(section, &layers.count)?;
    if count > 4096 {
        return Err(
            Error::new("the model's configuration has too many layers").expected("at most 4096", count)
        );
    }
    if let Some(value) = config.get(section, &layers.types_key) {
        let types: Vec<String> = serde_json::from_value(value.clone()).map_err(|_| {
            Error::new(format!("the model's configuration has a bad `{}`", layers.types_key))
                .expected("an array of strings", value)
        })?;
        if types.len() != count {
            return Err(Error::new(format!("`{}` does not fit `{}`", layers.types_key, layers.count))
                .expected(format!("{count} types"), types.len()));
        }
        if let Some(unknown) = types.iter().find(|t| **t != layers.interval_type && **t != layers.other_type)
        {
            let known = match (&layers.interval_type, &layers.other_type) {
                (one, other) if one == other => one.clone(),
                (one, other) => format!("{one} or {other}"),
            };
            return Err(
                Error::new(format!("unknown layer type in `{}`", layers.types_key)).expected(known, unknown)
            );
        }
        return Ok(types);
    }
    let interval = match config.get(section, &layers.interval_key) {
        Some(_) => config.size(section, &layers.interval_key)?,
        None => layers.interval_default,
    };
    Ok((0..count)
        .map(|i| if (i + 1) % interval == 0 { &layers.interval_type } else { &layers.other_type }.clone())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(extra: Value) -> ModelConfig {
        let mut text = json!({
            "model_type": "qwen3_5_text", "hidden_size": 8, "vocab_size": 32, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 24,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
            "linear_value_head_dim": 10, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25}
        });
        text.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ModelConfig::new(json!({"model_type": "qwen3_5", "text_config": text})).unwrap()
    }

    #[test]
    fn every_fourth_layer_is_full_attention_unless_the_types_are_listed() {
        let graph = Graph::for_config(&config(json!({}))).unwrap();
        assert_eq!(graph.layer_types()[3], "full_attention");
        assert!(graph.get("model.layers.3.self_attn.k_rope").is_some());
        assert!(graph.get("model.layers.2.self_attn.k_rope").is_none());
        let types = json!({"layer_types": ["full_attention", "linear_attention", "linear_attention", "linear_attention"]});
        assert!(Graph::for_config(&config(types)).unwrap().get("model.layers.0.self_attn.k_rope").is_some());
    }

    #[test]
    fn every_input_is_a_point_that_comes_earlier() {
        let graph = Graph::for_config(&config(json!({}))).unwrap();
        for (i, component) in graph.components().iter().enumerate() {
            for input in &component.inputs {
                let at = graph.index.get(input).unwrap_or_else(|| panic!("{input}"));
                assert!(*at < i, "{} reads {input}", component.point);
            }
        }
    }

    #[test]
    fn a_residual_adds_the_layer_s_input_and_its_own_mixer() {
        let graph = Graph::for_config(&config(json!({}))).unwrap();
        let inputs = |layer: usize| {
            graph.get(&format!("model.layers.{layer}.post_attention_residual")).unwrap().inputs.clone()
        };
        assert_eq!(inputs(0), ["model.embed_tokens", "model.layers.0.linear_attn.out_proj"]);
        assert_eq!(inputs(3), ["model.layers.2", "model.layers.3.self_attn.o_proj"]);
    }

    #[test]
    fn shapes_follow_the_configuration_and_the_step() {
        let graph = Graph::for_config(&config(json!({}))).unwrap();
        let shape = |point: &str| graph.shape(graph.get(point).unwrap(), 5, 7);
        assert_eq!(shape("model.layers.3.self_attn.scores"), [4, 5, 7]);
        assert_eq!(shape("model.layers.0.linear_attn.in_proj_qkv"), [5, 64]);
        assert_eq!(shape("model.rotary_emb.cos"), [5, 2]);
        assert_eq!(shape("model.layers.0.linear_attn.conv_state"), [64, 3]);
    }

    #[test]
    fn the_longest_sum_of_a_component_is_known() {
        let graph = Graph::for_config(&config(json!({}))).unwrap();
        let summands = |point: &str| graph.summands(graph.get(point).unwrap(), 5, 7);
        assert_eq!(summands("model.layers.0.input_layernorm"), 8);
        assert_eq!(summands("model.layers.0.linear_attn.out_proj"), 4 * 10);
        assert_eq!(summands("model.layers.3.self_attn.scores"), 16);
        assert_eq!(summands("model.layers.3.self_attn.context"), 7);
        assert_eq!(summands("model.layers.0.mlp.act"), 1);
    }

    #[test]
    fn the_head_reads_the_embedding_when_tied() {
        let params = |tied: bool| {
            let graph = Graph::for_config(&config(json!({"tie_word_embeddings": tied}))).unwrap();
            graph.get("lm_head").unwrap().params.clone()
        };
        assert_eq!(params(true), ["model.embed_tokens.weight"]);
        assert_eq!(params(false), ["lm_head.weight"]);
    }

    #[test]
    fn a_mistyped_point_offers_the_nearest_point() {
        let graph = Graph::for_config(&config(json!({}))).unwrap();
        let error = graph.component("model.layers.3.self_attn.k_ropes").unwrap_err().to_string();
        assert!(error.contains("did you mean `model.layers.3.self_attn.k_rope`"), "{error}");
    }
}
