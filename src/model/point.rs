//! Names of points.

/// The layer's number in a point's name: 3 for `model.layers.3.self_attn.k_rope`.
pub fn layer_of(point: &str) -> Option<usize> {
    let (_, rest) = point.split_once("layers.")?;
    rest.split('.').next()?.parse().ok()
}

/// What reports call some points for short, and the points' names.
const ALIASES: [(&str, &str); 2] = [("embed", "model.embed_tokens"), ("logits", "lm_head")];

/// The name that is meant: that of the point for `embed` or `logits`, any other as it is.
pub fn resolve(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, point)| point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_the_number_after_layers() {
        assert_eq!(layer_of("model.layers.12.mlp.act"), Some(12));
        assert_eq!(layer_of("model.layers.3"), Some(3));
        assert_eq!(layer_of("model.norm"), None);
    }
}
