//! Which components could not be replayed, and why.

use super::rows::Row;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A reason why components were not replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NotReplayed {
    pub reason: String,
    /// How many, each step and prompt counted.
    pub components: u64,
    /// The first of them in order of execution.
    pub point: String,
    pub step: u32,
    pub prompt: String,
}

/// The reasons, the most frequent first.
pub(super) fn not_replayed(rows: &[Row<'_>]) -> Vec<NotReplayed> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all: Vec<NotReplayed> = Vec::new();
    for row in rows {
        let Some(reason) = row.not_replayed.as_deref() else { continue };
        let at = *known.entry(reason).or_insert(all.len());
        match all.get_mut(at) {
            Some(one) => one.components += 1,
            None => all.push(NotReplayed {
                reason: reason.to_owned(),
                components: 1,
                point: row.pair.point.to_owned(),
                step: row.pair.step,
                prompt: row.pair.prompt.to_owned(),
            }),
        }
    }
    // Stable: reasons of one frequency stay in order of execution.
    all.sort_by_key(|one| std::cmp::Reverse(one.components));
    all
}

/// Reasons that are said in a line.
const SHOWN: usize = 3;

/// All of them in a line; none where all components were replayed.
pub(super) fn line(all: &[NotReplayed]) -> Option<String> {
    let components: u64 = all.iter().map(|one| one.components).sum();
    if components == 0 {
        return None;
    }
    let shown = all.iter().take(SHOWN).map(|one| format!("{} × {}", one.reason, one.components));
    let shown: Vec<String> = shown.collect();
    let rest = match all.len().saturating_sub(SHOWN) {
        0 => String::new(),
        1 => "; one more reason is in report.json".to_owned(),
        n => format!("; {n} more reasons are in report.json"),
    };
    let noun = if components == 1 { "component" } else { "components" };
    Some(format!("{components} {noun} not replayed: {}{rest}", shown.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(reason: &str, components: u64) -> NotReplayed {
        NotReplayed {
            reason: reason.into(),
            components,
            point: "model.norm".into(),
            step: 0,
            prompt: "p".into(),
        }
    }

    #[test]
    fn reasons_are_said_with_how_often_they_came() {
        assert_eq!(line(&[]), None);
        let one = [reason("a was not captured", 1)];
        assert_eq!(line(&one).as_deref(), Some("1 component not replayed: a was not captured × 1"));
        let four = [reason("a", 9), reason("b", 3), reason("c", 2), reason("d", 1)];
        let said = "15 components not replayed: a × 9; b × 3; c × 2; one more reason is in report.json";
        assert_eq!(line(&four).as_deref(), Some(said));
    }
}
