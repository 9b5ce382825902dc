//! The decoder's forward and backward by one team of threads: over the packed sequences of a micro-batch, over a prompt,
//! and over one token of many rows.
//!
//! A layer: `x += Wo attention(rope(Wqkv norm(x)))`, then `x += Wdown swiglu(Wgate_up norm(x))`.

use crate::ops::attention::{Heads, Segment, cached, packed};
use crate::ops::linear::{self, Epilogue};
use crate::ops::memory::sized;
use crate::ops::rms_norm::{self, Kept, Vectors};
use crate::ops::team::Team;
use crate::ops::{LANES, swiglu};

use super::cache::{BlockId, Cache, Sequence};
use super::weights::{PackedLayer, PackedWeights, Vector};
use super::workspace::{Keep, Workspace};
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

/// Tokens of packed sequences, for a backward.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// The tokens.
    pub input: Input<'a>,
    /// Which attend to which; every token is in one of them.
    pub segments: &'a [Segment],
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
    fn attend(&mut self, team: &Team, heads: Heads, layer: usize, qkv: &[f32], o: &mut [f32], lse: &mut [f32]) {
        match self {
            Self::Segments(segments) => packed::forward(team, heads, qkv, segments, o, lse),
            Self::Prompt { cache, blocks } => {
                let rows = qkv.chunks_exact(heads.row());
                packed::forward(team, heads, qkv, &[Segment::alone(0..rows.len())], o, lse);
                for (position, qkv) in rows.enumerate() {
                    cached::put(heads, qkv, position, cache.layer_mut(blocks[position / LANES], layer));
                }
            }
            Self::Cached { cache, sequences } => {
                for (sequence, qkv) in sequences.iter().zip(qkv.chunks_exact(heads.row())) {
                    let (blocks, position) = (&sequence.blocks, sequence.cached);
                    cached::put(heads, qkv, position, cache.layer_mut(blocks[position / LANES], layer));
                }
                let (cache, lengths) = (&**cache, sequences.iter().map(|s| s.cached + 1).collect::<Vec<_>>());
                let block = |row: usize, b: usize| cache.layer(sequences[row].blocks[b], layer);
                cached::forward(team, heads, qkv, &lengths, &block, o);
            }
        }
    }
}

impl Decoder {
    /// Leaves the hidden states of every token, and of the layers what `keep` says, in the workspace.
    pub fn forward(
        &self,
        team: &Team,
        w: &PackedWeights,
        input: Input,
        mut context: Context,
        keep: Keep,
        ws: &mut Workspace,
    ) {
        let (count, values) = (w.layers.len(), input.tokens.len() * self.hidden);
        ws.shape(count, keep);
        w.embedding.forward(input.tokens, self.hidden, sized(&mut ws.streams[0], values));
        for (index, layer) in w.layers.iter().enumerate() {
            self.layer_forward(team, index, layer, input, &mut context, ws);
            let Mlp::Dense(DenseMlp { down, .. }) = &layer.mlp;
            let (next, middle) = (ws.stream(index + 1), &ws.layers[ws.layer(index)].middle);
            down.forward(team, &ws.inputs.activated, sized(&mut ws.streams[next], values), Epilogue::Residual(middle));
        }
        let last = ws.stream(count);
        rms_norm::forward(
            team,
            Vectors::rows(self.hidden),
            &ws.streams[last],
            w.norm.values,
            self.eps,
            sized(&mut ws.hidden, values),
        );
    }

