//! What holds for every picture of every kind of report.

use super::super::sample;
use super::scene::{Area, Shape, Text};
use super::*;

fn reports() -> Vec<(&'static str, Report)> {
    vec![
        ("healthy", sample::healthy()),
        ("faulty", sample::faulty()),
        ("broken", sample::broken()),
        ("large", sample::large()),
        ("huge", sample::huge()),
        ("tiny", sample::tiny()),
        ("quantized", sample::quantized()),
    ]
}

/// Every kind of picture that can be asked for, of this report.
fn pictures(report: &Report) -> Vec<(String, scene::Scene)> {
    use PictureKind::{Curve, Heads, Heatmap, Magnitude, Tokens};
    let wanted = |kind, measure, dark| Wanted {
        kind,
        measure,
        family: None,
        points: None,
        prompt: None,
        step: None,
        dark,
    };
    let total = Measure::Total;
    let mut all = vec![
        ("curve-dark".to_owned(), wanted(Curve, total, true)),
        ("heatmap".to_owned(), wanted(Heatmap, total, false)),
        ("magnitude".to_owned(), wanted(Magnitude, total, false)),
        ("magnitude-dark".to_owned(), wanted(Magnitude, total, true)),
        ("heads".to_owned(), wanted(Heads, total, false)),
    ];
    if report.prompts.len() == 1 || !report.by_prompt.is_empty() {
        all.push(("tokens-".to_owned(), wanted(Tokens, total, false)));
        all.push(("tokens-dark".to_owned(), wanted(Tokens, total, true)));
    }
    if report.points.iter().any(|p| p.local_ratio.is_some()) {
        all.push(("local".to_owned(), wanted(Heatmap, Measure::Local, false)));
        all.push(("local-dark".to_owned(), wanted(Heatmap, Measure::Local, true)));
    }
    all.into_iter().map(|(name, wanted)| (name, picture(report, &wanted).unwrap())).collect()
}

fn texts(shapes: &[Shape]) -> impl Iterator<Item = &Text> {
    shapes.iter().filter_map(|shape| match shape {
        Shape::Text(text) => Some(text),
        _ => None,
    })
}

#[test]
fn no_text_leaves_the_card_or_touches_another() {
    for (report, sample) in reports() {
        for (name, scene) in scenes(&sample).into_iter().chain(pictures(&sample)) {
            let card = Area { left: 4.0, top: 4.0, right: theme::WIDTH - 4.0, bottom: scene.height - 4.0 };
            let texts: Vec<&Text> = texts(&scene.shapes).collect();
            for (i, text) in texts.iter().enumerate() {
                let a = text.area();
                let inside = card.contains((a.left, a.top)) && card.contains((a.right, a.bottom));
                assert!(inside, "{report}/{name}: `{}` leaves the card", text.content);
                assert!(text.size >= 22.0);
                for other in &texts[..i] {
                    let b = other.area();
                    let apart =
                        a.left >= b.right || b.left >= a.right || a.top >= b.bottom || b.top >= a.bottom;
                    assert!(apart, "{report}/{name}: `{}` touches `{}`", text.content, other.content);
                }
            }
        }
    }
}

#[test]
fn the_first_fault_is_named_in_the_overview_and_in_its_family() {
    for (name, scene) in scenes(&sample::faulty()) {
        let named = texts(&scene.shapes).any(|t| t.content == "born: layers.3.self_attn.k_rope");
        assert_eq!(named, matches!(name.as_str(), "overview" | "curve-rope"), "{name}");
    }
}

#[test]
fn an_engine_with_a_fault_is_named_at_its_curve_and_has_a_dash_of_its_own() {
    let reports = [sample::healthy(), sample::faulty()];
    let (stops, kinds) = (stops(&reports[0]), kinds(&reports[0]));
    let figure = engines::figure(&reports, Outcome::Fault, &stops, &kinds);
    let dash = |name: &str| figure.series.iter().find(|s| s.name == name).map(|s| s.style.dash);
    assert_eq!(dash("lattice-f32"), Some(series::Dash::Solid));
    assert_eq!(dash("lattice-f32: FAULT"), Some(series::Dash::Dotted));
    let layer = figure.stops[figure.labels[0].slot].layer;
    assert_eq!((figure.labels.len(), layer), (1, Some(3)));
    let scene = figure.draw();
    let all: Vec<&str> = texts(&scene.shapes).map(|t| t.content.as_str()).collect();
    assert!(all.contains(&"born: layers.3.self_attn.k_rope"), "{all:?}");
}

