//! What holds for the Markdown of every report, by a real parser of GitHub's dialect.

use super::super::super::sample;
use super::super::fit::LIMIT;
use super::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

const HOSTILE: &str =
    "a|b`c<script>alert(1)</script> @torvalds #1 **b** [l](http://evil.example) \\\n- x\n```\n| y |";

/// What a reader sees of a page.
#[derive(Default)]
struct Seen {
    text: String,
    /// Cells of each row of each table, as text.
    tables: Vec<Vec<Vec<String>>>,
    headings: usize,
}

/// Parses a page. Only what layerdiff itself writes is markup in it.
fn seen(page: &str) -> Seen {
    let ours = [
        "<details>",
        "<details open>",
        "</details>",
        "<summary>",
        "</summary>",
        "<code>",
        "</code>",
        "<!---->",
    ];
    let mut seen = Seen::default();
    let (mut code, mut fenced) = (0_usize, 0_usize);
    let mut outside = page.to_owned();
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    for (event, range) in Parser::new_ext(page, options).into_offset_iter() {
        match event {
            Event::Start(Tag::Table(_)) => seen.tables.push(Vec::new()),
            Event::Start(Tag::TableHead | Tag::TableRow) => seen.tables.last_mut().unwrap().push(Vec::new()),
            Event::Start(Tag::TableCell) => {
                seen.tables.last_mut().unwrap().last_mut().unwrap().push(String::new());
            }
            Event::Start(Tag::Heading { .. }) => seen.headings += 1,
            Event::Start(Tag::CodeBlock(_)) => {
                fenced += 1;
                outside = outside.replace(&page[range], "");
            }
            Event::End(TagEnd::CodeBlock) => fenced -= 1,
            Event::Start(
                tag @ (Tag::Link { .. }
                | Tag::Image { .. }
                | Tag::Strikethrough
                | Tag::BlockQuote(_)
                | Tag::FootnoteDefinition(_)),
            ) => {
                panic!("{tag:?}\n{page}")
            }
            Event::Rule | Event::TaskListMarker(_) => panic!("{event:?}\n{page}"),
            Event::Html(html) | Event::InlineHtml(html) => {
                let (opens, closes) = (html.matches("<code>").count(), html.matches("</code>").count());
                code = code + opens - closes;
                // A summary is a block of HTML with our own words in it.
                let rest = ours.iter().fold(html.to_string(), |rest, tag| rest.replace(tag, ""));
                assert!(!rest.contains('<'), "{html}\n{page}");
                seen.text += &rest;
            }
            Event::Text(text) | Event::Code(text) if matches!(fenced, 1..) || text.is_empty() => {
                seen.text += &text;
            }
            Event::Code(text) => add(&mut seen, &text),
            Event::Text(text) => {
                let word = |c: char| c.is_alphanumeric();
                let next = |sign: char| text.split(sign).skip(1).any(|rest| rest.starts_with(word));
                let linked = next('@') || next('#') || text.contains("://") || text.contains("www.");
                assert!(code > 0 || !linked, "GitHub would link {text:?}\n{page}");
                add(&mut seen, &text);
            }
            _ => {}
        }
    }
    assert_eq!((code, fenced), (0, 0), "{page}");
    for table in &seen.tables {
        assert!(table.len() > 1, "a table without a row: {table:?}\n{page}");
    }
    // A parser drops cells that are too many, and adds those that lack: count the signs instead.
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let rows: Vec<&str> = outside.lines().filter(|line| line.starts_with('|')).collect();
    for table in rows.chunk_by(|a, b| columns(a) == columns(b)) {
        assert!(table.iter().any(|line| line.starts_with("|--")), "{table:#?}");
    }
    assert_eq!(rows.len(), seen.tables.iter().map(|t| t.len() + 1).sum::<usize>(), "{page}");
    seen
}

fn add(seen: &mut Seen, text: &str) {
    seen.text += text;
    if let Some(cell) = seen.tables.last_mut().and_then(|t| t.last_mut()).and_then(|row| row.last_mut()) {
        *cell += text;
    }
}

fn samples() -> Vec<Report> {
    vec![
        sample::healthy(),
        sample::faulty(),
        sample::broken(),
        sample::large(),
        sample::huge(),
        sample::tiny(),
        sample::quantized(),
    ]
}

