use super::*;
use crate::model::{Graph, ModelConfig};
use crate::tensor::DType;
use serde_json::json;

fn graph() -> Graph {
    let config = json!({
        "model_type": "qwen3_5", "hidden_size": 8, "vocab_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 12,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
        "linear_value_head_dim": 10, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25}
    });
    Graph::for_config(&ModelConfig::new(config).unwrap()).unwrap()
}

fn restore(point: &str, gains: &Gains) -> std::result::Result<Restore, String> {
    Restore::new(graph().get(point).unwrap(), 8, 7, gains).unwrap()
}

fn row() -> Vec<f64> {
    (0..8).map(|i| f64::from(i * i) - 7.5).collect()
}

#[test]
fn a_basis_names_its_seed_or_is_refused() {
    assert_eq!(seed(&name(u64::MAX)), Ok(Some(u64::MAX)));
    assert_eq!(seed("original"), Ok(None));
    assert_eq!(seed("of another kind"), Ok(None));
    for bad in ["quarot", "quarot:", "quarot:x", "quarot:-1", "quarot7"] {
        assert!(seed(bad).unwrap_err().to_string().contains("without its seed"), "{bad}");
    }
}

#[test]
fn rotating_and_back_gives_the_row() {
    let rotation = Rotation::new(7, 8).unwrap();
    let mut x = row();
    rotation.apply(&mut x);
    assert!(x.iter().zip(row()).any(|(a, b)| (a - b).abs() > 1.0));
    rotation.apply_inverse(&mut x);
    assert!(x.iter().zip(row()).all(|(a, b)| (a - b).abs() < 1e-14), "{x:?}");
    assert!(Rotation::new(7, 12).unwrap_err().to_string().contains("power of two"));
}

#[test]
fn a_normed_point_gets_its_gain_back_and_needs_it() {
    let gains =
        Gains::new(BTreeMap::from([("model.norm.weight".into(), (0..8).map(f64::from).collect::<Vec<_>>())]));
    let mut x = row();
    Rotation::new(7, 8).unwrap().apply(&mut x);
    restore("model.norm", &gains).unwrap().apply(&mut x);
    let expected = row().into_iter().zip(1..).map(|(v, factor)| v * f64::from(factor));
    assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-13), "{x:?}");
    assert!(restore("model.norm", &Gains::default()).unwrap_err().contains("original one is unknown"));
    assert!(restore("model.layers.0", &Gains::default()).is_ok());
    let short = Gains::new(BTreeMap::from([("model.norm.weight".into(), vec![0.0; 4])]));
    assert!(restore("model.norm", &short).unwrap_err().contains("4 wide, the point 8"));
}

#[test]
fn a_point_that_no_rotation_touches_cannot_be_brought_back() {
    assert!(restore("model.layers.0.mlp.act", &Gains::default()).unwrap_err().contains("does not touch"));
}

#[test]
fn any_piece_of_a_tensor_reads_as_the_whole_does() {
    let rotation = Rotation::new(7, 8).unwrap();
    let rows: Vec<f64> = (0..5).flat_map(|t| row().into_iter().map(move |v| v + f64::from(t))).collect();
    let mut rotated = rows.clone();
    rotated.chunks_exact_mut(8).for_each(|row| rotation.apply(row));
    let bytes: Vec<u8> = rotated.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView { dtype: DType::F64, shape: &[5, 8], bytes: &bytes };
    let restored = Restored { view, restore: Some(restore("model.layers.0", &Gains::default()).unwrap()) };
    for (start, len) in [(0, 40), (0, 3), (5, 6), (8, 8), (13, 27), (39, 1), (7, 0)] {
        let mut out = vec![f64::NAN; len];
        restored.read_into(start, &mut out);
        assert!(out.iter().zip(&rows[start..]).all(|(a, b)| (a - b).abs() < 1e-13), "{start} {len}");
    }
}
