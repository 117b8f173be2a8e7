//! The rules that a manifest must keep by itself, whatever its shards hold.

use super::manifest::Manifest;
use super::self_check::SelfCheck;
use crate::error::{Error, Result};
use crate::prompt::{PLAIN_ID, Prompt, is_plain_id};
use std::collections::{HashMap, HashSet};

impl Manifest {
    /// Checks every rule that needs no file but the manifest.
    pub fn validate(&self) -> Result<()> {
        if self.format != "layerdiff-trace" {
            return Err(Error::new("not a layerdiff trace")
                .expected("format `layerdiff-trace`", format!("`{}`", self.format))
                .hint("a trace is made by `layerdiff capture` or by layerdiff_hooks"));
        }
        if self.version != 1 {
            return Err(Error::new("unknown version of the trace format")
                .expected(1, self.version)
                .hint("a newer layerdiff wrote this trace; update, or capture it again"));
        }
        if !self.config.is_object() {
            return Err(Error::new("the trace's `config` is not the model's configuration")
                .expected("an object", &self.config));
        }
        if let Some(adapter) = &self.adapter {
            adapter.validate()?;
        }
        self.validate_shards()?;
        self.validate_run()?;
        self.validate_places()
    }

    /// Checks what is said of the run, wherever its tensors are.
    pub(super) fn validate_run(&self) -> Result<()> {
        self.validate_self_check()?;
        self.validate_prompts()?;
        self.validate_generated()?;
        self.validate_tensors()?;
        self.provenance.parallel.as_ref().map_or(Ok(()), |parallel| parallel.validate(&self.tensors))
    }

    fn validate_self_check(&self) -> Result<()> {
        if let Some(check) = &self.self_check {
            let follows = SelfCheck::new(check.evidence.clone()).status;
            if check.status != follows {
                return Err(Error::new("the trace's self-check contradicts its own evidence")
                    .expected(format!("{follows:?}"), format!("{:?}", check.status))
                    .hint("do not use this trace: it was changed by hand, or made by a broken writer"));
            }
        }
        if let Some(bits) = self.provenance.activation_bits.filter(|bits| !(2..=16).contains(bits)) {
            return Err(Error::new("the trace states an impossible number of bits for activations")
                .expected("2 to 16", bits));
        }
        let bad = self.provenance.parameter_error.iter().find(|(_, e)| !e.is_finite() || **e < 0.0);
        match bad {
            Some((name, error)) => {
                Err(Error::new(format!("the trace states an impossible storage error for `{name}`"))
                    .expected("a finite number, not negative", error))
            }
            None => Ok(()),
        }
    }

    fn validate_prompts(&self) -> Result<()> {
        let mut ids = HashSet::new();
        for prompt in &self.prompts {
            if !is_plain_id(&prompt.id) {
                return Err(Error::new("bad prompt id in the manifest")
                    .expected(PLAIN_ID, format!("{:?}", prompt.id)));
            }
            if !ids.insert(&prompt.id) {
                return Err(Error::new(format!("two prompts of the trace share the id `{}`", prompt.id)));
            }
            if prompt.token_ids.is_empty() {
                return Err(Error::new(format!("prompt `{}` of the trace has no tokens", prompt.id)));
            }
        }
        Ok(())
    }

    fn validate_generated(&self) -> Result<()> {
        match &self.generated {
            Some(_) if self.prompts.len() != 1 => {
                Err(Error::new("the trace does not say after which prompt its text was generated")
                    .expected("one prompt", self.prompts.len()))
            }
            Some(said) if !(said.seconds.is_finite() && said.seconds >= 0.0) => {
                Err(Error::new("the trace states an impossible time")
                    .expected("seconds, finite and not negative", said.seconds))
            }
            _ => Ok(()),
        }
    }

    fn validate_shards(&self) -> Result<()> {
        let mut files = HashSet::new();
        for shard in &self.shards {
            let name = &shard.file;
            if name.contains(['/', '\\', ':', '\0'])
                || name.starts_with('.')
                || !name.ends_with(".safetensors")
            {
                return Err(Error::new("the manifest names a shard outside the trace's directory")
                    .expected("a plain file name ending in .safetensors", format!("{name:?}"))
                    .hint("do not use this trace: it was made by a broken or a hostile writer"));
            }
            if !files.insert(name) {
                return Err(Error::new(format!("the manifest lists the shard {name:?} twice")));
            }
        }
        Ok(())
    }

    fn validate_tensors(&self) -> Result<()> {
        let prompts: HashMap<&str, &Prompt> = self.prompts.iter().map(|p| (p.id.as_str(), p)).collect();
        let mut seen = HashSet::new();
        for (i, entry) in self.tensors.iter().enumerate() {
            let name = || entry.named();
            if entry.order != i as u64 {
                return Err(Error::new(format!(
                    "the order of execution has a gap or a repeat at {}",
                    name()
                ))
                .expected(i, entry.order));
            }
            let Some(prompt) = prompts.get(entry.prompt.as_str()) else {
                return Err(Error::new(format!("{} belongs to no prompt of the trace", name())));
            };
            entry.validate_rows(prompt).map_err(|e| e.about(name()))?;
            if entry.point.is_empty() || entry.basis.is_empty() {
                let what = if entry.point.is_empty() { "point" } else { "basis" };
                return Err(Error::new(format!("tensor {i} of the trace has no {what}")));
            }
            if self.leaves_out(entry.step, &entry.point) {
                return Err(Error::new(format!("the trace holds {}, which it says is left out", name())));
            }
            if entry.byte_len().is_none_or(|bytes| bytes > isize::MAX as usize) {
                return Err(Error::new(format!("{} is impossibly large", name()))
                    .expected("a shape that fits in memory", format!("{:?}", entry.shape)));
            }
            if !seen.insert((entry.prompt.as_str(), entry.step, entry.point.as_str())) {
                return Err(Error::new(format!("the trace holds {} twice", name()))
                    .hint("a warm-up pass or a graph replay may have been captured too; capture one pass"));
            }
        }
        Ok(())
    }

    /// Each tensor is in a shard, and each shard has one.
    fn validate_places(&self) -> Result<()> {
        let mut used = vec![false; self.shards.len()];
        for entry in &self.tensors {
            *used.get_mut(entry.shard).ok_or_else(|| {
                Error::new(format!("{} is in a shard that is not listed", entry.named()))
                    .expected(format!("an index below {}", self.shards.len()), entry.shard)
            })? = true;
        }
        match self.shards.iter().zip(used).find(|(_, used)| !used) {
            Some((shard, _)) => {
                Err(Error::new(format!("no tensor of the manifest is in shard {:?}", shard.file)))
            }
            None => Ok(()),
        }
    }
}
