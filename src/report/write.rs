//! A report's files.

use super::{Report, draw_all, html, junit, markdown};
use crate::error::{Error, Result};
use std::path::Path;

/// Writes `report.json`, `report.md`, `report.html`, `junit.xml` and the pictures into `dir`, which must exist.
pub fn write_all(report: &Report, dir: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(report)
        .map_err(|e| Error::new(format!("cannot write the report as JSON: {e}")))?;
    let texts =
        [("report.json", json + "\n"), ("report.md", markdown(report)), ("report.html", html(report)?)];
    for (name, text) in texts {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io("write the report", &path, &e))?;
    }
    junit::write(&[junit::of_report(report)], dir)?;
    draw_all(report, dir).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_names_its_picture() {
        let dir = tempfile::tempdir().unwrap();
        let report = sample::broken();
        write_all(&report, dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.points.len(), report.points.len());
        let last = |r: &Report| r.points.last().and_then(|p| p.metrics.as_ref()).map(|m| m.rel_l2.is_nan());
        assert_eq!((last(&back), last(&report)), (Some(true), Some(true)));
        let page = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
        assert!(page.contains("](overview.svg)") && dir.path().join("report.html").is_file());
        assert!(dir.path().join("overview.svg").is_file() && dir.path().join("overview.png").is_file());
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap().path().join("gone");
        let error = write_all(&sample::tiny(), &dir).unwrap_err().to_string();
        assert!(error.contains("cannot write the report") && error.contains("gone"), "{error}");
    }
}
