//! `layerdiff plot`.

use super::{Ui, print_json, print_text};
use crate::cli::{PlotArgs, PlotKind, PlotValue};
use crate::error::{Error, Result, nearest};
use crate::files::replace_file;
use crate::model::PointFilter;
use crate::report::{
    Document, Measure, Outcome, PictureKind, Report, ReportSet, Scene, Wanted, picture, picture_of_engines,
    png, svg,
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Draws a picture; that could be done, whatever the report says.
pub(super) fn run(args: &PlotArgs, ui: Ui) -> Result<Outcome> {
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.svg", args.kind.name())));
    let format = Format::of(&out)?;
    if args.value.is_some() && args.kind != PlotKind::Heatmap {
        return Err(Error::new("--value chooses what the cells of a heatmap show")
            .expected("--kind heatmap", format!("--kind {}", args.kind.name()))
            .hint("leave --value out"));
    }
    if ui.json && format == Format::Stdout {
        return Err(Error::new("--json and --out - both say what is printed").hint("name a file with --out"));
    }
    let points = args.point.as_deref().map(PointFilter::new).transpose()?;
    let wanted = Wanted {
        kind: match args.kind {
            PlotKind::Curve => PictureKind::Curve,
            PlotKind::Heatmap => PictureKind::Heatmap,
            PlotKind::Magnitude => PictureKind::Magnitude,
            PlotKind::Heads => PictureKind::Heads,
            PlotKind::Tokens => PictureKind::Tokens,
        },
        measure: match args.value {
            Some(PlotValue::Local) => Measure::Local,
            Some(PlotValue::Total) | None => Measure::Total,
        },
        family: args.family.as_deref(),
        points: points.as_ref(),
        prompt: args.prompt.as_deref(),
        step: args.step,
        dark: args.dark,
    };
    let document = Document::open(&args.report)?;
    let (scene, engine) = scene(&document, args, &wanted).map_err(|e| e.at(&document.path))?;
    match format {
        Format::Stdout => return print_text(&svg(&scene)?).map(|()| Outcome::Pass),
        Format::Svg => {
            let text = svg(&scene)?;
            let write = |path: &Path| {
                std::fs::write(path, &text).map_err(|e| Error::io("write the picture", path, &e))
            };
            replace_file(&out, is_picture, write)?;
        }
        Format::Png => replace_file(&out, is_picture, |path| png(&scene, path))?,
    }
    if ui.json {
        let report = document.path.display().to_string();
        print_json(&json!({
            "file": out.display().to_string(), "kind": args.kind.name(), "engine": engine, "report": report,
        }))?;
    } else {
        print_text(&format!("picture: {}", out.display()))?;
    }
    Ok(Outcome::Pass)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
    Stdout,
}

impl Format {
    fn of(out: &Path) -> Result<Self> {
        if out == Path::new("-") {
            return Ok(Self::Stdout);
        }
        match out.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(Error::new("the ending says what kind of picture it is")
                .expected("FILE.svg, FILE.png, or - for SVG on stdout", out.display())
                .hint("name the picture so with --out")),
        }
    }
}

/// True for the beginning of a picture.
fn is_picture(start: &[u8]) -> bool {
    start.starts_with(b"<svg") || start.starts_with(b"\x89PNG")
}

/// The picture, and the engine that it is of.
fn scene(document: &Document, args: &PlotArgs, wanted: &Wanted<'_>) -> Result<(Scene, String)> {
    match document.format.as_str() {
        "layerdiff-report" => {
            let report = document.report()?;
            if let Some(engine) = args.engine.as_ref().filter(|engine| **engine != report.engine) {
                return Err(unknown(engine, &[&report.engine]));
            }
            Ok((picture(&report, wanted)?, report.engine))
        }
        "layerdiff-report-set" => {
            let set = document.set()?;
            match &args.engine {
                Some(engine) => {
                    let report = of_engine(&set, engine)?;
                    Ok((picture(report, wanted)?, report.engine.clone()))
                }
                None if wanted.kind == PictureKind::Curve => {
                    Ok((picture_of_engines(set.reports(), set.outcome, wanted)?, "all".to_owned()))
                }
                None => Err(Error::new("the report is of several engines")
                    .expected("--engine NAME", "none")
                    .hint(format!(
                        "known: {}; only --kind curve shows them together",
                        names(&set).join(", ")
                    ))),
            }
        }
        _ => Err(document.refused(&["layerdiff-report", "layerdiff-report-set"])),
    }
}

fn names(set: &ReportSet) -> Vec<&str> {
    set.engines.iter().map(|engine| engine.engine.as_str()).collect()
}

fn of_engine<'a>(set: &'a ReportSet, name: &str) -> Result<&'a Report> {
    if let Some(report) = set.reports().iter().find(|report| report.engine == name) {
        return Ok(report);
    }
    let names = names(set);
    if !names.contains(&name) {
        return Err(unknown(name, &names));
    }
    Err(Error::new(format!("{name}'s own report does not lie beside this one"))
        .hint("it is ENGINE/report.json below the directory: make the reports anew with `layerdiff run`"))
}

fn unknown(engine: &str, known: &[&str]) -> Error {
    let near = nearest(engine, known.iter().copied());
    let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    Error::new(format!("no engine `{engine}` in the report"))
        .hint(format!("{near}known: {}", known.join(", ")))
}
