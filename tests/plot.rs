//! Single pictures of a report, from the real command.

mod common;

use common::{Draft, layerdiff, prompt};
use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const POINT: &str = "model.layers.1.mlp.act";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory with a report of two prompts of 5 and 3 tokens and one decode step; a fault in the second prompt.
struct World {
    root: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { root: tempfile::tempdir().unwrap() };
        let prompts = [prompt("p-01", &[1, 2, 3, 4, 5]), prompt("p-02", &[6, 7, 8])];
        let mut draft = Draft::of(&prompts).with_step(1);
        draft.write(&world.path("reference"));
        // Of five tokens of 12 elements the third.
        draft.at(POINT).map(|i, v| if i / 12 == 2 { v + 0.5 } else { v });
        for tensor in draft.tensors.iter_mut().filter(|t| t.point == POINT && t.prompt == "p-02") {
            tensor.map(|_, v| v * 3.0);
        }
        draft.at("model.layers.3.self_attn.k_rope").map(|i, v| if i / 8 % 2 == 1 { v + 0.25 } else { v });
        draft.tensors.retain(|t| t.point != "model.layers.2.mlp.act");
        draft.write(&world.path("candidate"));
        let [r, c, out] = ["reference", "candidate", "report"].map(|name| world.path(name));
        layerdiff(&["compare", text(&r), text(&c), "--out", text(&out)]);
        assert!(out.join("report.json").is_file());
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("report/report.json")).unwrap()).unwrap()
    }

    /// The SVG of a picture.
    fn svg(&self, args: &[&str]) -> String {
        let report = self.path("report");
        let run = layerdiff(&[&["plot", text(&report), "--out", "-"], args].concat());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}: {run:#?}");
        run.stdout
    }

    /// All that is written in a picture, which must be well-formed.
    fn words(&self, args: &[&str]) -> Vec<String> {
        let svg = self.svg(args);
        let mut reader = Reader::from_str(&svg);
        let mut words = Vec::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Text(text) => words.push(text.decode().unwrap().trim().to_owned()),
                Event::Eof => break,
                _ => {}
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}

#[test]
fn every_kind_of_picture_is_written_as_svg_and_as_png() {
    let world = World::new();
    for kind in ["curve", "heatmap", "magnitude", "heads", "tokens"] {
        for ending in ["svg", "png"] {
            let file = world.path(&format!("{kind}.{ending}"));
            let run = layerdiff(&[
                "plot",
                text(&world.path("report")),
                "--kind",
                kind,
                "--out",
                text(&file),
                "--json",
            ]);
            assert_eq!(run.code, 0, "{run:#?}");
            let said = run.json();
            assert_eq!((&said["file"], &said["kind"]), (&text(&file).into(), &kind.into()));
            let bytes = std::fs::read(&file).unwrap();
            let magic: &[u8] = if ending == "svg" { b"<svg" } else { b"\x89PNG" };
            assert!(bytes.starts_with(magic), "{kind}.{ending}");
        }
    }
    // A second picture takes the place of the first, and says so.
    let file = world.path("curve.svg");
    let run =
        layerdiff(&["plot", text(&world.path("report")), "--kind", "curve", "--dark", "--out", text(&file)]);
    assert_eq!((run.code, run.stdout.trim()), (0, format!("picture: {}", file.display()).as_str()));
}

#[test]
fn a_picture_says_what_it_shows_of_whom() {
    let world = World::new();
    for (kind, subject) in [
        ("curve", "Error by layer"),
        ("heatmap", "Components"),
        ("heads", "Error by head"),
        ("tokens", "Error by token"),
    ] {
        let words = world.words(&["--kind", kind]);
        assert!(
            words[0] == "FAULT" && words[1].starts_with(&format!("{subject}: test against test")),
            "{words:?}"
        );
    }
    let of = |args: &[&str]| world.words(args)[1].clone();
    assert!(of(&["--kind", "heatmap"]).ends_with("worst of 2 prompts"));
    assert!(of(&["--kind", "heatmap", "--prompt", "p-01"]).ends_with("prompt p-01"));
    assert!(of(&["--kind", "heatmap", "--step", "1"]).starts_with("Components, step 1: "));
}

#[test]
fn what_was_not_compared_is_marked_and_a_fault_too() {
    let words = World::new().words(&["--kind", "heatmap"]);
    for mark in ["not compared", "fault born here", "0 (exact)", "no such component"] {
        assert!(words.iter().any(|word| word == mark), "{mark}: {words:?}");
    }
    // The cell of the worst prompt: three times the value is off by 2.
    assert!(words.iter().any(|word| word == "2.0e0"), "{words:?}");
}

