//! A model's weights ready for forwards and backwards: matrices laid out for products, and for everything that is
//! trained the place of its gradient. Made from weights that are all trained, or from a frozen base with or without an
//! adapter.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use crate::ops::embedding;
use crate::ops::linear::{Linear, LowRank, PackedMatrix, Precision};
use crate::ops::team::Team;
use crate::parallel::Pool;

use crate::model::base::Base;
use crate::model::layout::{self, Layer, Layout, Matrix};
use crate::model::lora::AdapterLayout;

/// The weights of a norm, or biases.
#[derive(Debug)]
pub struct Vector<'a> {
    values: Cow<'a, [f32]>,
    place: Option<Range<usize>>,
}

impl<'a> Vector<'a> {
    /// Of `values` that lie at `vector`, trained or not.
    fn of(vector: &layout::Vector, values: &'a [f32], is_trained: bool) -> Self {
        let values = match vector.around_one {
            true => values.iter().map(|value| 1.0 + value).collect(),
            false => Cow::Borrowed(values),
        };
        Self { values, place: is_trained.then(|| vector.range.clone()) }
    }

    /// What it multiplies with, or adds.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Where the gradients of several are added, whose places are apart.
    pub fn gradients<'g, const N: usize>(vectors: [&Self; N], gradients: &'g mut [f32]) -> [Option<&'g mut [f32]>; N] {
        let Some(places) = vectors.iter().map(|vector| vector.place.clone()).collect::<Option<Vec<_>>>() else {
            return [const { None }; N];
        };
        let places: [Range<usize>; N] = std::array::from_fn(|i| places[i].clone());
        gradients.get_disjoint_mut(places).expect("each weight has a place of its own").map(Some)
    }

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

/// Matrices of trained weights, packed, by the place at which each begins.
pub type Matrices = BTreeMap<usize, PackedMatrix>;

/// The matrices of weights that are trained as products read them. They are packed when they are first asked for after
/// the weights have moved, in the memory that they had before.
#[derive(Debug, Default)]
pub struct PackedCache {
    ready: OnceLock<Matrices>,
    spare: Pool<Matrices>,
}

/// A copy packs for itself.
impl Clone for PackedCache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PackedCache {
    /// The matrices of `values`.
    pub fn get(&self, team: &Team, layout: &Layout, values: &[f32], precision: Precision) -> &Matrices {
        self.ready.get_or_init(|| pack(team, layout, values, precision, self.spare.take()))
    }

    /// To be called when values may move.
    pub fn forget(&mut self) {
        if let Some(matrices) = self.ready.take() {
            self.spare.give_back(matrices);
        }
    }
}

/// Packs the matrices of `values`, in the memory of others of the same layout where there are any.
pub fn pack(team: &Team, layout: &Layout, values: &[f32], precision: Precision, mut memory: Matrices) -> Matrices {
    let matrices = layout.layers.iter().flat_map(|layer| layer.matrices()).chain([&layout.lm_head]);
    for Matrix { range, inputs, exact } in matrices {
        let (rows, precision) = (&values[range.clone()], if *exact { Precision::Fp32 } else { precision });
        match memory.get_mut(&range.start) {
            Some(matrix) => matrix.fill(team, rows, *inputs),
            None => drop(memory.insert(range.start, PackedMatrix::new(team, rows, *inputs, precision))),
        }
    }
    memory
}

/// Weights ready for many forwards, shared by all threads.
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
    /// Weights that are all trained, and their matrices packed. Gradients have their layout.
    pub fn trained(layout: &Layout, values: &'a [f32], matrices: &'a Matrices) -> Self {
        let vector = |vector: &layout::Vector| Vector::of(vector, &values[vector.range.clone()], true);
        let linear = |Matrix { range, .. }: &Matrix| {
            Linear::trained(&matrices[&range.start], &values[range.clone()], range.clone())
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
    pub fn frozen(base: &'a Base, adapter: Option<(&AdapterLayout, &'a [f32])>) -> Self {
        let layout = &base.layout;
        let vector = |vector: &layout::Vector| Vector::of(vector, base.vector(&vector.range), false);
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
