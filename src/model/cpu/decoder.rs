//! The decoder's forward and backward on one thread: over the packed sequences of a micro-batch, over a prompt, and over
//! one token of many rows. The caller gives each thread its work.
//!
//! A layer: `x += Wo attention(rope(Wqkv norm(x)))`, then `x += Wdown swiglu(Wgate_up norm(x))`.

use std::ops::Range;

use crate::ops::attention::{Heads, Scratch, Segment, cached, packed};
use crate::ops::linear::{self, Epilogue};
use crate::ops::{LANES, rms_norm, swiglu};

use super::cache::{BlockId, Cache, Sequence};
use super::weights::{PackedLayer, PackedWeights, Vector};
use super::workspace::{Keep, Workspace, sized};
use crate::model::decoder::Decoder;
use crate::model::layout::{Attention, DenseMlp, GroupedAttention, HeadNorms, Mlp};

/// Tokens to compute, whatever they attend to.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Token ids `(T)`.
    pub tokens: &'a [u32],
    /// Position of each token in its sequence `(T)`.
    pub positions: &'a [u32],
}

/// What the tokens of an input attend to.
#[derive(Debug)]
pub enum Context<'a> {
    /// The input's own segments; every token is in one of them.
    Segments(&'a [Segment]),
    /// The input is one sequence, and blocks of a cache keep its keys and values.
    Prompt {
        /// The cache.
        cache: &'a mut Cache,
        /// Its blocks for the sequence.
        blocks: &'a [BlockId],
    },
    /// Each token is the last one of a sequence whose others are in a cache.
    Cached {
        /// The cache.
        cache: &'a mut Cache,
        /// The sequence of each token, which has a place for it.
        sequences: &'a [&'a Sequence],
    },
}

impl Context<'_> {
    /// Rotated `qkv (T, row)` of layer `layer` -> `o (T, H D)`, and the log-sum-exps `lse (T, H)` where a backward may
    /// follow.
    fn attend(&mut self, heads: Heads, layer: usize, qkv: &[f32], o: &mut [f32], lse: &mut [f32], s: &mut Scratch) {
        match self {
            Self::Segments(segments) => packed::forward(heads, qkv, segments, o, lse, s),
            Self::Prompt { cache, blocks } => {
                let rows = qkv.chunks_exact(heads.row());
                packed::forward(heads, qkv, &[Segment::alone(0..rows.len())], o, lse, s);
                for (position, qkv) in rows.enumerate() {
                    cached::put(heads, qkv, position, cache.layer_mut(blocks[position / LANES], layer));
                }
            }
            Self::Cached { cache, sequences } => {
                let rows = qkv.chunks_exact(heads.row()).zip(o.chunks_exact_mut(heads.output()));
                for (sequence, (qkv, o)) in sequences.iter().zip(rows) {
                    let (blocks, position) = (&sequence.blocks, sequence.cached);
                    cached::put(heads, qkv, position, cache.layer_mut(blocks[position / LANES], layer));
                    cached::decode(heads, qkv, position + 1, &|b| cache.layer(blocks[b], layer), o, s);
                }
            }
        }
    }
}

impl Decoder {
    /// Leaves the hidden states of every token, and of the layers what `keep` says, in the workspace.
    pub fn forward(&self, w: &PackedWeights, input: Input, mut context: Context, keep: Keep, ws: &mut Workspace) {
        let (count, values) = (w.layers.len(), input.tokens.len() * self.hidden);
        ws.shape(count, keep);
        w.embedding.forward(input.tokens, self.hidden, sized(&mut ws.streams[0], values));
        for (index, layer) in w.layers.iter().enumerate() {
            self.layer_forward(index, layer, input, &mut context, ws);
            let Mlp::Dense(DenseMlp { down, .. }) = &layer.mlp;
            let (next, middle) = (ws.stream(index + 1), &ws.layers[ws.layer(index)].middle);
            down.forward(&ws.inputs.activated, sized(&mut ws.streams[next], values), Epilogue::Residual(middle));
        }
        let last = ws.stream(count);
        rms_norm::forward(&ws.streams[last], w.norm.values, self.eps, sized(&mut ws.hidden, values));
    }

