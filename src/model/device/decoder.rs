//! The layers' forward and backward on a device, in the order of `model/cpu/decoder.rs`.

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use super::DeviceModel;
use super::weights::{DeviceWeights, LayerWeights};
use super::workspace::{Activations, Forward, Workspace};
use crate::model::layout::{DenseMlp, GroupedAttention, HeadNorms};
use crate::ops::attention::cached::device::{Cache, Slot};
use crate::ops::attention::packed::device as attention;
use crate::ops::device::columns::Rows;
use crate::ops::device::{Buffer, View};
use crate::ops::embedding::device as embedding;
use crate::ops::linear::device::{self as linear, Linear, LoraHidden, Weight};
use crate::ops::rms_norm::device as rms_norm;
use crate::ops::rope::device as rope;
use crate::ops::swiglu::device as swiglu;

/// Tokens on the device, with what their layers are computed by.
pub(super) struct Run<'a> {
    pub(super) model: &'a DeviceModel,
    pub(super) weights: &'a DeviceWeights<'a>,
    /// Tokens.
    pub(super) t: usize,
    pub(super) positions: View<'a, u32>,
    pub(super) context: Context<'a>,
    pub(super) ws: &'a Forward,
}

/// What the tokens of an input attend to.
#[derive(Clone, Copy)]
pub(super) enum Context<'a> {
    /// Their sequences, which are all in the input.
    Segments(View<'a, [u32; 3]>),
    /// The same, and a cache keeps it.
    Prompt { tiles: View<'a, [u32; 3]>, cache: &'a Cache, slots: View<'a, Slot> },
    /// What their slots in a cache hold, `longest` tokens at most, themselves included.
    Cached { cache: &'a Cache, slots: View<'a, Slot>, longest: usize, partial: View<'a, f32> },
}

impl<'a> Run<'a> {
    pub(super) fn angles(&self) -> rope::Angles<'_> {
        let (cos, sin) = (self.model.cos.all(), self.model.sin.all());
        rope::Angles { half: self.model.decoder.heads.size / 2, cos, sin }
    }

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
        let (norm, factors) = (self.weights.norm.values, self.rows(&ws.last_factors, 1));
        rms_norm::forward(Rows::dense(width), last, norm, hidden, factors, self.model.decoder.eps)?;
        Ok(hidden)
    }

    /// From the layer's input to all else that its backward needs. Its last product is [`Run::layer_output`].
    pub(super) fn layer_forward(&self, index: usize) -> Result<()> {
        let (decoder, (layer, a)) = (&self.model.decoder, self.layer(index));
        let (grouped, mlp) = layer.plain();
        let (width, heads) = (decoder.hidden, decoder.heads);
        let (x, normed) = (self.rows(self.ws.stream(index), width), self.rows(&a.normed, width));
        let norm = layer.attention_norm.values;
        rms_norm::forward(Rows::dense(width), x, norm, normed, self.rows(&a.factors, 1), decoder.eps)?;
        self.project_qkv(grouped, a)?;
        let (qkv, attended) = (self.rows(&a.qkv, heads.row()), self.rows(&a.attended, heads.output()));
        rope::rotate(self.angles(), qkv, self.positions, heads.query + heads.key_value, heads.row(), 1.0)?;
        self.attend(index, qkv, attended, self.rows(&a.lse, heads.query))?;
        let middle = self.rows(&a.middle, width);
        middle.copy(x)?;
        grouped.output.forward(attended, middle, true, self.ws.lora_hidden.all())?;

        let (normed, factors) = (self.rows(&a.middle_normed, width), self.rows(&a.middle_factors, 1));
        rms_norm::forward(Rows::dense(width), middle, layer.mlp_norm.values, normed, factors, decoder.eps)?;
        let gate_up = self.rows(&a.gate_up, 2 * decoder.intermediate);
        mlp.gate_up.forward(normed, gate_up, false, self.ws.lora_hidden.all())?;
        swiglu::forward(gate_up, decoder.intermediate, self.rows(&a.activated, decoder.intermediate))
    }

    /// `qkv (T, row)` rotated -> `o (T, query * D)`; the cache, where there is one, takes keys and values in first.
    fn attend(&self, index: usize, qkv: View<bf16>, o: View<bf16>, lse: View<f32>) -> Result<()> {
        match self.context {
            Context::Segments(tiles) => attention::forward(self.model.decoder.heads, qkv, tiles, o, lse),
            Context::Prompt { tiles, cache, slots } => {
                cache.put(index, qkv, slots)?;
                attention::forward(self.model.decoder.heads, qkv, tiles, o, lse)
            }
            Context::Cached { cache, slots, longest, partial } => {
                cache.put(index, qkv, slots)?;
                cache.attend(index, qkv, slots, longest, o, partial)
            }
        }
    }

    /// The layer's last product, into the stream.
    pub(super) fn layer_output(&self, index: usize) -> Result<()> {
        let (decoder, (layer, a)) = (&self.model.decoder, self.layer(index));
        let (_, DenseMlp { down, .. }) = layer.plain();
        let next = self.rows(self.ws.stream(index + 1), decoder.hidden);
        next.copy(self.rows(&a.middle, decoder.hidden))?;
        down.forward(self.rows(&a.activated, decoder.intermediate), next, true, self.ws.lora_hidden.all())
    }

    /// Queries, keys and values, with biases and head norms.
    fn project_qkv(&self, grouped: &GroupedAttention<Linear, Weight>, a: &Activations) -> Result<()> {
        let (width, heads) = (self.model.decoder.hidden, self.model.decoder.heads);
        let (normed, qkv) = (self.rows(&a.normed, width), self.rows(&a.qkv, heads.row()));
        if let Some(bias) = grouped.bias {
            linear::fill_bias(bias.values, qkv)?;
        }
        grouped.qkv.forward(normed, qkv, grouped.bias.is_some(), self.ws.lora_hidden.all())?;
        let Some(norms) = &grouped.head_norms else { return Ok(()) };
        let raw = self.rows(&a.raw_qkv, heads.row());
        raw.copy(qkv)?;
        for part in self.normed_parts(norms) {
            let (from, to) = (raw.part(part.start..raw.len()), qkv.part(part.start..qkv.len()));
            let factors = a.head_factors.part(part.factors);
            rms_norm::forward(part.rows, from, part.weight.values, to, factors, self.model.decoder.eps)?;
        }
        Ok(())
    }

    /// Where in a row the queries and the keys are, each with its norm.
    pub(super) fn normed_parts<'w>(&self, norms: &HeadNorms<Weight<'w>>) -> [NormedPart<'w>; 2] {
        let heads = self.model.decoder.heads;
        let rows = |count| Rows { k: heads.size, heads: count, stride: heads.row() };
        let (queries, keys) = (self.t * heads.query, self.t * heads.key_value);
        let query = NormedPart { start: 0, rows: rows(heads.query), weight: norms.query, factors: 0..queries };
        let key = NormedPart {
            start: heads.output(),
            rows: rows(heads.key_value),
            weight: norms.key,
            factors: queries..queries + keys,
        };
        [query, key]
    }
}

