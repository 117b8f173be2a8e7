//! How a result is printed, and the command line of `show`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// How a result is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for a person at a terminal.
    #[default]
    Terminal,
    /// Markdown for a comment or a step's summary on GitHub, of at most 65,000 bytes.
    Github,
}

/// A choice among formats.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct FormatArg {
    /// How the result is printed; github: Markdown below GitHub's limit for a comment, with the curve as text.
    #[arg(
        id = "format",
        long = "format",
        value_name = "NAME",
        value_enum,
        default_value_t,
        hide_possible_values = false
    )]
    pub name: Format,
}

/// How a report is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ShowFormat {
    /// Text for a person at a terminal.
    #[default]
    Terminal,
    /// Markdown for a comment or a step's summary on GitHub, of at most 65,000 bytes.
    Github,
    /// The interactive page: reports by layer only.
    Html,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 0 for a report that could be shown, whatever its outcome.

Examples:
  layerdiff show reports/latest
  layerdiff show reports/latest --format github | gh issue create --title 'RoPE' --body-file -
  layerdiff show report.json --format html > page.html")]
pub struct ShowArgs {
    /// A report.json of `run`, `compare`, `tokens` or `release`, or the directory with it.
    pub report: PathBuf,
    /// How it is shown.
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub format: ShowFormat,
}
