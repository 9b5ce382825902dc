//! The experts that tokens went to: as a sampler records them, as an update compares or replays them, and what is
//! counted of both. How a router chooses is left to [`crate::ops::experts`].

use serde::{Deserialize, Serialize};

use crate::ops::experts::Load;

/// Which experts the updates of a step send tokens to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterReplay {
    /// Those that the routers choose as they are now.
    #[default]
    None,
    /// Those that the tokens went to when they were sampled, weighed by the scores of the routers as they are now
    /// (rollout routing replay, R3, arXiv:2510.11370).
    Rollout,
}

/// How many experts a token goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutedShape {
    /// Layers that have experts (`L`).
    pub layers: usize,
    /// Experts of a token in each of them (`A`).
    pub active: usize,
    /// How many there are in each.
    pub experts: usize,
}

impl RoutedShape {
    /// Bytes of an expert's number.
    fn width(self) -> usize {
        if self.experts <= 1 << 8 { 1 } else { 2 }
    }

    /// Bytes of a token.
    pub fn token_bytes(self) -> usize {
        self.layers * self.active * self.width()
    }
}

/// The experts that tokens went to, best first `(T, L, A)`: a byte each where a layer has at most 256, else two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutedExperts {
    shape: RoutedShape,
    bytes: Vec<u8>,
}

impl RoutedExperts {
    /// Those of no token yet.
    pub fn new(shape: RoutedShape) -> Self {
        Self { shape, bytes: Vec::new() }
    }

    /// The sizes.
    pub fn shape(&self) -> RoutedShape {
        self.shape
    }

    /// How many tokens there are (`T`).
    pub fn len(&self) -> usize {
        self.bytes.len() / self.shape.token_bytes()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes it those of so many tokens, which [`Self::set_layer`] gives layer by layer.
    pub fn resize(&mut self, tokens: usize) {
        self.bytes.resize(tokens * self.shape.token_bytes(), 0);
    }

    /// Sets what all tokens chose in the layer at place `layer` of those with experts: `chosen (T, A)`.
    pub fn set_layer(&mut self, layer: usize, chosen: &[u32]) {
        let RoutedShape { active, .. } = self.shape;
        let (width, token) = (self.shape.width(), self.shape.token_bytes());
        for (token, chosen) in self.bytes.chunks_exact_mut(token).zip(chosen.chunks_exact(active)) {
            let places = token[layer * active * width..].chunks_exact_mut(width);
            places.zip(chosen).for_each(|(place, expert)| place.copy_from_slice(&expert.to_le_bytes()[..width]));
        }
    }

    /// What all tokens chose in that layer `(T, A)`.
    pub fn layer(&self, layer: usize) -> impl Iterator<Item = u32> {
        let RoutedShape { active, .. } = self.shape;
        let (width, token) = (self.shape.width(), self.shape.token_bytes());
        self.bytes.chunks_exact(token).flat_map(move |token| {
            let of_layer = token[layer * active * width..][..active * width].chunks_exact(width);
            of_layer.map(number)
        })
    }

    /// Adds what one token chose in all layers `(L, A)`.
    pub fn push(&mut self, chosen: &[u32]) {
        assert_eq!(chosen.len(), self.shape.layers * self.shape.active, "a token has its experts in every layer");
        let width = self.shape.width();
        chosen.iter().for_each(|expert| self.bytes.extend_from_slice(&expert.to_le_bytes()[..width]));
    }

    /// What each token chose in all layers `(L, A)`.
    pub fn tokens(&self) -> impl Iterator<Item = Vec<u32>> {
        let token = self.shape.token_bytes();
        self.bytes.chunks_exact(token).map(|token| token.chunks_exact(self.shape.width()).map(number).collect())
    }

    /// Adds what tokens `tokens` of `other` chose.
    ///
    /// # Panics
    /// If it is of another shape.
    pub fn extend(&mut self, other: &Self, tokens: std::ops::Range<usize>) {
        assert_eq!(self.shape, other.shape, "experts of another model");
        self.bytes.extend_from_slice(other.bytes_of(tokens));
    }

    /// The bytes of some tokens, equal where their experts are.
    pub fn bytes_of(&self, tokens: std::ops::Range<usize>) -> &[u8] {
        let token = self.shape.token_bytes();
        &self.bytes[tokens.start * token..tokens.end * token]
    }
}

/// An expert from its bytes, the lowest first.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |high, &byte| high << 8 | u32::from(byte))
}

/// What routers chose in some micro-batches, in whole numbers, so that their sum has no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// Of each layer; nothing of a dense one.
    pub layers: Vec<Load>,
    /// Inputs whose experts at sampling are known.
    pub known: u64,
    /// Of these, inputs that went to other experts in some layer.
    pub differing: u64,
    /// Of these, inputs that would have, had theirs not been replayed.
    pub replaced: u64,
}

impl Choices {
    /// Adds those of other micro-batches.
    pub fn add(&mut self, other: &Self) {
        self.layers.resize_with(self.layers.len().max(other.layers.len()), Load::default);
        self.layers.iter_mut().zip(&other.layers).for_each(|(sum, load)| sum.add(load));
        self.known += other.known;
        self.differing += other.differing;
        self.replaced += other.replaced;
    }

    /// Counts inputs by whether the routers' own choices are other experts than `differ` at sampling.
    pub fn compare(&mut self, differ: &[bool], replay: RouterReplay) {
        let others = differ.iter().filter(|differs| **differs).count() as u64;
        self.known += differ.len() as u64;
        match replay {
            RouterReplay::None => self.differing += others,
            RouterReplay::Rollout => self.replaced += others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_take_a_byte_or_two_and_come_back_by_layer_and_by_token() {
        for (experts, width) in [(256, 1), (257, 2)] {
            let shape = RoutedShape { layers: 2, active: 2, experts };
            assert_eq!(shape.token_bytes(), 4 * width);
            let last = experts as u32 - 1;
            let mut routed = RoutedExperts::new(shape);
            routed.resize(3);
            routed.set_layer(0, &[0, last, 1, 2, 3, 4]);
            routed.set_layer(1, &[5, 6, last, 7, 8, 9]);
            assert_eq!(routed.layer(0).collect::<Vec<_>>(), [0, last, 1, 2, 3, 4]);
            let mut some = RoutedExperts::new(shape);
            some.extend(&routed, 1..3);
            some.extend(&routed, 0..1);
            assert_eq!((some.len(), some.layer(1).collect::<Vec<_>>()), (3, vec![last, 7, 8, 9, 5, 6]));
            assert_eq!(some.bytes_of(2..3), routed.bytes_of(0..1));
            let mut again = RoutedExperts::new(shape);
            routed.tokens().for_each(|token| again.push(&token));
            assert_eq!(again, routed);
        }
    }
}
