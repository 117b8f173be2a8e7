//! The architecture as data: which components a model has, and what flows between them.
//!
//! One TOML file describes an architecture ([`Description`]); with a model's configuration it
//! becomes the list of that model's components ([`Graph`]), to which an [`Adapter`] may add some. Capture,
//! alignment, localization and the report read this list and nothing else about the architecture.

mod adapter;
mod config;
mod description;
mod expression;
#[cfg(feature = "cli")]
mod filter;
mod graph;
mod point;
#[cfg(feature = "cli")]
mod scores;

pub use adapter::{ADAPTER_PARTS, Adapter, LowRank};
pub use config::ModelConfig;
pub use description::{ARCHITECTURES, Basis, Description, Op, Shown, Template, Tied};
#[cfg(feature = "cli")]
pub use filter::PointFilter;
pub use graph::{Component, Graph};
pub use point::{layer_of, resolve};
#[cfg(feature = "cli")]
pub use scores::Scores;
