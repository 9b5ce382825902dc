//! The decoder's forward and backward by one team of threads: over the packed sequences of a micro-batch, over a prompt,
//! and over one token of many rows.
//!
//! A layer: `x += Wo attention(rope(Wqkv norm(x)))`, then `x += Wdown swiglu(Wgate_up norm(x))`.

use crate::ops::LANES;
use crate::ops::attention::{Heads, Segment, cached, latent, packed};
use crate::ops::linear::{self, Epilogue};
use crate::ops::memory::sized;
use crate::ops::rms_norm::{self, Kept, Vectors};
use crate::ops::team::Team;

use super::cache::{BlockId, Cache, Sequence};
use super::weights::{PackedLayer, PackedWeights, Vector};
use super::workspace::{Activations, Keep, LayerGradients, Workspace};
use crate::batch::{RoutedExperts, RouterReplay};
use crate::model::decoder::Decoder;
use crate::model::layout::{Attention, GroupedAttention, HeadNorms};

/// Tokens to compute, whatever they attend to.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Token ids `(T)`.
    pub tokens: &'a [u32],
    /// Position of each token in its sequence `(T)`.
    pub positions: &'a [u32],
    /// The experts that each went to when it was sampled, and whether it goes to these.
    pub recorded: Option<(&'a RoutedExperts, RouterReplay)>,
}

impl<'a> Input<'a> {
    /// Tokens of which nothing else is known.
    pub fn new(tokens: &'a [u32], positions: &'a [u32]) -> Self {
        Self { tokens, positions, recorded: None }
    }
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
    /// Rotated `qkv (T, row)` of layer `layer` -> `o (T, query heads)`, and the log-sum-exps `lse (T, H)` where a
    /// backward may follow.
    pub(super) fn attend(
        &mut self,
        team: &Team,
        decoder: &Decoder,
        layer: usize,
        qkv: &[f32],
        o: &mut [f32],
        lse: &mut [f32],
    ) {
        let heads = decoder.heads;
        match self {
            Self::Segments(segments) => packed::forward(team, heads, qkv, segments, o, lse),
            Self::Prompt { cache, blocks } => {
                let rows = qkv.chunks_exact(heads.row());
                packed::forward(team, heads, qkv, &[Segment::alone(0..rows.len())], o, lse);
                for (position, qkv) in rows.enumerate() {
                    decoder.put(qkv, position, cache.layer_mut(blocks[position / LANES], layer));
                }
            }
            Self::Cached { cache, sequences } => {
                for (sequence, qkv) in sequences.iter().zip(qkv.chunks_exact(heads.row())) {
                    let (blocks, position) = (&sequence.blocks, sequence.cached);
                    decoder.put(qkv, position, cache.layer_mut(blocks[position / LANES], layer));
                }
                let (cache, lengths) = (&**cache, sequences.iter().map(|s| s.cached + 1).collect::<Vec<_>>());
                let block = |row: usize, b: usize| cache.layer(sequences[row].blocks[b], layer);
                match decoder.latent {
                    None => cached::forward(team, heads, qkv, &lengths, &block, o),
                    Some((sizes, _)) => latent::cached(team, sizes, qkv, &lengths, &block, o),
                }
            }
        }
    }
}

impl Decoder {
    /// Values a layer of a block of the cache.
    pub fn block_len(&self) -> usize {
        self.latent.map_or_else(|| cached::block_len(self.heads), |(sizes, _)| latent::block_len(sizes))
    }

