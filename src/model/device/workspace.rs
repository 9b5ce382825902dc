//! The memory of a forward and a backward on a device: every buffer that grows with the tokens of a micro-batch.

mod latent;

use anyhow::Result;
use half::bf16;

use super::routers::ExpertActivations;
use super::states::{DeltaGradients, DeltaInputs};
use super::widths::{AttentionWidths, MlpWidths};
use crate::model::Decoder;
use crate::ops::device::columns::partial_len;
use crate::ops::device::{Buffer, Class, Device};
use crate::ops::linear_logprob::device::Scratch;

/// What the buffers are made for: tokens, and tokens that predict a target.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    pub(super) t: usize,
    pub(super) r: usize,
}

/// What decides the size of buffers beside the decoder's sizes.
#[derive(Debug)]
pub(super) struct Shape {
    /// Of each layer that has buffers of its own.
    pub(super) layers: Vec<(AttentionWidths, MlpWidths)>,
    /// Layers whose input is kept.
    pub(super) inputs: usize,
    /// Values a token between an adapter's factors.
    pub(super) lora_hidden: usize,
}

impl Shape {
    /// What any layer takes.
    fn widest(&self) -> (AttentionWidths, MlpWidths) {
        let (attention, mlp): (Vec<_>, Vec<_>) = self.layers.iter().copied().unzip();
        (AttentionWidths::widest(attention), MlpWidths::widest(mlp))
    }
}

/// What a layer keeps for its backward beside its input. `(T, ..)` each.
#[derive(Debug)]
pub(super) struct Activations {
    pub(super) normed: Buffer<bf16>,
    /// What is projected with gates beside it; empty where there are none.
    pub(super) projected: Buffer<bf16>,
    /// Before the norm of heads; empty where there is none.
    pub(super) raw_qkv: Buffer<bf16>,
    /// Queries, keys and values, rotated; empty where attention is over latents.
    pub(super) qkv: Buffer<bf16>,
    pub(super) attended: Buffer<bf16>,
    pub(super) middle: Buffer<bf16>,
    pub(super) middle_normed: Buffer<bf16>,
    /// In the backward its gradient takes its place.
    pub(super) gate_up: Buffer<bf16>,
    pub(super) activated: Buffer<bf16>,
    pub(super) lse: Buffer<f32>,
    /// Factors of the norms: before attention, before the feed-forward layer, of query and key heads.
    pub(super) factors: Buffer<f32>,
    pub(super) middle_factors: Buffer<f32>,
    pub(super) head_factors: Buffer<f32>,
    pub(super) experts: ExpertActivations,
    pub(super) latent: latent::Kept,
}

/// Buffers of a forward.
#[derive(Debug)]
pub(super) struct Forward {
    /// The residual stream before each layer, and after the last; two that take turns where none is kept.
    streams: Vec<Buffer<bf16>>,
    /// One a layer; a single one for all where layers are computed again, or never looked back at.
    layers: Vec<Activations>,
    /// Hidden states after the last norm; the backward puts their gradient there.
    pub(super) hidden: Buffer<bf16>,
    pub(super) last_factors: Buffer<f32>,
    /// Between the factors of an adapter.
    pub(super) lora_hidden: Buffer<bf16>,
    /// What a router chooses by `(T, E)`.
    pub(super) router_products: Buffer<f32>,
    /// What experts take in, and what they give `(T A, K)`.
    pub(super) of_experts: Buffer<bf16>,
    /// Outputs of attention times their gates.
    pub(super) gated: Buffer<bf16>,
    pub(super) delta: DeltaInputs,
    pub(super) latent: latent::Inputs,
}

/// All buffers of a forward and a backward.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) forward: Forward,
    /// Rows that predict a target, and their gradient.
    pub(super) predicting: Buffer<bf16>,
    pub(super) d_predicting: Buffer<bf16>,
    /// Gradient of the residual stream, and of what lies between the operations of a layer.
    pub(super) dx: Buffer<bf16>,
    pub(super) d_activated: Buffer<bf16>,
    pub(super) d_normed: Buffer<bf16>,
    pub(super) d_attended: Buffer<bf16>,
    pub(super) d_projected: Buffer<bf16>,
    pub(super) d_qkv: Buffer<bf16>,
    pub(super) delta: Buffer<f32>,
    pub(super) delta_net: DeltaGradients,
    pub(super) latent: latent::Gradients,
    pub(super) d_lora_hidden: Buffer<bf16>,
    /// Of what experts give and take in, of their weights, and of a router's products.
    pub(super) d_of_experts: Buffer<bf16>,
    pub(super) d_weights: Buffer<f32>,
    pub(super) d_router_products: Buffer<bf16>,
    pub(super) partial: Buffer<f32>,
    pub(super) logprob: Scratch,
}

