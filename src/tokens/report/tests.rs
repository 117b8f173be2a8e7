//! Reports of figures that nobody hopes for.

use super::*;
use crate::tokens::gate::parse;
use crate::tokens::sampler::Sampler;
use crate::tokens::{Release, position};
use serde_json::Value;

/// A report of one prompt and two tokens, whose candidate excludes the second.
fn infinite(choices: Option<Choices>) -> TokenReport {
    let setting = Setting { tokens: 2, temperature: 0.7, seed: 1 };
    let sampler = Sampler::new(0.7, 1, "p");
    let (both, never) = ([0.0_f32, 0.5], [0.0, f32::NEG_INFINITY]);
    let at = |place, candidate: &[f32]| {
        position::compare((&both, candidate), 1, place, (&setting, &sampler)).unwrap()
    };
    let record = Record {
        prompt: "p".into(),
        prompt_tokens: 3,
        greedy: Greedy { reference: vec![1, 1], candidate: vec![1, 0], divergence: None },
        positions: vec![at(0, &both), at(1, &never)],
        sampled: [vec![1, 1], vec![1, 0]],
        floor: vec![0.0; 2],
        self_check: Vec::new(),
    };
    let text = "[[profile]]\nname = 'a'\n[[profile.criterion]]\nmetric = 'mean_kl'\nat_most = 0.01\n\
                [[profile.criterion]]\nmetric = 'max_kl'\nfirst = 1\nat_most = 0.1";
    let gate = parse(text).unwrap()[0].judge(std::slice::from_ref(&record), choices.as_ref());
    let origin = Origin {
        engine: "e".into(),
        reference: Provenance::default(),
        candidate: Provenance::default(),
        command: Vec::new(),
    };
    TokenReport::new(origin, setting, &[record], choices, gate, Vec::new())
}

#[test]
fn an_infinite_divergence_fails_its_gate_and_is_infinite_in_the_report() {
    let report = infinite(None);
    let json = serde_json::to_value(&report).unwrap();
    let [all, first] = [0, 1].map(|i| &json["gate"]["criteria"][i]);
    assert_eq!((&all["value"], &all["pass"]), (&"inf".into(), &false.into()), "{all}");
    assert_eq!((&first["value"], &first["pass"]), (&0.0.into(), &true.into()), "{first}");
    assert_eq!(json["distribution"]["perplexity_candidate"], "inf");
    let mut release = Release::new(Vec::new(), None);
    release.add(crate::tokens::EngineRelease::new("e", (Some(&report), None), Vec::new()));
    let tokens = &serde_json::to_value(&release).unwrap()["engines"][0]["tokens"];
    assert_eq!((&tokens["mean_kl"], &tokens["criteria"][0]["value"]), (&"inf".into(), &"inf".into()));
}

#[test]
fn what_is_no_number_of_a_run_without_a_prompt_is_not_called_unmeasured() {
    let json = serde_json::to_value(distribution(&[])).unwrap();
    assert_eq!((&json["top5"], &json["perplexity_reference"]), (&"NaN".into(), &"NaN".into()));
    let json = serde_json::to_value(sampling(&[])).unwrap();
    assert_eq!((&json["expected"][0], &json["mean_common_run"]), (&"NaN".into(), &"NaN".into()));
    let error = LayerError {
        point: "norm".into(),
        total: Some(f64::INFINITY),
        quantization: None,
        engine: Some(f64::NAN),
    };
    let json = serde_json::to_value(error).unwrap();
    assert_eq!(
        (&json["total"], &json["quantization"], &json["engine"]),
        (&"inf".into(), &Value::Null, &"NaN".into())
    );
}

#[test]
fn the_legend_of_a_limit_says_over_how_many_tokens_it_is() {
    let names: Vec<String> = plot::limits(&infinite(None)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["gate: mean of all at most 0.01", "gate: largest of the first 1 at most 0.1"]);
}

#[test]
fn a_note_about_the_questions_is_on_the_page_on_the_terminal_and_in_json() {
    let note = Some("the questions are asked 0-shot".to_owned());
    let noted = infinite(Some(Choices { note, ..Choices::new("here", 0, &[]) }));
    let plain = infinite(Some(Choices::new("here", 0, &[])));
    let said = |report: &TokenReport| {
        let json = serde_json::to_string(report).unwrap();
        [tokens_markdown(report), tokens_terminal(report, 80), json].map(|text| text.contains("0-shot"))
    };
    assert_eq!((said(&noted), said(&plain)), ([true; 3], [false; 3]));
}
