//! The score for a build server: a suite for each engine, a case for each fault.

use super::run::{Score, points};
use super::score::{Found as Outcome, Planting, Row};
use super::table::of_planting;
use crate::report::junit::{Case, Found, Suite};

/// The suites of all engines.
pub(super) fn suites(scores: &[Score]) -> Vec<Suite> {
    scores.iter().map(suite).collect()
}

fn suite(score: &Score) -> Suite {
    let alarms = points(&score.healthy.named);
    let healthy = if alarms.is_empty() {
        Found::Pass(String::new())
    } else {
        let said = "a healthy engine is reported".to_owned();
        Found::Failure(said, alarms.join("\n"))
    };
    let mut cases = vec![Case::new("nothing planted", healthy)];
    cases.extend(score.rows.iter().map(|row| Case::new(row.name, of_row(row))));
    for pair in &score.pairs {
        let plantings = pair.faults.iter().copied().zip(&pair.plantings).collect::<Vec<_>>();
        cases.push(Case::new(pair.faults.join(" and "), found(&plantings, Vec::new())));
    }
    cases.push(Case::outcome(score.outcome(), "the score as a whole"));
    Suite { name: format!("{} {}", score.engine, score.path), cases }
}

fn of_row(row: &Row) -> Found {
    let drowned = row.smallest.iter().flat_map(|s| &s.named_when_drowned);
    let drowned = drowned.map(|named| format!("drowned: NAMED {named}")).collect();
    found(&row.plantings.iter().map(|planting| (row.name, planting)).collect::<Vec<_>>(), drowned)
}

/// What is wrong is a failure; what could not be judged, where nothing is wrong, an error.
fn found(plantings: &[(&str, &Planting)], mut said: Vec<String>) -> Found {
    let wrong = !said.is_empty() || !plantings.iter().all(|(_, planting)| planting.is_not_wrong());
    said.extend(plantings.iter().flat_map(|(name, planting)| of_planting(name, planting)));
    match (wrong, plantings.iter().all(|(_, planting)| planting.is_right())) {
        (true, _) => Found::Failure(said.first().cloned().unwrap_or_default(), said.join("\n")),
        (false, false) => Found::Error(said.join("; ")),
        // Nothing was shown by what no input showed.
        (false, true) if !plantings.iter().any(|(_, planting)| shows(planting)) => {
            Found::Skipped("it does not show on these prompts".to_owned())
        }
        (false, true) => Found::Pass(format!("planted {} times", plantings.len())),
    }
}

fn shows(planting: &Planting) -> bool {
    !matches!(planting.found, Outcome::Indistinguishable | Outcome::NotVisible)
}
