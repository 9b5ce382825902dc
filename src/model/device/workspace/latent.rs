//! The part of latent attention in the memory of a forward and a backward on a device.

use anyhow::{Result, ensure};
use half::bf16;

use crate::model::Decoder;
use crate::model::layout::{Attention, LatentAttention, LatentQuery, Layout};
use crate::ops::attention::latent::{Latent, device as latent};
use crate::ops::device::{Buffer, Class, Device};

/// The sizes of a model's latent attention that decide its buffers, where it has any.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::model::device) struct LatentWidths {
    latent: Option<Latent>,
    /// Values that queries are compressed to; 0 where they are not.
    query_rank: usize,
}

/// What latent attention keeps of a layer. `(T, ..)` each.
#[derive(Debug)]
pub(in crate::model::device) struct Kept {
    /// Queries of heads, not yet absorbed.
    pub(in crate::model::device) queries: Buffer<bf16>,
    /// What they were made of, before its norm; empty where it was the stream.
    pub(in crate::model::device) compressed_queries: Buffer<bf16>,
    pub(in crate::model::device) query_factors: Buffer<f32>,
    /// Latents before their norm, with what is rotated beside them.
    pub(in crate::model::device) compressed: Buffer<bf16>,
    pub(in crate::model::device) factors: Buffer<f32>,
    /// Queries in the space of latents, rotated.
    pub(in crate::model::device) absorbed: Buffer<bf16>,
    /// Latents, normed, with what is rotated beside them.
    pub(in crate::model::device) keys: Buffer<bf16>,
}

/// What a forward works in; inputs of products that the backward computes again.
#[derive(Debug)]
pub(in crate::model::device) struct Inputs {
    /// Compressed queries, normed.
    pub(in crate::model::device) queries: Buffer<bf16>,
    /// Outputs of heads.
    pub(in crate::model::device) values: Buffer<bf16>,
    pub(in crate::model::device) scores: latent::Scratch,
}

/// Gradients of what lies between its operations.
#[derive(Debug)]
pub(in crate::model::device) struct Gradients {
    pub(in crate::model::device) values: Buffer<bf16>,
    pub(in crate::model::device) queries: Buffer<bf16>,
    pub(in crate::model::device) compressed_queries: Buffer<bf16>,
    pub(in crate::model::device) absorbed: Buffer<bf16>,
    pub(in crate::model::device) keys: Buffer<bf16>,
    /// That of keys, before it is rounded.
    pub(in crate::model::device) wide_keys: Buffer<f32>,
    pub(in crate::model::device) scores: latent::Scratch,
}

impl LatentWidths {
    pub(in crate::model::device) fn of(decoder: &Decoder, layout: &Layout) -> Self {
        let query_rank = layout.layers.iter().find_map(|layer| match &layer.attention {
            Attention::Latent(LatentAttention { query: LatentQuery::Compressed { norm, .. }, .. }) => Some(norm),
            _ => None,
        });
        let query_rank = query_rank.map_or(0, |norm| norm.range.len());
        Self { latent: decoder.latent.map(|(sizes, _)| sizes), query_rank }
    }

    /// Refuses sizes that the kernels cannot compute, by their key in the model's config.
    pub(in crate::model::device) fn check(self) -> Result<()> {
        let Some(s) = self.latent else { return Ok(()) };
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

    /// Values of a token that one of `of` each takes.
    fn width(self, of: impl Fn(Latent) -> usize) -> usize {
        self.latent.map_or(0, of)
    }

    /// The widest row that is normed.
    pub(in crate::model::device) fn normed(self) -> usize {
        self.width(|s| s.rank).max(self.query_rank)
    }

    fn scores(self, device: &Device, class: Class, t: usize, longest: usize) -> Result<latent::Scratch> {
        latent::Scratch::new(device, class, self.width(|s| latent::scratch_len(s, t, longest)))
    }
}

impl Kept {
    pub(in crate::model::device) fn new(device: &Device, class: Class, widths: LatentWidths, t: usize) -> Result<Self> {
        let room = |width: usize| device.buffer(class, t * width);
        let factors = |any: bool| device.buffer(class, if any { t } else { 0 });
        Ok(Self {
            queries: room(widths.width(|s| s.queries()))?,
            compressed_queries: room(widths.query_rank)?,
            query_factors: factors(widths.query_rank > 0)?,
            compressed: room(widths.width(|s| s.compressed()))?,
            factors: factors(widths.latent.is_some())?,
            absorbed: room(widths.width(|s| s.heads * s.compressed()))?,
            keys: room(widths.width(|s| s.compressed()))?,
        })
    }
}

impl Inputs {
    /// For `t` tokens that see up to `longest`.
    pub(in crate::model::device) fn new(
        device: &Device,
        class: Class,
        widths: LatentWidths,
        t: usize,
        longest: usize,
    ) -> Result<Self> {
        Ok(Self {
            queries: device.buffer(class, t * widths.query_rank)?,
            values: device.buffer(class, t * widths.width(|s| s.outputs()))?,
            scores: widths.scores(device, class, t, longest)?,
        })
    }
}

impl Gradients {
    pub(in crate::model::device) fn new(device: &Device, widths: LatentWidths, t: usize) -> Result<Self> {
        let room = |width: usize| device.buffer(Class::Activations, t * width);
        Ok(Self {
            values: room(widths.width(|s| s.outputs()))?,
            queries: room(widths.width(|s| s.queries()))?,
            compressed_queries: room(widths.query_rank)?,
            absorbed: room(widths.width(|s| s.heads * s.compressed()))?,
            keys: room(widths.width(|s| s.compressed()))?,
            wide_keys: device.buffer(Class::Activations, t * widths.width(|s| s.compressed()))?,
            scores: widths.scores(device, Class::Activations, t, t)?,
        })
    }
}
