//! A device model's weights as a forward and a backward read them: each says where its values are, and where its gradient
//! is added if it is trained. The twin of `model/cpu/weights.rs`; nothing is copied.

use std::borrow::Cow;

use crate::model::layout::{Layer, Layout, Matrix, Vector};
use crate::model::lora::AdapterLayout;
use crate::ops::linear::device::{Flat, Linear, LowRank, Weight};

/// The weights of one layer.
pub(super) type LayerWeights<'a> = Layer<Linear<'a>, Weight<'a>>;

/// All weights.
#[derive(Debug)]
pub(super) struct DeviceWeights<'a> {
    pub(super) embedding: Weight<'a>,
    pub(super) layers: Vec<LayerWeights<'a>>,
    pub(super) norm: Weight<'a>,
    pub(super) lm_head: Weight<'a>,
    /// Of each layer the biases of its router's choice, fp32 on the host, where it has some.
    pub(super) choice_biases: Cow<'a, [Option<Vec<f32>>]>,
}

impl<'a> DeviceWeights<'a> {
    /// The weights of `flat`, which has the layout's places, and an adapter on them.
    pub(super) fn new(
        layout: &Layout,
        flat: Flat<'a>,
        choice_biases: Cow<'a, [Option<Vec<f32>>]>,
        adapter: Option<(&AdapterLayout, Flat<'a>)>,
    ) -> Self {
        let vector = |v: &Vector| Weight { around_one: v.around_one, ..flat.weight(&v.range) };
        let linear = |place: &Matrix| {
            let addition = adapter.and_then(|(adapter, values)| {
                Some(LowRank::new(values, adapter.addition(place)?, adapter.rank, adapter.scale()))
            });
            Linear::new(flat.weight(&place.range), place.inputs, addition)
        };
        Self {
            embedding: flat.weight(&layout.embedding.range),
            layers: layout.layers.iter().map(|layer| layer.map(linear, vector)).collect(),
            norm: vector(&layout.norm),
            lm_head: flat.weight(&layout.lm_head.range),
            choice_biases,
        }
    }
}
