//! A result as Markdown for GitHub and as JUnit, from the real command.

mod common;

use common::{Draft, Run, layerdiff};
use pulldown_cmark::{Event, Options, Parser, Tag};
use quick_xml::Reader;
use quick_xml::events::Event as Xml;
use serde_json::Value;
use std::path::Path;

const LIMIT: usize = 65_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How many tables, links and pictures a page has, and its text.
fn read(page: &str) -> (usize, usize, String) {
    let (mut tables, mut links, mut seen) = (0, 0, String::new());
    for event in Parser::new_ext(page, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Table(_)) => tables += 1,
            Event::Start(Tag::Link { .. } | Tag::Image { .. }) => links += 1,
            Event::Text(text) | Event::Code(text) => seen += &text,
            Event::Html(html) | Event::InlineHtml(html) => {
                assert!(!html.contains("script") && !html.contains("img"), "{html}");
            }
            _ => {}
        }
    }
    (tables, links, seen)
}

/// What became of each case of a `junit.xml`: suite, name, and `pass` or its element.
fn cases(path: &Path) -> Vec<(String, String, String)> {
    let document = std::fs::read_to_string(path).unwrap();
    let mut reader = Reader::from_str(&document);
    let mut cases: Vec<(String, String, String)> = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Xml::Start(tag) | Xml::Empty(tag) => {
                let of = |name: &str| {
                    let value = tag.try_get_attribute(name).unwrap();
                    value.map(|a| a.unescape_value().unwrap().into_owned()).unwrap_or_default()
                };
                match tag.name().as_ref() {
                    b"testcase" => cases.push((of("classname"), of("name"), "pass".to_owned())),
                    what @ (b"failure" | b"error" | b"skipped") => {
                        cases.last_mut().unwrap().2 = String::from_utf8(what.to_vec()).unwrap();
                    }
                    _ => {}
                }
            }
            Xml::Eof => return cases,
            _ => {}
        }
    }
}

/// A report of two traces of the tiny model that differ in the middle, in `root/report`.
fn compared(root: &Path, change: impl FnOnce(&mut Draft)) -> Run {
    let (reference, candidate, out) = (root.join("reference"), root.join("candidate"), root.join("report"));
    Draft::tiny().write(&reference);
    let mut draft = Draft::tiny();
    change(&mut draft);
    draft.write(&candidate);
    layerdiff(&["compare", text(&reference), text(&candidate), "--format", "github", "--out", text(&out)])
}

#[test]
fn a_run_prints_markdown_and_the_report_can_be_shown_again() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("report");
    let run =
        layerdiff(&["run", "--prompt", "code-01", "--steps", "1", "--format", "github", "--out", text(&out)]);
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(run.stdout.starts_with("# PASS: lattice-f16 against torch\n"), "{run:#?}");
    assert!(run.stdout.contains("```text\n") && run.stdout.len() < LIMIT);
    let (tables, links, _) = read(&run.stdout);
    assert!(tables >= 2 && links == 0, "{run:#?}");
    assert!(run.stderr.contains("report.md, ") && run.stderr.contains("report.html"), "{run:#?}");
    let shown = layerdiff(&["show", text(&out), "--format", "github"]);
    assert_eq!((shown.code, &shown.stdout), (0, &run.stdout));
    let file = out.join("report.json");
    let json = layerdiff(&["show", text(&file), "--json"]);
    let stored: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(json.json(), stored);
    let page = layerdiff(&["show", text(&file), "--format", "html"]);
    assert_eq!(page.stdout.trim(), std::fs::read_to_string(out.join("report.html")).unwrap().trim());
    let terminal = layerdiff(&["show", text(&file)]);
    assert!(terminal.stdout.starts_with("PASS  lattice-f16 against torch\n"), "{terminal:#?}");
    // One case for each of 8 layers, 3 points before and 2 after them, the self-check and the outcome.
    let cases = cases(&out.join("junit.xml"));
    assert!(cases.len() == 15 && cases.iter().all(|c| c.2 == "pass"), "{cases:?}");
}

