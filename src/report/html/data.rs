//! What the page is given: the reports without what it does not show, and texts that other renderings share.

use super::super::json::{Diagnosis, Fault, Outcome, PromptReport};
use super::super::set::EngineResult;
use super::super::text::{
    arms, compared_with, coverage, ignored_adapter, ratios_of, runs, self_check, share, short_headline,
    sides, warnings, word,
};
use super::super::{Report, ReportSet, first_diagnosis, replays};
use super::formula::formula;
use super::points::{COLUMNS, Texts, row, tokens_of_prompt};
use crate::model::{Description, Op};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// All that the page is given.
#[derive(Serialize)]
pub(super) struct Page<'a> {
    title: String,
    layerdiff: &'a str,
    command: &'a [String],
    /// What is said of several engines together.
    set: Option<Set<'a>>,
    reports: Vec<View<'a>>,
    /// The components of each architecture, by its name.
    components: BTreeMap<&'a str, Vec<Component>>,
}

#[derive(Serialize)]
struct Set<'a> {
    outcome: Outcome,
    headline: String,
    compared: String,
    engines: &'a [EngineResult],
}

#[derive(Serialize)]
struct View<'a> {
    engine: &'a str,
    outcome: Outcome,
    sides: String,
    /// What must be said before the headline.
    note: Option<&'a str>,
    headline: &'a str,
    reasoning: &'a [String],
    diagnosed: Option<String>,
    prompt_id: &'a str,
    prompts: &'a [PromptReport],
    architecture: &'a str,
    layer_types: &'a [String],
    summary: Vec<(&'static str, String)>,
    warnings: Vec<&'a str>,
    first_fault: Option<&'a Fault>,
    faults: &'a [Fault],
    /// What their ratios are multiples of.
    ratios_of: &'static str,
    diagnosis: &'a [Diagnosis],
    command: &'a [String],
    columns: &'static [&'static str],
    /// What rows have the places of.
    texts: Vec<String>,
    rows: Vec<Value>,
    /// The errors by token of some prompts, at the points of the rows; null where a row is of that prompt anyway.
    by_prompt: Vec<(&'a str, Vec<Value>)>,
}

/// A component before the layer's number is put in, as its description has it.
#[derive(Serialize)]
struct Component {
    point: String,
    layer_type: Option<String>,
    op: Op,
    formula: &'static str,
    inputs: Vec<String>,
    carried: Vec<String>,
    params: Vec<String>,
    shape: Vec<String>,
}

/// The page of one report.
pub(super) fn of_report(report: &Report) -> Page<'_> {
    Page {
        title: format!("{}: {}", word(report.outcome), sides(report)),
        layerdiff: &report.provenance.layerdiff,
        command: &report.provenance.command,
        set: None,
        reports: vec![view(report)],
        components: components(std::slice::from_ref(report)),
    }
}

/// The page of several engines.
pub(super) fn of_set(set: &ReportSet) -> Page<'_> {
    let compared = compared_with(set).map_or_else(String::new, |with| format!("compared with {with}"));
    Page {
        title: format!("{}: {}", word(set.outcome), share(set)),
        layerdiff: &set.layerdiff,
        command: &set.command,
        set: Some(Set { outcome: set.outcome, headline: share(set), compared, engines: &set.engines }),
        reports: set.reports().iter().map(view).collect(),
        components: components(set.reports()),
    }
}

fn view(report: &Report) -> View<'_> {
    let mut texts = Texts::default();
    let rows = report.points.iter().map(|point| row(point, &mut texts)).collect();
    View {
        engine: &report.engine,
        outcome: report.outcome,
        sides: sides(report),
        note: ignored_adapter(report),
        headline: short_headline(report),
        reasoning: &report.verdict.reasoning,
        diagnosed: first_diagnosis(report),
        prompt_id: &report.prompt_id,
        prompts: &report.prompts,
        architecture: &report.architecture,
        layer_types: &report.layer_types,
        summary: summary(report),
        warnings: warnings(report),
        first_fault: report.first_fault.as_ref(),
        faults: &report.faults,
        ratios_of: ratios_of(report),
        diagnosis: &report.diagnosis,
        command: &report.provenance.command,
        columns: &COLUMNS,
        texts: texts.list,
        rows,
        by_prompt: by_prompt(report),
    }
}

fn by_prompt(report: &Report) -> Vec<(&str, Vec<Value>)> {
    let all = report.by_prompt.iter().map(|own| {
        let points = report.points.iter().zip(&own.points);
        let rows = points.map(
            |(point, error)| {
                if point.prompt == own.prompt { Value::Null } else { tokens_of_prompt(error) }
            },
        );
        (own.prompt.as_str(), rows.collect())
    });
    all.collect()
}

/// The same facts as in report.md.
fn summary(report: &Report) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Coverage", coverage(report.coverage)),
        ("Self-check", self_check(&report.self_check)),
        ("Floor", format!("{}: {}", report.floor.kind, report.floor.description)),
        ("Arms", arms(report)),
    ];
    facts.extend(runs(report).map(|runs| ("Runs", runs)));
    let rests_on = &report.verdict.rests_on;
    facts.extend((!rests_on.is_empty()).then(|| ("Rests on", rests_on.clone())));
    facts.extend(replays::line(&report.replay_unmeasured).map(|line| ("Replay", line)));
    facts
}

/// The components of the reports' architectures; none of one that is not built in.
fn components(reports: &[Report]) -> BTreeMap<&str, Vec<Component>> {
    let mut all = BTreeMap::new();
    for name in reports.iter().map(|report| report.architecture.as_str()) {
        if let Ok(description) = Description::named(name) {
            all.entry(name).or_insert_with(|| described(&description));
        }
    }
    all
}

fn described(description: &Description) -> Vec<Component> {
    let templates = description.templates().iter();
    templates
        .map(|t| Component {
            point: t.point.clone(),
            layer_type: t.layer_type.clone(),
            op: t.op,
            formula: formula(t.op),
            inputs: t.inputs.clone(),
            carried: t.carried.clone(),
            params: t.params.clone(),
            shape: t.shape.clone(),
        })
        .collect()
}
