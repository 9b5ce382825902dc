//! The decoder's forward and backward over packed sequences, on one thread. The caller gives each thread a micro-batch.
//!
//! A layer: `x += Wo attention(rope(Wqkv norm(x)))`, then `x += Wdown swiglu(Wgate_up norm(x))`.

use crate::ops::attention::{self, Heads};
use crate::ops::rope::RopeTable;
use crate::ops::{embedding, linear, rms_norm, swiglu};

use super::config::ModelConfig;
use super::weights::{LayerLayout, Weights};

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

/// Packed input: sequences end to end.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// Token ids `(T)`.
    pub tokens: &'a [u32],
    /// Position of each token in its sequence `(T)`.
    pub positions: &'a [u32],
    /// Where each sequence starts, with the total at the end.
    pub starts: &'a [u32],
}

/// What a layer keeps for its backward.
#[derive(Debug, Default)]
pub struct LayerActivations {
    x: Vec<f32>,
    normed: Vec<f32>,
    /// Before the norm of heads; empty where there is none.
    raw_qkv: Vec<f32>,
    /// Queries, keys and values, rotated.
    pub qkv: Vec<f32>,
    attended: Vec<f32>,
    lse: Vec<f32>,
    middle: Vec<f32>,
    middle_normed: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
}

/// What a forward keeps for the backward: a layer's whole list, or its input alone when it is computed again.
#[derive(Debug)]
pub struct Activations {
    /// One a layer.
    pub layers: Vec<LayerActivations>,
    last: Vec<f32>,
    /// Hidden states after the last norm `(T, K)`.
    pub hidden: Vec<f32>,
}

impl Decoder {
    /// The decoder of a validated config.
    pub fn new(config: &ModelConfig, recompute: bool) -> Self {
        let heads = config.heads();
        Self {
            heads,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            eps: config.rms_norm_eps,
            rope: RopeTable::new(config.max_position_embeddings, heads.size, config.rope_theta),
            recompute,
        }
    }

    /// Hidden states of every token, and what the backward needs.
    pub fn forward(&self, weights: &Weights, input: Packed, scratch: &mut attention::Scratch) -> Activations {
        let w = &weights.values;
        let mut x = vec![0f32; input.tokens.len() * self.hidden];
        embedding::forward(input.tokens, &w[weights.layout.embedding.clone()], self.hidden, &mut x);
        let mut layers = Vec::with_capacity(weights.layout.layers.len());
        for layer in &weights.layout.layers {
            let (mut kept, next) = self.layer_forward(w, layer, x, input, scratch);
            if self.recompute {
                kept = LayerActivations { x: kept.x, ..LayerActivations::default() };
            }
            layers.push(kept);
            x = next;
        }
        let mut hidden = vec![0f32; x.len()];
        rms_norm::forward(&x, &w[weights.layout.norm.clone()], self.eps, &mut hidden);
        Activations { layers, last: x, hidden }
    }

    /// `x (T, K)` -> what the layer keeps, and its output `(T, K)`.
    fn layer_forward(
        &self,
        w: &[f32],
        layer: &LayerLayout,
        x: Vec<f32>,
        input: Packed,
        scratch: &mut attention::Scratch,
    ) -> (LayerActivations, Vec<f32>) {
        let (t, k, f) = (input.tokens.len(), self.hidden, self.intermediate);
        let mut a = LayerActivations { x, ..LayerActivations::default() };
        a.normed = vec![0f32; t * k];
        rms_norm::forward(&a.x, &w[layer.attention_norm.clone()], self.eps, &mut a.normed);
        a.qkv = vec![0f32; t * self.heads.row()];
        self.project_qkv(w, layer, &a.normed, &mut a.qkv, &mut a.raw_qkv);
        self.rope.rotate(&mut a.qkv, input.positions, self.heads.query + self.heads.key_value, self.heads.row());
        a.attended = vec![0f32; t * self.heads.output()];
        a.lse = vec![0f32; t * self.heads.query];
        attention::forward(self.heads, &a.qkv, input.starts, &mut a.attended, &mut a.lse, scratch);
        a.middle = a.x.clone();
        linear::forward(&a.attended, &w[layer.output.clone()], &mut a.middle, self.heads.output(), true);

        a.middle_normed = vec![0f32; t * k];
        rms_norm::forward(&a.middle, &w[layer.mlp_norm.clone()], self.eps, &mut a.middle_normed);
        a.gate_up = vec![0f32; t * 2 * f];
        linear::forward(&a.middle_normed, &w[layer.gate_up.clone()], &mut a.gate_up, k, false);
        a.activated = vec![0f32; t * f];
        swiglu::forward(&a.gate_up, f, &mut a.activated);
        let mut next = a.middle.clone();
        linear::forward(&a.activated, &w[layer.down.clone()], &mut next, f, true);
        (a, next)
    }

    /// Queries, keys and values of normed rows, with biases and head norms, not yet rotated. Also the sampler's.
    pub(crate) fn project_qkv(
        &self,
        w: &[f32],
        layer: &LayerLayout,
        normed: &[f32],
        qkv: &mut [f32],
        raw: &mut Vec<f32>,
    ) {
        let biased = !layer.qkv_bias.is_empty();
        if biased {
            linear::fill_bias(&w[layer.qkv_bias.clone()], qkv);
        }
        linear::forward(normed, &w[layer.qkv.clone()], qkv, self.hidden, biased);
        if !layer.query_norm.is_empty() {
            raw.clear();
            raw.extend_from_slice(qkv);
            let heads = [(&layer.query_norm, self.query_part()), (&layer.key_norm, self.key_part())];
            for (raw, row) in raw.chunks_exact(self.heads.row()).zip(qkv.chunks_exact_mut(self.heads.row())) {
                for (norm, part) in &heads {
                    rms_norm::forward(&raw[part.clone()], &w[(*norm).clone()], self.eps, &mut row[part.clone()]);
                }
            }
        }
    }