impl Forward {
    /// Room for `t` tokens, each of a sequence of up to `longest`.
    pub(super) fn new(
        device: &Device,
        class: Class,
        decoder: &Decoder,
        shape: &Shape,
        (t, longest): (usize, usize),
    ) -> Result<Self> {
        let (room, (attention, widest)) = (|width: usize| device.buffer(class, t * width), shape.widest());
        let activations = |&widths| Activations::new(device, class, decoder.hidden, widths, t);
        Ok(Self {
            streams: (0..=shape.inputs.max(1)).map(|_| room(decoder.hidden)).collect::<Result<_>>()?,
            layers: shape.layers.iter().map(activations).collect::<Result<_>>()?,
            hidden: room(decoder.hidden)?,
            last_factors: device.buffer(class, t)?,
            lora_hidden: room(shape.lora_hidden)?,
            router_products: device.buffer(class, t * widest.experts)?,
            of_experts: room(widest.active * decoder.hidden)?,
            gated: room(attention.gated)?,
            delta: DeltaInputs::new(device, class, attention.delta, t)?,
            latent: latent::Inputs::new(device, class, attention.latent, t, longest)?,
        })
    }

    /// The residual stream before layer `index`, or after the last.
    pub(super) fn stream(&self, index: usize) -> &Buffer<bf16> {
        &self.streams[index % self.streams.len()]
    }

    /// Where layer `index` keeps what its backward needs.
    pub(super) fn layer(&self, index: usize) -> &Activations {
        &self.layers[index % self.layers.len()]
    }
}

impl Workspace {
    /// Room for `t` tokens of which `r` predict a target.
    pub(super) fn new(device: &Device, decoder: &Decoder, shape: &Shape, room: Room) -> Result<Self> {
        let Room { t, r } = room;
        let (k, heads, (attention, widest)) = (decoder.hidden, decoder.heads, shape.widest());
        let room = |n: usize| device.buffer::<bf16>(Class::Activations, n);
        let partial = partial_len(k, t).max(attention.partial_len(heads, t));
        Ok(Self {
            forward: Forward::new(device, Class::Activations, decoder, shape, (t, t))?,
            predicting: room(r * k)?,
            d_predicting: room(r * k)?,
            dx: room(t * k)?,
            d_activated: room(t * widest.inner())?,
            d_normed: room(t * k)?,
            d_attended: room(t * attention.outputs)?,
            d_projected: room(t * attention.projected)?,
            d_qkv: room(t * attention.qkv)?,
            delta: device.buffer(Class::Activations, t * attention.heads)?,
            delta_net: DeltaGradients::new(device, attention.delta, t)?,
            latent: latent::Gradients::new(device, attention.latent, t)?,
            d_lora_hidden: room(t * shape.lora_hidden)?,
            d_of_experts: room(t * widest.active * k)?,
            d_weights: device.buffer(Class::Activations, t * widest.active)?,
            d_router_products: room(t * widest.experts)?,
            partial: device.buffer(Class::Activations, partial)?,
            logprob: Scratch::new(device)?,
        })
    }
}

impl Activations {
    fn new(
        device: &Device,
        class: Class,
        k: usize,
        (attention, widths): (AttentionWidths, MlpWidths),
        t: usize,
    ) -> Result<Self> {
        let room = |width: usize| device.buffer::<bf16>(class, t * width);
        let wide = |width: usize| device.buffer::<f32>(class, t * width);
        Ok(Self {
            normed: room(k)?,
            projected: room(attention.projected)?,
            raw_qkv: room(attention.raw_qkv)?,
            qkv: room(attention.qkv)?,
            attended: room(attention.outputs)?,
            middle: room(k)?,
            middle_normed: room(k)?,
            gate_up: room(2 * widths.activated)?,
            activated: room(widths.activated)?,
            lse: wide(attention.heads)?,
            factors: wide(1)?,
            middle_factors: wide(1)?,
            head_factors: wide(attention.normed_heads)?,
            experts: ExpertActivations::new(device, class, widths, t)?,
            latent: latent::Kept::new(device, class, attention.latent, t)?,
        })
    }
}
