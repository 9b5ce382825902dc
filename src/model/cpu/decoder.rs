//! The decoder's forward and backward over packed sequences, on one thread. The caller gives each thread a micro-batch.
//!
//! A layer: `x += Wo attention(rope(Wqkv norm(x)))`, then `x += Wdown swiglu(Wgate_up norm(x))`.

use std::mem::take;

use crate::ops::attention::packed as attention;
use crate::ops::attention::{Heads, Segment};
use crate::ops::linear::{self, Onto};
use crate::ops::rope::RopeTable;
use crate::ops::{rms_norm, swiglu};

use super::weights::{PackedLayer, PackedWeights};
use super::workspace::{Workspace, sized};
use crate::model::config::ModelConfig;

/// A model's shape with its table of angles: everything about it that does not learn.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Sizes of the attention layers.
    pub heads: Heads,
    /// Width of the residual stream (`K`).
    pub hidden: usize,
    /// Width of the feed-forward layer (`F`).
    pub intermediate: usize,
    /// Added under the root of the norms.
    pub eps: f32,
    /// Rotary angles.
    pub rope: RopeTable,
    /// Whether layers are computed again in the backward instead of kept.
    pub recompute: bool,
}

/// Packed input: segments end to end.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// Token ids `(T)`.
    pub tokens: &'a [u32],
    /// Position of each token in its sequence `(T)`.
    pub positions: &'a [u32],
    /// What attends to what; every row is in one of them.
    pub segments: &'a [Segment],
}

impl Decoder {
    /// The decoder of a validated config.
    pub fn new(config: &ModelConfig, recompute: bool) -> Self {
        let heads = config.heads();
        let frequencies = config.rope_frequencies().expect("a validated config has rotary angles that are known");
        Self {
            heads,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            eps: config.rms_norm_eps,
            rope: RopeTable::new(config.max_position_embeddings, &frequencies),
            recompute,
        }
    }

    /// Leaves the hidden states of every token, and what the backward needs, in the workspace.
    pub fn forward(&self, packed: &PackedWeights, input: Packed, ws: &mut Workspace) {
        let (count, values) = (packed.layers.len(), input.tokens.len() * self.hidden);
        ws.layers.resize_with(count, Default::default);
        packed.embedding.forward(input.tokens, self.hidden, sized(ws.stream(0), values));
        for index in 0..count {
            let mut next = take(ws.stream(index + 1));
            ws.swap_active(index, self.recompute);
            self.layer_forward(&packed.layers[index], input, ws);
            let middle = Onto::Residual(&ws.active.middle);
            packed.layers[index].down.forward(&ws.inputs.activated, sized(&mut next, values), middle);
            ws.swap_active(index, self.recompute);
            *ws.stream(index + 1) = next;
        }
        rms_norm::forward(&ws.last, packed.norm.values, self.eps, sized(&mut ws.hidden, values));
    }

    /// From the active layer's `x (T, K)` to all else that its backward needs. Its last product is left to the caller.
    fn layer_forward(&self, layer: &PackedLayer, input: Packed, ws: &mut Workspace) {
        let (t, k, f) = (input.tokens.len(), self.hidden, self.intermediate);
        let (a, inputs) = (&mut ws.active, &mut ws.inputs);
        rms_norm::forward(&a.x, layer.attention_norm.values, self.eps, sized(&mut inputs.normed, t * k));
        self.project_qkv(layer, &inputs.normed, sized(&mut a.qkv, t * self.heads.row()), &mut a.raw_qkv);
        self.rope.rotate(&mut a.qkv, input.positions, self.heads.query + self.heads.key_value, self.heads.row());
        let (o, lse) = (sized(&mut a.attended, t * self.heads.output()), sized(&mut a.lse, t * self.heads.query));
        attention::forward(self.heads, &a.qkv, input.segments, o, lse, &mut ws.scratch);
        layer.output.forward(&a.attended, sized(&mut a.middle, t * k), Onto::Residual(&a.x));

        rms_norm::forward(&a.middle, layer.mlp_norm.values, self.eps, sized(&mut inputs.normed, t * k));
        layer.gate_up.forward(&inputs.normed, sized(&mut a.gate_up, t * 2 * f), Onto::Nothing);
        swiglu::forward(&a.gate_up, f, sized(&mut inputs.activated, t * f));
    }

    /// Queries, keys and values of normed rows, with biases and head norms, not yet rotated. Also the sampler's.
    pub(crate) fn project_qkv(&self, layer: &PackedLayer, normed: &[f32], qkv: &mut [f32], raw: &mut Vec<f32>) {
        let onto = match layer.qkv_bias.values {
            [] => Onto::Nothing,
            bias => Onto::Bias(bias),
        };
        layer.qkv.forward(normed, qkv, onto);
        if layer.query_norm.values.is_empty() {
            return;
        }
        raw.clear();
        raw.extend_from_slice(qkv);
        let heads = [(&layer.query_norm, self.query_part()), (&layer.key_norm, self.key_part())];
        for (raw, row) in raw.chunks_exact(self.heads.row()).zip(qkv.chunks_exact_mut(self.heads.row())) {
            for (norm, part) in &heads {
                rms_norm::forward(&raw[part.clone()], norm.values, self.eps, &mut row[part.clone()]);
            }
        }
    }

    fn query_part(&self) -> std::ops::Range<usize> {
        0..self.heads.output()
    }

