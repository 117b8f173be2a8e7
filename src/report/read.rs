//! Reports that were written before.

use super::{Report, ReportSet};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Component, Path, PathBuf};

/// A `report.json` of any kind.
#[derive(Debug)]
pub struct Document {
    /// The file.
    pub path: PathBuf,
    /// Its `format`.
    pub format: String,
    text: String,
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

/// The version of every format that this reads.
const VERSION: u32 = 1;

impl Document {
    /// Reads a `report.json`, or that in a directory.
    pub fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() { path.join("report.json") } else { path.to_path_buf() };
        let text = std::fs::read_to_string(&path).map_err(|e| {
            if path.with_file_name("faults.json").is_file() {
                return Error::new("a score of planted faults is no report")
                    .at(&path)
                    .hint("read its faults.md");
            }
            Error::io("read the report", &path, &e)
                .hint("check the path; `layerdiff run` writes a report, to reports/latest without --out")
        })?;
        let head: Head = serde_json::from_str(&text).map_err(|e| malformed(&path, &e))?;
        if head.version != VERSION {
            return Err(Error::new("the report is of another version")
                .expected(VERSION, head.version)
                .at(&path)
                .hint("show it with the layerdiff that wrote it, or make it anew"));
        }
        Ok(Self { path, format: head.format, text })
    }

    /// What it holds.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.text).map_err(|e| malformed(&self.path, &e))
    }

    /// A report by layer.
    pub fn report(&self) -> Result<Report> {
        self.parse()
    }

    /// A report of several engines, with those of their own reports that lie below it.
    pub fn set(&self) -> Result<ReportSet> {
        let mut set: ReportSet = self.parse()?;
        let own: Vec<String> = set.engines.iter().filter_map(|engine| engine.report.clone()).collect();
        for below in own {
            set.restore(self.below(Path::new(&below))?);
        }
        Ok(set)
    }

    /// The report by layer at a path below this one; none if it is not there, or the path leads out.
    pub fn below(&self, path: &Path) -> Result<Option<Report>> {
        let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
        let file = self.path.parent().unwrap_or(Path::new(".")).join(path);
        if !stays || !file.is_file() {
            return Ok(None);
        }
        Self::open(&file)?.report().map(Some)
    }

    /// That this is no report that a command can use.
    pub fn refused(&self, known: &[&str]) -> Error {
        Error::new("this is no report that can be shown so")
            .expected(format!("`format` is one of {}", known.join(", ")), &self.format)
            .at(&self.path)
            .hint("name the report.json of `layerdiff run` or `compare`, or its directory")
    }
}

fn malformed(path: &Path, error: &serde_json::Error) -> Error {
    Error::new(format!("malformed report: {error}"))
        .at(path)
        .hint("name a report.json that layerdiff wrote, or the directory with it")
}
