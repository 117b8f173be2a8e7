//! A correct kernel in 32 bits never exceeds the bound of its component, in whatever order it adds up and with
//! whatever library it takes exponentials from; and an error that is no rounding does.
//!
//! Every kernel here is written from the formula once more, and replayed through a trace on disk as any
//! engine's would be. `cargo test --test bounds -- --nocapture` prints the ratios of error to bound.

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod delta_rule;
mod elementwise;
mod kernel;
mod lab;
mod linear;
mod norm;
mod numbers;
mod range;
mod rope;
