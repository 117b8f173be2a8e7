//! A part of a report: one step, one prompt, some points.

use super::Wanted;
use crate::error::{Error, Result, nearest, nearest_point};
use crate::report::{PointReport, PromptErrors, Report, State};

/// The report without what was not asked for. Of one prompt, figures that are kept only of each point's worst
/// prompt are left out where that is another.
pub(super) fn narrowed(report: &Report, wanted: &Wanted<'_>) -> Result<Report> {
    let mut part = report.clone();
    if let Some(id) = wanted.prompt {
        of_prompt(&mut part, id)?;
    }
    if let Some(step) = wanted.step {
        let mut steps: Vec<u32> = part.points.iter().map(|p| p.step).collect();
        steps.dedup();
        let last = steps.iter().max().copied().unwrap_or(0);
        part.points.retain(|p| p.step == step);
        part.faults.retain(|f| f.step == step);
        part.heads.retain(|h| h.step == step);
        part.by_value.retain(|v| v.step == step);
        if part.points.is_empty() {
            return Err(Error::new(format!("the report has no step {step}"))
                .expected(format!("0 to {last}"), step)
                .hint("0 is the prefill, then there is one for each decoded token"));
        }
    }
    if let Some(family) = wanted.family {
        let known = super::families(report);
        if !known.contains(&family) {
            let near = nearest(family, known.iter().copied());
            let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            return Err(Error::new(format!("no family `{family}` in the report"))
                .hint(format!("{near}known: {}", known.join(", "))));
        }
        part.points.retain(|p| p.family == family);
    }
    if let Some(filter) = wanted.points {
        part.points.retain(|p| filter.accepts(&p.point));
        if part.points.is_empty() {
            let known = report.points.iter().map(|p| p.point.as_str());
            let near = nearest_point(filter.as_str(), known);
            return Err(Error::new("no point of the report is chosen")
                .expected("a point, or a glob such as `*.self_attn.*`", format!("`{}`", filter.as_str()))
                .hint(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "report.json lists all points under `points`".to_owned(),
                }));
        }
    }
    Ok(part)
}

/// Leaves the errors of one prompt.
fn of_prompt(report: &mut Report, id: &str) -> Result<()> {
    let Some(prompt) = report.prompts.iter().find(|p| p.id == id).cloned() else {
        let known: Vec<&str> = report.prompts.iter().map(|p| p.id.as_str()).collect();
        let hint = nearest(id, known.iter().copied());
        let hint =
            hint.map_or_else(|| format!("known: {}", known.join(", ")), |n| format!("did you mean `{n}`?"));
        return Err(Error::new(format!("no prompt `{id}` in the report")).hint(hint));
    };
    if report.prompts.len() > 1 {
        let Some(own) = report.by_prompt.iter().find(|own| own.prompt == id).cloned() else {
            let kept: Vec<&str> = report.by_prompt.iter().map(|own| own.prompt.as_str()).collect();
            return Err(Error::new(format!("the errors of prompt `{id}` alone are not in the report")).hint(
                if kept.is_empty() {
                    "an earlier layerdiff wrote it: make it anew".to_owned()
                } else {
                    format!("they are kept for the worst prompts: {}", kept.join(", "))
                },
            ));
        };
        report.faults.retain(|f| f.prompt == id);
        restore(report, id, &own);
    }
    id.clone_into(&mut report.prompt_id);
    report.prompts = vec![prompt];
    report.heads.retain(|h| h.prompt == id);
    report.by_value.retain(|v| v.prompt == id);
    Ok(())
}

/// Puts a prompt's own errors in place of those of each point's worst prompt.
fn restore(report: &mut Report, id: &str, own: &PromptErrors) {
    let faults = report.faults.clone();
    for (point, error) in report.points.iter_mut().zip(&own.points) {
        if point.prompt == id {
            continue;
        }
        let born = faults.iter().any(|f| f.point == point.point && f.step == point.step);
        let armed = point.armed;
        let template = point.judged().cloned();
        let known = error.rel_l2.zip(template).map(|(rel_l2, metrics)| {
            let list = if armed { &error.engine_per_token } else { &error.per_token };
            crate::metrics::Metrics { rel_l2, per_token: list.clone(), ..metrics }
        });
        *point = PointReport {
            prompt: id.to_owned(),
            state: if born { State::Born } else { State::Explained },
            note: known.is_none().then(|| "it was not compared in this prompt".to_owned()),
            metrics: if armed { None } else { known.clone() },
            engine_metrics: if armed { known } else { None },
            floors: std::collections::BTreeMap::new(),
            quantization: None,
            engine_error: None,
            floor: None,
            explained: None,
            local_ratio: None,
            ..point.clone()
        };
    }
}
