//! A checkpoint's weights in f32, some of them replaced by what an engine makes of them.

use super::ModelDir;
use super::write::{CheckpointWriter, as_f32};
use crate::error::{Error, Result};
use lattice_quant::quarot::QuarotTensorReader;
use serde_json::Value;
use std::path::Path;

/// Where the head of the written checkpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// It is the embedding if it is so in the source.
    AsInSource,
    /// It gets a tensor of its own, because the engine holds it in another form than the embedding.
    Own,
}

/// Reads a parameter's values out of the checkpoint.
pub(crate) type Values<'a> = &'a dyn Fn() -> Result<Vec<f32>>;

impl ModelDir {
    /// Writes the parameters of the architecture, tensor by tensor, as an f32 checkpoint that must not
    /// exist yet.
    ///
    /// `replace` is offered each parameter, and can read its values in this checkpoint; where it has nothing to
    /// say they stay. What the architecture does not name, such as a vision tower, is left out.
    pub(crate) fn write_replaced(
        &self,
        head: Head,
        replace: impl Fn(&str, Values<'_>) -> Result<Option<Vec<f32>>>,
        out: &Path,
    ) -> Result<()> {
        let read = |e| Error::new(format!("cannot read the weights: {e}")).at(self.path());
        let reader = QuarotTensorReader::open(self.path()).map_err(read)?;
        let description = self.graph().description();
        let mut writer = CheckpointWriter::create(out)?;
        let push = |param: &str, from: &str| {
            let lacking = || Error::new(format!("the checkpoint lacks `{from}`")).at(self.path());
            let stored = description.stored_names(from).find(|name| reader.has_tensor(name));
            let stored = stored.ok_or_else(lacking)?;
            let shape = reader.tensor_shape(&stored).map_err(read)?;
            let source = || {
                let (wide, _) = reader.read_tensor_f64(&stored).map_err(read)?;
                // A checkpoint holds 32 bits at the most, so that this rounds nothing.
                Ok(wide.into_iter().map(|v| v as f32).collect())
            };
            let values = replace(param, &source)?.map_or_else(source, Ok)?;
            writer.push(if param == from { &stored } else { param }, &shape, values)
        };
        self.for_each_param(head, push)?;
        let section = description.config_section.as_str();
        let mut config = as_f32(self.config(), section, true);
        if let (Head::Own, Some((_, flag))) = (head, description.tied()) {
            untie(&mut config, section, flag);
        }
        writer.finish(&config, self.path())
    }

    /// Calls `push` with each parameter and the one whose values are its own in this checkpoint.
    fn for_each_param(&self, head: Head, mut push: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        let mut params: Vec<&str> = Vec::new();
        for param in self.base_graph().components().iter().flat_map(|c| &c.params) {
            // A tied head names the embedding for the second time.
            if !params.contains(&param.as_str()) {
                params.push(param);
            }
        }
        params.iter().try_for_each(|param| push(param, param))?;
        let Some((own, _)) = self.graph().description().tied().filter(|_| head == Head::Own) else {
            return Ok(());
        };
        let last = self.graph().components().last().expect("an architecture has components");
        match last.params.first() {
            Some(tied) if tied != own => push(own, tied),
            _ => Ok(()),
        }
    }
}

/// Says wherever an engine looks that the head is not the embedding.
fn untie(config: &mut Value, section: &str, flag: &str) {
    config[flag] = false.into();
    if let Some(section) = config.get_mut(section).and_then(Value::as_object_mut) {
        section.insert(flag.to_owned(), false.into());
    }
}