/// A report in which every name is hostile.
fn hostile(name: &str) -> Report {
    let mut report = sample::large();
    let text = || name.to_owned();
    report.engine = text();
    report.prompt_id = text();
    report.prompts.iter_mut().for_each(|p| (p.id, p.worst_point) = (text(), Some(text())));
    report.points.iter_mut().step_by(3).for_each(|p| (p.point, p.prompt) = (text(), text()));
    report.points.iter_mut().step_by(5).for_each(|p| p.note = Some(text()));
    report.faults.iter_mut().for_each(|f| (f.point, f.prompt, f.reason) = (text(), text(), text()));
    report.ratios.iter_mut().for_each(|r| (r.point, r.prompt) = (text(), text()));
    report.layer_types = vec![text(); 24];
    report.verdict.headline = text();
    report.verdict.reasoning = vec![text()];
    report.verdict.rests_on = text();
    report.warnings = vec![text(); 3];
    report.floor.kind = text();
    report.arms.total.description = text();
    report.architecture = text();
    let origin = &mut report.provenance;
    origin.command = vec![text()];
    for side in [&mut origin.reference, &mut origin.candidate] {
        (side.engine, side.path, side.dtype, side.host) = (text(), text(), text(), text());
        side.libraries = [(text(), text())].into();
    }
    report
}

#[test]
fn every_page_is_below_the_limit_and_its_tables_are_tables() {
    for report in samples() {
        let page = github(&report);
        assert!(page.len() < LIMIT, "{}", page.len());
        let seen = seen(&page);
        assert!(seen.headings == 1 && !seen.tables.is_empty(), "{page}");
        assert!(page.starts_with(&format!("# {}: ", word(report.outcome))));
    }
}

#[test]
fn hostile_names_are_read_as_text() {
    let page = github(&hostile(HOSTILE));
    let seen = seen(&page);
    let shown = HOSTILE.replace('\n', " ");
    let cells = seen.tables.iter().flatten().flatten().filter(|cell| **cell == shown);
    assert!(cells.count() > 10, "{:#?}", seen.tables);
    assert_eq!(seen.headings, 1);
    for name in [
        "1. a",
        "- a",
        "=====",
        "    a",
        "> a",
        "~~a~~",
        "<!--",
        "-->",
        "``` x",
        "\u{202e}a",
        "&lt;",
        "a\\",
        "|",
        "*",
        "",
    ] {
        self::seen(&github(&hostile(name)));
    }
}

#[test]
fn names_of_any_length_leave_a_page_below_the_limit() {
    for long in ["<@&|`".repeat(20_000), "name ".repeat(50_000), "\u{1f600}".repeat(30_000)] {
        let page = github(&hostile(&long));
        assert!(page.len() < LIMIT && page.starts_with("# FAULT"), "{}", page.len());
        seen(&page);
    }
}

#[test]
fn every_fault_is_named_however_many_rows_give_way() {
    let mut report = sample::huge();
    report.faults[3].point = report.faults[4].point.clone();
    let page = github(&report);
    let seen = seen(&page);
    for fault in &report.faults {
        assert!(seen.text.contains(&fault.point), "{}", fault.point);
    }
    let mut many = sample::sound(96);
    for layer in 0..96 {
        for part in ["mlp.down_proj", "mlp.act", "mlp.up_proj", "mlp.gate_proj", "input_layernorm"] {
            sample::plant(&mut many, &format!("model.layers.{layer}.{part}"), 0.1);
        }
    }
    many.faults.iter_mut().for_each(|f| f.reason = "because ".repeat(60));
    let page = github(&many);
    assert!(page.len() < LIMIT);
    let seen = self::seen(&page);
    let points = super::stops::faulty_points(&many);
    assert!(points.len() == 480 && points.iter().all(|p| seen.text.contains(&p.worst.point)), "{page}");
}

#[test]
fn the_curve_is_a_block_of_text_with_a_bar_for_each_layer() {
    let page = github(&sample::faulty());
    let block = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(block.lines().any(|line| line.starts_with(">      3 A self_attn.k_rope") && line.ends_with('#')));
    assert!(block.lines().all(|line| console::measure_text_width(line) <= WIDTH));
}

#[test]
fn several_engines_are_on_one_page_and_the_faulty_one_is_open() {
    let page = github_set(&sample::engines());
    assert!(page.len() < LIMIT);
    let seen = seen(&page);
    assert_eq!(seen.tables[0].len(), 1 + 4, "{page}");
    let open: Vec<&str> = page.lines().filter(|line| line.starts_with("<details open>")).collect();
    assert_eq!(open.len(), 1, "{open:?}");
}

#[test]
fn the_comment_of_a_faulty_engine() {
    insta::assert_snapshot!(github(&sample::faulty()));
}

#[test]
fn the_comment_of_several_engines() {
    insta::assert_snapshot!(github_set(&sample::engines()));
}
