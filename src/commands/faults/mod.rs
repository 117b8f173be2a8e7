//! `layerdiff faults`.

mod healthy;
mod json;
mod junit;
mod list;
mod markdown;
mod named;
mod pairs;
mod places;
mod run;
mod said;
mod score;
mod shrink;
mod table;
mod trial;

use super::Ui;
use crate::cli::{FaultsArgs, FaultsCommand};
use crate::error::Result;
use crate::report::Outcome;

pub(super) fn run(args: &FaultsArgs, ui: Ui) -> Result<Outcome> {
    match &args.command {
        FaultsCommand::List(args) => list::run(args, ui),
        FaultsCommand::Run(args) => run::run(args, ui),
    }
}
