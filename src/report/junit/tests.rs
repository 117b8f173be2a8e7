//! What holds for the document of every kind of report, by a real parser of XML.

use super::super::sample;
use super::*;
use crate::report::Report;
use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::collections::BTreeMap;

/// An element's attributes, without escapes.
fn attributes(tag: &BytesStart<'_>) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let all = tag.attributes().map(|a| a.unwrap());
    all.map(|a| (text(a.key.as_ref()), a.unescape_value().unwrap().into_owned())).collect()
}

/// A case as it is read back: suite, name, what came of it, message.
type Read = (String, String, String, String);

/// Reads a document, and checks its form and its sums.
fn read(document: &str) -> Vec<Read> {
    let mut reader = Reader::from_str(document);
    reader.config_mut().check_end_names = true;
    let (mut open, mut cases): (Vec<String>, Vec<Read>) = (Vec::new(), Vec::new());
    let mut stated = Vec::new();
    loop {
        let event = reader.read_event().unwrap();
        match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                let with = attributes(tag);
                match (open.last().map(String::as_str), name.as_str()) {
                    (None, "testsuites") | (Some("testsuites"), "testsuite") => {
                        let counts = ["tests", "failures", "errors", "skipped"];
                        stated.push((open.len(), counts.map(|c| with[c].parse::<usize>().unwrap())));
                        assert!(with.contains_key("name"));
                    }
                    (Some("testsuite"), "testcase") => {
                        cases.push((
                            with["classname"].clone(),
                            with["name"].clone(),
                            "pass".into(),
                            String::new(),
                        ));
                    }
                    (Some("testcase"), "failure" | "error" | "skipped") => {
                        let last = cases.last_mut().unwrap();
                        (last.2, last.3) = (name.clone(), with["message"].clone());
                    }
                    (Some("testcase"), "system-out") => {}
                    other => panic!("{other:?}"),
                }
                if matches!(event, Event::Start(_)) {
                    open.push(name);
                }
            }
            Event::End(_) => drop(open.pop()),
            Event::Eof => break,
            Event::Text(text) => assert!(open.len() == 4 || text.iter().all(u8::is_ascii_whitespace)),
            _ => {}
        }
    }
    assert!(open.is_empty());
    let of = |what: &str| cases.iter().filter(|c| c.2 == what).count();
    let sums = [cases.len(), of("failure"), of("error"), of("skipped")];
    assert_eq!(stated[0], (0, sums));
    let suites = stated[1..].iter().fold([0; 4], |a, (_, b)| std::array::from_fn(|i| a[i] + b[i]));
    assert_eq!(suites, sums);
    cases
}

fn of(report: &Report) -> Vec<Read> {
    read(&document(&[of_report(report)]))
}

#[test]
fn a_document_is_green_where_and_only_where_the_exit_code_is_0() {
    let mut unmeasured = sample::sound(4);
    unmeasured.outcome = Outcome::Unmeasured;
    let mut invalid = sample::sound(4);
    invalid.outcome = Outcome::Invalid;
    let samples = vec![
        sample::healthy(),
        sample::faulty(),
        sample::broken(),
        sample::huge(),
        sample::quantized(),
        unmeasured,
        invalid,
    ];
    for report in samples {
        let green = of(&report).iter().all(|(_, _, what, _)| what == "pass" || what == "skipped");
        assert_eq!(green, report.outcome.exit_code() == 0, "{:?}", report.outcome);
    }
}

#[test]
fn a_fault_is_the_failure_of_its_layer_with_point_ratio_and_diagnosis() {
    let report = sample::faulty();
    let suite = of_report(&report);
    let case = suite.cases.iter().find(|c| c.name == "layer 3, full attention").unwrap();
    let Found::Failure(said, all) = &case.found else { panic!("{case:?}") };
    assert!(said.contains("model.layers.3.self_attn.k_rope") && said.contains('×'), "{said}");
    assert!(all.contains("diagnosis: RoPE pairs interleaved"), "{all}");
    let failures = of(&report).into_iter().filter(|c| c.2 == "failure").map(|c| c.1).collect::<Vec<_>>();
    assert_eq!(failures, ["layer 3, full attention", "outcome"]);
}

#[test]
fn what_was_not_compared_is_an_error_and_what_was_not_asked_for_is_skipped() {
    let mut report = sample::broken();
    report.points.retain(|p| p.layer != Some(7));
    let of = of(&report);
    let what =
        |name: &str| of.iter().find(|c| c.1.starts_with(name)).map(|c| (c.2.as_str(), c.3.as_str())).unwrap();
    assert_eq!(what("layer 1").0, "error");
    assert!(
        what("layer 1").1.starts_with("UNMEASURED") && what("layer 1").1.contains("the candidate lacks it")
    );
    assert_eq!((what("layer 5").0, what("layer 7").0), ("failure", "skipped"));
}

#[test]
fn an_engine_that_could_not_be_run_has_a_suite_with_an_error() {
    let cases = read(&document(&of_set(&sample::engines())));
    let of: Vec<&Read> = cases.iter().filter(|c| c.0 == "lattice-quarot-q4").collect();
    assert!(of.len() == 1 && of[0].2 == "error" && of[0].3.contains("a power of two"), "{of:?}");
}

proptest! {
    #[test]
    fn any_text_comes_back_as_it_was_but_for_what_xml_cannot_hold(text in any::<String>()) {
        let case = Case::new(text.clone(), Found::Failure(text.clone(), text.clone()));
        let [(suite, name, _, message)] =
            <[Read; 1]>::try_from(read(&document(&[Suite { name: text.clone(), cases: vec![case] }]))).unwrap();
        let cannot = |c: char| c.is_control() && !"\t\n".contains(c) || matches!(c, '\u{fffe}' | '\u{ffff}');
        let expected: String = text.chars().map(|c| if cannot(c) { '\u{fffd}' } else { c }).collect();
        prop_assert_eq!([&suite, &name, &message], [&expected; 3]);
    }
}
