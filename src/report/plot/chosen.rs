//! Any single picture, as it is asked for.

use super::pick::narrowed;
use super::scene::Scene;
use super::{Measure, by_position, by_value, components, engines, families, family, heads, overview};
use crate::error::{Error, Result};
use crate::model::PointFilter;
use crate::report::stops::{kinds, stops};
use crate::report::{Outcome, Report};

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureKind {
    /// The error by layer.
    Curve,
    /// Layers × components.
    Heatmap,
    /// The size of the error against the size of the value.
    Magnitude,
    /// Points × heads.
    Heads,
    /// Points × tokens.
    Tokens,
}

/// A picture of a report.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What it shows.
    pub kind: PictureKind,
    /// What the cells of layers × components are.
    pub measure: Measure,
    /// Only points of this family.
    pub family: Option<&'a str>,
    /// Only these points.
    pub points: Option<&'a PointFilter>,
    /// Only this prompt.
    pub prompt: Option<&'a str>,
    /// Only this step.
    pub step: Option<u32>,
    /// For a dark page.
    pub dark: bool,
}

/// Draws a picture of one report.
pub(crate) fn picture(report: &Report, wanted: &Wanted<'_>) -> Result<Scene> {
    // Positions are those of one prompt.
    let prompt = wanted.prompt.or((wanted.kind == PictureKind::Tokens).then_some(report.prompt_id.as_str()));
    let part = narrowed(report, &Wanted { prompt, ..*wanted })?;
    kept(report, &part, wanted)?;
    let chosen = wanted.points.is_some() || wanted.family.is_some();
    let said = |subject: &str| match wanted.step {
        Some(step) => format!("{subject}, step {step}"),
        None => subject.to_owned(),
    };
    let scene = match wanted.kind {
        PictureKind::Curve => curve(&part, wanted, chosen),
        PictureKind::Heatmap => {
            if wanted.measure == Measure::Local && part.points.iter().all(|p| p.local_ratio.is_none()) {
                return Err(unproved(report, &part));
            }
            components::scene(&part, wanted.measure, &said("Components"), wanted.dark)
        }
        PictureKind::Magnitude => by_value::scene(&part, wanted.dark)?,
        PictureKind::Heads => heads::scene(&part, chosen, wanted.dark)?,
        PictureKind::Tokens => by_position::scene(&part, chosen, wanted.dark)?,
    };
    Ok(if wanted.dark { scene.darkened() } else { scene })
}

/// Refuses a prompt or step that the report says nothing of.
fn kept(report: &Report, part: &Report, wanted: &Wanted<'_>) -> Result<()> {
    let what = match wanted.kind {
        PictureKind::Heads if part.heads.is_empty() && !report.heads.is_empty() => "head",
        PictureKind::Magnitude if part.by_value.is_empty() && !report.by_value.is_empty() => "value",
        _ => return Ok(()),
    };
    Err(Error::new(format!("the errors by {what} of this prompt and step are not in the report"))
        .hint("they are kept where each point errs most: leave --prompt and --step out"))
}

/// The whole model, or some points of it.
fn curve(part: &Report, wanted: &Wanted<'_>, chosen: bool) -> Scene {
    let (stops, kinds) = (stops(part), kinds(part));
    let mut figure = if chosen {
        let family = families(part).first().copied().filter(|_| wanted.points.is_none());
        family::figure(part, family, &stops, &kinds)
    } else {
        overview::figure(part, &stops, &kinds)
    };
    if let Some(step) = wanted.step {
        figure.notes.push(format!("(step {step})"));
    }
    figure.draw()
}

/// Draws the picture that compares several engines.
pub(crate) fn picture_of_engines(reports: &[Report], outcome: Outcome, wanted: &Wanted<'_>) -> Result<Scene> {
    let parts = reports.iter().map(|report| narrowed(report, wanted)).collect::<Result<Vec<_>>>()?;
    let Some(first) = parts.first() else {
        return Err(Error::new("no engine's own report lies beside this one")
            .hint("the picture is made of the report.json in each engine's directory: make them anew"));
    };
    let (stops, kinds) = (stops(first), kinds(first));
    let scene = engines::figure(&parts, outcome, &stops, &kinds).draw();
    Ok(if wanted.dark { scene.darkened() } else { scene })
}

/// There is no local error in what was chosen.
fn unproved(report: &Report, part: &Report) -> Error {
    if report.points.iter().all(|p| p.local_ratio.is_none()) {
        return Error::new("the report has no local errors: nothing was replayed")
            .hint("`run` replays; `compare` does with --model or --weights");
    }
    if part.prompts.len() < report.prompts.len() {
        return Error::new("the local errors of this prompt are not in the report")
            .hint("they are kept of each point's worst prompt: leave --prompt out");
    }
    Error::new("nothing that was chosen was replayed").hint("choose other points, or leave --value local out")
}
