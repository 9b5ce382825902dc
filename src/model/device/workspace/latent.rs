//! The part of latent attention in the memory of a forward and a backward on a device.

use anyhow::Result;
use half::bf16;

use crate::model::device::widths::LatentWidths;
use crate::ops::attention::latent::{Latent, device as latent};
use crate::ops::device::{Buffer, Class, Device};

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

/// Values of a token that latent attention takes, where it is there.
fn width(widths: Option<LatentWidths>, of: impl Fn(Latent) -> usize) -> usize {
    widths.map_or(0, |widths| of(widths.sizes))
}

fn query_rank(widths: Option<LatentWidths>) -> usize {
    widths.map_or(0, |widths| widths.query_rank)
}

fn scores(
    device: &Device,
    class: Class,
    widths: Option<LatentWidths>,
    t: usize,
    longest: usize,
) -> Result<latent::Scratch> {
    latent::Scratch::new(device, class, width(widths, |s| latent::scratch_len(s, t, longest)))
}

impl Kept {
    pub(in crate::model::device) fn new(
        device: &Device,
        class: Class,
        widths: Option<LatentWidths>,
        t: usize,
    ) -> Result<Self> {
        let room = |width: usize| device.buffer(class, t * width);
        let factors = |any: bool| device.buffer(class, if any { t } else { 0 });
        Ok(Self {
            queries: room(width(widths, |s| s.queries()))?,
            compressed_queries: room(query_rank(widths))?,
            query_factors: factors(query_rank(widths) > 0)?,
            compressed: room(width(widths, |s| s.compressed()))?,
            factors: factors(widths.is_some())?,
            absorbed: room(width(widths, |s| s.heads * s.compressed()))?,
            keys: room(width(widths, |s| s.compressed()))?,
        })
    }
}

impl Inputs {
    /// For `t` tokens that see up to `longest`.
    pub(in crate::model::device) fn new(
        device: &Device,
        class: Class,
        widths: Option<LatentWidths>,
        t: usize,
        longest: usize,
    ) -> Result<Self> {
        Ok(Self {
            queries: device.buffer(class, t * query_rank(widths))?,
            values: device.buffer(class, t * width(widths, |s| s.outputs()))?,
            scores: scores(device, class, widths, t, longest)?,
        })
    }
}

impl Gradients {
    pub(in crate::model::device) fn new(device: &Device, widths: Option<LatentWidths>, t: usize) -> Result<Self> {
        let room = |width: usize| device.buffer(Class::Activations, t * width);
        Ok(Self {
            values: room(width(widths, |s| s.outputs()))?,
            queries: room(width(widths, |s| s.queries()))?,
            compressed_queries: room(query_rank(widths))?,
            absorbed: room(width(widths, |s| s.heads * s.compressed()))?,
            keys: room(width(widths, |s| s.compressed()))?,
            wide_keys: device.buffer(Class::Activations, t * width(widths, |s| s.compressed()))?,
            scores: scores(device, Class::Activations, widths, t, t)?,
        })
    }
}
