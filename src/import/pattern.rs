//! Names of files with places for numbers: `blk.{i}.attn_q`.

use std::collections::HashSet;

/// What the places of a pattern stood for in a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub layer: Option<usize>,
    pub step: Option<u32>,
    pub prompt: Option<String>,
}

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Layer,
    Step,
    Prompt,
    Any,
}

const PLACES: [(&str, Part<'static>); 4] =
    [("{i}", Part::Layer), ("{step}", Part::Step), ("{prompt}", Part::Prompt), ("*", Part::Any)];

fn parts(mut pattern: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    while !pattern.is_empty() {
        let next = PLACES.iter().filter_map(|(word, part)| Some((pattern.find(word)?, *word, *part)));
        let (at, word, part) = next.min_by_key(|next| next.0).unwrap_or((pattern.len(), "", Part::Any));
        if at > 0 {
            parts.push(Part::Text(&pattern[..at]));
        }
        // Two of them in a row say what one says.
        if !word.is_empty() && (part != Part::Any || parts.last() != Some(&Part::Any)) {
            parts.push(part);
        }
        pattern = &pattern[at + word.len()..];
    }
    parts
}

/// How far a name was matched: part of the pattern, place in the name, and what the places stood for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    part: usize,
    at: usize,
    layer: Option<usize>,
    step: Option<u32>,
    prompt: Option<(usize, usize)>,
}

/// What a name has in a pattern's places; none where it does not fit.
pub(super) fn fit(pattern: &str, name: &str) -> Option<Found> {
    // A name may itself have what means a place.
    if pattern == name {
        return Some(Found::default());
    }
    let parts = parts(pattern);
    // Each state is looked at once, so that a pattern of many `*` costs no more than its length times the name's.
    let mut seen = HashSet::new();
    let mut open = vec![State { part: 0, at: 0, layer: None, step: None, prompt: None }];
    while let Some(state) = open.pop() {
        let Some(part) = parts.get(state.part) else {
            if state.at == name.len() {
                let prompt = state.prompt.map(|(start, end)| name[start..end].to_owned());
                return Some(Found { layer: state.layer, step: state.step, prompt });
            }
            continue;
        };
        if !seen.insert(state) {
            continue;
        }
        let rest = &name[state.at..];
        let next = State { part: state.part + 1, ..state };
        // What is pushed last is tried first: the longest, for a number is all its digits.
        match part {
            Part::Text(text) if rest.starts_with(text) => {
                open.push(State { at: state.at + text.len(), ..next });
            }
            Part::Text(_) => {}
            Part::Any => {
                open.push(next);
                if let Some(c) = rest.chars().next() {
                    open.push(State { at: state.at + c.len_utf8(), ..state });
                }
            }
            Part::Layer | Part::Step => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                // No number that is read has more.
                for end in 1..=digits.min(20) {
                    let at = state.at + end;
                    // A place that is there twice must stand for the same.
                    if *part == Part::Layer {
                        let Ok(n) = rest[..end].parse() else { break };
                        if state.layer.is_none_or(|before| before == n) {
                            open.push(State { at, layer: Some(n), ..next });
                        }
                    } else {
                        let Ok(n) = rest[..end].parse() else { break };
                        if state.step.is_none_or(|before| before == n) {
                            open.push(State { at, step: Some(n), ..next });
                        }
                    }
                }
            }
            Part::Prompt => {
                let ends =
                    rest.char_indices().take_while(|(_, c)| *c != '/').map(|(at, c)| at + c.len_utf8());
                for end in ends {
                    let at = state.at + end;
                    let same = |(start, end): (usize, usize)| name[start..end] == name[state.at..at];
                    if state.prompt.is_none_or(same) {
                        open.push(State { at, prompt: state.prompt.or(Some((state.at, at))), ..next });
                    }
                }
            }
        }
    }
    None
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
        assert_eq!(fit("{prompt}-{prompt}", "a-b"), None);
        assert_eq!(fit("{prompt}-{prompt}", "a-a").unwrap().prompt.as_deref(), Some("a"));
        assert_eq!(fit("{i}", "99999999999999999999999"), None);
    }

    #[test]
    fn a_pattern_of_many_places_is_decided_at_once() {
        let name = "a".repeat(300);
        assert_eq!(fit(&format!("{}x", "*a".repeat(60)), &name), None);
        assert!(fit(&"*a".repeat(60), &name).is_some());
    }

    #[test]
    fn directories_say_prompt_and_step() {
        let (found, rest) = placed("code-01/step_2/layer_0", &["code-01"]);
        assert_eq!((found.prompt.as_deref(), found.step, rest), (Some("code-01"), Some(2), "layer_0"));
        let (found, rest) = placed("other/layer_0", &["code-01"]);
        assert_eq!((found.prompt, found.step, rest), (None, None, "other/layer_0"));
    }
}