#[test]
fn a_fault_of_several_steps_gets_one_ring() {
    let rings = |report: &Report| {
        let (_, scene) = scenes(report).into_iter().find(|(name, _)| name == "overview").unwrap();
        scene.shapes.len()
    };
    let mut report = sample::faulty();
    let before = rings(&report);
    let born = report.points.iter().position(|p| p.state == crate::report::State::Born).unwrap();
    let mut later = report.points[born].clone();
    later.step = 1;
    report.points.insert(born + 1, later);
    assert_eq!(rings(&report), before);
}

#[test]
fn zero_infinity_and_missing_values_have_a_row_of_their_own() {
    let scenes = scenes(&sample::broken());
    let all: Vec<&str> = texts(&scenes[0].1.shapes).map(|t| t.content.as_str()).collect();
    for row in ["0 (exact)", "not finite", "not compared"] {
        assert!(all.contains(&row), "{row} in {all:?}");
    }
}

#[test]
fn every_family_of_the_report_gets_a_picture() {
    let names: Vec<String> = scenes(&sample::healthy()).into_iter().map(|(name, _)| name).collect();
    let families = ["residual", "rope", "norm", "projection", "gdn", "mlp", "attention"];
    assert_eq!(names.len(), 1 + families.len());
    assert!(families.iter().all(|f| names.contains(&format!("curve-{f}"))));
    assert_eq!(file_name("../a b"), "---a-b");
}

#[test]
fn the_same_report_gives_the_same_bytes() {
    let report = sample::faulty();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paths = draw_all(&report, one.path()).unwrap();
    draw_all(&report, two.path()).unwrap();
    assert_eq!(paths.len(), 16);
    for path in paths {
        let other = two.path().join(path.file_name().unwrap());
        assert!(std::fs::read(&path).unwrap() == std::fs::read(other).unwrap(), "{}", path.display());
    }
}

#[test]
fn an_svg_is_well_formed_whatever_the_names_are() {
    for (report, sample) in reports() {
        for (name, scene) in scenes(&sample).into_iter().chain(pictures(&sample)) {
            let svg = render::svg(&scene).unwrap();
            well_formed(&svg).unwrap_or_else(|e| panic!("{report}/{name}: {e}"));
            let size = format!("<svg width=\"1400\" height=\"{0}\" viewBox=\"0 0 1400 {0}\"", scene.height);
            assert!(svg.starts_with(&size), "{}", &svg[..80]);
        }
    }
}

/// Checks tags, quotes and entities of the XML that plotters writes.
fn well_formed(xml: &str) -> std::result::Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    for (i, part) in xml.split('<').enumerate().skip(1) {
        let (tag, text) = part.split_once('>').ok_or(format!("tag {i} does not end"))?;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("`{name}` closes nothing"));
            }
        } else {
            if tag.matches('"').count() % 2 == 1 {
                return Err(format!("an odd quote in {tag}"));
            }
            if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().ok_or("an empty tag")?);
            }
        }
        let entities = ["&lt;", "&gt;", "&amp;", "&quot;", "&apos;"];
        let known: usize = entities.iter().map(|e| text.matches(e).count()).sum();
        if text.matches('&').count() != known || text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(format!("bad text {text:?}"));
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} stay open")) }
}

/// To look at the pictures, say where they go: `LAYERDIFF_PICTURES=DIR cargo test --lib report::plot`.
#[test]
fn every_sample_can_be_drawn_to_be_looked_at() {
    let temporary = tempfile::tempdir().unwrap();
    let dir =
        std::env::var_os("LAYERDIFF_PICTURES").map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    for (name, report) in reports() {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        draw_all(&report, &dir).unwrap();
        draw(pictures(&report), &dir).unwrap();
    }
    draw_engines(&[sample::healthy(), sample::faulty()], Outcome::Fault, &dir).unwrap();
}
