//! Which rows of attention's scores are captured.
//!
//! A point with an axis of `tokens` and one of `context`, such as scores, probabilities and masks, is the only
//! thing in a trace that grows faster than linearly in tokens. Of long contexts some of its rows are kept.

use super::graph::{Component, Graph};
use crate::error::{Error, Result};
use std::fmt;

/// Up to this many tokens of context all rows are kept, if nothing else is asked for.
const LONG: usize = 2048;

/// How many are kept beyond that.
const ROWS: usize = 64;

/// The rows that are kept of a step's query tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scores {
    /// Those of all of them.
    All,
    /// Of a step with more query tokens than so many (at least 2) those of so many, evenly chosen, the first and
    /// the last among them.
    Rows(usize),
    /// All up to a context of 2,048 tokens, else 64.
    #[default]
    Auto,
}

impl Scores {
    /// `all`, `rows:N` or `auto`.
    pub fn parse(text: &str) -> Result<Self> {
        let rows = |text: &str| text.strip_prefix("rows:")?.parse().ok().filter(|n| *n >= 2);
        match text {
            "all" => Ok(Self::All),
            "auto" => Ok(Self::Auto),
            _ => rows(text).map(Self::Rows).ok_or_else(|| {
                Error::new("unknown choice of attention's rows")
                    .expected("--scores all, auto, or rows:N with N of at least 2", format!("{text:?}"))
                    .hint(format!(
                        "auto keeps all up to a context of {LONG} tokens, and {ROWS} rows beyond it; rows:N always has \
                         the first and the last"
                    ))
            }),
        }
    }

    /// Positions in the step of the query tokens whose rows are kept, ascending; none where all are.
    ///
    /// `scores.py` of layerdiff_hooks has the same formula: two sides must keep the same rows.
    pub fn rows(self, tokens: usize, context: usize) -> Option<Vec<usize>> {
        let most = match self {
            Self::All => return None,
            Self::Rows(most) => most.max(2),
            Self::Auto if context <= LONG => return None,
            Self::Auto => ROWS,
        };
        (tokens > most).then(|| (0..most).map(|i| i * (tokens - 1) / (most - 1)).collect())
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Auto => f.write_str("auto"),
            Self::Rows(n) => write!(f, "rows:{n}"),
        }
    }
}

impl Graph {
    /// Which axis counts the query tokens of an output that has a row over the context for each of them: of such
    /// an output some rows may be captured without the others.
    pub fn row_axis(&self, component: &Component) -> Option<usize> {
        let square = component.shape.iter().any(|name| name == "context");
        self.token_axis(component).filter(|_| square)
    }

    /// The shape of what was captured of a component's output: of those `rows` that are kept, where not all are.
    pub fn shape_of_rows(
        &self,
        component: &Component,
        tokens: usize,
        context: usize,
        rows: Option<&[usize]>,
    ) -> Vec<usize> {
        let mut shape = self.shape(component, tokens, context);
        if let (Some(rows), Some(axis)) = (rows, self.row_axis(component)) {
            shape[axis] = rows.len();
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_rows_of_both_sides_are_those_of_one_table() {
        let table = include_str!("../../hooks/tests/scores.json");
        let cases: Vec<Value> = serde_json::from_str(table).unwrap();
        assert!(cases.len() > 10);
        for case in cases {
            let size = |key: &str| case[key].as_u64().unwrap() as usize;
            let rows: Option<Vec<usize>> = serde_json::from_value(case["rows"].clone()).unwrap();
            let scores = Scores::parse(case["scores"].as_str().unwrap()).unwrap();
            assert_eq!(scores.rows(size("tokens"), size("context")), rows, "{case}");
        }
    }

    #[test]
    fn kept_rows_ascend_from_the_first_to_the_last_and_are_as_many_as_asked_for() {
        for tokens in [3, 4, 9, 100, 2049, 8192] {
            for most in (2..tokens.min(130)).chain([tokens - 1]) {
                let rows = Scores::Rows(most).rows(tokens, tokens).unwrap();
                assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "{rows:?}");
                assert_eq!((rows.len(), rows[0], rows[most - 1]), (most, 0, tokens - 1));
            }
        }
    }

    #[test]
    fn a_choice_is_written_as_it_is_read_and_others_are_refused() {
        for text in ["all", "auto", "rows:2", "rows:64"] {
            assert_eq!(Scores::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "rows", "rows:", "rows:1", "rows:0", "rows:-3", "rows:x", "heads:2"] {
            assert!(Scores::parse(text).unwrap_err().to_string().contains("rows:N"), "{text}");
        }
    }
}
