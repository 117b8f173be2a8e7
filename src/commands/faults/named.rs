//! Which points were named for a fault, and what they were called, in a few lines.

use super::said::{Said, Verdict};
use super::score::{Found, NotJudged, Planting, Row};
use super::table::figure;

/// A line for each way in which the plantings of a fault came out, with the layers where they did.
pub(super) fn lines(row: &Row) -> Vec<String> {
    let mut ways: Vec<(String, Vec<Option<usize>>)> = Vec::new();
    for planting in &row.plantings {
        let way = way(planting);
        match ways.iter_mut().find(|(known, _)| *known == way) {
            Some((_, layers)) => layers.push(planting.layer),
            None => ways.push((way, vec![planting.layer])),
        }
    }
    ways.into_iter().map(|(way, layers)| format!("{}{way}", places(&layers))).collect()
}

/// What was named, and what that was called.
fn way(planting: &Planting) -> String {
    let points: Vec<String> = planting.named.iter().map(|point| within(planting.layer, point)).collect();
    let named = match points.as_slice() {
        [] => "nothing named".to_owned(),
        points => format!("named {}", points.join(", ")),
    };
    let remark = match planting.found {
        Found::Exactly => String::new(),
        Found::Missed => format!(", MISSED {}", planting.missed.join(", ")),
        Found::Wrong => format!(", of which WRONGLY {}", planting.wrong.join(", ")),
        Found::Unjudged => format!(", COULD NOT BE JUDGED: {}", reasons(planting)),
        Found::Indistinguishable => {
            format!(", indistinguishable from rounding (ratio {})", figure(planting.ratio))
        }
        Found::NotVisible => ", not a bit changed".to_owned(),
        Found::Silent => ", as it must be".to_owned(),
        Found::Alarm => ", a FALSE ALARM".to_owned(),
    };
    format!("{named}{remark}{}", called(planting))
}

/// Why components could not be judged, the layer's number left out: it is then the same in every layer.
pub(super) fn reasons(planting: &Planting) -> String {
    let layer = planting.layer.map_or_else(String::new, |layer| format!("model.layers.{layer}."));
    let one = |n: &NotJudged| format!("{}, since {}", n.point, n.why).replace(&layer, "");
    planting.unjudged.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The diagnosis: once, where it is the same for all points.
fn called(planting: &Planting) -> String {
    let of = |said: &Said| match said.verdict {
        Verdict::Right => format!("called {}", said.names.join(" or ")),
        Verdict::Wrong => format!("WRONGLY called {}", said.names.join(" or ")),
        Verdict::None => "called by none of the known names".to_owned(),
    };
    let all: Vec<String> = planting.diagnosis.iter().map(of).collect();
    match all.split_first() {
        None => String::new(),
        Some((first, rest)) if rest.iter().all(|other| other == first) => format!("; {first}"),
        Some(_) => {
            let each = planting.diagnosis.iter().zip(&all);
            let each = each.map(|(said, called)| format!("{} {called}", within(planting.layer, &said.point)));
            format!("; {}", each.collect::<Vec<_>>().join(", "))
        }
    }
}

/// The point's name within its layer, where that is the fault's own: it is then the same in every layer.
fn within(layer: Option<usize>, point: &str) -> String {
    let own = layer.and_then(|layer| point.strip_prefix(&format!("model.layers.{layer}.")));
    own.unwrap_or(point).to_owned()
}

fn places(layers: &[Option<usize>]) -> String {
    let numbers: Vec<String> = layers.iter().flatten().map(usize::to_string).collect();
    match numbers.as_slice() {
        [] => "outside the layers: ".to_owned(),
        [one] => format!("layer {one}: "),
        many => format!("layers {}: ", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::Places;
    use super::*;

    fn planting(
        layer: usize,
        found: Found,
        named: &[&str],
        said: &[(&str, Verdict, &[&'static str])],
    ) -> Planting {
        let said = said.iter().map(|(point, verdict, names)| Said {
            point: (*point).to_owned(),
            verdict: *verdict,
            names: names.to_vec(),
            left_out: Vec::new(),
        });
        let named: Vec<String> = named.iter().map(|point| (*point).to_owned()).collect();
        Planting {
            layer: Some(layer),
            planted: Vec::new(),
            found,
            layer_exact: true,
            wrong: if found == Found::Wrong { named.clone() } else { Vec::new() },
            named,
            missed: Vec::new(),
            unjudged: Vec::new(),
            ratio: 0.25,
            change: 0.0,
            undefined: 0,
            places: Places::default(),
            diagnosis: said.collect(),
        }
    }

    fn shown(plantings: Vec<Planting>) -> Vec<String> {
        lines(&Row { name: "rope-interleaved", weight: "loud", plantings, smallest: None })
    }

    #[test]
    fn what_comes_out_alike_is_one_line_with_its_layers() {
        let in_layer = |layer: usize| {
            let (q, k) = (format!("model.layers.{layer}.q_rope"), format!("model.layers.{layer}.k_rope"));
            let names: &[&str] = &["rope-interleaved"];
            planting(
                layer,
                Found::Exactly,
                &[&q, &k],
                &[(q.as_str(), Verdict::Right, names), (k.as_str(), Verdict::Right, names)],
            )
        };
        assert_eq!(
            shown(vec![in_layer(3), in_layer(7)]),
            ["layers 3, 7: named q_rope, k_rope; called rope-interleaved"]
        );
    }

    #[test]
    fn what_could_not_be_judged_says_why_and_is_one_line_for_all_layers() {
        let in_layer = |layer: usize| {
            let why = format!("its input model.layers.{layer}.mlp.act is not finite");
            let lost = NotJudged { point: format!("model.layers.{layer}.mlp.down_proj"), why };
            Planting { unjudged: vec![lost], ..planting(layer, Found::Unjudged, &[], &[]) }
        };
        assert_eq!(
            shown(vec![in_layer(3), in_layer(7)]),
            [
                "layers 3, 7: nothing named, COULD NOT BE JUDGED: mlp.down_proj, since its input mlp.act is not finite"
            ]
        );
    }

    #[test]
    fn what_is_wrong_says_which_points_and_which_names() {
        let other = "model.layers.4.mlp.act";
        let wrong = planting(3, Found::Wrong, &[other], &[(other, Verdict::Wrong, &["silu-relu"])]);
        let unseen = planting(7, Found::Indistinguishable, &[], &[]);
        assert_eq!(
            shown(vec![wrong, unseen]),
            [
                format!("layer 3: named {other}, of which WRONGLY {other}; WRONGLY called silu-relu"),
                "layer 7: nothing named, indistinguishable from rounding (ratio 2.5e-1)".to_owned(),
            ]
        );
    }
}