    /// From the layer's input `(T, K)` to all else that its backward needs. Its last product is left to the caller.
    fn layer_forward(
        &self,
        team: &Team,
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
        rms_norm::forward(team, Vectors::rows(k), x, layer.attention_norm.values, eps, normed);
        self.project_qkv(team, attention, normed, sized(&mut a.qkv, t * self.heads.row()), &mut a.raw_qkv);
        self.rope.rotate(team, &mut a.qkv, input.positions, self.heads.query + self.heads.key_value, self.heads.row());
        let (o, lse) = (sized(&mut a.attended, t * self.heads.output()), sized(&mut a.lse, t * self.heads.query));
        context.attend(team, self.heads, index, &a.qkv, o, lse);
        attention.output.forward(team, &a.attended, sized(&mut a.middle, t * k), Epilogue::Residual(x));

        let Mlp::Dense(DenseMlp { gate_up, .. }) = &layer.mlp;
        rms_norm::forward(team, Vectors::rows(k), &a.middle, layer.mlp_norm.values, eps, normed);
        gate_up.forward(team, normed, sized(&mut a.gate_up, t * 2 * f), Epilogue::None);
        swiglu::forward(team, &a.gate_up, f, sized(&mut ws.inputs.activated, t * f));
    }

    /// Queries, keys and values of normed rows, with biases and head norms, not yet rotated.
    fn project_qkv(
        &self,
        team: &Team,
        attention: &GroupedAttention<linear::Linear, Vector>,
        normed: &[f32],
        qkv: &mut [f32],
        raw: &mut Vec<f32>,
    ) {
        let epilogue = attention.bias.as_ref().map_or(Epilogue::None, |bias| Epilogue::Bias(bias.values));
        attention.qkv.forward(team, normed, qkv, epilogue);
        let Some(norms) = &attention.head_norms else { return };
        raw.clear();
        raw.extend_from_slice(qkv);
        for (norm, vectors) in self.normed_vectors(norms) {
            rms_norm::forward(team, vectors, raw, norm.values, self.eps, qkv);
        }
    }

    /// Where in a row the queries and the keys are, each with its norm.
    fn normed_vectors<'n, 'w>(&self, norms: &'n HeadNorms<Vector<'w>>) -> [(&'n Vector<'w>, Vectors); 2] {
        let (row, Heads { query, key_value, .. }) = (self.heads.row(), self.heads);
        let queries = Vectors { row, first: 0, count: query };
        [(&norms.query, queries), (&norms.key, Vectors { first: self.heads.output(), count: key_value, row })]
    }

    /// From the gradient of the hidden states `(T, K)` to those of all that is trained, added to `gradients`. The
    /// workspace is as [`Decoder::forward`] left it, which kept at least the layers' inputs.
    pub fn backward(
        &self,
        team: &Team,
        w: &PackedWeights,
        Sequences { input, segments }: Sequences,
        d_hidden: &[f32],
        gradients: &mut [f32],
        ws: &mut Workspace,
    ) {
        ws.dx.clear();
        ws.dx.resize(d_hidden.len(), 0.0);
        let (last, d_norm) = (ws.stream(w.layers.len()), w.norm.gradient(gradients));
        let kept = Kept { x: &ws.streams[last], w: w.norm.values, eps: self.eps };
        rms_norm::backward(team, Vectors::rows(self.hidden), kept, d_hidden, &mut ws.dx, d_norm);
        for (index, layer) in w.layers.iter().enumerate().rev() {
            if self.recompute {
                self.layer_forward(team, index, layer, input, &mut Context::Segments(segments), ws);
            }
            self.mlp_backward(team, index, layer, gradients, ws);
            self.attention_backward(team, index, layer, Sequences { input, segments }, gradients, ws);
        }
        w.embedding.backward(input.tokens, &ws.dx, self.hidden, gradients);
    }