#[test]
fn a_prompt_and_a_step_have_their_own_figures() {
    let world = World::new();
    let of = |prompt: &str, step: &str| {
        world.words(&["--kind", "heatmap", "--point", POINT, "--prompt", prompt, "--step", step])
    };
    assert!(of("p-02", "0").iter().any(|word| word == "2.0e0"));
    assert!(!of("p-01", "0").iter().any(|word| word == "2.0e0"));
    // p-01 has 5 tokens and one that was decoded; only the third is off.
    let report = world.json();
    let by_prompt = report["by_prompt"].as_array().unwrap();
    let own = by_prompt.iter().find(|own| own["prompt"] == "p-01").unwrap();
    let points = report["points"].as_array().unwrap();
    let at = points.iter().position(|p| p["point"] == POINT && p["step"] == 0).unwrap();
    let tokens: Vec<bool> =
        own["points"][at]["per_token"].as_array().unwrap().iter().map(|e| e.as_f64() > Some(0.0)).collect();
    assert_eq!(tokens, [false, false, true, false, false]);
    let svg = world.svg(&["--kind", "tokens", "--point", "*.mlp.act", "--prompt", "p-01"]);
    assert!(svg.contains("× layers.1.mlp.act") && svg.contains("positions"), "{svg}");
}

#[test]
fn heads_that_err_are_told_from_those_that_do_not() {
    let world = World::new();
    let words = world.words(&["--kind", "heads", "--point", "*.k_rope"]);
    assert!(words.iter().any(|word| word == "columns: kv heads"), "{words:?}");
    let report = world.json();
    let heads = report["heads"].as_array().unwrap();
    let rope = heads.iter().find(|h| h["point"] == "model.layers.3.self_attn.k_rope").unwrap();
    let errs: Vec<bool> = rope["rel_l2"].as_array().unwrap().iter().map(|e| e.as_f64() > Some(0.0)).collect();
    assert_eq!((errs, &rope["prompt"]), (vec![false, true], &"p-01".into()));
}

#[test]
fn errors_by_value_count_every_element_of_a_faulty_point() {
    let world = World::new();
    let report = world.json();
    let all = report["by_value"].as_array().unwrap();
    for point in [POINT, "model.layers.3.self_attn.k_rope"] {
        let of = all.iter().find(|v| v["point"] == point).unwrap();
        let points = report["points"].as_array().unwrap();
        let elements = points
            .iter()
            .find(|p| p["point"] == point && p["step"] == of["step"] && p["prompt"] == of["prompt"])
            .unwrap()["elements"]
            .as_u64()
            .unwrap();
        let row = |row: &Value| {
            let counts = row["counts"].as_array().map_or(0, |c| c.iter().map(|n| n.as_u64().unwrap()).sum());
            counts + row["exact"].as_u64().unwrap_or(0)
        };
        let counted: u64 = of["rows"].as_array().unwrap().iter().map(row).sum();
        assert_eq!(counted + row(&of["at_zero"]) + of["not_finite"].as_u64().unwrap(), elements, "{point}");
    }
    let words = world.words(&["--kind", "magnitude", "--point", POINT]);
    assert!(words[1].starts_with("Errors of layers.1.mlp.act by value"), "{words:?}");
}

#[test]
fn a_report_of_several_engines_is_drawn_together_or_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("set");
    let run =
        ["run", "--engine", "all", "--prompt", "instruction-07", "--steps", "0", "--points", "*.mlp.act"];
    layerdiff(&[&run[..], &["--out", text(&out)]].concat());
    let plot = |args: &[&str]| layerdiff(&[&["plot", text(&out), "--out", "-"], args].concat());
    let all = plot(&["--kind", "curve"]);
    assert!(all.code == 0 && all.stdout.contains("What each engine adds"), "{all:#?}");
    let one = plot(&["--kind", "heatmap", "--engine", "lattice-q4"]);
    assert!(one.code == 0 && one.stdout.contains("lattice-q4 against"), "{one:#?}");
    let none = plot(&["--kind", "heatmap"]);
    assert!(none.code == 2 && none.stderr.contains("--engine NAME"), "{none:#?}");
    let wrong = plot(&["--kind", "heatmap", "--engine", "lattice-q5"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("did you mean `lattice-q"), "{wrong:#?}");
    std::fs::remove_dir_all(out.join("lattice-q4")).unwrap();
    let gone = plot(&["--kind", "heatmap", "--engine", "lattice-q4"]);
    assert!(gone.code == 2 && gone.stderr.contains("does not lie beside"), "{gone:#?}");
}

#[test]
fn a_report_of_an_earlier_layerdiff_lacks_no_curve() {
    let world = World::new();
    let file = world.path("report/report.json");
    let mut report = world.json();
    for key in ["heads", "by_value", "by_prompt"] {
        report.as_object_mut().unwrap().remove(key);
    }
    std::fs::write(&file, report.to_string()).unwrap();
    world.svg(&["--kind", "curve"]);
    for kind in ["heads", "magnitude", "tokens"] {
        let run = layerdiff(&["plot", text(&file), "--kind", kind, "--out", "-"]);
        assert!(run.code == 2 && run.stderr.contains("make it anew"), "{run:#?}");
    }
}
