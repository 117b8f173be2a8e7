//! What a pass needs besides the parameters: sizes, and the rotary table.

use super::engine_error;
use super::pass::{Model, Path};
use super::weights::{Sizes, Weights};
use crate::error::Result;
use lattice_arch::qwen35_config::Qwen35Config;
use lattice_compute::attention::gdn::GdnGeometry;
use lattice_compute::rope::RopeTable;
use lattice_model_qwen35::attention::gdn::qwen35_gdn_geometry;

/// The longest rotary table that the f32 engine makes; all engines are held to it.
const MAX_POSITIONS: usize = 8192;

/// A model without its parameters.
pub struct Frame {
    pub config: Qwen35Config,
    pub geometry: GdnGeometry,
    pub rope: RopeTable,
}

impl Frame {
    /// That of a configuration.
    pub fn new(config: Qwen35Config) -> Result<Self> {
        let geometry = qwen35_gdn_geometry(&config).map_err(|e| engine_error("use this geometry", &e))?;
        let positions = config.max_position_embeddings.min(MAX_POSITIONS);
        let rope = RopeTable::new(config.rope_dim(), positions, config.rope_theta);
        Ok(Self { config, geometry, rope })
    }

    /// Runs `work` with the model as a pass on `path` sees it, without an adapter.
    pub fn with<T>(
        &self,
        weights: &Weights<'_>,
        path: Path,
        work: impl FnOnce(&Model<'_>) -> Result<T>,
    ) -> Result<T> {
        let sizes = Sizes::new(&self.config);
        work(&Model { weights, sizes, geometry: &self.geometry, rope: &self.rope, path, adapter: None })
    }
}
