//! A model's weights ready for forwards and backwards: matrices laid out for products, and for everything that is
//! trained the place of its gradient. Made from weights that are all trained, or from a frozen base with or without an
//! adapter.

use std::ops::Range;

use crate::ops::embedding;
use crate::ops::linear::{Linear, LowRank, PackedMatrix, Precision};

use super::reference::CpuReference;
use crate::model::base::Base;
use crate::model::layout::{Layer, Layout, Matrix};
use crate::model::lora::AdapterLayout;
use crate::model::parameters::Parameters;

/// The weights of a norm, or biases.
#[derive(Debug)]
pub struct Vector<'a> {
    /// Its values.
    pub values: &'a [f32],
    place: Option<Range<usize>>,
}

impl Vector<'_> {
    /// Where its gradient is added, if it is trained.
    pub fn gradient<'g>(&self, gradients: &'g mut [f32]) -> Option<&'g mut [f32]> {
        self.place.clone().map(|place| &mut gradients[place])
    }
}

/// The rows that tokens stand for.
#[derive(Debug)]
pub enum Embedding<'a> {
    /// Rows `(V, K)` that are trained, and where their gradient lies.
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

    /// Adds the rows' gradient to `gradients`, if they are trained.
    pub fn backward(&self, tokens: &[u32], dx: &[f32], k: usize, gradients: &mut [f32]) {
        if let Self::Trained(_, place) = self {
            embedding::backward(tokens, dx, k, &mut gradients[place.clone()]);
        }
    }
}

/// Weights ready for many forwards: what is trained is packed once, shared by all threads, and gone before it moves.
#[derive(Debug)]
pub struct PackedWeights<'a> {
    /// Rows of tokens.
    pub embedding: Embedding<'a>,
    /// The layers.
    pub layers: Vec<PackedLayer<'a>>,
    /// Last norm.
    pub norm: Vector<'a>,
    /// Output matrix `(V, K)`.
    pub lm_head: Linear<'a>,
}

/// The weights of one layer.
pub type PackedLayer<'a> = Layer<Linear<'a>, Vector<'a>>;

impl<'a> PackedWeights<'a> {
    /// The model as it is now, for products of a precision.
    pub fn of(parameters: &'a Parameters, precision: Precision) -> Self {
        Self::with(parameters, parameters.trained_values(), precision)
    }

    /// The model as `reference` is.
    pub fn of_reference(parameters: &'a Parameters, reference: &'a CpuReference, precision: Precision) -> Self {
        match (parameters, reference) {
            (_, CpuReference::Values(values)) => Self::with(parameters, values, precision),
            (Parameters::Frozen(base, _), CpuReference::Base) => Self::frozen(base, None),
            (Parameters::Full(_), CpuReference::Base) => Self::of(parameters, precision),
        }
    }

    /// The model with `values` in place of what is trained.
    fn with(parameters: &'a Parameters, values: &'a [f32], precision: Precision) -> Self {
        match parameters {
            Parameters::Full(weights) => Self::trained(&weights.layout, values, precision),
            Parameters::Frozen(base, adapter) => {
                Self::frozen(base, adapter.as_ref().map(|adapter| (&adapter.layout, values)))
            }
        }
    }

    /// Weights that are all trained. Gradients have their layout.
    fn trained(layout: &Layout, values: &'a [f32], precision: Precision) -> Self {
        let vector = |range: &Range<usize>| Vector { values: &values[range.clone()], place: Some(range.clone()) };
        let linear = |Matrix { range, inputs }: &Matrix| {
            Linear::trained(&values[range.clone()], *inputs, range.clone(), precision)
        };
        let Matrix { range, .. } = &layout.embedding;
        Self {
            embedding: Embedding::Trained(&values[range.clone()], range.clone()),
            layers: layout.layers.iter().map(|layer| layer.map(linear, vector)).collect(),
            norm: vector(&layout.norm),
            lm_head: linear(&layout.lm_head),
        }
    }

    /// A base of which nothing is trained, and the values of an adapter on it, which all are. Gradients have the
    /// adapter's layout.
    fn frozen(base: &'a Base, adapter: Option<(&AdapterLayout, &'a [f32])>) -> Self {
        let layout = &base.layout;
        let vector = |range: &Range<usize>| Vector { values: base.vector(range), place: None };
        let linear = |place: &Matrix| {
            let matrix = base.matrix(place);
            let addition = adapter.and_then(|(adapter, values)| {
                let (places, rank, scale) = (adapter.addition(place)?, adapter.rank, adapter.scale());
                Some(LowRank::new(values, places, rank, scale, matrix.precision()))
            });
            Linear::frozen(matrix, addition)
        };
        Self {
            embedding: Embedding::Frozen(base.matrix(&layout.embedding)),
            layers: layout.layers.iter().map(|layer| layer.map(linear, vector)).collect(),
            norm: vector(&layout.norm),
            lm_head: linear(&layout.lm_head),
        }
    }
}
