//! The layers' forward and backward on a device, in the order of `model/cpu/decoder.rs`. What lies within a layer is in
//! [`super::grouped`], [`super::latent`], [`super::delta`] and [`super::mlp`].

use anyhow::Result;
use half::bf16;

use super::DeviceModel;
use super::routers::RouterRecord;
use super::states::Memory;
use super::weights::{DeviceWeights, LayerWeights};
use super::workspace::{Activations, Forward, Workspace};
use crate::model::layout::Attention;
use crate::ops::attention::Segment;
use crate::ops::attention::cached::device::{Cache, Slot, Slots};
use crate::ops::device::columns::Rows;
use crate::ops::device::{Buffer, View};
use crate::ops::embedding::device as embedding;
use crate::ops::linear::device::{LoraHidden, Weight};
use crate::ops::rms_norm::device as rms_norm;

/// Tokens on the device, with what their layers are computed by.
pub(super) struct Run<'a> {
    pub(super) model: &'a DeviceModel,
    pub(super) weights: &'a DeviceWeights<'a>,
    /// Tokens.
    pub(super) t: usize,
    pub(super) positions: View<'a, u32>,
    pub(super) context: Context<'a>,
    /// Where the model may have delta nets.
    pub(super) memory: Option<Memory<'a>>,
    pub(super) routers: &'a RouterRecord<'a>,
    pub(super) ws: &'a Forward,
}

/// What the tokens of an input attend to.
#[derive(Clone, Copy)]
pub(super) enum Context<'a> {
    /// Their sequences, which are all in the input, and the tiles of them.
    Segments { segments: &'a [Segment], tiles: View<'a, [u32; 3]> },
    /// The same, and a cache keeps it.
    Prompt { segments: &'a [Segment], tiles: View<'a, [u32; 3]>, cache: &'a Cache, slots: View<'a, Slot> },
    /// What their slots in a cache hold, `longest` tokens at most, themselves included.
    Cached { cache: &'a Cache, slots: Slots<'a>, longest: usize, partial: View<'a, f32> },
}

impl<'a> Run<'a> {
    pub(super) fn layer(&self, index: usize) -> (&'a LayerWeights<'a>, &'a Activations) {
        (&self.weights.layers[index], self.ws.layer(index))
    }

    /// The first `T` rows of `width` values.
    pub(super) fn rows<'b, T: bytemuck::Pod>(&self, buffer: &'b Buffer<T>, width: usize) -> View<'b, T> {
        buffer.part(0..self.t * width)
    }

    /// From tokens to the hidden states after the last norm, which stay in the buffers beside what a backward needs.
    pub(super) fn hidden(&self, tokens: View<u32>) -> Result<View<'a, bf16>> {
        let (width, layers, ws) = (self.model.decoder.hidden, self.weights.layers.len(), self.ws);
        embedding::take_rows(tokens, self.weights.embedding.values, self.rows(ws.stream(0), width), width)?;
        for index in 0..layers {
            self.layer_forward(index)?;
            self.layer_output(index)?;
        }
        let (last, hidden) = (self.rows(ws.stream(layers), width), self.rows(&ws.hidden, width));
        let (norm, factors) = (self.weights.norm, self.rows(&ws.last_factors, 1));
        rms_norm::forward(Rows::dense(width), last, norm, hidden, factors, self.model.decoder.eps)?;
        Ok(hidden)
    }

    /// From the layer's input to all else that its backward needs. Its last product is [`Run::layer_output`].
    pub(super) fn layer_forward(&self, index: usize) -> Result<()> {
        let (decoder, (layer, a)) = (&self.model.decoder, self.layer(index));
        let width = decoder.hidden;
        let (x, normed) = (self.rows(self.ws.stream(index), width), self.rows(&a.normed, width));
        let norm = layer.attention_norm;
        rms_norm::forward(Rows::dense(width), x, norm, normed, self.rows(&a.factors, 1), decoder.eps)?;
        let middle = self.rows(&a.middle, width);
        middle.copy(x)?;
        match &layer.attention {
            Attention::Grouped(grouped) => self.grouped_forward(index, grouped, a)?,
            Attention::Latent(latent) => self.latent_forward(index, latent, a)?,
            Attention::Delta(delta) => self.delta_forward(index, delta, a)?,
        }
        let (normed, factors) = (self.rows(&a.middle_normed, width), self.rows(&a.middle_factors, 1));
        rms_norm::forward(Rows::dense(width), middle, layer.mlp_norm, normed, factors, decoder.eps)?;
        self.mlp_forward(index, layer, a)
    }

    /// The layer's last product, into the stream.
    pub(super) fn layer_output(&self, index: usize) -> Result<()> {
        let (width, (layer, a)) = (self.model.decoder.hidden, self.layer(index));
        let next = self.rows(self.ws.stream(index + 1), width);
        next.copy(self.rows(&a.middle, width))?;
        self.mlp_output(layer, a, next)
    }
}

/// The way back of a run over whole sequences.
pub(super) struct Backward<'a> {
    pub(super) run: Run<'a>,
    pub(super) segments: &'a [Segment],
    pub(super) tiles: View<'a, [u32; 3]>,
    pub(super) ws: &'a Workspace,
    /// The slopes of the auxiliary loss of routers by the shares of a row `(E)`.
    pub(super) balance_slopes: Option<&'a [f32]>,
}

impl<'a> Backward<'a> {
    /// Scratch of an adapter's products.
    pub(super) fn lora_hidden(&self) -> LoraHidden<'a> {
        LoraHidden { values: self.ws.forward.lora_hidden.all(), gradient: self.ws.d_lora_hidden.all() }
    }

    /// Turns `dx`, the gradient of a layer's output, into that of its input.
    pub(super) fn layer(&self, index: usize) -> Result<()> {
        let (run, (layer, a)) = (&self.run, self.run.layer(index));
        self.mlp_backward(index, layer, a)?;
        self.norm_backward(layer.mlp_norm, &a.middle, &a.middle_factors)?;
        match &layer.attention {
            Attention::Grouped(grouped) => self.grouped_backward(grouped, a)?,
            Attention::Latent(latent) => self.latent_backward(latent, a)?,
            Attention::Delta(delta) => self.delta_backward(index, delta, a)?,
        }
        self.norm_backward(layer.attention_norm, run.ws.stream(index), &a.factors)
    }

    /// Adds to `dx` what the gradient `d_normed` of normed rows makes that of `x`.
    fn norm_backward(&self, norm: Weight, x: &Buffer<bf16>, factors: &Buffer<f32>) -> Result<()> {
        let (run, ws, width) = (&self.run, self.ws, self.run.model.decoder.hidden);
        let kept = rms_norm::Kept { x: run.rows(x, width), w: norm.into(), factors: run.rows(factors, 1) };
        let (d_normed, dx) = (run.rows(&ws.d_normed, width), run.rows(&ws.dx, width));
        rms_norm::backward(Rows::dense(width), kept, d_normed, dx, true, norm.gradient, ws.partial.all())
    }
}