    /// Turns `dx`, the gradient of the layer's output, into that of its middle.
    fn mlp_backward(&self, team: &Team, index: usize, layer: &PackedLayer, g: &mut [f32], ws: &mut Workspace) {
        let Mlp::Dense(DenseMlp { gate_up, down }) = &layer.mlp;
        let kept = ws.layer(index);
        let (a, inputs, d, dx) = (&ws.layers[kept], &mut ws.inputs, &mut ws.gradients, &mut ws.dx);
        let (d_activated, activated) = (sized(&mut d.activated, a.gate_up.len() / 2), &mut inputs.activated);
        down.backward_input(team, dx, d_activated);
        let (d_gate_up, activated) = (sized(&mut d.gate_up, a.gate_up.len()), sized(activated, a.gate_up.len() / 2));
        swiglu::backward(team, &a.gate_up, self.intermediate, d_activated, d_gate_up, activated);
        down.backward_weight(team, activated, dx, g);

        let (norm, normed) = (layer.mlp_norm.values, sized(&mut inputs.normed, a.middle.len()));
        let vectors = Vectors::rows(self.hidden);
        rms_norm::forward(team, vectors, &a.middle, norm, self.eps, normed);
        gate_up.backward_weight(team, normed, d_gate_up, g);
        gate_up.backward_input(team, d_gate_up, sized(&mut d.normed, a.middle.len()));
        let kept = Kept { x: &a.middle, w: norm, eps: self.eps };
        rms_norm::backward(team, vectors, kept, &d.normed, dx, layer.mlp_norm.gradient(g));
    }

    /// Turns `dx`, the gradient of the layer's middle, into that of its input.
    fn attention_backward(
        &self,
        team: &Team,
        index: usize,
        layer: &PackedLayer,
        Sequences { input, segments }: Sequences,
        g: &mut [f32],
        ws: &mut Workspace,
    ) {
        let Attention::Grouped(attention) = &layer.attention;
        let (x, kept) = (ws.stream(index), ws.layer(index));
        let (x, a, inputs) = (&ws.streams[x], &ws.layers[kept], &mut ws.inputs);
        let (d, dx) = (&mut ws.gradients, &mut ws.dx);
        attention.output.backward_weight(team, &a.attended, dx, g);
        attention.output.backward_input(team, dx, sized(&mut d.attended, a.attended.len()));
        let forward = packed::Forward { qkv: &a.qkv, o: &a.attended, lse: &a.lse };
        let d_qkv = sized(&mut d.qkv, a.qkv.len());
        packed::backward(team, self.heads, forward, segments, &d.attended, d_qkv);
        self.rope.rotate_back(team, d_qkv, input.positions, self.heads.query + self.heads.key_value, self.heads.row());
        let d_qkv = match &attention.head_norms {
            None => &d.qkv,
            Some(norms) => {
                self.head_norms_backward(team, norms, &a.raw_qkv, &d.qkv, &mut d.raw_qkv, g);
                &d.raw_qkv
            }
        };
        if let Some(d_bias) = attention.bias.as_ref().and_then(|bias| bias.gradient(g)) {
            linear::backward_bias(team, d_qkv, d_bias);
        }
        let (norm, normed) = (layer.attention_norm.values, sized(&mut inputs.normed, x.len()));
        let vectors = Vectors::rows(self.hidden);
        rms_norm::forward(team, vectors, x, norm, self.eps, normed);
        attention.qkv.backward_weight(team, normed, d_qkv, g);
        attention.qkv.backward_input(team, d_qkv, sized(&mut d.normed, x.len()));
        let kept = Kept { x, w: norm, eps: self.eps };
        rms_norm::backward(team, vectors, kept, &d.normed, dx, layer.attention_norm.gradient(g));
    }

    /// Through Qwen3's norms of queries and keys; values pass unchanged.
    fn head_norms_backward(
        &self,
        team: &Team,
        norms: &HeadNorms<Vector>,
        raw_qkv: &[f32],
        d_qkv: &[f32],
        d_raw: &mut Vec<f32>,
        g: &mut [f32],
    ) {
        d_raw.clear();
        d_raw.extend_from_slice(d_qkv);
        let normed = self.heads.row() - self.heads.key_value * self.heads.size;
        d_raw.chunks_exact_mut(self.heads.row()).for_each(|row| row[..normed].fill(0.0));
        for (norm, vectors) in self.normed_vectors(norms) {
            let kept = Kept { x: raw_qkv, w: norm.values, eps: self.eps };
            rms_norm::backward(team, vectors, kept, d_qkv, d_raw, norm.gradient(g));
        }
    }
}