    /// From the layer's input `(T, K)` to all else that its backward needs. Its last product is left to the caller.
    fn layer_forward(
        &self,
        index: usize,
        layer: &PackedLayer,
        input: Input,
        context: &mut Context,
        ws: &mut Workspace,
    ) {
        let (t, k, f, eps) = (input.tokens.len(), self.hidden, self.intermediate, self.eps);
        let Attention::Grouped(attention) = &layer.attention;
        let (x, kept) = (ws.stream(index), ws.layer(index));
        let (x, a, normed) = (&ws.streams[x], &mut ws.layers[kept], sized(&mut ws.inputs.normed, t * k));
        rms_norm::forward(x, layer.attention_norm.values, eps, normed);
        self.project_qkv(attention, normed, sized(&mut a.qkv, t * self.heads.row()), &mut a.raw_qkv);
        self.rope.rotate(&mut a.qkv, input.positions, self.heads.query + self.heads.key_value, self.heads.row());
        let (o, lse) = (sized(&mut a.attended, t * self.heads.output()), sized(&mut a.lse, t * self.heads.query));
        context.attend(self.heads, index, &a.qkv, o, lse, &mut ws.scratch);
        attention.output.forward(&a.attended, sized(&mut a.middle, t * k), Epilogue::Residual(x));

        let Mlp::Dense(DenseMlp { gate_up, .. }) = &layer.mlp;
        rms_norm::forward(&a.middle, layer.mlp_norm.values, eps, normed);
        gate_up.forward(normed, sized(&mut a.gate_up, t * 2 * f), Epilogue::None);
        swiglu::forward(&a.gate_up, f, sized(&mut ws.inputs.activated, t * f));
    }

    /// Queries, keys and values of normed rows, with biases and head norms, not yet rotated.
    fn project_qkv(
        &self,
        attention: &GroupedAttention<linear::Linear, Vector>,
        normed: &[f32],
        qkv: &mut [f32],
        raw: &mut Vec<f32>,
    ) {
        let epilogue = attention.bias.as_ref().map_or(Epilogue::None, |bias| Epilogue::Bias(bias.values));
        attention.qkv.forward(normed, qkv, epilogue);
        let Some(norms) = &attention.head_norms else { return };
        raw.clear();
        raw.extend_from_slice(qkv);
        for (raw, row) in raw.chunks_exact(self.heads.row()).zip(qkv.chunks_exact_mut(self.heads.row())) {
            for (norm, part) in self.normed_parts(norms) {
                rms_norm::forward(&raw[part.clone()], norm.values, self.eps, &mut row[part]);
            }
        }
    }

    /// Where in a row the queries and the keys are, each with its norm.
    fn normed_parts<'n, 'w>(&self, norms: &'n HeadNorms<Vector<'w>>) -> [(&'n Vector<'w>, Range<usize>); 2] {
        let queries = self.heads.output();
        let keys = queries..queries + self.heads.key_value * self.heads.size;
        [(&norms.query, 0..queries), (&norms.key, keys)]
    }

