//! What was found out about each tensor of a run.

use crate::metrics::{ErrorsByValue, Metrics};
use crate::replay::Replay;
use crate::trace::Entry;
use std::collections::HashMap;

/// Prompt, step and point.
pub type Key = (String, u32, String);

/// That of an entry.
pub fn key(entry: &Entry) -> Key {
    (entry.prompt.clone(), entry.step, entry.point.clone())
}

/// A tensor against the others.
#[derive(Debug)]
pub(super) struct Compared {
    /// Against the reference, and against arm Q where there is one.
    pub against: Vec<Option<Metrics>>,
    /// The error of each head, where that was counted.
    pub heads: Option<Vec<f64>>,
    /// The errors by value, where they were counted.
    pub by_value: Option<ErrorsByValue>,
}

/// What was found out while an engine ran.
#[derive(Debug, Default)]
pub struct Measured {
    compared: HashMap<Key, Compared>,
    replays: HashMap<Key, Replay>,
}

/// What a tensor was compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Base {
    Reference,
    ArmQ,
}

impl Measured {
    pub(super) fn compared(&mut self, key: Key, compared: Compared) {
        self.compared.insert(key, compared);
    }

    pub(super) fn replayed(&mut self, key: Key, replay: Replay) {
        self.replays.insert(key, replay);
    }

    /// The metrics against one of the others; none where nothing could be compared.
    pub fn metrics(&self, base: Base, key: &Key) -> Option<&Metrics> {
        self.compared.get(key)?.against.get(base as usize)?.as_ref()
    }

    /// What came of the replay; none where there was none.
    pub fn replay(&self, key: &Key) -> Option<&Replay> {
        self.replays.get(key)
    }

    /// The error of each head against what the candidate is judged by, if it was counted.
    pub fn heads(&self, key: &Key) -> Option<&[f64]> {
        self.compared.get(key)?.heads.as_deref()
    }

    /// The errors by value against what the candidate is judged by, if they were counted.
    pub fn by_value(&self, key: &Key) -> Option<&ErrorsByValue> {
        self.compared.get(key)?.by_value.as_ref()
    }
}
