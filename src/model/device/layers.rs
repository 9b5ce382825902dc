//! One layer forward and backward on a device, in the order of `decoder.rs`.

use super::workspace::Activations;
use super::*;

impl Run<'_> {
    fn angles(&self) -> Angles<'_> {
        let (cos, sin) = (self.model.cos.all(), self.model.sin.all());
        Angles { half: self.model.decoder.heads.size / 2, cos, sin }
    }

    /// The first `T` rows of `width` values.
    fn rows<'b, T: bytemuck::Pod>(&self, buffer: &'b Buffer<T>, width: usize) -> View<'b, T> {
        buffer.part(0..self.t * width)
    }

    fn gradient(&self, range: &Range<usize>) -> View<'_, f32> {
        self.model.gradients.part(range.clone())
    }

    /// From the layer's input to all else that its backward needs. Its last product is [`Run::layer_output`].
    pub(super) fn layer_forward(&self, index: usize) -> Result<()> {
        let (model, a) = (self.model, self.ws.layer(index));
        let (decoder, layer) = (&model.decoder, &model.layout.layers[index]);
        let (width, heads) = (decoder.hidden, decoder.heads);
        let (x, normed) = (self.rows(&self.ws.streams[index], width), self.rows(&a.normed, width));
        let norm = model.weight(&layer.attention_norm);
        k::rms_norm(Rows::dense(width), x, norm, normed, self.rows(&a.factors, 1), decoder.eps)?;
        self.project_qkv(index, a)?;
        let (qkv, attended) = (self.rows(&a.qkv, heads.row()), self.rows(&a.attended, heads.output()));
        k::rotate(self.angles(), qkv, self.positions, heads.query + heads.key_value, heads.row(), 1.0)?;
        attention::forward(heads, qkv, self.tiles, attended, self.rows(&a.lse, heads.query))?;
        let middle = self.rows(&a.middle, width);
        middle.copy(x)?;
        products::forward(attended, model.weight(&layer.output), middle, heads.output(), true)?;

        let (normed, factors) = (self.rows(&a.middle_normed, width), self.rows(&a.middle_factors, 1));
        k::rms_norm(Rows::dense(width), middle, model.weight(&layer.mlp_norm), normed, factors, decoder.eps)?;
        let gate_up = self.rows(&a.gate_up, 2 * decoder.intermediate);
        products::forward(normed, model.weight(&layer.gate_up), gate_up, width, false)?;
        k::swiglu(gate_up, decoder.intermediate, self.rows(&a.activated, decoder.intermediate))
    }

    /// The layer's last product, into the stream.
    pub(super) fn layer_output(&self, index: usize) -> Result<()> {
        let (model, a) = (self.model, self.ws.layer(index));
        let (width, f) = (model.decoder.hidden, model.decoder.intermediate);
        let next = self.rows(&self.ws.streams[index + 1], width);
        next.copy(self.rows(&a.middle, width))?;
        products::forward(self.rows(&a.activated, f), model.weight(&model.layout.layers[index].down), next, f, true)
    }

    /// Queries, keys and values, with biases and head norms.
    fn project_qkv(&self, index: usize, a: &Activations) -> Result<()> {
        let (model, layer) = (self.model, &self.model.layout.layers[index]);
        let (width, heads) = (model.decoder.hidden, model.decoder.heads);
        let (normed, qkv) = (self.rows(&a.normed, width), self.rows(&a.qkv, heads.row()));
        let biased = !layer.qkv_bias.is_empty();
        if biased {
            k::fill_bias(model.weight(&layer.qkv_bias), qkv)?;
        }
        products::forward(normed, model.weight(&layer.qkv), qkv, width, biased)?;
        if layer.query_norm.is_empty() {
            return Ok(());
        }
        let raw = self.rows(&a.raw_qkv, heads.row());
        raw.copy(qkv)?;
        for part in self.head_norms(index) {
            let (from, to) = (raw.part(part.start..raw.len()), qkv.part(part.start..qkv.len()));
            let factors = a.head_factors.part(part.factors);
            k::rms_norm(part.rows, from, model.weight(&part.weight), to, factors, model.decoder.eps)?;
        }
        Ok(())
    }

    /// The norms of queries and of keys.
    fn head_norms(&self, index: usize) -> [HeadNorm; 2] {
        let (layer, heads) = (&self.model.layout.layers[index], self.model.decoder.heads);
        let rows = |count| Rows { k: heads.size, heads: count, stride: heads.row() };
        let (queries, keys) = (self.t * heads.query, self.t * heads.key_value);
        let query =
            HeadNorm { start: 0, rows: rows(heads.query), weight: layer.query_norm.clone(), factors: 0..queries };
        let key = HeadNorm {
            start: heads.output(),
            rows: rows(heads.key_value),
            weight: layer.key_norm.clone(),
            factors: queries..queries + keys,
        };
        [query, key]
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its middle.
    pub(super) fn mlp_backward(&self, index: usize) -> Result<()> {
        let (model, ws, a) = (self.model, self.ws, self.ws.layer(index));
        let (layer, width, f) = (&model.layout.layers[index], model.decoder.hidden, model.decoder.intermediate);
        let (dx, d_activated) = (self.rows(&ws.dx, width), self.rows(&ws.d_activated, f));
        products::backward_input(dx, model.weight(&layer.down), d_activated, f)?;
        products::backward_weight(dx, self.rows(&a.activated, f), self.gradient(&layer.down), f)?;
        let d_gate_up = self.rows(&ws.d_gate_up, 2 * f);
        k::swiglu_backward(self.rows(&a.gate_up, 2 * f), f, d_activated, d_gate_up)?;
        let (normed, d_normed) = (self.rows(&a.middle_normed, width), self.rows(&ws.d_normed, width));
        products::backward_input(d_gate_up, model.weight(&layer.gate_up), d_normed, width)?;
        products::backward_weight(d_gate_up, normed, self.gradient(&layer.gate_up), width)?;
        let (x, factors) = (self.rows(&a.middle, width), self.rows(&a.middle_factors, 1));
        let kept = NormKept { x, w: model.weight(&layer.mlp_norm), factors };
        let (rows, d_norm) = (Rows::dense(width), self.gradient(&layer.mlp_norm));
        k::rms_norm_backward(rows, kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Turns `dx`, the gradient of the layer's middle, into that of its input.
    pub(super) fn attention_backward(&self, index: usize) -> Result<()> {
        let (model, ws, a) = (self.model, self.ws, self.ws.layer(index));
        let (layer, heads, width) = (&model.layout.layers[index], model.decoder.heads, model.decoder.hidden);
        let (dx, attended) = (self.rows(&ws.dx, width), self.rows(&a.attended, heads.output()));
        let d_attended = self.rows(&ws.d_attended, heads.output());
        products::backward_input(dx, model.weight(&layer.output), d_attended, heads.output())?;
        products::backward_weight(dx, attended, self.gradient(&layer.output), heads.output())?;
        let (qkv, d_qkv) = (self.rows(&a.qkv, heads.row()), self.rows(&ws.d_qkv, heads.row()));
        let kept = attention::Kept { qkv, o: attended, lse: self.rows(&a.lse, heads.query) };
        attention::backward(heads, kept, self.tiles, d_attended, self.rows(&ws.delta, heads.query), d_qkv)?;
        k::rotate(self.angles(), d_qkv, self.positions, heads.query + heads.key_value, heads.row(), -1.0)?;
        if !layer.query_norm.is_empty() {
            self.head_norms_backward(index, a, d_qkv)?;
        }
        if !layer.qkv_bias.is_empty() {
            k::bias_backward(d_qkv, self.gradient(&layer.qkv_bias), ws.partial.all())?;
        }
        let (normed, d_normed) = (self.rows(&a.normed, width), self.rows(&ws.d_normed, width));
        products::backward_input(d_qkv, model.weight(&layer.qkv), d_normed, width)?;
        products::backward_weight(d_qkv, normed, self.gradient(&layer.qkv), width)?;
        let (x, factors) = (self.rows(&ws.streams[index], width), self.rows(&a.factors, 1));
        let kept = NormKept { x, w: model.weight(&layer.attention_norm), factors };
        let (rows, d_norm) = (Rows::dense(width), self.gradient(&layer.attention_norm));
        k::rms_norm_backward(rows, kept, d_normed, dx, true, d_norm, ws.partial.all())
    }

    /// Through Qwen3's norms of queries and keys, in place; values pass unchanged.
    fn head_norms_backward(&self, index: usize, a: &Activations, d_qkv: View<bf16>) -> Result<()> {
        let raw = self.rows(&a.raw_qkv, self.model.decoder.heads.row());
        for part in self.head_norms(index) {
            let kept = NormKept {
                x: raw.part(part.start..raw.len()),
                w: self.model.weight(&part.weight),
                factors: a.head_factors.part(part.factors),
            };
            let d = d_qkv.part(part.start..d_qkv.len());
            let d_norm = self.gradient(&part.weight);
            k::rms_norm_backward(part.rows, kept, d, d, false, d_norm, self.ws.partial.all())?;
        }
        Ok(())
    }
}

/// Where in a row of `qkv` the heads of a norm are, its weight, and where its factors are kept.
struct HeadNorm {
    start: usize,
    rows: Rows,
    weight: Range<usize>,
    factors: Range<usize>,
}
