//! The command lines of `doctor`, `completions` and `man`.

use super::PythonArg;
use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each engine runs a prompt of the bundled model, with its self-check. Exit code 0: all works; 2: something does not.

Examples:
  layerdiff doctor
  layerdiff doctor --python venv/bin/python
  layerdiff doctor --model DIR             whether this checkpoint can be captured, and what a trace of it takes")]
pub struct DoctorArgs {
    /// Look at this checkpoint too.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Where PyTorch runs.
    #[command(flatten)]
    pub python: PythonArg,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerdiff completions bash > ~/.local/share/bash-completion/completions/layerdiff
  layerdiff completions zsh > ~/.zfunc/_layerdiff
  layerdiff completions fish > ~/.config/fish/completions/layerdiff.fish")]
pub struct CompletionsArgs {
    /// Which shell.
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerdiff man | man -l -
  layerdiff man --out ~/.local/share/man/man1        layerdiff.1, layerdiff-run.1, …")]
pub struct ManArgs {
    /// Write a page for each command into this directory; earlier pages there are replaced [default: the page of layerdiff itself, to stdout].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
