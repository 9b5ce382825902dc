//! How much a token takes of a layer's feed-forward part on a device: what its buffers are made by, and what a plan counts.

use crate::model::layout::{LayerLayout, Mlp};
use crate::ops::experts::Router;

/// Values a token that a layer's feed-forward part takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MlpWidths {
    /// Activations, of all experts of a token; gate and up are twice as wide.
    pub activated: usize,
    /// Experts of a token.
    pub active: usize,
    /// All experts.
    pub experts: usize,
    /// Activations of the expert of all tokens.
    pub shared: usize,
}

impl MlpWidths {
    /// Those of a layer, whose router, if it has one, is `router`.
    pub fn of(layer: &LayerLayout, router: Option<&Router>) -> Self {
        match (&layer.mlp, router) {
            (Mlp::Experts(mlp), Some(router)) => Self {
                activated: router.active * mlp.experts[0].down.inputs,
                active: router.active,
                experts: router.experts,
                shared: mlp.shared.as_ref().map_or(0, |shared| shared.mlp.down.inputs),
            },
            (Mlp::Experts(_), None) => unreachable!("a layer of experts has a router"),
            (Mlp::Dense(mlp), _) => Self { activated: mlp.down.inputs, ..Self::default() },
        }
    }

    /// What either takes.
    pub fn or(self, other: Self) -> Self {
        Self {
            activated: self.activated.max(other.activated),
            active: self.active.max(other.active),
            experts: self.experts.max(other.experts),
            shared: self.shared.max(other.shared),
        }
    }

    /// What any of some layers takes.
    pub fn widest(layers: impl IntoIterator<Item = Self>) -> Self {
        layers.into_iter().fold(Self::default(), Self::or)
    }

    /// Values between the products of the backward of either kind of expert.
    pub fn inner(self) -> usize {
        self.activated.max(self.shared)
    }

    /// Bytes a token that a layer keeps for its backward: gate, up and activations, and of each of its experts a row, a
    /// place and a weight; the gate of the expert of all.
    pub fn kept_bytes(self) -> usize {
        2 * 3 * (self.activated + self.shared) + 4 * 3 * self.active + if self.shared > 0 { 4 } else { 0 }
    }

    /// Bytes a token that all layers share in a forward, the stream being `k` wide.
    pub fn forward_bytes(self, k: usize) -> usize {
        4 * self.experts + 2 * self.active * k
    }

    /// The same, in a backward beside that.
    pub fn backward_bytes(self, k: usize) -> usize {
        2 * (self.inner() + self.active * k + self.experts) + 4 * self.active
    }
}
