//! layerdiff: give it a model, a prompt and two engines, and it names the component that
//! computes something else than it should.
//!
//! The way of the data, and of the imports, is one: prompt → trace → align → compare → replay →
//! localize → diagnose → report.

#![deny(missing_docs)]
#![warn(clippy::pedantic)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::doc_markdown,
    clippy::float_cmp,
    clippy::many_single_char_names,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::module_name_repetitions,
    clippy::must_use_candidate,
    clippy::needless_for_each,
    clippy::needless_pass_by_value,
    clippy::ref_option,
    clippy::return_self_not_must_use,
    clippy::similar_names,
    clippy::single_match_else,
    clippy::too_many_arguments,
    clippy::trivially_copy_pass_by_ref
)]

pub mod align;
pub mod arms;
pub mod basis;
pub mod bundle;
pub mod capture;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod diagnose;
pub mod engine;
pub mod error;
pub mod faults;
mod files;
pub mod floor;
pub mod hook;
pub mod import;
pub mod localize;
pub mod metrics;
pub mod model;
mod number;
pub mod parameters;
mod progress;
pub mod prompt;
pub mod quantize;
pub mod replay;
pub mod report;
pub mod split;
pub mod tensor;
pub mod tokens;
pub mod trace;
