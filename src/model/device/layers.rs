//! The layers' forward on a device, in the order of `decoder.rs`.

use super::weights::LayerWeights;
use super::workspace::Activations;
use super::*;
use crate::model::layout::{Attention, DenseMlp, GroupedAttention, HeadNorms, Mlp};
use crate::ops::linear::device::Linear;

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
        let Attention::Grouped(grouped) = &layer.attention;
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
        grouped.output.forward(attended, middle, true, self.ws.inner.all())?;

        let (normed, factors) = (self.rows(&a.middle_normed, width), self.rows(&a.middle_factors, 1));
        rms_norm::forward(Rows::dense(width), middle, layer.mlp_norm.values, normed, factors, decoder.eps)?;
        let Mlp::Dense(mlp) = &layer.mlp;
        let gate_up = self.rows(&a.gate_up, 2 * decoder.intermediate);
        mlp.gate_up.forward(normed, gate_up, false, self.ws.inner.all())?;
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
        let Mlp::Dense(DenseMlp { down, .. }) = &layer.mlp;
        let next = self.rows(self.ws.stream(index + 1), decoder.hidden);
        next.copy(self.rows(&a.middle, decoder.hidden))?;
        down.forward(self.rows(&a.activated, decoder.intermediate), next, true, self.ws.inner.all())
    }

    /// Queries, keys and values, with biases and head norms.
    fn project_qkv(&self, grouped: &GroupedAttention<Linear, Weight>, a: &Activations) -> Result<()> {
        let (width, heads) = (self.model.decoder.hidden, self.model.decoder.heads);
        let (normed, qkv) = (self.rows(&a.normed, width), self.rows(&a.qkv, heads.row()));
        if let Some(bias) = grouped.bias {
            linear::fill_bias(bias.values, qkv)?;
        }
        grouped.qkv.forward(normed, qkv, grouped.bias.is_some(), self.ws.inner.all())?;
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