    fn query_part(&self) -> std::ops::Range<usize> {
        0..self.heads.output()
    }

    fn key_part(&self) -> std::ops::Range<usize> {
        self.heads.output()..self.heads.output() + self.heads.key_value * self.heads.size
    }

    /// From the gradient of the hidden states `(T, K)` to those of all weights, added to `gradients`.
    pub fn backward(
        &self,
        weights: &Weights,
        input: Packed,
        mut activations: Activations,
        d_hidden: &[f32],
        gradients: &mut [f32],
        scratch: &mut attention::Scratch,
    ) {
        let (w, layout) = (&weights.values, &weights.layout);
        let mut dx = vec![0f32; d_hidden.len()];
        let d_norm = &mut gradients[layout.norm.clone()];
        rms_norm::backward(&activations.last, &w[layout.norm.clone()], self.eps, d_hidden, &mut dx, d_norm);
        for layer in layout.layers.iter().rev() {
            let Some(mut kept) = activations.layers.pop() else { break };
            if self.recompute {
                kept = self.layer_forward(w, layer, kept.x, input, scratch).0;
            }
            self.layer_backward(w, layer, &kept, input, &mut dx, gradients, scratch);
        }
        embedding::backward(input.tokens, &dx, self.hidden, &mut gradients[layout.embedding.clone()]);
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its input.
    #[allow(clippy::too_many_arguments)]
    fn layer_backward(
        &self,
        w: &[f32],
        layer: &LayerLayout,
        a: &LayerActivations,
        input: Packed,
        dx: &mut [f32],
        g: &mut [f32],
        scratch: &mut attention::Scratch,
    ) {
        let (t, k, f) = (input.tokens.len(), self.hidden, self.intermediate);
        let mut d_activated = vec![0f32; t * f];
        linear::backward_input(dx, &w[layer.down.clone()], &mut d_activated, f);
        linear::backward_weight(dx, &a.activated, &mut g[layer.down.clone()], f);
        let mut d_gate_up = vec![0f32; t * 2 * f];
        swiglu::backward(&a.gate_up, f, &d_activated, &mut d_gate_up);
        let mut d_normed = vec![0f32; t * k];
        linear::backward_input(&d_gate_up, &w[layer.gate_up.clone()], &mut d_normed, k);
        linear::backward_weight(&d_gate_up, &a.middle_normed, &mut g[layer.gate_up.clone()], k);
        let norm = layer.mlp_norm.clone();
        rms_norm::backward(&a.middle, &w[norm.clone()], self.eps, &d_normed, dx, &mut g[norm]);

        let outputs = self.heads.output();
        let mut d_attended = vec![0f32; t * outputs];
        linear::backward_input(dx, &w[layer.output.clone()], &mut d_attended, outputs);
        linear::backward_weight(dx, &a.attended, &mut g[layer.output.clone()], outputs);
        let mut d_qkv = vec![0f32; a.qkv.len()];
        let starts = input.starts;
        attention::backward(self.heads, &a.qkv, starts, &a.attended, &a.lse, &d_attended, &mut d_qkv, scratch);
        let rotated = self.heads.query + self.heads.key_value;
        self.rope.rotate_back(&mut d_qkv, input.positions, rotated, self.heads.row());
        if !layer.query_norm.is_empty() {
            d_qkv = self.head_norms_backward(w, layer, a, &d_qkv, g);
        }
        if !layer.qkv_bias.is_empty() {
            linear::backward_bias(&d_qkv, &mut g[layer.qkv_bias.clone()]);
        }
        linear::backward_input(&d_qkv, &w[layer.qkv.clone()], &mut d_normed, k);
        linear::backward_weight(&d_qkv, &a.normed, &mut g[layer.qkv.clone()], k);
        let norm = layer.attention_norm.clone();
        rms_norm::backward(&a.x, &w[norm.clone()], self.eps, &d_normed, dx, &mut g[norm]);
    }

    /// Through Qwen3's norms of queries and keys; values pass unchanged.
    fn head_norms_backward(
        &self,
        w: &[f32],
        layer: &LayerLayout,
        a: &LayerActivations,
        d_qkv: &[f32],
        g: &mut [f32],
    ) -> Vec<f32> {
        let row = self.heads.row();
        let mut d_raw = d_qkv.to_vec();
        for (norm, part) in [(&layer.query_norm, self.query_part()), (&layer.key_norm, self.key_part())] {
            let norm = (*norm).clone();
            let rows = a.raw_qkv.chunks_exact(row).zip(d_qkv.chunks_exact(row)).zip(d_raw.chunks_exact_mut(row));
            for ((raw, dy), dx) in rows {
                dx[part.clone()].fill(0.0);
                let (raw, dy, dx) = (&raw[part.clone()], &dy[part.clone()], &mut dx[part.clone()]);
                rms_norm::backward(raw, &w[norm.clone()], self.eps, dy, dx, &mut g[norm.clone()]);
            }
        }
        d_raw
    }
}
