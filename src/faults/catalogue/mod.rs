//! The catalogue: every file holds the faults of one kind of component, as data and formulas.

mod activation;
mod attention;
mod cache;
mod convolution;
mod delta_rule;
mod gdn;
mod harmless;
mod linear;
mod norm;
mod rope;
mod rule;
mod softmax;

use super::Fault;
use crate::error::{Error, Result, nearest};

/// Where a fault is known from, of those that the project started with: their list was not a public one.
const LIST: &str = "bugs that engines have shipped, as this project has gathered them";

/// All faults, and after them what must not be reported.
pub fn catalogue() -> impl Iterator<Item = &'static Fault> {
    let parts = [
        norm::FAULTS,
        linear::FAULTS,
        rope::FAULTS,
        attention::FAULTS,
        softmax::FAULTS,
        cache::FAULTS,
        convolution::FAULTS,
        gdn::FAULTS,
        delta_rule::FAULTS,
        activation::FAULTS,
        harmless::FAULTS,
    ];
    parts.into_iter().flatten()
}

/// The fault called `name`; an error that offers the nearest when there is none.
pub fn named(name: &str) -> Result<&'static Fault> {
    catalogue().find(|fault| fault.name == name).ok_or_else(|| {
        let error = Error::new(format!("unknown fault `{name}`"));
        match nearest(name, catalogue().map(|fault| fault.name)) {
            Some(near) => error.hint(format!("did you mean `{near}`? `layerdiff faults list` shows all")),
            None => error.hint("`layerdiff faults list` shows all"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        let mut names: Vec<&str> = catalogue().map(|fault| fault.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_mistyped_fault_is_answered_with_the_nearest() {
        let error = named("rope-interleave").unwrap_err().to_string();
        assert!(error.contains("did you mean `rope-interleaved`"), "{error}");
    }
}
