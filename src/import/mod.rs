//! Import: any engine's dumps become a trace.
//!
//! [`format`] knows files, [`map`] what a person says of them, and the rest brings each dump to its point: the
//! names are matched, the values brought into the point's form, held against the reference where there is one,
//! and written in the order of execution, one tensor in memory at a time. What the dumps do not have is not in
//! the trace, and a comparison says so.

mod arrange;
mod block;
mod edit;
mod entries;
pub mod format;
mod fused;
pub mod map;
mod names;
mod near;
mod pattern;
mod plan;
mod precise;
mod prove;
mod sizes;
mod suggest;
mod write;

pub use write::{Imported, Request, import, suggest};
