//! What a forward and a backward have to know of a model beside its weights. They themselves are [`super::cpu`]'s and
//! [`super::device`]'s.

use crate::ops::attention::Heads;
use crate::ops::attention::latent::Latent;
use crate::ops::delta::Delta;
use crate::ops::experts::Router;
use crate::ops::gate::Gates;
use crate::ops::rope::{Pairs, Parts, RopeTable};

use super::config::{Family, ModelConfig};
use crate::batch::RoutedShape;

/// A model's shape with its table of angles: everything about it that is not trained.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Sizes of the attention layers.
    pub heads: Heads,
    /// The sizes of latent attention, and what its queries are multiplied by.
    pub latent: Option<(Latent, f32)>,
    /// The sizes of gated delta nets.
    pub delta: Option<Delta>,
    /// Whether outputs of grouped heads have gates.
    pub gated: bool,
    /// Layers that have a state in place of keys and values.
    pub states: usize,
    /// Where in a cache each layer's part is, among those of its kind.
    pub places: Vec<usize>,
    /// Width of the residual stream (`K`).
    pub hidden: usize,
    /// Width of the feed-forward layer (`F`).
    pub intermediate: usize,
    /// How tokens choose experts, where layers have some.
    pub router: Option<Router>,
    /// Which layers have some.
    pub routed_layers: Vec<usize>,
    /// How many a token goes to.
    pub routed: Option<RoutedShape>,
    /// Added under the root of the norms.
    pub eps: f32,
    /// Rotary angles.
    pub rope: RopeTable,
    /// Whether layers are computed again in the backward instead of kept.
    pub recompute: bool,
}

impl Decoder {
    /// The decoder of a validated config.
    pub fn new(config: &ModelConfig, recompute: bool) -> Self {
        let heads = config.heads();
        let frequencies = config.rope_frequencies().expect("a validated config has rotary angles that are known");
        let [turned, scores] = config.rope_factors().expect("a validated config has rotary angles that are known");
        let latent = config.latent().expect("a validated config has latents that are known");
        let rope = RopeTable::new(config.max_position_embeddings, &frequencies);
        let experts = config.experts().expect("a validated config has experts that are known");
        // A file may ask for experts and have none of its layers use them.
        let experts = experts.filter(|experts| !experts.layers(config.num_hidden_layers).is_empty());
        let delta = config.delta().expect("a validated config has delta nets that are known");
        let (mut places, mut counts) = (Vec::new(), [0, 0]);
        for layer in 0..config.num_hidden_layers {
            let kind = usize::from(delta.as_ref().is_some_and(|delta| delta.in_layer(layer)));
            places.push(counts[kind]);
            counts[kind] += 1;
        }
        Self {
            heads,
            latent: latent.map(|latent| (latent.sizes, latent.sizes.query_factor(scores))),
            delta: delta.map(|delta| delta.sizes),
            gated: config.family().is_ok_and(Family::has_output_gates),
            states: counts[1],
            places,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            router: experts.as_ref().map(|experts| experts.router),
            routed: experts.as_ref().map(|experts| experts.routed(config.num_hidden_layers)),
            routed_layers: experts.map_or_else(Vec::new, |experts| experts.layers(config.num_hidden_layers)),
            eps: config.rms_norm_eps,
            rope: rope.turning(latent.map_or(Pairs::Halves, |latent| latent.pairs)).stretched(turned),
            recompute,
        }
    }

    /// The place of a layer among those with experts.
    pub(super) fn routed_place(&self, layer: usize) -> usize {
        self.routed_layers.partition_point(|&routed| routed < layer)
    }

    /// Where in a row of grouped attention the rotated part of each query and key lies.
    pub fn rotated_parts(&self) -> Parts {
        Parts { first: 0, step: self.heads.size, count: self.heads.query + self.heads.key_value }
    }

    /// Where in a row of what is projected for grouped attention the gates of its outputs lie, where it has some: behind
    /// the query of each head.
    pub fn output_gates(&self) -> Option<Gates> {
        let (size, count) = (self.heads.size, self.heads.query);
        let row = self.heads.row() + count * size;
        self.gated.then_some(Gates { row, first: size, step: 2 * size, count, size })
    }
}