#[test]
fn a_fault_fails_its_layer_and_what_is_missing_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let run = compared(root.path(), |draft| {
        draft.at("model.layers.1.mlp.act").map(|_, v| v + 1.0);
        draft.tensors.retain(|t| t.point != "model.layers.2.mlp.act");
    });
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stdout.starts_with("# FAULT: "), "{run:#?}");
    let cases = cases(&root.path().join("report/junit.xml"));
    let what = |name: &str| cases.iter().find(|c| c.1.starts_with(name)).map(|c| c.2.as_str());
    assert_eq!(
        ["layer 0", "layer 1", "layer 2", "self-check", "outcome"].map(what),
        ["pass", "failure", "error", "skipped", "failure"].map(Some),
        "{cases:?}"
    );
}

#[test]
fn a_hostile_report_is_shown_as_text() {
    const NAME: &str = "a|b`c<script>alert(1)</script> @user #1\n- [x](http://a.example)";
    let root = tempfile::tempdir().unwrap();
    compared(root.path(), |draft| draft.at("model.layers.1.mlp.act").map(|_, v| v + 1.0));
    let file = root.path().join("report/report.json");
    let mut report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    report["engine"] = NAME.into();
    report["prompt_id"] = NAME.into();
    report["prompts"][0]["id"] = NAME.into();
    for fault in report["faults"].as_array_mut().unwrap() {
        (fault["point"], fault["prompt"]) = (NAME.into(), NAME.into());
    }
    report["points"].as_array_mut().unwrap().iter_mut().for_each(|point| point["point"] = NAME.into());
    std::fs::write(&file, report.to_string()).unwrap();
    let shown = layerdiff(&["show", text(&file), "--format", "github"]);
    assert!(shown.code == 0 && shown.stdout.len() < LIMIT, "{shown:#?}");
    let (tables, links, seen) = read(&shown.stdout);
    assert!(tables >= 2 && links == 0, "{shown:#?}");
    assert!(seen.contains("a|b`c<script>alert(1)</script> @user #1 - [x](http://a.example)"), "{shown:#?}");
    // In the block of text nothing is linked.
    let fenced = shown.stdout.split("```").nth(1).unwrap();
    let outside = shown.stdout.replace(fenced, "");
    assert!(!outside.contains("@user") && !outside.contains("#1"), "{shown:#?}");
    assert!(layerdiff(&["show", text(&file)]).stdout.contains("FAULT"));
}

#[test]
fn the_exit_code_of_show_is_no_verdict() {
    let root = tempfile::tempdir().unwrap();
    compared(root.path(), |draft| draft.at("model.layers.1.mlp.act").map(|_, v| v + 1.0));
    let shown = layerdiff(&["show", text(&root.path().join("report"))]);
    assert!(shown.code == 0 && shown.stdout.starts_with("FAULT"), "{shown:#?}");
}

#[test]
fn two_formats_at_once_are_refused() {
    for line in [&["run", "--format", "github", "--json"][..], &["show", "x", "--format", "github", "--json"]]
    {
        let run = layerdiff(line);
        assert!(run.code == 2 && run.json()["error"].as_str().unwrap().contains("--format"), "{run:#?}");
    }
    let run = layerdiff(&["run", "--format", "githup"]);
    assert!(run.code == 2 && run.stderr.contains("'github'"), "{run:#?}");
}

#[test]
fn planted_faults_are_cases_and_one_that_does_not_show_is_skipped() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("faults");
    let mut args = vec!["faults", "run", "--fault", "rope-interleaved", "--fault", "a-log-bf16", "--layer"];
    args.extend(["3", "--prompt", "instruction-11", "--steps", "0", "--out", text(&out)]);
    assert_eq!(layerdiff(&args).code, 0);
    let of = |cases: Vec<(String, String, String)>| cases.into_iter().map(|c| (c.1, c.2)).collect::<Vec<_>>();
    let case = |name: &str, what: &str| (name.to_owned(), what.to_owned());
    let passed = ["nothing planted", "rope-interleaved", "outcome"].map(|name| case(name, "pass"));
    assert_eq!(of(cases(&out.join("junit.xml"))), passed);
    // The checkpoint's `A_log` is in bfloat16 already.
    args[6..8].copy_from_slice(&["--layer", "0"]);
    args.drain(2..4);
    assert_eq!(layerdiff(&args).code, 0);
    assert_eq!(of(cases(&out.join("junit.xml")))[1], case("a-log-bf16", "skipped"));
}
