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

#[cfg(feature = "cli")]
pub mod align;
#[cfg(feature = "cli")]
pub mod arms;
#[cfg(feature = "cli")]
pub mod basis;
#[cfg(feature = "cli")]
pub mod bundle;
#[cfg(feature = "cli")]
pub mod capture;
#[cfg(feature = "cli")]
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod commands;
#[cfg(feature = "cli")]
pub mod compare;
#[cfg(feature = "cli")]
pub mod diagnose;
#[cfg(feature = "cli")]
pub mod elements;
#[cfg(feature = "cli")]
pub mod engine;
pub mod error;
#[cfg(feature = "cli")]
pub mod faults;
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod files;
#[cfg(feature = "cli")]
pub mod floor;
#[cfg(feature = "cli")]
pub mod hook;
#[cfg(feature = "cli")]
pub mod import;
#[cfg(feature = "cli")]
pub mod localize;
#[cfg(feature = "cli")]
pub mod metrics;
pub mod model;
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod number;
#[cfg(feature = "cli")]
pub mod online;
#[cfg(feature = "cli")]
pub mod parameters;
#[cfg(feature = "cli")]
mod progress;
pub mod prompt;
#[cfg(feature = "cli")]
pub mod quantize;
#[cfg(feature = "cli")]
pub mod replay;
#[cfg(feature = "cli")]
pub mod report;
#[cfg(feature = "cli")]
pub mod split;
pub mod tap;
pub mod tensor;
#[cfg(feature = "cli")]
pub mod tokens;
pub mod trace;
