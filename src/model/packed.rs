//! A model's matrices laid out for forward products, beside the weights they were packed from.

use crate::ops::linear::PackedMatrix;

use super::weights::{LayerLayout, Weights};

/// One layer's matrices.
#[derive(Debug)]
pub struct PackedLayer {
    /// Queries, keys and values.
    pub qkv: PackedMatrix,
    /// Output of attention.
    pub output: PackedMatrix,
    /// Gate and up.
    pub gate_up: PackedMatrix,
    /// Down.
    pub down: PackedMatrix,
}

/// Weights ready for many forwards: packed once, shared by all threads, gone before the weights move.
#[derive(Debug)]
pub struct PackedWeights<'a> {
    /// What was packed; norms, biases and the embedding are read from here.
    pub weights: &'a Weights,
    /// The layers.
    pub layers: Vec<PackedLayer>,
    /// Output matrix `(V, K)`.
    pub head: PackedMatrix,
}

impl<'a> PackedWeights<'a> {
    /// Packs every matrix of `weights`.
    pub fn new(weights: &'a Weights) -> Self {
        let (layout, values) = (&weights.layout, &weights.values);
        let hidden = layout.norm.len();
        let pack = |range: &std::ops::Range<usize>, k: usize| PackedMatrix::new(&values[range.clone()], k);
        let layer = |layer: &LayerLayout| PackedLayer {
            qkv: pack(&layer.qkv, hidden),
            output: pack(&layer.output, layer.output.len() / hidden),
            gate_up: pack(&layer.gate_up, hidden),
            down: pack(&layer.down, layer.down.len() / hidden),
        };
        Self { weights, layers: layout.layers.iter().map(layer).collect(), head: pack(&layout.head, hidden) }
    }

    /// The values of a part of the layout.
    pub fn part(&self, range: &std::ops::Range<usize>) -> &'a [f32] {
        &self.weights.values[range.clone()]
    }
}
