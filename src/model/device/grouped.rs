//! Attention with grouped heads of a layer on a device, forward and backward.

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use super::decoder::{Backward, Context, Run};
use super::workspace::Activations;
use crate::model::layout::{GroupedAttention, HeadNorms};
use crate::ops::attention::packed::device as attention;
use crate::ops::device::View;
use crate::ops::device::columns::Rows;
use crate::ops::gate::{Gate, device as gate};
use crate::ops::linear::device::{self as linear, Linear, Weight};
use crate::ops::rms_norm::device as rms_norm;
use crate::ops::rope::device as rope;

/// The parts of a layer's attention, as products read them.
type Parts<'a> = GroupedAttention<Linear<'a>, Weight<'a>>;

impl Run<'_> {
    pub(super) fn angles(&self) -> rope::Angles<'_> {
        let (table, cos, sin) = (&self.model.decoder.rope, self.model.cos.all(), self.model.sin.all());
        rope::Angles { half: table.half(), pairs: table.pairs(), cos, sin }
    }

    /// From normed rows to the middle of the layer, which holds its input.
    pub(super) fn grouped_forward(&self, index: usize, grouped: &Parts, a: &Activations) -> Result<()> {
        let heads = self.model.decoder.heads;
        self.project_qkv(grouped, a)?;
        let (qkv, attended) = (self.rows(&a.qkv, heads.row()), self.rows(&a.attended, heads.output()));
        rope::rotate(self.angles(), qkv, self.positions, self.model.decoder.rotated_parts(), heads.row(), 1.0)?;
        // The place of a layer among those with keys and values, not among all.
        self.attend(self.model.decoder.places[index], qkv, attended, self.rows(&a.lse, heads.query))?;
        let middle = self.rows(&a.middle, self.model.decoder.hidden);
        grouped.output.forward(self.gated_outputs(attended, a)?, middle, true, self.ws.lora_hidden.all())
    }

    /// What the last product takes in: the outputs of heads, times their gates where they have some.
    fn gated_outputs<'o>(&'o self, attended: View<'o, bf16>, a: &Activations) -> Result<View<'o, bf16>> {
        let Some(gates) = self.model.decoder.output_gates() else { return Ok(attended) };
        let gated = self.rows(&self.ws.gated, self.model.decoder.heads.output());
        gate::forward(Gate::Sigmoid, gates, self.rows(&a.projected, gates.row), attended, gated)?;
        Ok(gated)
    }

    /// `qkv (T, row)` rotated -> `o (T, query * D)`; the cache, where there is one, takes keys and values in first.
    fn attend(&self, index: usize, qkv: View<bf16>, o: View<bf16>, lse: View<f32>) -> Result<()> {
        match self.context {
            Context::Segments { tiles, .. } => attention::forward(self.model.decoder.heads, qkv, tiles, o, lse),
            Context::Prompt { tiles, cache, slots, .. } => {
                cache.put(index, qkv, slots)?;
                attention::forward(self.model.decoder.heads, qkv, tiles, o, lse)
            }
            Context::Cached { cache, slots, longest, partial } => {
                cache.put(index, qkv, slots.there)?;
                cache.attend(index, qkv, slots.there, longest, o, partial)
            }
        }
    }

    /// Queries, keys and values, with biases and head norms.
    fn project_qkv(&self, grouped: &Parts, a: &Activations) -> Result<()> {
        let (width, heads) = (self.model.decoder.hidden, self.model.decoder.heads);
        let (normed, qkv) = (self.rows(&a.normed, width), self.rows(&a.qkv, heads.row()));
        let gates = self.model.decoder.output_gates();
        let projected = gates.map_or(qkv, |gates| self.rows(&a.projected, gates.row));
        if let Some(bias) = grouped.bias {
            linear::fill_bias(bias.values, projected)?;
        }
        grouped.qkv.forward(normed, projected, grouped.bias.is_some(), self.ws.lora_hidden.all())?;
        if let Some(gates) = gates {
            gate::without_gates(gates, projected, qkv, heads.row())?;
        }
        let Some(norms) = &grouped.head_norms else { return Ok(()) };
        let raw = self.rows(&a.raw_qkv, heads.row());
        raw.copy(qkv)?;
        for part in self.normed_parts(norms) {
            let (from, to) = (raw.part(part.start..raw.len()), qkv.part(part.start..qkv.len()));
            let factors = a.head_factors.part(part.factors);
            rms_norm::forward(part.rows, from, part.weight, to, factors, self.model.decoder.eps)?;
        }
        Ok(())
    }

    /// Where in a row the queries and the keys are, each with its norm: of every head, or of all of them together.
    fn normed_parts<'w>(&self, norms: &HeadNorms<Weight<'w>>) -> [NormedPart<'w>; 2] {
        let heads = self.model.decoder.heads;
        let rows = |norm: Weight, count: usize| {
            let k = norm.values.len();
            Rows { k, heads: count * heads.size / k, stride: heads.row() }
        };
        let (query, key) = (rows(norms.query, heads.query), rows(norms.key, heads.key_value));
        let (queries, keys) = (self.t * query.heads, self.t * key.heads);
        let query = NormedPart { start: 0, rows: query, weight: norms.query, factors: 0..queries };
        let key = NormedPart { start: heads.output(), rows: key, weight: norms.key, factors: queries..queries + keys };
        [query, key]
    }
}