    fn key_part(&self) -> std::ops::Range<usize> {
        self.heads.output()..self.heads.output() + self.heads.key_value * self.heads.size
    }

    /// From the gradient of the hidden states `(T, K)` to those of all that learns, added to `gradients`. The workspace
    /// is as [`Decoder::forward`] left it.
    pub fn backward(
        &self,
        packed: &PackedWeights,
        input: Packed,
        d_hidden: &[f32],
        gradients: &mut [f32],
        ws: &mut Workspace,
    ) {
        ws.dx.clear();
        ws.dx.resize(d_hidden.len(), 0.0);
        let d_norm = packed.norm.gradient(gradients);
        rms_norm::backward(&ws.last, packed.norm.values, self.eps, d_hidden, &mut ws.dx, d_norm);
        for (index, layer) in packed.layers.iter().enumerate().rev() {
            ws.swap_active(index, self.recompute);
            if self.recompute {
                self.layer_forward(layer, input, ws);
            }
            self.mlp_backward(layer, gradients, ws);
            self.attention_backward(layer, input, gradients, ws);
            ws.swap_active(index, self.recompute);
        }
        packed.embedding.backward(input.tokens, &ws.dx, self.hidden, gradients);
    }

    /// Turns `dx`, the gradient of the active layer's output, into that of its middle.
    fn mlp_backward(&self, layer: &PackedLayer, g: &mut [f32], ws: &mut Workspace) {
        let (a, inputs, d, dx) = (&ws.active, &mut ws.inputs, &mut ws.gradients, &mut ws.dx);
        let (d_activated, activated) = (sized(&mut d.activated, a.gate_up.len() / 2), &mut inputs.activated);
        layer.down.backward_input(dx, d_activated);
        let (d_gate_up, activated) = (sized(&mut d.gate_up, a.gate_up.len()), sized(activated, a.gate_up.len() / 2));
        swiglu::backward(&a.gate_up, self.intermediate, d_activated, d_gate_up, activated);
        layer.down.backward_weight(activated, dx, g);

        let (norm, normed) = (layer.mlp_norm.values, sized(&mut inputs.normed, a.x.len()));
        rms_norm::forward(&a.middle, norm, self.eps, normed);
        layer.gate_up.backward_weight(normed, d_gate_up, g);
        layer.gate_up.backward_input(d_gate_up, sized(&mut d.normed, a.x.len()));
        let d_norm = layer.mlp_norm.gradient(g);
        rms_norm::backward(&a.middle, norm, self.eps, &d.normed, dx, d_norm);
    }

    /// Turns `dx`, the gradient of the active layer's middle, into that of its input.
    fn attention_backward(&self, layer: &PackedLayer, input: Packed, g: &mut [f32], ws: &mut Workspace) {
        let (a, inputs, d, dx) = (&ws.active, &mut ws.inputs, &mut ws.gradients, &mut ws.dx);
        layer.output.backward_weight(&a.attended, dx, g);
        layer.output.backward_input(dx, sized(&mut d.attended, a.attended.len()));
        let kept = attention::Forward { qkv: &a.qkv, o: &a.attended, lse: &a.lse };
        let d_qkv = sized(&mut d.qkv, a.qkv.len());
        attention::backward(self.heads, kept, input.segments, &d.attended, d_qkv, &mut ws.scratch);
        self.rope.rotate_back(d_qkv, input.positions, self.heads.query + self.heads.key_value, self.heads.row());
        let d_qkv = match layer.query_norm.values {
            [] => &d.qkv,
            _ => {
                self.head_norms_backward(layer, &a.raw_qkv, &d.qkv, &mut d.raw_qkv, g);
                &d.raw_qkv
            }
        };
        if let Some(d_bias) = layer.qkv_bias.gradient(g).filter(|d_bias| !d_bias.is_empty()) {
            linear::backward_bias(d_qkv, d_bias);
        }
        let (norm, normed) = (layer.attention_norm.values, sized(&mut inputs.normed, a.x.len()));
        rms_norm::forward(&a.x, norm, self.eps, normed);
        layer.qkv.backward_weight(normed, d_qkv, g);
        layer.qkv.backward_input(d_qkv, sized(&mut d.normed, a.x.len()));
        let d_norm = layer.attention_norm.gradient(g);
        rms_norm::backward(&a.x, norm, self.eps, &d.normed, dx, d_norm);
    }

    /// Through Qwen3's norms of queries and keys; values pass unchanged.
    fn head_norms_backward(
        &self,
        layer: &PackedLayer,
        raw_qkv: &[f32],
        d_qkv: &[f32],
        d_raw: &mut Vec<f32>,
        g: &mut [f32],
    ) {
        let row = self.heads.row();
        d_raw.clear();
        d_raw.extend_from_slice(d_qkv);
        for (norm, part) in [(&layer.query_norm, self.query_part()), (&layer.key_norm, self.key_part())] {
            let rows = raw_qkv.chunks_exact(row).zip(d_qkv.chunks_exact(row)).zip(d_raw.chunks_exact_mut(row));
            for ((raw, dy), dx) in rows {
                let (raw, dy, dx) = (&raw[part.clone()], &dy[part.clone()], &mut dx[part.clone()]);
                dx.fill(0.0);
                rms_norm::backward(raw, norm.values, self.eps, dy, dx, norm.gradient(g));
            }
        }
    }
}
