//! A model's weights ready for forwards and backwards: matrices laid out for products, and for everything that learns
//! the place of its gradient. Made from weights that all learn, or from a frozen base with or without an adapter.

use std::ops::Range;

use crate::ops::embedding;
use crate::ops::linear::{Linear, LowRank, LowRankPlaces, PackedMatrix};

use crate::model::base::Base;
use crate::model::layout::{LayerLayout, Layout};
use crate::model::lora::{AdapterLayer, AdapterLayout};

/// The weights of a norm, or biases; empty where the family has none.
#[derive(Debug)]
pub struct Vector<'a> {
    /// Its values.
    pub values: &'a [f32],
    place: Option<Range<usize>>,
}

impl Vector<'_> {
    /// Where its gradient is added, if it learns.
    pub fn gradient<'g>(&self, gradients: &'g mut [f32]) -> Option<&'g mut [f32]> {
        self.place.clone().map(|place| &mut gradients[place])
    }
}

/// The rows that tokens stand for.
#[derive(Debug)]
pub enum Embedding<'a> {
    /// Rows `(V, K)` that learn, and where their gradient lies.
    Trained(&'a [f32], Range<usize>),
    /// Rows of a frozen matrix.
    Frozen(&'a PackedMatrix),
}

impl Embedding<'_> {
    /// `tokens (T)` -> `x (T, K)`.
    pub fn forward(&self, tokens: &[u32], k: usize, x: &mut [f32]) {
        match self {
            Self::Trained(rows, _) => embedding::forward(tokens, rows, k, x),
            Self::Frozen(matrix) => {
                for (&token, row) in tokens.iter().zip(x.chunks_exact_mut(k)) {
                    matrix.values(token as usize * k..(token as usize + 1) * k, row);
                }
            }
        }
    }

    /// Adds the rows' gradient to `gradients`, if they learn.
    pub fn backward(&self, tokens: &[u32], dx: &[f32], k: usize, gradients: &mut [f32]) {
        if let Self::Trained(_, place) = self {
            embedding::backward(tokens, dx, k, &mut gradients[place.clone()]);
        }
    }
}

/// One layer; shapes as in [`LayerLayout`].
#[derive(Debug)]
pub struct PackedLayer<'a> {
    /// Norm before attention.
    pub attention_norm: Vector<'a>,
    /// Queries, keys and values.
    pub qkv: Linear<'a>,
    /// Their biases.
    pub qkv_bias: Vector<'a>,
    /// Norm of each query head.
    pub query_norm: Vector<'a>,
    /// Norm of each key head.
    pub key_norm: Vector<'a>,
    /// Output of attention.
    pub output: Linear<'a>,
    /// Norm before the feed-forward layer.
    pub mlp_norm: Vector<'a>,
    /// Gate and up.
    pub gate_up: Linear<'a>,
    /// Down.
    pub down: Linear<'a>,
}

/// Weights ready for many forwards: what learns is packed once, shared by all threads, and gone before it moves.
#[derive(Debug)]
pub struct PackedWeights<'a> {
    /// Rows of tokens.
    pub embedding: Embedding<'a>,
    /// The layers.
    pub layers: Vec<PackedLayer<'a>>,
    /// Last norm.
    pub norm: Vector<'a>,
    /// Output matrix `(V, K)`.
    pub head: Linear<'a>,
}

impl<'a> PackedWeights<'a> {
    /// Weights that all learn. Gradients have their layout.
    pub fn trained(layout: &Layout, values: &'a [f32]) -> Self {
        let hidden = layout.norm.len();
        let vector = |range: &Range<usize>| Vector { values: &values[range.clone()], place: Some(range.clone()) };
        let linear = |range: &Range<usize>, k: usize| Linear::trained(&values[range.clone()], k, range.clone());
        let layer = |layer: &LayerLayout| PackedLayer {
            attention_norm: vector(&layer.attention_norm),
            qkv: linear(&layer.qkv, hidden),
            qkv_bias: vector(&layer.qkv_bias),
            query_norm: vector(&layer.query_norm),
            key_norm: vector(&layer.key_norm),
            output: linear(&layer.output, layer.output.len() / hidden),
            mlp_norm: vector(&layer.mlp_norm),
            gate_up: linear(&layer.gate_up, hidden),
            down: linear(&layer.down, layer.down.len() / hidden),
        };
        Self {
            embedding: Embedding::Trained(&values[layout.embedding.clone()], layout.embedding.clone()),
            layers: layout.layers.iter().map(layer).collect(),
            norm: vector(&layout.norm),
            head: linear(&layout.head, hidden),
        }
    }

    /// A base of which nothing learns, and the values of an adapter on it, which all do. Gradients have the adapter's layout.
    pub fn frozen(base: &'a Base, adapter: Option<(&AdapterLayout, &'a [f32])>) -> Self {
        let layout = &base.layout;
        let vector = |range: &Range<usize>| Vector { values: base.vector(range), place: None };
        let layer = |(index, layer): (usize, &LayerLayout)| {
            let linear = |range: &Range<usize>, part: AdapterPart| {
                let addition = adapter.and_then(|(adapter, values)| {
                    let places = part(&adapter.layers[index]).as_ref()?;
                    Some(LowRank::new(values, places, adapter.rank, adapter.scale()))
                });
                Linear::frozen(base.matrix(range), addition)
            };
            PackedLayer {
                attention_norm: vector(&layer.attention_norm),
                qkv: linear(&layer.qkv, |adapter| &adapter.qkv),
                qkv_bias: vector(&layer.qkv_bias),
                query_norm: vector(&layer.query_norm),
                key_norm: vector(&layer.key_norm),
                output: linear(&layer.output, |adapter| &adapter.output),
                mlp_norm: vector(&layer.mlp_norm),
                gate_up: linear(&layer.gate_up, |adapter| &adapter.gate_up),
                down: linear(&layer.down, |adapter| &adapter.down),
            }
        };
        Self {
            embedding: Embedding::Frozen(base.matrix(&layout.embedding)),
            layers: layout.layers.iter().enumerate().map(layer).collect(),
            norm: vector(&layout.norm),
            head: Linear::frozen(base.matrix(&layout.head), None),
        }
    }
}

/// A matrix of a layer, as an adapter has it.
type AdapterPart = fn(&AdapterLayer) -> &Option<LowRankPlaces>;