/// Where in a row of `qkv` the heads of a norm are, its weight, and where its factors are kept.
struct NormedPart<'a> {
    start: usize,
    rows: Rows,
    weight: Weight<'a>,
    factors: Range<usize>,
}

impl Backward<'_> {
    /// From `dx`, the gradient of the layer's middle, to that of the normed rows.
    pub(super) fn grouped_backward(&self, grouped: &Parts, a: &Activations) -> Result<()> {
        let (run, ws) = (&self.run, self.ws);
        let (heads, width) = (run.model.decoder.heads, run.model.decoder.hidden);
        let (dx, attended) = (run.rows(&ws.dx, width), run.rows(&a.attended, heads.output()));
        let d_attended = run.rows(&ws.d_attended, heads.output());
        grouped.output.backward(run.gated_outputs(attended, a)?, dx, d_attended, false, self.lora_hidden())?;
        let gates = run.model.decoder.output_gates();
        let gates = gates.map(|gates| (gates, run.rows(&a.projected, gates.row), run.rows(&ws.d_projected, gates.row)));
        if let Some((gates, projected, d_projected)) = gates {
            gate::backward(Gate::Sigmoid, gates, projected, attended, d_attended, d_projected)?;
        }
        let (qkv, d_qkv) = (run.rows(&a.qkv, heads.row()), run.rows(&ws.d_qkv, heads.row()));
        let kept = attention::Kept { qkv, o: attended, lse: run.rows(&a.lse, heads.query) };
        attention::backward(heads, kept, self.tiles, d_attended, run.rows(&ws.delta, heads.query), d_qkv)?;
        let turned = run.model.decoder.rotated_parts();
        rope::rotate(run.angles(), d_qkv, run.positions, turned, heads.row(), -1.0)?;
        if let Some(norms) = &grouped.head_norms {
            self.head_norms_backward(norms, a, d_qkv)?;
        }
        let mut d_product = d_qkv;
        if let Some((gates, _, d_projected)) = gates {
            gate::beside_gates(gates, d_qkv, d_projected, heads.row())?;
            d_product = d_projected;
        }
        if let Some(d_bias) = grouped.bias.and_then(|bias| bias.gradient) {
            linear::bias_backward(d_product, d_bias, ws.partial.all())?;
        }
        let (normed, d_normed) = (run.rows(&a.normed, width), run.rows(&ws.d_normed, width));
        grouped.qkv.backward(normed, d_product, d_normed, false, self.lora_hidden())
    }

    /// Through Qwen3's norms of queries and keys, in place; values pass unchanged.
    fn head_norms_backward(&self, norms: &HeadNorms<Weight>, a: &Activations, d_qkv: View<bf16>) -> Result<()> {
        let raw = self.run.rows(&a.raw_qkv, self.run.model.decoder.heads.row());
        for part in self.run.normed_parts(norms) {
            let factors = a.head_factors.part(part.factors);
            let kept = rms_norm::Kept { x: raw.part(part.start..raw.len()), w: part.weight.into(), factors };
            let d = d_qkv.part(part.start..d_qkv.len());
            rms_norm::backward(part.rows, kept, d, d, false, part.weight.gradient, self.ws.partial.all())?;
        }
        Ok(())
    }
}
