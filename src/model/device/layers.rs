//! One layer forward and backward on a device, in the order of `decoder.rs`.

use super::weights::LayerWeights;
use super::workspace::Activations;
use super::*;

impl<'a> Run<'a> {
    fn angles(&self) -> Angles<'_> {
        let (cos, sin) = (self.model.cos.all(), self.model.sin.all());
        Angles { half: self.model.decoder.heads.size / 2, cos, sin }
    }

    fn layer(&self, index: usize) -> (&'a LayerWeights<'a>, &'a Activations) {
        (&self.weights.layers[index], self.ws.layer(index))
    }

    /// The first `T` rows of `width` values.
    fn rows<'b, T: bytemuck::Pod>(&self, buffer: &'b Buffer<T>, width: usize) -> View<'b, T> {
        buffer.part(0..self.t * width)
    }

    /// Scratch of an adapter's products.
    fn inner(&self) -> Inner<'a> {
        Inner { values: self.ws.inner.all(), gradient: self.ws.d_inner.all() }
    }

    /// From the layer's input to all else that its backward needs. Its last product is [`Run::layer_output`].
    pub(super) fn layer_forward(&self, index: usize) -> Result<()> {
        let (decoder, (layer, a)) = (&self.model.decoder, self.layer(index));
        let (width, heads) = (decoder.hidden, decoder.heads);
        let (x, normed) = (self.rows(&self.ws.streams[index], width), self.rows(&a.normed, width));
        let norm = layer.attention_norm.values;
        k::rms_norm(Rows::dense(width), x, norm, normed, self.rows(&a.factors, 1), decoder.eps)?;
        self.project_qkv(layer, a)?;
        let (qkv, attended) = (self.rows(&a.qkv, heads.row()), self.rows(&a.attended, heads.output()));
        k::rotate(self.angles(), qkv, self.positions, heads.query + heads.key_value, heads.row(), 1.0)?;
        attention::forward(heads, qkv, self.tiles, attended, self.rows(&a.lse, heads.query))?;
        let middle = self.rows(&a.middle, width);
        middle.copy(x)?;
        layer.output.forward(attended, middle, true, self.inner())?;

        let (normed, factors) = (self.rows(&a.middle_normed, width), self.rows(&a.middle_factors, 1));
        k::rms_norm(Rows::dense(width), middle, layer.mlp_norm.values, normed, factors, decoder.eps)?;
        let gate_up = self.rows(&a.gate_up, 2 * decoder.intermediate);
        layer.gate_up.forward(normed, gate_up, false, self.inner())?;
        k::swiglu(gate_up, decoder.intermediate, self.rows(&a.activated, decoder.intermediate))
    }

    /// The layer's last product, into the stream.
    pub(super) fn layer_output(&self, index: usize) -> Result<()> {
        let (decoder, (layer, a)) = (&self.model.decoder, self.layer(index));
        let next = self.rows(&self.ws.streams[index + 1], decoder.hidden);
        next.copy(self.rows(&a.middle, decoder.hidden))?;
        layer.down.forward(self.rows(&a.activated, decoder.intermediate), next, true, self.inner())
    }

    /// Queries, keys and values, with biases and head norms.
    fn project_qkv(&self, layer: &LayerWeights, a: &Activations) -> Result<()> {
        let (width, heads) = (self.model.decoder.hidden, self.model.decoder.heads);
        let (normed, qkv) = (self.rows(&a.normed, width), self.rows(&a.qkv, heads.row()));
        let biased = !layer.qkv_bias.values.is_empty();
        if biased {
            k::fill_bias(layer.qkv_bias.values, qkv)?;
        }
        layer.qkv.forward(normed, qkv, biased, self.inner())?;
        if layer.query_norm.values.is_empty() {
            return Ok(());
        }
        let raw = self.rows(&a.raw_qkv, heads.row());
        raw.copy(qkv)?;
        for part in self.head_norms(layer) {
            let (from, to) = (raw.part(part.start..raw.len()), qkv.part(part.start..qkv.len()));
            let factors = a.head_factors.part(part.factors);
            k::rms_norm(part.rows, from, part.weight.values, to, factors, self.model.decoder.eps)?;
        }
        Ok(())
    }

    /// The norms of queries and of keys.
    fn head_norms<'w>(&self, layer: &LayerWeights<'w>) -> [HeadNorm<'w>; 2] {
        let heads = self.model.decoder.heads;
        let rows = |count| Rows { k: heads.size, heads: count, stride: heads.row() };
        let (queries, keys) = (self.t * heads.query, self.t * heads.key_value);
        let query = HeadNorm { start: 0, rows: rows(heads.query), weight: layer.query_norm, factors: 0..queries };
        let key = HeadNorm {
            start: heads.output(),
            rows: rows(heads.key_value),
            weight: layer.key_norm,
            factors: queries..queries + keys,
        };
        [query, key]
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its middle.
    pub(super) fn mlp_backward(&self, index: usize) -> Result<()> {
        let (ws, (layer, a)) = (self.ws, self.layer(index));
        let (width, f) = (self.model.decoder.hidden, self.model.decoder.intermediate);
        let (dx, d_activated) = (self.rows(&ws.dx, width), self.rows(&ws.d_activated, f));
        layer.down.backward(self.rows(&a.activated, f), dx, d_activated, self.inner())?;
        let d_gate_up = self.rows(&ws.d_gate_up, 2 * f);
        k::swiglu_backward(self.rows(&a.gate_up, 2 * f), f, d_activated, d_gate_up)?;
        let (normed, d_normed) = (self.rows(&a.middle_normed, width), self.rows(&ws.d_normed, width));
        layer.gate_up.backward(normed, d_gate_up, d_normed, self.inner())?;
        let (x, factors) = (self.rows(&a.middle, width), self.rows(&a.middle_factors, 1));
        let (kept, d_norm) = (NormKept { x, w: layer.mlp_norm.values, factors }, layer.mlp_norm.gradient);
        k::rms_norm_backward(Rows::dense(width), kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Turns `dx`, the gradient of the layer's middle, into that of its input.
    pub(super) fn attention_backward(&self, index: usize) -> Result<()> {
        let (ws, (layer, a)) = (self.ws, self.layer(index));
        let (heads, width) = (self.model.decoder.heads, self.model.decoder.hidden);
        let (dx, attended) = (self.rows(&ws.dx, width), self.rows(&a.attended, heads.output()));
        let d_attended = self.rows(&ws.d_attended, heads.output());
        layer.output.backward(attended, dx, d_attended, self.inner())?;
        let (qkv, d_qkv) = (self.rows(&a.qkv, heads.row()), self.rows(&ws.d_qkv, heads.row()));
        let kept = attention::Kept { qkv, o: attended, lse: self.rows(&a.lse, heads.query) };
        attention::backward(heads, kept, self.tiles, d_attended, self.rows(&ws.delta, heads.query), d_qkv)?;
        k::rotate(self.angles(), d_qkv, self.positions, heads.query + heads.key_value, heads.row(), -1.0)?;
        if !layer.query_norm.values.is_empty() {
            self.head_norms_backward(layer, a, d_qkv)?;
        }
        if let Some(d_bias) = layer.qkv_bias.gradient.filter(|d_bias| !d_bias.is_empty()) {
            k::bias_backward(d_qkv, d_bias, ws.partial.all())?;
        }
        let (normed, d_normed) = (self.rows(&a.normed, width), self.rows(&ws.d_normed, width));
        layer.qkv.backward(normed, d_qkv, d_normed, self.inner())?;
        let (x, factors) = (self.rows(&ws.streams[index], width), self.rows(&a.factors, 1));
        let (kept, d_norm) = (NormKept { x, w: layer.attention_norm.values, factors }, layer.attention_norm.gradient);
        k::rms_norm_backward(Rows::dense(width), kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Through Qwen3's norms of queries and keys, in place; values pass unchanged.
    fn head_norms_backward(&self, layer: &LayerWeights, a: &Activations, d_qkv: View<bf16>) -> Result<()> {
        let raw = self.rows(&a.raw_qkv, self.model.decoder.heads.row());
        for part in self.head_norms(layer) {
            let factors = a.head_factors.part(part.factors);
            let kept = NormKept { x: raw.part(part.start..raw.len()), w: part.weight.values, factors };
            let d = d_qkv.part(part.start..d_qkv.len());
            k::rms_norm_backward(part.rows, kept, d, d, false, part.weight.gradient, self.ws.partial.all())?;
        }
        Ok(())
    }
}

/// Where in a row of `qkv` the heads of a norm are, its weight, and where its factors are kept.
struct HeadNorm<'a> {
    start: usize,
    rows: Rows,
    weight: Weight<'a>,
    factors: Range<usize>,
}
