//! Names of files with places for numbers: `blk.{i}.attn_q`.

/// What the places of a pattern stood for in a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub layer: Option<usize>,
    pub step: Option<u32>,
    pub prompt: Option<String>,
}

/// What a name has in a pattern's places; none where it does not fit.
pub(super) fn fit(pattern: &str, name: &str) -> Option<Found> {
    let places = ["{i}", "{step}", "{prompt}", "*"];
    let next = places.iter().filter_map(|place| Some((pattern.find(place)?, *place))).min();
    let Some((at, place)) = next else {
        return (pattern == name).then(Found::default);
    };
    let rest = name.strip_prefix(&pattern[..at])?;
    let pattern = &pattern[at + place.len()..];
    let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
    // The longest first: a number is all its digits.
    let ends: Vec<usize> =
        if place == "*" { std::iter::once(0).chain(ends).collect() } else { ends.collect() };
    ends.into_iter().rev().find_map(|end| {
        let (value, rest) = rest.split_at(end);
        let digits = || value.bytes().all(|b| b.is_ascii_digit());
        let own = match place {
            "{i}" => Found { layer: Some(digits().then(|| value.parse().ok())??), ..Found::default() },
            "{step}" => Found { step: Some(digits().then(|| value.parse().ok())??), ..Found::default() },
            "{prompt}" => {
                Found { prompt: (!value.contains('/')).then(|| value.to_owned()), ..Found::default() }
            }
            _ => Found::default(),
        };
        if place == "{prompt}" && own.prompt.is_none() {
            return None;
        }
        let others = fit(pattern, rest)?;
        // A place that is there twice must stand for the same.
        let same = |a: bool, b: bool| a || b;
        let agrees = same(own.layer.is_none() || others.layer.is_none(), own.layer == others.layer)
            && same(own.step.is_none() || others.step.is_none(), own.step == others.step)
            && same(own.prompt.is_none() || others.prompt.is_none(), own.prompt == others.prompt);
        agrees.then(|| Found {
            layer: own.layer.or(others.layer),
            step: own.step.or(others.step),
            prompt: own.prompt.or(others.prompt),
        })
    })
}

/// Prompt and step that a path says by its directories, and the name without them: `code-01/step_2/layer_0`.
pub(super) fn placed<'a>(name: &'a str, prompts: &[&str]) -> (Found, &'a str) {
    let mut found = Found::default();
    let mut rest = name;
    while let Some((dir, below)) = rest.split_once('/') {
        let step =
            dir.strip_prefix("step").map(|n| n.trim_start_matches(['_', '-'])).and_then(|n| n.parse().ok());
        if found.prompt.is_none() && found.step.is_none() && prompts.contains(&dir) {
            found.prompt = Some(dir.to_owned());
        } else if found.step.is_none() && step.is_some() {
            found.step = step;
        } else {
            break;
        }
        rest = below;
    }
    (found, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_takes_a_whole_number_and_the_rest_must_be_equal() {
        assert_eq!(fit("blk.{i}.q", "blk.12.q").unwrap().layer, Some(12));
        assert_eq!(fit("blk.{i}.q", "blk.x.q"), None);
        assert_eq!(fit("blk.{i}.q", "blk.1.qq"), None);
        assert_eq!(fit("s{step}/l{i}", "s3/l4"), Some(Found { step: Some(3), layer: Some(4), prompt: None }));
        assert_eq!(fit("{prompt}/l{i}", "code-01/l4").unwrap().prompt.as_deref(), Some("code-01"));
        assert!(fit("*/x", "a/b/x").is_some() && fit("*", "").is_some() && fit("*y", "x").is_none());
        assert_eq!(fit("{i}.{i}", "1.2"), None);
        assert!(fit("{i}.{i}", "12.12").is_some());
    }

    #[test]
    fn directories_say_prompt_and_step() {
        let (found, rest) = placed("code-01/step_2/layer_0", &["code-01"]);
        assert_eq!((found.prompt.as_deref(), found.step, rest), (Some("code-01"), Some(2), "layer_0"));
        let (found, rest) = placed("other/layer_0", &["code-01"]);
        assert_eq!((found.prompt, found.step, rest), (None, None, "other/layer_0"));
    }
}
