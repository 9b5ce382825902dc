//! What a forward and a backward have to know of a model beside its weights. They themselves are [`super::cpu`]'s and
//! [`super::device`]'s.

use crate::ops::attention::Heads;
use crate::ops::rope::RopeTable;

use super::config::ModelConfig;

/// A model's shape with its table of angles: everything about it that is not trained.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Sizes of the attention layers.
    pub heads: Heads,
    /// Width of the residual stream (`K`).
    pub hidden: usize,
    /// Width of the feed-forward layer (`F`).
    pub intermediate: usize,
    /// Added under the root of the norms.
    pub eps: f32,
    /// Rotary angles.
    pub rope: RopeTable,
    /// Whether layers are computed again in the backward instead of kept.
    pub recompute: bool,
}

impl Decoder {
    /// The decoder of a validated config.
    pub fn new(config: &ModelConfig, recompute: bool) -> Self {
        let heads = config.heads();
        let frequencies = config.rope_frequencies().expect("a validated config has rotary angles that are known");
        Self {
            heads,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            eps: config.rms_norm_eps,
            rope: RopeTable::new(config.max_position_embeddings, &frequencies),
            recompute,
        }
    }
}
