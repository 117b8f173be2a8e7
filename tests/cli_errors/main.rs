//! The real command on bad input: what it says, that it says it everywhere, and that it leaves nothing behind.
//!
//! `INSTA_UPDATE=always cargo test --test cli_errors` writes the snapshots anew.

#![cfg(unix)]

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod model;
mod outcomes;
mod outputs;
mod prompts;
mod python;
mod release;
mod reports;
mod tokens;
mod traces;
mod world;
