//! The gate for a build server: a case for each criterion.

use super::TokenReport;
use crate::report::check_status;
use crate::report::junit::{Case, Found, Suite};
use crate::trace::Status;

/// The suite of one engine.
pub(crate) fn suite(report: &TokenReport) -> Suite {
    let check = check_status(&report.self_check);
    let checked = match report.self_check.status {
        Status::BitEqual => Found::Pass(check.to_owned()),
        Status::Different => Found::Error(check.to_owned()),
        Status::Unmeasured => Found::Skipped(check.to_owned()),
    };
    let mut cases = vec![Case::new("self-check", checked)];
    for criterion in &report.gate.criteria {
        let value = criterion.value.map_or_else(|| "not measured".to_owned(), |v| v.to_string());
        let said = format!("{value}, {}", criterion.limit);
        let found = match criterion.pass {
            Some(true) => Found::Pass(said),
            Some(false) => Found::Failure(said.clone(), said),
            None => Found::Error("UNMEASURED".to_owned()),
        };
        cases.push(Case::new(format!("{} {}", criterion.name, criterion.limit), found));
    }
    cases.push(Case::outcome(report.outcome, &report.headline));
    Suite { name: format!("{} {}", report.engine, report.gate.profile), cases }
}
