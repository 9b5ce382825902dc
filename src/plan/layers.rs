//! Values a token that the parts of layers take on a CPU, whichever kinds of attention and feed-forward part they are.

use anyhow::Result;

use crate::model::ModelConfig;
use crate::model::experts::Experts;
use crate::model::layout::{LayerLayout, Mlp};
use crate::ops::attention::{cached, latent};

/// Values a token of a layer's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttentionSizes {
    /// What it keeps for its backward.
    pub(super) kept: usize,
    /// What is computed again.
    pub(super) inputs: usize,
    /// Gradients.
    pub(super) gradients: usize,
    /// What a block of the cache holds of it, for all its positions.
    pub(super) block: usize,
}

impl AttentionSizes {
    pub(super) fn of(config: &ModelConfig, head_norms: bool) -> Result<Self> {
        let heads = config.heads();
        let (row, output) = (heads.row(), heads.output());
        let Some(shape) = config.latent()? else {
            let raw = if head_norms { row } else { 0 };
            return Ok(Self {
                kept: row + raw + output + heads.query,
                inputs: 0,
                gradients: output + row + raw,
                block: cached::block_len(heads),
            });
        };
        let (s, rank) = (shape.sizes, shape.query_rank.unwrap_or(0));
        let projected = s.queries() + rank + s.compressed();
        Ok(Self {
            kept: row + output + heads.query + projected,
            inputs: rank + s.compressed() + s.outputs(),
            gradients: output + row + projected + s.compressed() + s.outputs() + config.hidden_size,
            block: latent::block_len(s),
        })
    }
}

/// Values a token of the layers' feed-forward parts on a CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FeedForward {
    /// What all layers together keep for their backward.
    pub(super) kept_by_all: usize,
    /// What one layer keeps at most; the next ones are of one layer too.
    pub(super) kept: usize,
    /// What products take in.
    pub(super) inputs: usize,
    /// Gradients.
    pub(super) gradients: usize,
    /// The widest product.
    pub(super) widest: usize,
}

impl FeedForward {
    /// Those of a dense part `f` wide.
    fn dense(f: usize) -> Self {
        Self { kept_by_all: 2 * f, kept: 2 * f, inputs: f, gradients: 3 * f, widest: 2 * f }
    }

    /// Those of a mixture over a stream `k` wide.
    fn experts(experts: &Experts, k: usize) -> Self {
        let (a, e, f, shared) = (experts.router.active, experts.router.experts, experts.width, experts.shared);
        // Scores, choices with their weights and places, and the gate.
        let kept = 2 * a * f + e + 4 * a + 2 * shared + 1;
        let inputs = a * (f + 2 * k + 3) + e + shared + k;
        Self { kept_by_all: kept, kept, inputs, gradients: 3 * (a * f).max(shared), widest: 2 * f.max(shared) }
    }

    /// Those of a layer beside those of others.
    fn and(self, layer: Self) -> Self {
        Self {
            kept_by_all: self.kept_by_all + layer.kept_by_all,
            kept: self.kept.max(layer.kept),
            inputs: self.inputs.max(layer.inputs),
            gradients: self.gradients.max(layer.gradients),
            widest: self.widest.max(layer.widest),
        }
    }

    pub(super) fn of(config: &ModelConfig, layers: &[LayerLayout]) -> Result<Self> {
        let experts = config.experts()?;
        let of_layer = |layer: &LayerLayout| match (&layer.mlp, &experts) {
            (Mlp::Experts(_), Some(experts)) => Self::experts(experts, config.hidden_size),
            _ => Self::dense(config.intermediate_size),
        };
        Ok(layers.iter().map(of_layer).fold(Self::default(), Self::and))
    }
}
