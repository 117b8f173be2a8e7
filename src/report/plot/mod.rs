//! The error curves as SVG and PNG.
//!
//! `overview` shows the whole model, `tokens` the logits over the positions of a prompt, `curve-<family>` the points of one family of components. A
//! figure is laid out once, as a list of shapes, and both formats draw the same list. The same
//! report gives the same bytes.

mod axis;
mod by_position;
mod by_value;
mod callout;
mod chosen;
mod components;
mod engines;
mod family;
mod figure;
mod font;
mod heads;
mod heatmap;
mod labels;
mod legend;
mod overview;
mod pick;
mod positions;
mod ramp;
mod render;
mod scene;
mod series;
mod theme;
mod tokens;

use super::stops::{kinds, stops};
use super::{Outcome, Report};
use crate::error::{Error, Result};
pub use chosen::{PictureKind, Wanted};
pub(crate) use chosen::{picture, picture_of_engines};
pub use components::Measure;
use figure::Figure;
use rayon::prelude::*;
pub(crate) use render::{png, svg};
pub(crate) use scene::Scene;
use std::path::{Path, PathBuf};

/// Draws all pictures of a report into `dir`, which must exist; gives their paths.
pub fn draw_all(report: &Report, dir: &Path) -> Result<Vec<PathBuf>> {
    draw(scenes(report), dir)
}

/// Draws the picture that compares the engines into `dir`, which must exist; gives its paths.
pub fn draw_engines(reports: &[Report], outcome: Outcome, dir: &Path) -> Result<Vec<PathBuf>> {
    let Some(first) = reports.first() else { return Ok(Vec::new()) };
    let (stops, kinds) = (stops(first), kinds(first));
    let scene = engines::figure(reports, outcome, &stops, &kinds).draw();
    draw(vec![("engines".to_owned(), scene)], dir)
}

/// A name, and a figure for each position.
pub type Curve<'a> = (&'a str, Vec<f64>);

/// Draws a curve for each name over positions 0, 1, … as `name.svg` and `name.png` into `dir`, which must
/// exist. The first curve lies on top. `limits` are lines with their names, each over the first positions.
pub fn draw_positions(
    (title, unit, outcome): (&str, &'static str, Outcome),
    (curves, limits): (&[Curve<'_>], &[Curve<'_>]),
    (dir, name): (&Path, &str),
) -> Result<Vec<PathBuf>> {
    draw(
        vec![(
            name.to_owned(),
            positions::curves(title, (unit, "position after the prompt"), outcome, (curves, limits)),
        )],
        dir,
    )
}

/// Draws a bar for each name, with what stands above and below them, as [`draw_positions`] does.
pub fn draw_bars(
    (title, unit, axis, outcome): (&str, &str, &str, Outcome),
    bars: &[(String, usize)],
    (dir, name): (&Path, &str),
) -> Result<Vec<PathBuf>> {
    draw(vec![(name.to_owned(), positions::bars(title, unit, axis, outcome, bars))], dir)
}

/// Each on a thread of its own: a bitmap takes longer than all the rest of a small report.
fn draw(scenes: Vec<(String, Scene)>, dir: &Path) -> Result<Vec<PathBuf>> {
    let one = |(name, scene): &(String, Scene)| {
        let svg = dir.join(format!("{name}.svg"));
        std::fs::write(&svg, render::svg(scene)?).map_err(|e| Error::io("write the picture", &svg, &e))?;
        let png = dir.join(format!("{name}.png"));
        render::png(scene, &png)?;
        Ok([svg, png])
    };
    let drawn: Vec<Result<[PathBuf; 2]>> = scenes.par_iter().map(one).collect();
    // Of several errors the first, whichever came first.
    Ok(drawn.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// The pictures with their file names.
fn scenes(report: &Report) -> Vec<(String, scene::Scene)> {
    let (stops, kinds) = (stops(report), kinds(report));
    let mut scenes = vec![("overview".to_owned(), overview::figure(report, &stops, &kinds).draw())];
    if !report.by_token.is_empty() {
        scenes.push(("tokens".to_owned(), tokens::scene(report)));
    }
    for family in families(report) {
        let figure: Figure = family::figure(report, Some(family), &stops, &kinds);
        let mut name = format!("curve-{}", file_name(family));
        while scenes.iter().any(|(taken, _)| *taken == name) {
            name.push('-');
        }
        scenes.push((name, figure.draw()));
    }
    scenes
}

/// The families, in the order in which they first appear.
fn families(report: &Report) -> Vec<&str> {
    let mut families: Vec<&str> = Vec::new();
    for point in &report.points {
        if !families.contains(&point.family.as_str()) {
            families.push(&point.family);
        }
    }
    families
}

/// A family's name with every sign replaced that could mean something in a path.
fn file_name(family: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    family.chars().map(|c| if plain(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests;
