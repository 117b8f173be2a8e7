//! The row of each point in the report.

use super::arms::Figures;
use super::json::{PointReport, State};
use super::rows::Row;
use crate::align::Partner;
use crate::model::layer_of;

/// One row for each point and step: of several prompts that with the worst state and error.
pub(super) fn points(rows: &[(&Row<'_>, Figures)]) -> Vec<PointReport> {
    let mut index = std::collections::HashMap::new();
    let mut points: Vec<PointReport> = Vec::new();
    for (row, figures) in rows {
        let point = point_report(row, figures);
        match index.get(&(point.step, point.point.clone())) {
            None => {
                index.insert((point.step, point.point.clone()), points.len());
                points.push(point);
            }
            Some(&i) => {
                let rank = |p: &PointReport| match (p.state, p.judged()) {
                    (State::Born, _) => 4,
                    (State::Explained | State::Unmeasured, Some(_)) => 2,
                    // What only one prompt lacks must not hide what the others show.
                    (_, None) => 1,
                    (_, Some(_)) => 3,
                };
                let badness = |p: &PointReport| (rank(p), p.judged().map_or(0.0, |m| m.rel_l2));
                let note = points[i].note.clone().or_else(|| point.note.clone());
                let unmeasured =
                    points[i].replay_unmeasured.clone().or_else(|| point.replay_unmeasured.clone());
                if badness(&point).partial_cmp(&badness(&points[i])) == Some(std::cmp::Ordering::Greater) {
                    points[i] = point;
                }
                points[i].note = points[i].note.take().or(note);
                points[i].replay_unmeasured = unmeasured;
            }
        }
    }
    points
}

fn point_report(row: &Row<'_>, figures: &Figures) -> PointReport {
    let judged = row.judgement.as_ref().map_or(State::Unmeasured, |j| j.state);
    let (state, shape) = match &row.pair.partner {
        Partner::Matched(..) => (judged, row.pair.shape.clone()),
        Partner::Mismatched(_) => (State::Mismatched, Vec::new()),
        Partner::Unmeasured(_) => (State::Unmeasured, Vec::new()),
    };
    let note = row.note().map(str::to_owned);
    PointReport {
        point: row.pair.point.to_owned(),
        step: row.pair.step,
        prompt: row.pair.prompt.to_owned(),
        layer: layer_of(row.pair.point),
        family: row.pair.component.map_or_else(|| "other".to_owned(), |c| c.family.clone()),
        shape,
        state,
        note,
        metrics: row.total.clone(),
        floors: figures.floor.clone(),
        quantization: figures.quantization,
        engine_error: figures.engine,
        armed: row.armed,
        engine_metrics: row.engine.clone(),
        floor: row.judgement.as_ref().and_then(|j| j.floor).or_else(|| figures.floor.get("float64").copied()),
        explained: row.judgement.as_ref().map(|j| j.explained),
        local_ratio: row.judgement.as_ref().and_then(|j| Some(j.local.as_ref()?.ratio)),
        replay_unmeasured: row.not_replayed.clone(),
    }
}
