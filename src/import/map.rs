//! The map: what the files of an engine's dumps are, where their names do not say it.
//!
//! # Format
//!
//! A TOML file. Keys that are not listed are refused.
//!
//! | key | value |
//! |---|---|
//! | `engine`, `version` | of the engine that wrote the dumps; `--engine` and `--engine-version` go before them |
//! | `quantized` | true when its weights have fewer than 16 bits; false without it |
//! | `precision` | what it computed in, where the files are wider: `bfloat16`, `float16`, `float32`, `float64`; `--dtype` goes before it |
//! | `[[tensor]]` | one for each kind of file; the first whose `file` fits counts |
//!
//! In a `[[tensor]]`:
//!
//! | key | value |
//! |---|---|
//! | `file` | the name, without extension: a path below the dumps, or the name in the archive, `/` between the parts. `{i}` stands for a layer's number, `{step}` for a step's, `{prompt}` for a prompt's id, `*` for anything |
//! | `point` | where it belongs, with `{i}`: `model.layers.{i}.self_attn.q_proj` |
//! | `layer_offset` | what is added to the number in the name to get `{i}` in the point: -1 where layers count from 1 |
//! | `ignore` | true: it is left out, and said to be |
//! | `dtype` | of raw numbers, where the extension does not say it: `F64`, `F32`, `F16`, `BF16`, `U8` |
//! | `precision` | as above, of these files alone: an engine may keep its softmax in float32 |
//! | `shape` | how the values lie, outermost first: numbers, and names of sizes such as `"tokens"`, `"heads"`, `"head_dim"` |
//! | `crop` | `{ axis, keep, start }`: of that axis only `keep` places, from `start` on (0 without it): the rest is padding |
//! | `transpose` | the axes in the order in which the point has them: `[1, 0]` |
//! | `split` | `{ axis, points, sizes }`: the axis is cut, one part for each point. Without `sizes`, each part is as wide as its point. It stands instead of `point` |
//! | `reorder` | `{ axis, order }`: place j of the point is place `order[j]` of the file: heads in another order |
//! | `pairs` | `{ axis, width }`: the axis consists of groups of `width` in which the file has x₀ y₀ x₁ y₁ … and the point x₀ x₁ … y₀ y₁ …: rotary pairs that lie side by side |
//!
//! They are done in this order, from `shape` to `pairs`. An axis may be negative, and counts from the end then.
//! Axes of size 1 that the point lacks, such as the batch, fall away by themselves, and neighbouring axes are
//! joined or cut as the point has them (`heads` and `head_dim`). No key changes a value.

use crate::error::{Error, Result, nearest, plain};
use crate::tensor::DType;
use clap::ValueEnum;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A map as its file states it; see the [module](self).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Map {
    pub engine: Option<String>,
    pub version: Option<String>,
    #[serde(default)]
    pub quantized: bool,
    pub precision: Option<Precision>,
    #[serde(default, rename = "tensor")]
    pub rules: Vec<Rule>,
}

/// One `[[tensor]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Rule {
    pub file: String,
    pub point: Option<String>,
    #[serde(default)]
    pub layer_offset: i64,
    #[serde(default)]
    pub ignore: bool,
    pub dtype: Option<DType>,
    pub precision: Option<Precision>,
    pub shape: Option<Vec<Size>>,
    pub crop: Option<Crop>,
    pub transpose: Option<Vec<usize>>,
    pub split: Option<Split>,
    pub reorder: Option<Reorder>,
    pub pairs: Option<Pairs>,
    /// The map's file, for errors.
    #[serde(skip)]
    pub map: PathBuf,
}

/// What an engine computes in, in the words of PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
#[allow(missing_docs)]
pub enum Precision {
    BFloat16,
    Float16,
    Float32,
    Float64,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::BFloat16 => Self::BF16,
            Precision::Float16 => Self::F16,
            Precision::Float32 => Self::F32,
            Precision::Float64 => Self::F64,
        }
    }
}

/// A size: a number, or a name that the architecture's description has.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a number, or the name of a size")]
#[allow(missing_docs)]
pub enum Size {
    Number(usize),
    Name(String),
}

/// Which places of an axis are no padding.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Crop {
    pub axis: isize,
    pub keep: Size,
    #[serde(default)]
    pub start: usize,
}

/// How a fused tensor is cut.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Split {
    pub axis: isize,
    pub points: Vec<String>,
    pub sizes: Option<Vec<Size>>,
}

/// Another order along an axis.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Reorder {
    pub axis: isize,
    pub order: Vec<usize>,
}

/// Rotary pairs that lie side by side.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Pairs {
    pub axis: isize,
    pub width: Size,
}

impl Rule {
    /// The points that it fills, `{i}` for the layer's number.
    pub fn points(&self) -> Vec<&str> {
        match &self.split {
            Some(split) => split.points.iter().map(String::as_str).collect(),
            None => self.point.iter().map(String::as_str).collect(),
        }
    }

