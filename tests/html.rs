//! The page of a report: one file that loads nothing, and works in a real browser.

mod common;

use common::{Draft, command, finished, layerdiff};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const HOSTILE: &str = "</script><img src=x onerror=\"window.hacked=1\">";

/// A prompt that would break out of a page, over several lines.
const PROMPT: &str = "first line\n</script><img src=x onerror=\"window.hacked=2\">\u{2028}<!--\n& {{data}}";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The page's text and the data in it.
fn page(dir: &Path) -> (String, Value) {
    let page = std::fs::read_to_string(dir.join("report.html")).unwrap();
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next());
    let data = serde_json::from_str(data.unwrap()).unwrap();
    (page, data)
}

/// A trace of the tiny model whose engine has a name that would break out of a page.
fn hostile(root: &Path) -> PathBuf {
    let (reference, candidate, out) = (root.join("reference"), root.join("candidate"), root.join("hostile"));
    let mut draft = Draft::tiny().with_step(1);
    draft.prompts[0].text = Some(PROMPT.into());
    draft.write(&reference);
    let mut named = draft.clone();
    named.options.provenance.engine = HOSTILE.into();
    named.write(&candidate);
    let folder = root.join("<img src=x onerror=alert(1)>");
    std::fs::rename(&reference, &folder).unwrap();
    let run = layerdiff(&["compare", text(&folder), text(&candidate), "--out", text(&out)]);
    assert!(out.join("report.html").is_file(), "{run:#?}");
    out
}

#[test]
fn the_page_of_the_bundled_model_is_one_small_file_with_every_point() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("report");
    let run = layerdiff(&["run", "--out", text(&out)]);
    assert_eq!(run.code, 0, "{run:#?}");
    let (page, data) = page(&out);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    let report = &data["reports"][0];
    let rows = report["rows"].as_array().unwrap();
    let points = json["points"].as_array().unwrap();
    assert_eq!(rows.len(), points.len());
    for (row, point) in rows.iter().zip(points) {
        let name = &report["texts"][row[0].as_u64().unwrap() as usize];
        assert_eq!((name, &row[1]), (&point["point"], &point["step"]));
    }
    // Every point of the model has a component that says what it computes.
    assert!(data["components"]["qwen3_5"].as_array().unwrap().iter().all(|c| c["formula"].is_string()));
    let counted = |p: &Value| {
        let bins = p["magnitudes"]["counts"].as_array().unwrap().iter();
        bins.map(|n| n.as_u64().unwrap()).sum::<u64>() + p["magnitudes"]["zeros"].as_u64().unwrap()
    };
    // A score that the mask forbids is −∞ on both sides and has no difference.
    let finite = |p: &&Value| p["non_finite"].as_object().unwrap().values().all(|n| n == 0);
    for point in points.iter().filter(finite) {
        assert_eq!(counted(point), point["elements"].as_u64().unwrap(), "{}", point["point"]);
    }
}

#[test]
fn a_name_that_would_end_the_script_stays_data() {
    let root = tempfile::tempdir().unwrap();
    let (page, data) = page(&hostile(root.path()));
    assert_eq!(data["reports"][0]["engine"], HOSTILE);
    assert_eq!(data["reports"][0]["prompts"][0]["text"], PROMPT);
    assert!(!page.contains("<img") && !page.contains('\u{2028}'));
}

#[test]
fn a_report_has_the_text_of_its_prompts_and_of_their_tokens_and_the_page_the_errors_of_each_prompt() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("report");
    layerdiff(&["run", "--out", text(&out)]);
    let (page, data) = page(&out);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    let report = &data["reports"][0];
    let prompts = report["prompts"].as_array().unwrap();
    for prompt in prompts {
        let texts: Vec<&str> =
            prompt["token_texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let (tokens, steps) =
            (prompt["tokens"].as_u64().unwrap(), prompt["step_token_ids"].as_array().unwrap().len());
        assert_eq!(texts.len() as u64, tokens + steps as u64);
        let said = prompt["text"].as_str().unwrap();
        assert_eq!(
            texts[..tokens as usize].concat(),
            said,
            "ASCII, so that no token is a part of a character"
        );
    }
    let by_prompt = report["by_prompt"].as_array().unwrap();
    assert_eq!(by_prompt.len(), prompts.len());
    let rows = report["rows"].as_array().unwrap();
    let tokens = report["columns"].as_array().unwrap().iter().position(|c| c == "tokens").unwrap();
    for own in by_prompt {
        // Each row has its errors by token at the row itself or here, unless it has none at all.
        for (row, own) in rows.iter().zip(own[1].as_array().unwrap()) {
            let of_row = row[tokens].as_array().is_some_and(|list| !list.is_empty());
            assert!(own.is_null() || of_row, "{row}");
        }
    }
    let lists = |i: usize| by_prompt[i][1].as_array().unwrap().iter().filter(|own| !own.is_null()).count();
    assert!(lists(0) > 100 && lists(1) > 100, "both prompts have errors that are not the worst");
}

/// Where there is no Chromium the tests say so and pass.
#[test]
#[ignore = "needs Chromium and the Python side"]
fn a_browser_opens_the_pages_and_pointer_and_keyboard_work() {
    let root = tempfile::tempdir().unwrap();
    let (dir, manifest) = (root.path(), Path::new(env!("CARGO_MANIFEST_DIR")));
    let python = std::env::var_os("LAYERDIFF_PYTHON").unwrap_or_else(|| ".venv/bin/python".into());
    let run = |args: &[&str], code: i32| {
        let run = finished(command(args).current_dir(dir));
        assert_eq!(run.code, code, "{run:#?}");
    };
    run(&["run", "--out", "healthy"], 0);
    let planted = Command::new(&python)
        .arg(manifest.join("hooks/scripts/planted_norm_eps.py"))
        .arg(dir.join("candidate"))
        .output()
        .unwrap();
    assert!(planted.status.success(), "{}", String::from_utf8_lossy(&planted.stderr));
    let bundle = manifest.join("src/bundle");
    let (reference, model, floor) =
        (bundle.join("reference"), bundle.join("model"), bundle.join("floors/float64.json"));
    run(
        &[
            "compare",
            text(&reference),
            "candidate",
            "--prompt",
            "code-01",
            "--model",
            text(&model),
            "--floor",
            text(&floor),
            "--out",
            "faulty",
        ],
        1,
    );
    run(&["run", "--engine", "all", "--prompt", "instruction-07", "--out", "set"], 1);
    assert!(page(&dir.join("set")).0.len() < 3_000_000);
    std::fs::rename(dir.join("candidate"), dir.join("planted")).unwrap();
    hostile(dir);
    let tests = Command::new(&python)
        .args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"])
        .arg(manifest.join("tests/html"))
        .env("LAYERDIFF_PAGES", dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tests.stdout);
    println!("{said}");
    assert!(tests.status.success(), "{said}{}", String::from_utf8_lossy(&tests.stderr));
}
