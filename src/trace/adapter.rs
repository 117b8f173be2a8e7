//! Which adapter a trace ran with, and whether another one is the same.

use super::{Hashes, Manifest};
use crate::error::{Error, Result};
use crate::model::Adapter;

/// An adapter as a trace states it: what it does, and the hash of its files where that is known.
#[derive(Debug, Clone, Copy)]
pub struct StatedAdapter<'a> {
    description: Option<&'a Adapter>,
    hash: Option<&'a str>,
}

impl<'a> StatedAdapter<'a> {
    /// The one with this description, whose hash is among `hashes`.
    pub fn new(description: Option<&'a Adapter>, hashes: &'a Hashes) -> Self {
        Self { description, hash: hashes.adapter.as_deref() }
    }

    /// That of a trace.
    pub fn of(manifest: &'a Manifest) -> Self {
        Self::new(manifest.adapter.as_ref(), &manifest.provenance.hashes)
    }

    /// Refuses `other` unless it is the same adapter, or both are none.
    pub fn refuse_other(self, other: Self) -> Result<()> {
        let same = match (self.description, other.description) {
            (None, None) => true,
            (Some(a), Some(b)) => a.agrees_with(b) && self.hash.zip(other.hash).is_none_or(|(a, b)| a == b),
            _ => false,
        };
        if same {
            return Ok(());
        }
        Err(Error::new("the two sides ran with different adapters, so that no difference is an error")
            .expected(self.words(), other.words())
            .hint("give both the same `--lora DIR`, or none; to compare them on purpose: `compare --other-weights`"))
    }

    fn words(self) -> String {
        match (self.description, self.hash) {
            (None, _) => "no adapter".to_owned(),
            (Some(adapter), None) => adapter.summary(),
            (Some(adapter), Some(hash)) => format!("{} {hash}", adapter.summary()),
        }
    }
}
