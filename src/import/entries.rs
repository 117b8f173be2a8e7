//! The entries of a map that suggestions make: together they import what they were made for.

use super::format::Item;
use super::pattern::{Found, fit, placed};
use super::plan::{Place, Plan, Target};
use super::suggest::{Guess, Suggestion};
use crate::error::plain;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What one entry is for: dumps of one name in several steps, or a single one.
#[derive(Debug)]
struct Group<'a> {
    file: &'a str,
    members: Vec<&'a Suggestion>,
    guess: Option<&'a Guess>,
    /// Why it is left out though it is known.
    twice: bool,
}

/// The entries: those of single names first, for the first that fits counts; then those with `{i}`.
pub(super) fn entries(
    suggestions: &[Suggestion],
    items: &[Item],
    plan: &Plan<'_>,
    target: &Target<'_>,
) -> Vec<String> {
    let mut groups = grouped(suggestions);
    claim(&mut groups, plan, target);
    let ids: Vec<&str> = target.prompts.iter().map(|p| p.id.as_str()).collect();
    let names: Vec<(&str, &str)> =
        items.iter().map(|item| (item.name.as_str(), placed(&item.name, &ids).1)).collect();
    // A name with a directory fits less than one without.
    groups.sort_by_key(|group| std::cmp::Reverse(group.file.matches('/').count()));
    let (mut single, mut general, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for group in &groups {
        if let Some((file, point)) = pattern(group).filter(|p| holds(p, &groups, group, &names)) {
            if seen.insert((file.clone(), point.clone())) {
                general.push(entry(&file, Some((&point, group.guess.expect("a point has one")))));
            }
        } else if has_place(group.file) {
            let others = names.iter().filter(|(name, short)| *short != group.file && *name != group.file);
            if others.clone().any(|(name, short)| fit(group.file, name).or(fit(group.file, short)).is_some())
            {
                general.push(format!("# `{}` means other names too in a map: rename it\n", group.file));
            } else {
                general.push(described(group));
            }
        } else {
            single.push(described(group));
        }
    }
    single.extend(general);
    single
}

/// Dumps of one name make one group, where one entry can be right for all of them.
fn grouped<'a>(suggestions: &'a [Suggestion]) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    let mut seen = BTreeSet::new();
    for first in suggestions.iter().filter(|s| seen.insert(s.file.as_str())) {
        let members: Vec<_> = suggestions.iter().filter(|s| s.file == first.file).collect();
        let guess = members.iter().find_map(|s| s.value.as_ref());
        let agrees = |s: &&&Suggestion| match (guess, &s.value) {
            (Some(guess), Some(own)) => guess.point == own.point && guess.way.is_like(&own.way),
            (Some(guess), None) => s.by_shape.contains(&guess.point),
            (None, _) => true,
        };
        if members.iter().all(|s| agrees(&s)) {
            groups.push(Group { file: &first.file, members, guess, twice: false });
        } else {
            let alone = |s: &'a Suggestion| Group {
                file: &s.name,
                members: vec![s],
                guess: s.value.as_ref(),
                twice: false,
            };
            groups.extend(members.into_iter().map(alone));
        }
    }
    groups
}

