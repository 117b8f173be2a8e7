use super::*;
use crate::model::{Description, ModelConfig};
use serde_json::json;

fn graph() -> Graph {
    let config = json!({
        "model_type": "qwen3_5", "hidden_size": 8, "vocab_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 12,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
        "linear_value_head_dim": 10, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25}
    });
    Graph::new(Description::named("qwen3_5").unwrap(), &ModelConfig::new(config).unwrap()).unwrap()
}

const X: &str = "model.layers.0.linear_attn.out_proj";

fn adapter(rank: usize, scale: f64) -> Adapter {
    Adapter { modules: BTreeMap::from([(X.to_owned(), LowRank { rank, scale })]) }
}

#[test]
fn an_adapted_linear_is_four_components_in_order_of_execution() {
    let graph = graph().adapted(&adapter(3, 2.0)).unwrap();
    let at = graph.components().iter().position(|c| c.point == format!("{X}.base_layer")).unwrap();
    let [base, down, up, sum] = &graph.components()[at..at + 4] else { unreachable!() };
    let points = [base, down, up, sum].map(|c| c.point.strip_prefix(X).unwrap().to_owned());
    assert_eq!(points, [".base_layer", ".lora_A", ".lora_B", ""]);
    assert_eq!([base, down, up, sum].map(|c| c.op), [Op::Linear, Op::Linear, Op::Linear, Op::AddScaled]);
    assert_eq!(base.params, [format!("{X}.weight")]);
    assert_eq!(up.params, [format!("{X}.lora_B.weight")]);
    assert_eq!(base.inputs, ["model.layers.0.linear_attn.norm"]);
    assert_eq!(down.inputs, base.inputs);
    assert_eq!(sum.inputs, [base.point.clone(), up.point.clone()]);
    assert_eq!(sum.attrs["scale"], 2.0);
    assert_eq!((base.basis, down.basis, sum.basis), (Basis::Residual, Basis::Original, Basis::Residual));
    assert_eq!([base, up, sum].map(|c| c.family.as_str()), ["adapter", "adapter", "projection"]);
    assert_eq!(up.local, "linear_attn.out_proj.lora_B");
    assert!([base, down, up].iter().all(|c| c.is_adapter_part()) && !sum.is_adapter_part());
}

#[test]
fn the_shapes_and_the_longest_sums_of_an_adapted_linear_follow_its_rank() {
    let graph = graph().adapted(&adapter(3, 2.0)).unwrap();
    let component = |part: &str| graph.get(&format!("{X}{part}")).unwrap();
    let shape = |part: &str| graph.shape(component(part), 5, 7);
    assert_eq!([shape(".base_layer"), shape(".lora_B"), shape("")], [[5, 8], [5, 8], [5, 8]]);
    assert_eq!(shape(".lora_A"), [5, 3]);
    let summands = |part: &str| graph.summands(component(part), 5, 7);
    assert_eq!([".base_layer", ".lora_A", ".lora_B", ""].map(summands), [40, 40, 3, 1]);
}

#[test]
fn nothing_but_the_adapted_linears_changes() {
    let (plain, adapted) = (graph(), graph().adapted(&adapter(3, 2.0)).unwrap());
    assert_eq!(adapted.components().len(), plain.components().len() + 3);
    for component in plain.components().iter().filter(|c| c.point != X) {
        assert_eq!(adapted.get(&component.point), Some(component));
    }
}

#[test]
fn any_linear_can_be_adapted_and_nothing_else() {
    let all = graph();
    let linears = all.components().iter().filter(|c| c.op == Op::Linear);
    let modules = linears.map(|c| (c.point.clone(), LowRank { rank: 2, scale: 1.0 }));
    let every = Adapter { modules: modules.collect() };
    let adapted = all.adapted(&every).unwrap();
    assert_eq!(adapted.components().len(), all.components().len() + 3 * every.modules.len());
    for (name, wanted) in [
        ("model.norm", "linears only"),
        ("model.layers.0.self_attn.q_proj", "which this model has not"),
        ("model.layers.9.mlp.up_proj", "the nearest linear here is `model.layers.3.mlp.up_proj`"),
    ] {
        let one = Adapter { modules: BTreeMap::from([(name.to_owned(), LowRank { rank: 2, scale: 1.0 })]) };
        let error = all.adapted(&one).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn an_impossible_rank_or_scale_is_refused_and_so_is_an_adapter_of_nothing() {
    for bad in [adapter(0, 1.0), adapter(usize::MAX, 1.0), adapter(4, f64::NAN), Adapter::default()] {
        assert!(graph().adapted(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_scale_that_was_rounded_to_32_bits_agrees_and_another_does_not() {
    let third = adapter(3, 1.0 / 3.0);
    assert!(third.agrees_with(&adapter(3, f64::from(1.0f32 / 3.0))));
    assert!(!third.agrees_with(&adapter(3, 2.0 / 3.0)));
    assert!(!third.agrees_with(&adapter(4, 1.0 / 3.0)));
}
