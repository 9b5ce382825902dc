//! A device model's weights as a forward and a backward read them: each says where its values are, and where its gradient
//! is added if it learns. The twin of `model/packed.rs`; nothing is copied.

use std::ops::Range;

use crate::model::layout::{LayerLayout, Layout};
use crate::model::lora::{AdapterLayer, AdapterLayout};
use crate::ops::linear::LowRankPlaces;
use crate::ops::linear::device::{Flat, Linear, LowRank, Weight};

/// One layer; shapes as in [`LayerLayout`].
#[derive(Debug)]
pub(super) struct LayerWeights<'a> {
    pub(super) attention_norm: Weight<'a>,
    pub(super) qkv: Linear<'a>,
    pub(super) qkv_bias: Weight<'a>,
    pub(super) query_norm: Weight<'a>,
    pub(super) key_norm: Weight<'a>,
    pub(super) output: Linear<'a>,
    pub(super) mlp_norm: Weight<'a>,
    pub(super) gate_up: Linear<'a>,
    pub(super) down: Linear<'a>,
}

/// All weights.
#[derive(Debug)]
pub(super) struct DeviceWeights<'a> {
    pub(super) embedding: Weight<'a>,
    pub(super) layers: Vec<LayerWeights<'a>>,
    pub(super) norm: Weight<'a>,
    pub(super) head: Weight<'a>,
}

/// A matrix of a layer, as an adapter has it.
type AdapterPart = fn(&AdapterLayer) -> &Option<LowRankPlaces>;

impl<'a> DeviceWeights<'a> {
    /// The weights of `flat`, which has the layout's places, and an adapter on them.
    pub(super) fn new(layout: &Layout, flat: Flat<'a>, adapter: Option<(&AdapterLayout, Flat<'a>)>) -> Self {
        let hidden = layout.norm.len();
        let weight = |range: &Range<usize>| flat.weight(range);
        let layer = |(index, layer): (usize, &LayerLayout)| {
            let linear = |range: &Range<usize>, k: usize, part: AdapterPart| {
                let addition = adapter.and_then(|(adapter, values)| {
                    let places = part(&adapter.layers[index]).as_ref()?;
                    Some(LowRank::new(values, places, adapter.rank, adapter.scale()))
                });
                Linear::new(flat.weight(range), k, addition)
            };
            LayerWeights {
                attention_norm: weight(&layer.attention_norm),
                qkv: linear(&layer.qkv, hidden, |adapter| &adapter.qkv),
                qkv_bias: weight(&layer.qkv_bias),
                query_norm: weight(&layer.query_norm),
                key_norm: weight(&layer.key_norm),
                output: linear(&layer.output, layer.output.len() / hidden, |adapter| &adapter.output),
                mlp_norm: weight(&layer.mlp_norm),
                gate_up: linear(&layer.gate_up, hidden, |adapter| &adapter.gate_up),
                down: linear(&layer.down, layer.down.len() / hidden, |adapter| &adapter.down),
            }
        };
        Self {
            embedding: weight(&layout.embedding),
            layers: layout.layers.iter().enumerate().map(layer).collect(),
            norm: weight(&layout.norm),
            head: weight(&layout.head),
        }
    }
}
