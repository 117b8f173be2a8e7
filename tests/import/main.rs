//! `layerdiff import` through the real command: every format, every key of a map, and files made to do harm.

#![cfg(unix)]

#[path = "../common/mod.rs"]
mod common;

mod damage;
mod formats;
mod hostile;
mod maps;
mod names;
mod precision;
mod readme;
mod world;
