//! `layerdiff doctor`: what works here, and how to mend what does not.

mod checks;

use super::{Ui, print_json, print_text};
use crate::cli::DoctorArgs;
use crate::engine::torch::Python;
use crate::error::{Error, Result};
use crate::report::Outcome;
use console::Style;
use serde::Serialize;
use serde_json::{Value, json};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    /// What was found, or what is wrong.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The same for programs.
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
}

impl Check {
    /// From what was found, with its details, or an error.
    fn new(name: &str, result: Result<(String, Value)>) -> Self {
        let name = name.to_owned();
        match result {
            Ok((found, details)) => Self { name, ok: true, found, hint: None, details },
            Err(error) => {
                let text = error.to_string();
                let (found, hint) = text.split_once("\n  hint: ").unwrap_or((&text, ""));
                let found = found.lines().map(str::trim).collect::<Vec<_>>().join("; ");
                let hint = (!hint.is_empty()).then(|| hint.to_owned());
                Self { name, ok: false, found, hint, details: Value::Null }
            }
        }
    }
}

pub(super) fn run(args: &DoctorArgs, ui: Ui) -> Result<Outcome> {
    let machine = checks::machine();
    let mut all = checks::engines(ui)?;
    let python = Python::find(args.python.file.as_deref());
    all.push(Check::new("PyTorch", checks::python(&python)));
    all.extend(checks::disk());
    if let Some(dir) = &args.model {
        all.push(Check::new("model", checks::model(dir)));
    }
    let outcome = if all.iter().all(|check| check.ok) { Outcome::Pass } else { Outcome::Invalid };
    if ui.json {
        let version = env!("CARGO_PKG_VERSION");
        print_json(&json!({"outcome": outcome, "version": version, "machine": machine, "checks": all}))?;
    } else {
        print_text(&text(&machine, &all, console::colors_enabled(), super::width()))?;
    }
    Ok(outcome)
}

/// Columns of the names and of the words before what was found.
const NAME: usize = 18;
const WORD: usize = 9;

fn text(machine: &checks::Machine, all: &[Check], colour: bool, width: usize) -> String {
    let (indent, width) = (NAME + WORD, width.clamp(60, 110));
    let mut lines =
        crate::report::wrap(&format!("layerdiff {} on {machine}", env!("CARGO_PKG_VERSION")), width);
    lines.push(String::new());
    for check in all {
        let style = if check.ok { Style::new().green() } else { Style::new().red().bold() };
        let word = format!("{:<WORD$}", if check.ok { "ok" } else { "PROBLEM" });
        let word = style.force_styling(colour).apply_to(word);
        let hint = check.hint.iter().map(|hint| format!("hint: {hint}"));
        let said = std::iter::once(check.found.clone()).chain(hint);
        let mut said = said.flat_map(|text| crate::report::wrap(&text, width - indent));
        lines.push(format!("{word}{:<NAME$}{}", check.name, said.next().unwrap_or_default()));
        lines.extend(said.map(|line| format!("{:indent$}{line}", "")));
    }
    let bad = all.iter().filter(|check| !check.ok).count();
    lines.push(String::new());
    lines.push(match bad {
        0 => "all works: try `layerdiff run`".to_owned(),
        n => format!("problems: {n} of {}", all.len()),
    });
    lines.join("\n")
}

/// An error for what is there and cannot be used.
fn problem(what: impl Into<String>, hint: &str) -> Error {
    Error::new(what).hint(hint)
}
