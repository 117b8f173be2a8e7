//! The score for programs.

use super::pairs::Pair;
use super::places::{Count, counted};
use super::run::{Score, UNCHECKED, points};
use super::said::{Verdict, together};
use super::score::{Found, Planting, Row};
use crate::report::Outcome;
use serde_json::{Value, json};

/// All plantings. That of one engine is the document itself; of several, they are under `engines`.
pub(super) fn document(scores: &[Score]) -> Value {
    gathered(scores, one)
}

/// The same by fault, a line for each: of the plantings only those of which there is something to say.
pub(super) fn digest(scores: &[Score]) -> String {
    // The document, its engines, each of them, its faults.
    let levels = if scores.len() == 1 { 2 } else { 4 };
    lines(&gathered(scores, short), levels) + "\n"
}

/// JSON with a line for each value down to a level, which keeps a digest short and its differences readable.
fn lines(value: &Value, levels: usize) -> String {
    let inner: Vec<String> = match value {
        Value::Object(map) if levels > 0 => {
            map.iter().map(|(key, value)| format!("{}: {}", json!(key), lines(value, levels - 1))).collect()
        }
        Value::Array(list) if levels > 0 && !list.is_empty() => {
            list.iter().map(|value| lines(value, levels - 1)).collect()
        }
        _ => return value.to_string(),
    };
    let (open, close) = if value.is_object() { ("{", "}") } else { ("[", "]") };
    format!("{open}\n{}\n{close}", inner.join(",\n"))
}

fn gathered(scores: &[Score], one: fn(&Score) -> Value) -> Value {
    match scores {
        [score] => one(score),
        _ => json!({
            "outcome": Outcome::worst(scores.iter().map(Score::outcome)),
            "engines": scores.iter().map(one).collect::<Vec<_>>(),
        }),
    }
}

fn one(score: &Score) -> Value {
    let mut value = head(score);
    value["faults"] = json!(score.rows);
    value["pairs"] = json!(score.pairs);
    value
}

fn head(score: &Score) -> Value {
    let count = |found: Found| score.count(found);
    let plantings = || score.rows.iter().flat_map(|row| &row.plantings);
    let said = |verdict: Verdict| score.rows.iter().map(|row| row.said(verdict)).sum::<usize>();
    let of_pairs = |verdict: Verdict| {
        let all = score.pairs.iter().flat_map(|pair| &pair.plantings);
        all.filter(|p| together(&p.diagnosis) == Some(verdict)).count()
    };
    let places = |[prefill, decode]: [Count; 2]| json!({ "prefill": prefill, "decode": decode });
    let in_pairs = || score.pairs.iter().flat_map(|pair| &pair.plantings).map(|p| &p.places);
    json!({
        "outcome": score.outcome(),
        "engine": score.engine, "path": score.path, "self_check": UNCHECKED,
        "prompts": score.prompts.iter().map(|p| json!({
            "id": p.id, "tokens": p.token_ids.len(), "steps": p.step_token_ids.len()
        })).collect::<Vec<_>>(),
        "healthy": { "alarms": points(&score.healthy.named), "unmeasured": score.healthy.unmeasured },
        "score": {
            "exactly": count(Found::Exactly), "missed": count(Found::Missed), "wrong": count(Found::Wrong),
            "indistinguishable": count(Found::Indistinguishable), "not_visible": count(Found::NotVisible),
            "unjudged": count(Found::Unjudged),
            "layer_exact": plantings().filter(|p| p.layer_exact).count(),
            "plantings": plantings().count(),
            "harmless_silent": count(Found::Silent), "harmless_alarms": count(Found::Alarm),
            "named_right": said(Verdict::Right), "named_none": said(Verdict::None),
            "named_wrong": said(Verdict::Wrong),
            "left_out_named": score.rows.iter().map(Row::left_out).sum::<usize>(),
            "pairs": score.pairs.len(), "pairs_found": score.pairs.iter().filter(|p| p.is_found()).count(),
            "pairs_named_right": of_pairs(Verdict::Right), "pairs_named_none": of_pairs(Verdict::None),
            "pairs_named_wrong": of_pairs(Verdict::Wrong),
            "places": places(counted(plantings().map(|p| &p.places))),
            "pairs_places": places(counted(in_pairs())),
        },
    })
}

fn short(score: &Score) -> Value {
    let mut value = head(score);
    let is_odd = |p: &&Planting| {
        let found = matches!(p.found, Found::Exactly | Found::Silent);
        let named = p.diagnosis.iter().all(|said| said.verdict == Verdict::Right && said.names.len() == 1);
        !(found && named && p.left_out().next().is_none())
    };
    let row = |row: &Row| {
        let ratios = row.ratios();
        let [prefill, decode] = row.places();
        let below = row.plantings.iter().flat_map(|p| p.places.below_by_component());
        json!({
            "name": row.name, "weight": row.weight, "plantings": row.plantings.len(),
            "exactly": row.count(Found::Exactly), "unjudged": row.count(Found::Unjudged),
            "ratio": ratios.map(|(least, most)| [number(least), number(most)]),
            "smallest": row.smallest.as_ref().map(|s| s.size),
            "named_right": row.said(Verdict::Right), "named_none": row.said(Verdict::None),
            "named_wrong": row.said(Verdict::Wrong), "left_out_named": row.left_out(),
            "places": { "prefill": prefill, "decode": decode },
            "below": below.collect::<Vec<_>>(),
            "odd": row.plantings.iter().filter(is_odd).map(odd).collect::<Vec<_>>(),
        })
    };
    let pair = |pair: &Pair| {
        json!({
            "faults": pair.faults, "feeding": pair.feeding,
            "layers": pair.plantings.each_ref().map(|p| p.layer),
            "found": pair.plantings.each_ref().map(|p| p.found),
            "named": pair.plantings.each_ref().map(|p| together(&p.diagnosis)),
            "places": pair.plantings.each_ref().map(|p| [p.places.prefill, p.places.decode]),
            "below": pair.plantings.each_ref().map(|p| p.places.below_by_component()),
        })
    };
    value["faults"] = score.rows.iter().map(row).collect();
    value["pairs"] = score.pairs.iter().map(pair).collect();
    value
}

fn odd(p: &Planting) -> Value {
    json!({
        "layer": p.layer, "found": p.found, "ratio": number(p.ratio), "change": number(p.change),
        "missed": p.missed, "missed_places": p.places.missed, "wrong": p.wrong, "unjudged": p.unjudged,
        "names": p.diagnosis.iter().map(|said| &said.names).collect::<Vec<_>>(),
        "left_out": p.left_out().collect::<Vec<_>>(),
    })
}

/// As in the rest of the document: what is not finite is a word.
fn number(value: f64) -> Value {
    crate::number::serialize(&value, serde_json::value::Serializer).expect("a number is no map")
}
