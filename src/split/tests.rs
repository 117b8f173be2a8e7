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

/// Remembers what it was shown.
#[derive(Default)]
struct Log(Vec<(u32, Tensor)>);

impl Hook for Log {
    fn wants(&self, _point: &str) -> bool {
        true
    }

    fn call(&mut self, at: At<'_>, tensor: Tensor) -> Result<Tensor> {
        self.0.push((at.step, tensor.clone()));
        Ok(tensor)
    }
}

/// What is shown of a point of a prefill of three tokens, whose values count up.
fn shown(point: &str) -> Vec<(u32, Tensor)> {
    let (graph, mut log) = (graph(), Log::default());
    let shape = graph.shape(graph.get(point).unwrap(), 3, 3);
    let whole = Tensor::new(&shape, (0u16..shape.iter().product::<usize>() as u16).map(f32::from).collect());
    let at = At { point, step: 0, derived: false, rows: None };
    let returned = Joined { graph: &graph, tokens: 3, inner: &mut log }.call(at, whole.clone()).unwrap();
    assert_eq!(returned, whole);
    log.0
}

#[test]
fn what_counts_tokens_is_cut_before_the_last() {
    let parts = shown("model.layers.0.linear_attn.beta");
    assert_eq!(parts[0], (0, Tensor::new(&[2, 4], (0u8..8).map(f32::from).collect())));
    assert_eq!(parts[1], (1, Tensor::new(&[1, 4], vec![8.0, 9.0, 10.0, 11.0])));
    assert_eq!(parts.len(), 2);
}

#[test]
fn what_counts_tokens_and_context_is_cut_to_what_each_part_sees() {
    let parts = shown("model.layers.3.self_attn.probs");
    let first = [0.0, 1.0, 3.0, 4.0].into_iter();
    let every_head = (0u8..4).flat_map(|h| first.clone().map(move |v| v + f32::from(9 * h))).collect();
    assert_eq!(parts[0], (0, Tensor::new(&[4, 2, 2], every_head)));
    let last = (0u8..4).flat_map(|h| [6, 7, 8].map(|v| f32::from(v + 9 * h))).collect();
    assert_eq!(parts[1], (1, Tensor::new(&[4, 1, 3], last)));
}

#[test]
fn a_cache_is_cut_to_what_each_part_sees() {
    let parts = shown("model.layers.3.self_attn.k_cache");
    let shapes: Vec<_> = parts.iter().map(|(step, tensor)| (*step, tensor.shape.clone())).collect();
    assert_eq!(shapes, [(0, vec![2, 2, 8]), (1, vec![3, 2, 8])]);
}

#[test]
fn a_state_belongs_to_the_last_token() {
    let parts = shown("model.layers.0.linear_attn.recurrent_state");
    assert_eq!(parts.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1]);
    let graph = graph();
    let left_out: Vec<&str> = Feed::Apart.left_out(&graph).collect();
    assert_eq!(left_out.len(), 2 * 3, "{left_out:?}");
    assert!(left_out.contains(&"model.layers.2.linear_attn.conv_state"), "{left_out:?}");
    assert_eq!(Feed::Plain.left_out(&graph).count(), 0);
}

#[test]
fn the_states_after_the_prefill_are_not_shown_of_a_run_apart() {
    let (graph, mut log) = (graph(), Log::default());
    let mut apart = Apart { graph: &graph, inner: &mut log };
    for (step, point) in [(0, "model.norm"), (0, "model.layers.0.linear_attn.conv_state")] {
        apart.call(At { point, step, derived: false, rows: None }, Tensor::new(&[1], vec![0.0])).unwrap();
    }
    let at = At { point: "model.layers.0.linear_attn.conv_state", step: 1, derived: false, rows: None };
    apart.call(at, Tensor::new(&[1], vec![2.0])).unwrap();
    assert_eq!(log.0.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn later_steps_come_one_later() {
    let (graph, mut log) = (graph(), Log::default());
    let at = At { point: "model.norm", step: 2, derived: false, rows: None };
    Joined { graph: &graph, tokens: 3, inner: &mut log }.call(at, Tensor::new(&[1], vec![0.0])).unwrap();
    assert_eq!(log.0[0].0, 3);
}

#[test]
fn a_tensor_that_does_not_have_its_shape_cannot_be_cut() {
    let (graph, mut log) = (graph(), Log::default());
    let at = At { point: "model.norm", step: 0, derived: false, rows: None };
    let mut joined = Joined { graph: &graph, tokens: 3, inner: &mut log };
    let error = joined.call(at, Tensor::new(&[1], vec![0.0])).unwrap_err().to_string();
    assert!(error.contains("expected: [3, 8]"), "{error}");
}

#[test]
fn a_prompt_is_cut_before_its_last_token_and_says_so() {
    let whole = Prompt {
        id: "a".into(),
        category: None,
        text: None,
        token_ids: vec![1, 2, 3],
        step_token_ids: vec![4],
    };
    let prompt = cut(&whole).unwrap();
    assert_eq!(
        (prompt.token_ids.as_slice(), prompt.step_token_ids.as_slice()),
        ([1, 2].as_slice(), [3, 4].as_slice())
    );
    let words = |feed: Feed, steps| feed.describe(std::slice::from_ref(&prompt), steps).unwrap();
    assert_eq!([words(Feed::Apart, 1), words(Feed::Joined, 1)], ["2 tokens and 1 step", "3 tokens"]);
    assert_eq!(
        [words(Feed::Apart, 2), words(Feed::Joined, 2)],
        ["2 tokens and 2 steps", "3 tokens and 1 step"]
    );
    let several = [prompt.clone(), prompt];
    assert_eq!(Feed::Apart.describe(&several, 1).unwrap(), "all tokens but the last and 1 step");
    assert_eq!(Feed::Joined.describe(&several, 1).unwrap(), "all tokens");
    assert_eq!(Feed::Plain.describe(&several, 1), None);
    assert!(cut(&Prompt { token_ids: vec![1], ..whole }).is_err());
}
