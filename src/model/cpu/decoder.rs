//! The decoder's forward and backward by one team of threads: over the packed sequences of a micro-batch, over a prompt,
//! and over one token of many rows.
//!
//! A layer: `x += attention(norm(x))`, each kind of which has a file, then `x += Wdown swiglu(Wgate_up norm(x))`.

use crate::ops::LANES;
use crate::ops::attention::{Segment, cached, latent, packed};
use crate::ops::memory::sized;
use crate::ops::rms_norm::{self, Kept, Vectors};
use crate::ops::team::Team;

use super::cache::{Cache, CacheShape, Sequence};
use super::weights::{PackedLayer, PackedWeights};
use super::workspace::{Activations, Keep, ProductInputs, Workspace};
use crate::batch::{RoutedExperts, RouterReplay};
use crate::model::decoder::Decoder;
use crate::model::layout::Attention;

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
        /// What is in it of the sequence.
        sequence: &'a Sequence,
    },
    /// Each token is the last one of a sequence whose others are in a cache.
    Cached {
        /// The cache.
        cache: &'a mut Cache,
        /// The sequence of each token, which has a place for it.
        sequences: &'a [&'a Sequence],
    },
}

/// Which layer computes which tokens.
#[derive(Debug)]
pub(super) struct Place<'p, 'c> {
    pub(super) index: usize,
    pub(super) input: Input<'p>,
    pub(super) context: &'p mut Context<'c>,
}

/// The input of a layer `(T, K)`, what is kept of its attention, and what that works in.
pub(super) type Buffers<'b> = (&'b [f32], &'b mut Activations, &'b mut ProductInputs);

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
        let (heads, layer) = (decoder.heads, decoder.places[layer]);
        match self {
            Self::Segments(segments) => packed::forward(team, heads, qkv, segments, o, lse),
            Self::Prompt { cache, sequence } => {
                let rows = qkv.chunks_exact(heads.row());
                packed::forward(team, heads, qkv, &[Segment::alone(0..rows.len())], o, lse);
                for (position, qkv) in rows.enumerate() {
                    decoder.put(qkv, position, cache.layer_mut(sequence.blocks[position / LANES], layer));
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
    /// What a cache holds of a sequence, and in how many layers.
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.places.len() - self.states,
            block: self.latent.map_or_else(|| cached::block_len(self.heads), |(sizes, _)| latent::block_len(sizes)),
            states: self.states,
            state: self.delta.map_or(0, |sizes| sizes.state()),
        }
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
            w.norm.values(),
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
        let (x, kept) = (ws.stream(index), ws.layer(index));
        let (x, a, inputs) = (&ws.streams[x], &mut ws.layers[kept], &mut ws.inputs);
        let normed = sized(&mut inputs.normed, x.len());
        rms_norm::forward(team, Vectors::rows(self.hidden), x, layer.attention_norm.values(), self.eps, normed);
        let (at, kept) = (Place { index, input, context }, (x.as_slice(), a, inputs));
        match &layer.attention {
            Attention::Grouped(parts) => self.grouped_forward(team, parts, at, kept),
            Attention::Latent(parts) => self.latent_forward(team, parts, at, kept),
            Attention::Delta(parts) => self.delta_forward(team, parts, at, kept),
        }
        self.mlp_forward(team, index, layer, input, ws);
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
        let kept = Kept { x: &ws.streams[last], w: w.norm.values(), eps: self.eps };
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
        let (norm, vectors) = (layer.attention_norm.values(), Vectors::rows(self.hidden));
        let normed = sized(&mut inputs.normed, x.len());
        rms_norm::forward(team, vectors, x, norm, self.eps, normed);
        match &layer.attention {
            Attention::Grouped(attention) => self.grouped_backward(team, attention, sequences, (a, inputs), (d, dx), g),
            Attention::Latent(attention) => self.latent_backward(team, attention, sequences, (a, inputs), (d, dx), g),
            Attention::Delta(attention) => self.delta_backward(team, attention, sequences, (a, inputs), (d, dx), g),
        }
        let kept = Kept { x, w: norm, eps: self.eps };
        rms_norm::backward(team, vectors, kept, &d.normed, dx, layer.attention_norm.gradient(g));
    }
}
