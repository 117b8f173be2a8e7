//! A trace of a run that is going on: its tensors lie in memory, for as long as somebody needs them.

use super::read::key;
use super::{Entry, Incoming, LeftOut, Manifest, SelfCheck, Trace, WriteOptions};
use crate::error::Result;
use crate::prompt::Prompt;
use std::collections::HashMap;
use std::path::Path;

/// Where the values of a trace are.
#[derive(Debug)]
pub(super) enum Values {
    /// In shards; the byte range in its shard of the entry with this order.
    Shards(Vec<memmap2::Mmap>, Vec<std::ops::Range<usize>>),
    /// In memory, by order, until they are released.
    Live(HashMap<u64, Vec<u8>>),
}

impl Trace {
    /// The trace of a run that begins; `name` stands for it in what is said.
    pub fn live(name: &str, options: WriteOptions) -> Self {
        Self {
            path: Path::new(name).to_path_buf(),
            manifest: Manifest::new(options),
            values: Values::Live(HashMap::new()),
            index: Vec::new(),
        }
    }

    /// Announces the prompt that the tensors belong to from now on.
    pub fn start_prompt(&mut self, prompt: &Prompt) {
        self.manifest.prompts.push(prompt.clone());
    }

    /// Says that this run cannot show `point` in `step`.
    pub fn leave_out(&mut self, step: u32, point: &str) {
        self.manifest.left_out.push(LeftOut { step, point: point.to_owned() });
    }

    /// Takes the next tensor and returns its order.
    ///
    /// # Panics
    /// When no prompt has been started, or the trace is a stored one.
    pub fn push(&mut self, tensor: Incoming<'_>, bytes: Vec<u8>) -> u64 {
        let entry = self.manifest.entry(tensor);
        debug_assert_eq!(entry.byte_len(), Some(bytes.len()));
        let order = entry.order;
        let place = |i: &u32| key(&self.manifest.tensors[*i as usize]) < key(&entry);
        let at = self.index.partition_point(place);
        self.index.insert(at, order as u32);
        self.manifest.tensors.push(entry);
        let Values::Live(values) = &mut self.values else { panic!("a stored trace is never changed") };
        values.insert(order, bytes);
        order
    }

    /// Lets go of the values of the entry with this order: nobody will ask for them.
    pub fn release(&mut self, order: u64) {
        if let Values::Live(values) = &mut self.values {
            values.remove(&order);
        }
    }

    /// True while the values of an entry are there.
    pub fn holds(&self, entry: &Entry) -> bool {
        match &self.values {
            Values::Shards(..) => true,
            Values::Live(values) => values.contains_key(&entry.order),
        }
    }

    /// The run has ended: lets go of all values, and checks what is left as that of a stored trace is.
    pub fn close(&mut self, self_check: Option<SelfCheck>) -> Result<()> {
        self.values = Values::Live(HashMap::new());
        self.manifest.self_check = self_check;
        self.manifest.validate_run().map_err(|e| e.at(&self.path))
    }
}
