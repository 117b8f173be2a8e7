//! `layerdiff show`.

use super::{Ui, print_result, print_text};
use crate::cli::{Format, ShowArgs, ShowFormat};
use crate::error::{Error, Result};
use crate::report::{Document, Outcome, github, github_set, html, html_set, terminal, terminal_set};
use crate::tokens::{Release, TokenReport, tokens_github, tokens_terminal};
use std::path::Path;

const KNOWN: [&str; 4] =
    ["layerdiff-report", "layerdiff-report-set", "layerdiff-token-report", "layerdiff-release"];

/// Shows a report; that could be done, whatever the report says.
pub(super) fn run(args: &ShowArgs, ui: Ui) -> Result<Outcome> {
    let format = match args.format {
        ShowFormat::Github => Format::Github,
        ShowFormat::Terminal | ShowFormat::Html => Format::Terminal,
    };
    if ui.json && args.format != ShowFormat::Terminal {
        return Err(super::two_formats());
    }
    let ui = Ui { format, ..ui };
    let page = args.format == ShowFormat::Html;
    let document = Document::open(&args.report)?;
    let colour = console::colors_enabled();
    match document.format.as_str() {
        "layerdiff-report" => {
            let report = document.report()?;
            if page {
                return print_text(&html(&report)?).map(|()| Outcome::Pass);
            }
            print_result(ui, &report, || github(&report), |width| terminal(&report, colour, width), &[])?;
        }
        "layerdiff-report-set" => {
            let set = document.set()?;
            if page {
                return print_text(&html_set(&set)?).map(|()| Outcome::Pass);
            }
            print_result(ui, &set, || github_set(&set), |width| terminal_set(&set, colour, width), &[])?;
        }
        "layerdiff-token-report" | "layerdiff-release" if page => {
            return Err(Error::new("only reports by layer have a page").at(&document.path).hint(
                "a release has one for each engine: `layerdiff show DIR/ENGINE/layers --format html`",
            ));
        }
        "layerdiff-token-report" => {
            let report: TokenReport = document.parse()?;
            print_result(
                ui,
                &report,
                || tokens_github(&report),
                |width| tokens_terminal(&report, width),
                &[],
            )?;
        }
        "layerdiff-release" => {
            let release = release(&document)?;
            print_result(ui, &release, || release.github(), |width| release.terminal(width), &[])?;
        }
        _ => return Err(document.refused(&KNOWN)),
    }
    Ok(Outcome::Pass)
}

/// A release, with the comparisons by layer that lie below it.
fn release(document: &Document) -> Result<Release> {
    let mut release: Release = document.parse()?;
    for engine in &mut release.engines {
        let own = Path::new(&engine.engine).join("layers").join("report.json");
        if let Some(report) = document.below(&own)? {
            engine.restore(report);
        }
    }
    Ok(release)
}
