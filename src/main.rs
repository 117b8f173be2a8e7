//! The `layerdiff` command.

use clap::Parser;
use layerdiff::{cli::Cli, commands};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => commands::execute(&cli),
        Err(error) => commands::refuse(&error),
    }
}
