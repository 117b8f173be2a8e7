//! The `layerdiff` command.

use clap::Parser;
use layerdiff::{cli::Cli, commands};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Without the handler an interrupt would leave half-written directories behind.
    let _none_to_replace = ctrlc::set_handler(|| {
        commands::remove_unfinished();
        std::process::exit(130);
    });
    match Cli::try_parse() {
        Ok(cli) => commands::execute(&cli),
        Err(error) => commands::refuse(&error),
    }
}
