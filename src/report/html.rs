//! `report.html`: the report as one page that a browser opens from the disk.
//!
//! The page holds everything that it needs: styles, scripts, uPlot, and the reports as JSON. It loads nothing,
//! and its policy forbids it to. Only one script may run, which the policy knows by its hash; all text of a
//! report is data to it.

mod data;
mod formula;
mod points;

use super::{Report, ReportSet};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("html/page.html");

const STYLES: [&str; 3] = [
    include_str!("html/vendor/uPlot.min.css"),
    include_str!("html/style.css"),
    include_str!("html/panel.css"),
];

/// The licence asks to be kept with the library.
const CHARTS: [&str; 2] =
    [include_str!("html/vendor/uPlot-LICENSE"), include_str!("html/vendor/uPlot.iife.min.js")];

/// In the order in which they need each other.
const SCRIPTS: [&str; 15] = [
    include_str!("html/script/dom.js"),
    include_str!("html/script/tip.js"),
    include_str!("html/script/model.js"),
    include_str!("html/script/component.js"),
    include_str!("html/script/heatmap.js"),
    include_str!("html/script/chart.js"),
    include_str!("html/script/curves.js"),
    include_str!("html/script/layers.js"),
    include_str!("html/script/tokens.js"),
    include_str!("html/script/histogram.js"),
    include_str!("html/script/commands.js"),
    include_str!("html/script/panel.js"),
    include_str!("html/script/verdict.js"),
    include_str!("html/script/engines.js"),
    include_str!("html/script/main.js"),
];

/// Renders the report.
pub fn html(report: &Report) -> Result<String> {
    page(&data::of_report(report))
}

/// Renders the reports of several engines on one page.
pub fn html_set(set: &ReportSet) -> Result<String> {
    page(&data::of_set(set))
}

fn page(data: &data::Page<'_>) -> Result<String> {
    let json = serde_json::to_string(data)
        .map_err(|e| Error::new(format!("cannot write the report as JSON: {e}")))?;
    let [licence, charts] = CHARTS;
    let own = SCRIPTS.join("\n");
    let script = format!("/*\n{licence}*/\n{charts}\n(() => {{\n\"use strict\";\n{own}}})();\n");
    let hash = base64::encode(Sha256::digest(&script));
    // The data come last: nothing is looked for in them.
    Ok(TEMPLATE
        .replace("{{hash}}", &format!("sha256-{hash}"))
        .replace("{{style}}", &STYLES.join("\n"))
        .replace("{{script}}", &script)
        .replacen("{{data}}", &inert(&json), 1))
}

/// JSON that cannot end the element that it stands in: its strings keep their meaning, and no sign of HTML is left.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use serde_json::Value;

    const HOSTILE: &str = "</script><!--<img src=x onerror=alert(1)>&\u{2028}{{data}}";

    /// The page's data, and the page without them.
    fn parts(page: &str) -> (Value, String) {
        let (before, rest) = page.split_once("id=\"data\">").unwrap();
        let (data, after) = rest.split_once("</script>").unwrap();
        (serde_json::from_str(data).unwrap(), format!("{before}{after}"))
    }

    #[test]
    fn what_a_file_calls_itself_stays_data() {
        let mut report = sample::broken();
        report.engine = HOSTILE.into();
        report.prompt_id = HOSTILE.into();
        report.points[0].point = HOSTILE.into();
        report.warnings = vec![HOSTILE.into()];
        report.provenance.command = vec!["layerdiff".into(), HOSTILE.into()];
        let page = html(&report).unwrap();
        let (data, rest) = parts(&page);
        assert_eq!(data["reports"][0]["engine"], HOSTILE);
        assert_eq!(data["command"][1], HOSTILE);
        assert_eq!(rest, parts(&html(&sample::healthy()).unwrap()).1, "the page is the same for all reports");
        assert!(!page.contains("<img") && !page.contains('\u{2028}'));
    }

    #[test]
    fn the_page_asks_for_nothing_and_runs_only_its_own_script() {
        let (_, rest) = parts(&html(&sample::tiny()).unwrap());
        for loads in [" src=", "<link", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML", "{{"] {
            assert!(!rest.contains(loads), "{loads}");
        }
        let script = rest.rsplit_once("<script>").unwrap().1.split_once("</script>");
        // In `rest` the data's end tag is gone, and with it nothing of the script.
        let script = script.unwrap().0;
        let hash = base64::encode(Sha256::digest(script));
        assert!(rest.contains(&format!("script-src 'sha256-{hash}'")));
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_kept() {
        let (data, _) = parts(&html(&sample::broken()).unwrap());
        let report = &data["reports"][0];
        let column = report["columns"].as_array().unwrap().iter().position(|c| c == "rel_l2").unwrap();
        let rows = report["rows"].as_array().unwrap();
        assert!(rows.iter().any(|row| row[column] == "NaN"), "the last point's error is NaN");
        assert!(
            rows.iter()
                .all(|row| row.as_array().unwrap().len() == report["columns"].as_array().unwrap().len())
        );
    }
}