    /// An error that this entry is the cause of, with its name and place.
    pub fn blame(&self, error: Error) -> Error {
        let error = error.about(format!("the map's entry for `{}`", plain(&self.file)));
        if self.map.as_os_str().is_empty() { error } else { error.at(&self.map) }
    }
}

impl Map {
    /// Reads and checks a map.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the map", path, &e))?;
        let mut map = Self::parse(&text).map_err(|e| e.at(path))?;
        map.rules.iter_mut().for_each(|rule| rule.map = path.to_path_buf());
        Ok(map)
    }

    /// Parses and checks a map.
    pub fn parse(text: &str) -> Result<Self> {
        let map: Self = toml::from_str(text).map_err(|e| malformed(&e))?;
        for rule in &map.rules {
            rule.check().map_err(|e| {
                e.hint("`layerdiff import --help` has an example; a `[[tensor]]` has `point`, or `split` with points, or `ignore = true`")
            })?;
        }
        Ok(map)
    }
}

impl Rule {
    fn check(&self) -> Result<()> {
        let named = |what: &str| Error::new(format!("the map's entry for `{}` {what}", plain(&self.file)));
        let targets = [self.ignore, self.point.is_some(), self.split.is_some()];
        if targets.iter().filter(|set| **set).count() != 1 {
            return Err(named("does not say in one way where the values belong").expected(
                "one of `point`, `split` and `ignore = true`",
                targets.iter().filter(|set| **set).count(),
            ));
        }
        if self.points().iter().any(|p| p.contains("{i}")) && !self.file.contains("{i}") {
            return Err(named("has `{i}` in its point and not in its file")
                .hint("`{i}` in `file` stands for the layer's number in the file's name"));
        }
        if self
            .split
            .as_ref()
            .is_some_and(|s| s.sizes.as_ref().is_some_and(|sizes| sizes.len() != s.points.len()))
        {
            return Err(named("splits into another number of sizes than of points"));
        }
        if self.points().is_empty() && !self.ignore {
            return Err(named("splits into no point").hint("`points` of `split` names one for each part"));
        }
        if self.layer_offset != 0 && !self.points().iter().any(|p| p.contains("{i}")) {
            return Err(named("has `layer_offset`, and no `{i}` in its point")
                .hint("`layer_offset` is added to the number that `{i}` stands for: write `{i}` in `file` and `point`"));
        }
        let edits = [
            ("dtype", self.dtype.is_some()),
            ("precision", self.precision.is_some()),
            ("shape", self.shape.is_some()),
            ("crop", self.crop.is_some()),
            ("transpose", self.transpose.is_some()),
            ("reorder", self.reorder.is_some()),
            ("pairs", self.pairs.is_some()),
        ];
        if let Some((key, _)) = edits.iter().find(|(_, set)| *set && self.ignore) {
            return Err(named(&format!("has `{key}` beside `ignore = true`"))
                .hint("what is left out is not changed: take one of them away"));
        }
        Ok(())
    }
}

/// The keys of a map, for "did you mean".
const KEYS: [&str; 23] = [
    "engine",
    "version",
    "quantized",
    "precision",
    "tensor",
    "file",
    "point",
    "layer_offset",
    "ignore",
    "dtype",
    "shape",
    "crop",
    "transpose",
    "split",
    "reorder",
    "pairs",
    "axis",
    "keep",
    "start",
    "points",
    "sizes",
    "order",
    "width",
];

fn malformed(error: &toml::de::Error) -> Error {
    let message = error.message();
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let shown = error.to_string();
    let error = Error::new(format!("the map is malformed: {}", shown.trim_end()));
    match unknown.and_then(|key| nearest(key, KEYS)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`layerdiff import --help` has an example of a map"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let error = Map::parse("[[tensor]]\nfile = \"a\"\npoin = \"model.norm\"\n").unwrap_err().to_string();
        assert!(error.contains("did you mean `point`?"), "{error}");
    }

    #[test]
    fn an_entry_says_in_one_way_where_the_values_belong() {
        for entry in
            ["", "point = \"a\"\nignore = true\n", "point = \"a\"\nsplit = { axis = 0, points = [] }\n"]
        {
            assert!(Map::parse(&format!("[[tensor]]\nfile = \"x\"\n{entry}")).is_err(), "{entry}");
        }
        assert!(Map::parse("[[tensor]]\nfile = \"x\"\npoint = \"l.{i}\"\n").is_err());
    }

    #[test]
    fn a_key_without_effect_is_refused() {
        for entry in [
            "split = { axis = 0, points = [] }",
            "ignore = true\ntranspose = [1, 0]",
            "ignore = true\ncrop = { axis = 0, keep = 1 }",
            "ignore = true\nlayer_offset = 1",
            "point = \"a\"\nlayer_offset = 1",
        ] {
            assert!(Map::parse(&format!("[[tensor]]\nfile = \"x\"\n{entry}\n")).is_err(), "{entry}");
        }
        assert!(Map::parse("[[tensor]]\nfile = \"x{i}\"\npoint = \"l.{i}\"\n").is_ok());
    }
}
