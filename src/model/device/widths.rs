//! How much a token takes of a layer's attention and of its feed-forward part on a device: what its buffers are made by,
//! and what a plan counts.

use anyhow::{Result, ensure};

use crate::model::layout::{Attention, LatentQuery, LayerLayout, Mlp};
use crate::ops::attention::Heads;
use crate::ops::attention::latent::{Latent, device as latent};
use crate::ops::delta::{Delta, device as delta};
use crate::ops::device::columns::partial_len;
use crate::ops::experts::Router;

/// Values a token that a layer's attention takes, whichever kind it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttentionWidths {
    /// What is projected with gates of outputs beside it.
    pub projected: usize,
    /// Queries, keys and values of grouped heads.
    pub qkv: usize,
    /// The same before norms of heads.
    pub raw_qkv: usize,
    /// Heads that attend.
    pub heads: usize,
    /// Heads that have a norm.
    pub normed_heads: usize,
    /// Outputs.
    pub outputs: usize,
    /// The same, multiplied by gates.
    pub gated: usize,
    /// Sizes of a delta net, if it is one.
    pub delta: Option<Delta>,
    /// Sizes of latent attention, if it is that.
    pub latent: Option<LatentWidths>,
}

/// The sizes of latent attention that decide its buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentWidths {
    /// Those of latents.
    pub sizes: Latent,
    /// Values that queries are compressed to; 0 where they are not.
    pub query_rank: usize,
}

/// Which kinds of attention the layers of a model may have, with their sizes.
#[derive(Debug, Clone, Copy)]
pub struct AttentionKinds {
    /// Grouped heads, or those that attend to latents.
    pub heads: Heads,
    /// Whether outputs of grouped heads have gates.
    pub gated: bool,
    /// Delta nets.
    pub delta: Option<Delta>,
    /// Latent attention.
    pub latent: Option<Latent>,
}

impl AttentionWidths {
    /// Those of a layer of a model whose layers may be of `kinds`.
    pub fn of(layer: &LayerLayout, kinds: &AttentionKinds) -> Self {
        let &AttentionKinds { heads, gated, delta, latent } = kinds;
        match (&layer.attention, delta, latent) {
            (Attention::Delta(_), Some(s), _) => {
                let outputs = s.outputs();
                Self { projected: s.row(), outputs, gated: outputs, delta: Some(s), ..Self::default() }
            }
            (Attention::Latent(parts), _, Some(sizes)) => {
                let query_rank = match &parts.query {
                    LatentQuery::Plain(_) => 0,
                    LatentQuery::Compressed { norm, .. } => norm.range.len(),
                };
                let latent = Some(LatentWidths { sizes, query_rank });
                Self { heads: heads.query, outputs: heads.output(), latent, ..Self::default() }
            }
            _ => Self::grouped(heads, gated, layer.has_head_norms()),
        }
    }

    fn grouped(heads: Heads, gated: bool, normed: bool) -> Self {
        let (qkv, outputs) = (heads.row(), heads.output());
        Self {
            projected: if gated { qkv + outputs } else { 0 },
            qkv,
            raw_qkv: if normed { qkv } else { 0 },
            heads: heads.query,
            normed_heads: if normed { heads.query + heads.key_value } else { 0 },
            outputs,
            gated: if gated { outputs } else { 0 },
            ..Self::default()
        }
    }

    /// What either takes.
    pub fn or(self, other: Self) -> Self {
        Self {
            projected: self.projected.max(other.projected),
            qkv: self.qkv.max(other.qkv),
            raw_qkv: self.raw_qkv.max(other.raw_qkv),
            heads: self.heads.max(other.heads),
            normed_heads: self.normed_heads.max(other.normed_heads),
            outputs: self.outputs.max(other.outputs),
            gated: self.gated.max(other.gated),
            delta: self.delta.or(other.delta),
            latent: self.latent.or(other.latent),
        }
    }

    /// What any of some layers takes.
    pub fn widest(layers: impl IntoIterator<Item = Self>) -> Self {
        layers.into_iter().fold(Self::default(), Self::or)
    }

    /// Bytes a token that a layer keeps for its backward.
    pub fn kept_bytes(self) -> usize {
        let own = 2 * (self.projected + self.qkv + self.raw_qkv + self.outputs) + 4 * (self.heads + self.normed_heads);
        own + self.latent.map_or(0, LatentWidths::kept_bytes)
    }

    /// Bytes a token that all layers share in a forward.
    pub fn forward_bytes(self) -> usize {
        let delta = self.delta.map_or(0, |s| s.channels() + s.gates() + s.value_heads);
        2 * self.gated + 4 * delta + self.latent.map_or(0, LatentWidths::forward_bytes)
    }

