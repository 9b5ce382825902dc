//! Values a token that the parts of layers take on a CPU, whichever kinds of attention and feed-forward part they are.

use anyhow::Result;

use crate::model::ModelConfig;
use crate::model::experts::Experts;
use crate::model::latent::LatentShape;
use crate::model::layout::{Attention, LayerLayout, Mlp};
use crate::ops::attention::{cached, latent};
use crate::ops::delta::Delta;

/// Values a token that a part of layers takes: their attention, or their feed-forward parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PartSizes {
    /// What all layers together keep for their backward.
    pub(super) kept_by_all: usize,
    /// What one layer keeps at most; the next ones are of one layer too.
    pub(super) kept: usize,
    /// What products take in, and what is computed again.
    pub(super) inputs: usize,
    /// Gradients.
    pub(super) gradients: usize,
    /// What a block of the cache holds of all layers, for all its positions.
    pub(super) block: usize,
    /// What a cache holds of a sequence, however long it is.
    pub(super) state: usize,
    /// The widest product.
    pub(super) widest: usize,
}

impl PartSizes {
    fn grouped(config: &ModelConfig, head_norms: bool) -> Result<Self> {
        let heads = config.heads();
        let (row, output) = (heads.row(), heads.output());
        let (norms, gated) = (if head_norms { row } else { 0 }, config.family()?.has_output_gates());
        let (projected, inputs) = if gated { (row + output, norms + output) } else { (norms, 0) };
        let kept = row + projected + output + heads.query;
        Ok(Self {
            kept_by_all: kept,
            kept,
            inputs,
            gradients: output + row + norms + if gated { row + output } else { 0 },
            block: cached::block_len(heads),
            state: 0,
            widest: if gated { row + output } else { row },
        })
    }

    fn latent(config: &ModelConfig, shape: &LatentShape) -> Self {
        let (heads, s, rank) = (config.heads(), shape.sizes, shape.query_rank.unwrap_or(0));
        let (row, output, projected) = (heads.row(), heads.output(), s.queries() + rank + s.compressed());
        let kept = row + output + heads.query + projected;
        Self {
            kept_by_all: kept,
            kept,
            inputs: rank + s.compressed() + s.outputs(),
            gradients: output + row + projected + s.compressed() + s.outputs() + config.hidden_size,
            block: latent::block_len(s),
            state: 0,
            widest: row,
        }
    }

    fn delta(s: Delta) -> Self {
        let kept = s.row() + s.outputs();
        Self {
            kept_by_all: kept,
            kept,
            inputs: s.outputs() + s.channels() + s.gates(),
            gradients: 2 * s.outputs() + s.row() + s.channels() + s.gates(),
            block: 0,
            state: s.state(),
            widest: s.row(),
        }
    }

    /// Those of a layer beside those of others.
    fn and(self, layer: Self) -> Self {
        Self {
            kept_by_all: self.kept_by_all + layer.kept_by_all,
            kept: self.kept.max(layer.kept),
            inputs: self.inputs.max(layer.inputs),
            gradients: self.gradients.max(layer.gradients),
            block: self.block + layer.block,
            state: self.state + layer.state,
            widest: self.widest.max(layer.widest),
        }
    }

    /// Those of the attention of all layers.
    pub(super) fn of_attention(config: &ModelConfig, layers: &[LayerLayout]) -> Result<Self> {
        let (shape, delta) = (config.latent()?, config.delta()?);
        let mut sum = Self::default();
        for layer in layers {
            sum = sum.and(match (&layer.attention, &shape, &delta) {
                (Attention::Delta(_), _, Some(delta)) => Self::delta(delta.sizes),
                (Attention::Latent(_), Some(shape), _) => Self::latent(config, shape),
                _ => Self::grouped(config, layer.has_head_norms())?,
            });
        }
        Ok(sum)
    }

    /// Those of a dense part `f` wide.
    fn dense(f: usize) -> Self {
        let kept = 2 * f;
        Self { kept_by_all: kept, kept, inputs: f, gradients: 3 * f, widest: 2 * f, ..Self::default() }
    }

    /// Those of a mixture over a stream `k` wide.
    fn experts(experts: &Experts, k: usize) -> Self {
        let (a, e, f, shared) = (experts.router.active, experts.router.experts, experts.width, experts.shared);
        // Scores, choices with their weights and places, and the gate.
        let kept = 2 * a * f + e + 4 * a + 2 * shared + 1;
        let inputs = a * (f + 2 * k + 3) + e + shared + k;
        let (gradients, widest) = (3 * (a * f).max(shared), 2 * f.max(shared));
        Self { kept_by_all: kept, kept, inputs, gradients, widest, ..Self::default() }
    }

    /// Those of the feed-forward parts of all layers.
    pub(super) fn of_mlps(config: &ModelConfig, layers: &[LayerLayout]) -> Result<Self> {
        let experts = config.experts()?;
        let of_layer = |layer: &LayerLayout| match (&layer.mlp, &experts) {
            (Mlp::Experts(_), Some(experts)) => Self::experts(experts, config.hidden_size),
            _ => Self::dense(config.intermediate_size),
        };
        Ok(layers.iter().map(of_layer).fold(Self::default(), Self::and))
    }
}