    /// From the gradient of the hidden states `(T, K)` to those of all that is trained, added to `gradients`. The
    /// workspace is as [`Decoder::forward`] left it, which kept at least the layers' inputs.
    pub fn backward(
        &self,
        w: &PackedWeights,
        input: Input,
        segments: &[Segment],
        d_hidden: &[f32],
        gradients: &mut [f32],
        ws: &mut Workspace,
    ) {
        ws.dx.clear();
        ws.dx.resize(d_hidden.len(), 0.0);
        let (last, d_norm) = (ws.stream(w.layers.len()), w.norm.gradient(gradients));
        rms_norm::backward(&ws.streams[last], w.norm.values, self.eps, d_hidden, &mut ws.dx, d_norm);
        for (index, layer) in w.layers.iter().enumerate().rev() {
            if self.recompute {
                self.layer_forward(index, layer, input, &mut Context::Segments(segments), ws);
            }
            self.mlp_backward(index, layer, gradients, ws);
            self.attention_backward(index, layer, input, segments, gradients, ws);
        }
        w.embedding.backward(input.tokens, &ws.dx, self.hidden, gradients);
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its middle.
    fn mlp_backward(&self, index: usize, layer: &PackedLayer, g: &mut [f32], ws: &mut Workspace) {
        let Mlp::Dense(DenseMlp { gate_up, down }) = &layer.mlp;
        let kept = ws.layer(index);
        let (a, inputs, d, dx) = (&ws.layers[kept], &mut ws.inputs, &mut ws.gradients, &mut ws.dx);
        let (d_activated, activated) = (sized(&mut d.activated, a.gate_up.len() / 2), &mut inputs.activated);
        down.backward_input(dx, d_activated);
        let (d_gate_up, activated) = (sized(&mut d.gate_up, a.gate_up.len()), sized(activated, a.gate_up.len() / 2));
        swiglu::backward(&a.gate_up, self.intermediate, d_activated, d_gate_up, activated);
        down.backward_weight(activated, dx, g);

        let (norm, normed) = (layer.mlp_norm.values, sized(&mut inputs.normed, a.middle.len()));
        rms_norm::forward(&a.middle, norm, self.eps, normed);
        gate_up.backward_weight(normed, d_gate_up, g);
        gate_up.backward_input(d_gate_up, sized(&mut d.normed, a.middle.len()));
        rms_norm::backward(&a.middle, norm, self.eps, &d.normed, dx, layer.mlp_norm.gradient(g));
    }

    /// Turns `dx`, the gradient of the layer's middle, into that of its input.
    fn attention_backward(
        &self,
        index: usize,
        layer: &PackedLayer,
        input: Input,
        segments: &[Segment],
        g: &mut [f32],
        ws: &mut Workspace,
    ) {
        let Attention::Grouped(attention) = &layer.attention;
        let (x, kept) = (ws.stream(index), ws.layer(index));
        let (x, a, inputs) = (&ws.streams[x], &ws.layers[kept], &mut ws.inputs);
        let (d, dx) = (&mut ws.gradients, &mut ws.dx);
        attention.output.backward_weight(&a.attended, dx, g);
        attention.output.backward_input(dx, sized(&mut d.attended, a.attended.len()));
        let forward = packed::Forward { qkv: &a.qkv, o: &a.attended, lse: &a.lse };
        let d_qkv = sized(&mut d.qkv, a.qkv.len());
        packed::backward(self.heads, forward, segments, &d.attended, d_qkv, &mut ws.scratch);
        self.rope.rotate_back(d_qkv, input.positions, self.heads.query + self.heads.key_value, self.heads.row());
        let d_qkv = match &attention.head_norms {
            None => &d.qkv,
            Some(norms) => {
                self.head_norms_backward(norms, &a.raw_qkv, &d.qkv, &mut d.raw_qkv, g);
                &d.raw_qkv
            }
        };
        if let Some(d_bias) = attention.bias.as_ref().and_then(|bias| bias.gradient(g)) {
            linear::backward_bias(d_qkv, d_bias);
        }
        let (norm, normed) = (layer.attention_norm.values, sized(&mut inputs.normed, x.len()));
        rms_norm::forward(x, norm, self.eps, normed);
        attention.qkv.backward_weight(normed, d_qkv, g);
        attention.qkv.backward_input(d_qkv, sized(&mut d.normed, x.len()));
        rms_norm::backward(x, norm, self.eps, &d.normed, dx, layer.attention_norm.gradient(g));
    }

    /// Through Qwen3's norms of queries and keys; values pass unchanged.
    fn head_norms_backward(
        &self,
        norms: &HeadNorms<Vector>,
        raw_qkv: &[f32],
        d_qkv: &[f32],
        d_raw: &mut Vec<f32>,
        g: &mut [f32],
    ) {
        let row = self.heads.row();
        d_raw.clear();
        d_raw.extend_from_slice(d_qkv);
        for (norm, part) in self.normed_parts(norms) {
            let rows = raw_qkv.chunks_exact(row).zip(d_qkv.chunks_exact(row)).zip(d_raw.chunks_exact_mut(row));
            for ((raw, dy), dx) in rows {
                let (raw, dy, dx) = (&raw[part.clone()], &dy[part.clone()], &mut dx[part.clone()]);
                dx.fill(0.0);
                rms_norm::backward(raw, norm.values, self.eps, dy, dx, norm.gradient(g));
            }
        }
    }
}