    /// The same, in a backward beside that.
    pub fn backward_bytes(self) -> usize {
        let delta = self.delta.map_or(0, |s| 2 * s.outputs() + 4 * (s.outputs() + delta::gradients(s) + s.gates()));
        let latent = self.latent.map_or(0, LatentWidths::backward_bytes);
        2 * (self.projected + self.qkv + self.outputs) + 4 * self.heads + delta + latent
    }

    /// Values of scratch that the sums of the gradients of its vectors over `t` tokens take.
    pub fn partial_len(self, heads: Heads, t: usize) -> usize {
        let grouped = if self.qkv > 0 { partial_len(heads.size, t * heads.query) } else { 0 };
        let delta = self.delta.map_or(0, |s| delta::partial_len(s, t).max(partial_len(s.value, t * s.value_heads)));
        let latent = self.latent.map_or(0, |latent| latent.sizes.rank.max(latent.query_rank));
        partial_len(self.qkv.max(latent), t).max(grouped).max(delta)
    }

    /// Bytes of the scores of latent attention, of up to `queries` queries that see up to `longest` keys.
    pub fn score_bytes(self, queries: usize, longest: usize) -> usize {
        self.latent.map_or(0, |latent| (4 + 2) * latent::scratch_len(latent.sizes, queries, longest))
    }
}

impl LatentWidths {
    /// Refuses sizes that the kernels cannot compute, by their key in the model's config.
    pub(super) fn check(self) -> Result<()> {
        let s = self.sizes;
        for (key, size) in [
            ("kv_lora_rank", s.rank),
            ("qk_rope_head_dim", s.rotated),
            ("qk_nope_head_dim", s.plain),
            ("v_head_dim", s.value),
            ("q_lora_rank", self.query_rank),
        ] {
            ensure!(size.is_multiple_of(8), "{key} = {size} has no CUDA kernels: it must be a multiple of 8");
        }
        Ok(())
    }

    /// Values that are projected: queries and what they are made of, latents, queries absorbed.
    fn projected(self) -> usize {
        let s = self.sizes;
        s.queries() + self.query_rank + s.compressed() + s.heads * s.compressed()
    }

    /// With keys, and the factors of norms.
    fn kept_bytes(self) -> usize {
        2 * (self.projected() + self.sizes.compressed()) + 4 * (1 + self.query_rank.min(1))
    }

    fn forward_bytes(self) -> usize {
        2 * (self.query_rank + self.sizes.outputs())
    }

    /// Keys have a gradient in fp32 too.
    fn backward_bytes(self) -> usize {
        2 * (self.projected() + self.sizes.outputs()) + 4 * self.sizes.compressed()
    }
}

/// Values a token that a layer's feed-forward part takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MlpWidths {
    /// Activations, of all experts of a token; gate and up are twice as wide.
    pub activated: usize,
    /// Experts of a token.
    pub active: usize,
    /// All experts.
    pub experts: usize,
    /// Activations of the expert of all tokens.
    pub shared: usize,
}

impl MlpWidths {
    /// Those of a layer, whose router, if it has one, is `router`.
    pub fn of(layer: &LayerLayout, router: Option<&Router>) -> Self {
        match (&layer.mlp, router) {
            (Mlp::Experts(mlp), Some(router)) => Self {
                activated: router.active * mlp.experts[0].down.inputs,
                active: router.active,
                experts: router.experts,
                shared: mlp.shared.as_ref().map_or(0, |shared| shared.mlp.down.inputs),
            },
            (Mlp::Experts(_), None) => unreachable!("a layer of experts has a router"),
            (Mlp::Dense(mlp), _) => Self { activated: mlp.down.inputs, ..Self::default() },
        }
    }

    /// What either takes.
    pub fn or(self, other: Self) -> Self {
        Self {
            activated: self.activated.max(other.activated),
            active: self.active.max(other.active),
            experts: self.experts.max(other.experts),
            shared: self.shared.max(other.shared),
        }
    }

    /// What any of some layers takes.
    pub fn widest(layers: impl IntoIterator<Item = Self>) -> Self {
        layers.into_iter().fold(Self::default(), Self::or)
    }

    /// Values between the products of the backward of either kind of expert.
    pub fn inner(self) -> usize {
        self.activated.max(self.shared)
    }

    /// Bytes a token that a layer keeps for its backward: gate, up and activations, and of each of its experts a row, a
    /// place and a weight; the gate of the expert of all.
    pub fn kept_bytes(self) -> usize {
        2 * 3 * (self.activated + self.shared) + 4 * 3 * self.active + if self.shared > 0 { 4 } else { 0 }
    }

    /// Bytes a token that all layers share in a forward, the stream being `k` wide.
    pub fn forward_bytes(self, k: usize) -> usize {
        4 * self.experts + 2 * self.active * k
    }

    /// The same, in a backward beside that.
    pub fn backward_bytes(self, k: usize) -> usize {
        2 * (self.inner() + self.active * k + self.experts) + 4 * self.active
    }
}