/// Where in a row of `qkv` the heads of a norm are, its weight, and where its factors are kept.
pub(super) struct NormedPart<'a> {
    pub(super) start: usize,
    pub(super) rows: Rows,
    pub(super) weight: Weight<'a>,
    pub(super) factors: Range<usize>,
}

/// The way back of a run over whole sequences.
pub(super) struct Backward<'a> {
    pub(super) run: Run<'a>,
    pub(super) tiles: View<'a, [u32; 3]>,
    pub(super) ws: &'a Workspace,
}

impl<'a> Backward<'a> {
    /// Scratch of an adapter's products.
    fn lora_hidden(&self) -> LoraHidden<'a> {
        LoraHidden { values: self.ws.forward.lora_hidden.all(), gradient: self.ws.d_lora_hidden.all() }
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its middle.
    pub(super) fn mlp_backward(&self, index: usize) -> Result<()> {
        let (run, ws, (layer, a)) = (&self.run, self.ws, self.run.layer(index));
        let (_, DenseMlp { gate_up, down }) = layer.plain();
        let (width, f) = (run.model.decoder.hidden, run.model.decoder.intermediate);
        let (dx, d_activated) = (run.rows(&ws.dx, width), run.rows(&ws.d_activated, f));
        down.backward(run.rows(&a.activated, f), dx, d_activated, self.lora_hidden())?;
        let d_gate_up = run.rows(&a.gate_up, 2 * f);
        swiglu::backward(d_gate_up, f, d_activated)?;
        let (normed, d_normed) = (run.rows(&a.middle_normed, width), run.rows(&ws.d_normed, width));
        gate_up.backward(normed, d_gate_up, d_normed, self.lora_hidden())?;
        let (x, factors) = (run.rows(&a.middle, width), run.rows(&a.middle_factors, 1));
        let (kept, d_norm) = (rms_norm::Kept { x, w: layer.mlp_norm.values, factors }, layer.mlp_norm.gradient);
        rms_norm::backward(Rows::dense(width), kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Turns `dx`, the gradient of the layer's middle, into that of its input.
    pub(super) fn attention_backward(&self, index: usize) -> Result<()> {
        let (run, ws, (layer, a)) = (&self.run, self.ws, self.run.layer(index));
        let (grouped, _) = layer.plain();
        let (heads, width) = (run.model.decoder.heads, run.model.decoder.hidden);
        let (dx, attended) = (run.rows(&ws.dx, width), run.rows(&a.attended, heads.output()));
        let d_attended = run.rows(&ws.d_attended, heads.output());
        grouped.output.backward(attended, dx, d_attended, self.lora_hidden())?;
        let (qkv, d_qkv) = (run.rows(&a.qkv, heads.row()), run.rows(&ws.d_qkv, heads.row()));
        let kept = attention::Kept { qkv, o: attended, lse: run.rows(&a.lse, heads.query) };
        attention::backward(heads, kept, self.tiles, d_attended, run.rows(&ws.delta, heads.query), d_qkv)?;
        rope::rotate(run.angles(), d_qkv, run.positions, heads.query + heads.key_value, heads.row(), -1.0)?;
        if let Some(norms) = &grouped.head_norms {
            self.head_norms_backward(norms, a, d_qkv)?;
        }
        if let Some(d_bias) = grouped.bias.and_then(|bias| bias.gradient) {
            linear::bias_backward(d_qkv, d_bias, ws.partial.all())?;
        }
        let (normed, d_normed) = (run.rows(&a.normed, width), run.rows(&ws.d_normed, width));
        grouped.qkv.backward(normed, d_qkv, d_normed, self.lora_hidden())?;
        let (x, factors) = (run.rows(run.ws.stream(index), width), run.rows(&a.factors, 1));
        let (kept, d_norm) =
            (rms_norm::Kept { x, w: layer.attention_norm.values, factors }, layer.attention_norm.gradient);
        rms_norm::backward(Rows::dense(width), kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Through Qwen3's norms of queries and keys, in place; values pass unchanged.
    fn head_norms_backward(&self, norms: &HeadNorms<Weight>, a: &Activations, d_qkv: View<bf16>) -> Result<()> {
        let raw = self.run.rows(&a.raw_qkv, self.run.model.decoder.heads.row());
        for part in self.run.normed_parts(norms) {
            let factors = a.head_factors.part(part.factors);
            let kept = rms_norm::Kept { x: raw.part(part.start..raw.len()), w: part.weight.values, factors };
            let d = d_qkv.part(part.start..d_qkv.len());
            rms_norm::backward(part.rows, kept, d, d, false, part.weight.gradient, self.ws.partial.all())?;
        }
        Ok(())
    }
}