/// Of several dumps that are one point's, the nearest is it.
fn claim(groups: &mut [Group<'_>], plan: &Plan<'_>, target: &Target<'_>) {
    let mut taken: BTreeSet<Place> = plan.parts.keys().copied().collect();
    let mut order: Vec<(usize, f64)> =
        groups.iter().enumerate().filter_map(|(i, group)| Some((i, group.guess?.error))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (i, _) in order {
        let group = &mut groups[i];
        let Some(guess) = group.guess else { continue };
        let place = target.graph.components().iter().position(|c| c.point == guess.point);
        let Some(place) = place else { continue };
        let places: BTreeSet<Place> = group.members.iter().map(|s| (s.pass.0, s.pass.1, place)).collect();
        group.twice = !places.is_disjoint(&taken);
        if !group.twice {
            taken.extend(places);
        }
    }
}

/// What a group's entry would be with `{i}` for the layer's number.
fn pattern(group: &Group<'_>) -> Option<(String, String)> {
    let guess = group.guess.filter(|_| !group.twice && !has_place(group.file))?;
    let layer = guess.layer?;
    let file = with_place(group.file, layer)?;
    Some((file, guess.point.replacen(&format!("layers.{layer}"), "layers.{i}", 1)))
}

/// True where an entry with `{i}` says the right thing of all that it fits.
fn holds(
    (file, point): &(String, String),
    groups: &[Group<'_>],
    own: &Group<'_>,
    names: &[(&str, &str)],
) -> bool {
    names.iter().all(|(name, short)| {
        let Some(Found { layer: Some(layer), .. }) = fit(file, name).or_else(|| fit(file, short)) else {
            return true;
        };
        let group = groups.iter().find(|g| g.members.iter().any(|s| s.name == **name));
        group.is_some_and(|group| {
            pattern(group).is_some_and(|p| p == (file.clone(), point.clone()))
                && group.guess.is_some_and(|g| {
                    g.layer == Some(layer) && own.guess.is_some_and(|own| own.way.is_like(&g.way))
                })
        })
    })
}

/// The entry of a group by its own name, and a comment where it needs one.
fn described(group: &Group<'_>) -> String {
    let guess = group.guess.filter(|_| !group.twice);
    let mut out = String::new();
    if group.twice {
        let _infallible = writeln!(out, "# {}, which another dump is", group.members[0].line());
    } else if guess.is_none() {
        let _infallible = writeln!(out, "# {}", group.members[0].line());
    }
    let fused = group.members[0].fused.as_slice();
    if guess.is_none() && !group.twice && !fused.is_empty() {
        let points: Vec<String> = fused.iter().map(|point| quoted(point)).collect();
        let file = quoted(group.file);
        let shape = group.members[0].width.map(|width| format!("shape = [\"tokens\", {width}]\n"));
        let shape = shape.unwrap_or_default();
        let _infallible = writeln!(
            out,
            "[[tensor]]\nfile = {file}\n{shape}split = {{ axis = -1, points = [{}] }}",
            points.join(", ")
        );
        return out;
    }
    out + &entry(group.file, guess.map(|guess| (guess.point.as_str(), guess)))
}

fn entry(file: &str, point: Option<(&str, &Guess)>) -> String {
    let Some((point, guess)) = point else {
        return format!("[[tensor]]\nfile = {}\nignore = true\n", quoted(file));
    };
    let mut out = format!("[[tensor]]\nfile = {}\npoint = {}\n", quoted(file), quoted(point));
    if !guess.way.axes.is_empty() {
        let _infallible = writeln!(out, "transpose = {:?}", guess.way.axes);
    }
    if let Some(width) = guess.way.pairs {
        let _infallible = writeln!(out, "pairs = {{ axis = -1, width = {width} }}");
    }
    out
}

/// True for a name that means more than itself in a map.
fn has_place(name: &str) -> bool {
    ["*", "{i}", "{step}", "{prompt}"].iter().any(|place| name.contains(place))
}

fn quoted(text: &str) -> String {
    // What TOML's basic strings escape, JSON's do alike, but for the last control character.
    serde_json::to_string(&plain(text)).expect("a string")
}

/// A name with `{i}` for the only number in it that is the layer's.
fn with_place(name: &str, layer: usize) -> Option<String> {
    let digits = layer.to_string();
    let bytes = name.as_bytes();
    let alone = |at: usize| {
        !at.checked_sub(1).is_some_and(|i| bytes[i].is_ascii_digit())
            && !bytes.get(at + digits.len()).is_some_and(u8::is_ascii_digit)
    };
    let places: Vec<usize> = name.match_indices(&digits).map(|(at, _)| at).filter(|at| alone(*at)).collect();
    let [at] = places[..] else { return None };
    Some(format!("{}{{i}}{}", &name[..at], &name[at + digits.len()..]))
}