    /// Writes what later tokens see of a row of the attention into its block.
    fn put(&self, qkv: &[f32], position: usize, block: &mut [f32]) {
        match self.latent {
            None => cached::put(self.heads, qkv, position, block),
            Some((sizes, _)) => latent::put(sizes, qkv, position, block),
        }
    }

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
        ws.begin_routes(input.tokens.len(), input.recorded.is_some());
        w.embedding.forward(input.tokens, self.hidden, sized(&mut ws.streams[0], values));
        for (index, layer) in w.layers.iter().enumerate() {
            self.layer_forward(team, index, layer, input, &mut context, ws);
            self.mlp_output(team, index, layer, keep, ws);
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
        let (t, k, eps) = (input.tokens.len(), self.hidden, self.eps);
        let (x, kept) = (ws.stream(index), ws.layer(index));
        let (x, a, normed) = (&ws.streams[x], &mut ws.layers[kept], sized(&mut ws.inputs.normed, t * k));
        rms_norm::forward(team, Vectors::rows(k), x, layer.attention_norm.values, eps, normed);
        let heads = self.heads;
        let qkv = sized(&mut a.qkv, t * heads.row());
        match &layer.attention {
            Attention::Grouped(attention) => {
                self.project_qkv(team, attention, normed, qkv, &mut a.raw_qkv);
                self.rope.rotate(team, qkv, input.positions, heads.query + heads.key_value, heads.row());
            }
            Attention::Latent(attention) => {
                self.project_latents(team, attention, input.positions, qkv, &mut a.latent, &mut ws.inputs);
            }
        }
        let (o, lse) = (sized(&mut a.attended, t * heads.output()), sized(&mut a.lse, t * heads.query));
        context.attend(team, self, index, qkv, o, lse);
        let middle = sized(&mut a.middle, t * k);
        match &layer.attention {
            Attention::Grouped(attention) => attention.output.forward(team, o, middle, Epilogue::Residual(x)),
            Attention::Latent(attention) => {
                let outputs = self.expand_latents(team, attention, o, &mut ws.inputs);
                attention.output.forward(team, outputs, middle, Epilogue::Residual(x));
            }
        }

        self.mlp_forward(team, index, layer, input, ws);
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

    /// Where in a row the queries and the keys are, each with its norm: over each head, or over all of them.
    fn normed_vectors<'n, 'w>(&self, norms: &'n HeadNorms<Vector<'w>>) -> [(&'n Vector<'w>, Vectors); 2] {
        let (row, Heads { query, key_value, size, .. }) = (self.heads.row(), self.heads);
        let vectors = |norm: &Vector, first, heads| Vectors { row, first, count: heads * size / norm.values.len() };
        let queries = vectors(&norms.query, 0, query);
        [(&norms.query, queries), (&norms.key, vectors(&norms.key, self.heads.output(), key_value))]
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

    /// Turns `dx`, the gradient of the layer's middle, into that of its input.
    fn attention_backward(
        &self,
        team: &Team,
        index: usize,
        layer: &PackedLayer,
        sequences: Sequences,
        g: &mut [f32],
        ws: &mut Workspace,
    ) {
        let (x, kept) = (ws.stream(index), ws.layer(index));
        let (x, a, inputs) = (&ws.streams[x], &ws.layers[kept], &mut ws.inputs);
        let (d, dx) = (&mut ws.gradients, &mut ws.dx);
        let (norm, vectors) = (layer.attention_norm.values, Vectors::rows(self.hidden));
        let normed = sized(&mut inputs.normed, x.len());
        rms_norm::forward(team, vectors, x, norm, self.eps, normed);
        match &layer.attention {
            Attention::Grouped(attention) => self.grouped_backward(team, attention, sequences, (a, normed), (d, dx), g),
            Attention::Latent(attention) => self.latent_backward(team, attention, sequences, (a, inputs), (d, dx), g),
        }
        let kept = Kept { x, w: norm, eps: self.eps };
        rms_norm::backward(team, vectors, kept, &d.normed, dx, layer.attention_norm.gradient(g));
    }

    /// From the gradient of the attention's output to that of the normed rows, left in `d.normed`.
    fn grouped_backward(
        &self,
        team: &Team,
        attention: &GroupedAttention<linear::Linear, Vector>,
        Sequences { input, segments }: Sequences,
        (a, normed): (&Activations, &[f32]),
        (d, dx): (&mut LayerGradients, &[f32]),
        g: &mut [f32],
    ) {
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
        attention.qkv.backward_weight(team, normed, d_qkv, g);
        attention.qkv.backward_input(team, d_qkv, sized(&mut d.normed, normed.len()));
    }

    /// Through norms of queries and keys; values pass unchanged.
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
