//! A micro-batch, and what passes between the model that computes it and the loss that is taken of it.
//!
//! Who fills it decides what is learned: `grpo/` from rollouts, `sft.rs` from given completions. The model knows tokens
//! and log-probabilities alone.

mod npy;
mod routed;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ops::attention::Segment;
use crate::ops::linear_logprob::distill::Divergence;

pub use routed::{Choices, RoutedExperts, RoutedShape, RouterReplay};

/// How a micro-batch holds the prompt of samples that follow each other and begin alike, as those of a group do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptLayout {
    /// Once: every completion attends to the same rows, which are computed once, forward and backward.
    Shared,
    /// Before every completion, for a model whose attention takes whole sequences only.
    Repeated,
}

/// Samples laid end to end for one forward and backward.
///
/// The inputs of a sample are its tokens but the last, which predicts nothing. `T` inputs, `R` completion tokens, `N`
/// samples: field by field (T), (R) or (N).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MicroBatch {
    /// (T) input tokens.
    pub tokens: Vec<u32>,
    /// (T) place of each token in its own sample, from 0.
    pub positions: Vec<u32>,
    /// Which inputs attend to which.
    pub segments: Vec<Segment>,
    /// (R) index in `tokens` of the input whose hidden state predicts the completion token.
    pub rows: Vec<u32>,
    /// (R) the completion tokens.
    pub targets: Vec<u32>,
    /// (N) which of the R completion tokens are each sample's.
    pub samples: Vec<Range<usize>>,
    /// (N) place of each sample among those of its update.
    pub places: Vec<usize>,
    /// (R) log-probabilities that the completion tokens were sampled at.
    pub rollout_logprobs: Vec<f32>,
    /// (R) log-probabilities by the policy before the first update of the step. A sampler over the very weights of the
    /// policy has given them already; behind another one they are computed anew.
    pub old_logprobs: Vec<f32>,
    /// (R) log-probabilities by the reference; `None` where the run has no KL term.
    pub ref_logprobs: Option<Vec<f32>>,
    /// (R) the advantage of each token.
    pub advantages: Vec<f32>,
    /// (R) what the objective of each token is multiplied by because another policy sampled it; empty for 1.
    pub corrections: Vec<f32>,
    /// (R) whether the objective treats the token apart; empty for none.
    pub selected: Vec<bool>,
    /// (R) each token's share of the objective of the whole update.
    pub loss_weights: Vec<f32>,
    /// (T) the experts that the inputs went to when they were sampled, where that is known.
    pub routed: Option<RoutedExperts>,
    /// Whether they go to these.
    pub router_replay: RouterReplay,
}

impl MicroBatch {
    /// Adds inputs that attend to each other alone; returns where they are.
    pub(crate) fn push_sequence(&mut self, tokens: &[u32]) -> Range<usize> {
        let rows = self.push_tokens(tokens, 0);
        self.segments.push(Segment::alone(rows.clone()));
        rows
    }

    /// Adds inputs whose positions begin at `position`; returns where they are.
    pub(crate) fn push_tokens(&mut self, tokens: &[u32], position: usize) -> Range<usize> {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position..position + tokens.len()).map(|position| position as u32));
        start..self.tokens.len()
    }

    /// (T) of how many samples each input is: a prompt that several share is of all of them.
    pub(crate) fn times(&self) -> Vec<u32> {
        let mut times = vec![0; self.tokens.len()];
        for segment in self.segments.iter().filter(|segment| !segment.prefix.is_empty()) {
            segment.prefix.clone().chain(segment.rows.clone()).for_each(|input| times[input] += 1);
        }
        // What no other begins with is a sample of its own.
        times.iter_mut().for_each(|times| *times = (*times).max(1));
        times
    }

    /// A micro-batch of `tokens` inputs in sequences of `longest`, every one of which predicts a token: the most memory
    /// that so many tokens can take.
    pub fn largest(tokens: usize, longest: usize) -> Self {
        let mut micro = Self { rows: (0..tokens as u32).collect(), targets: vec![0; tokens], ..Self::default() };
        while micro.tokens.len() < tokens {
            micro.push_sequence(&vec![0; longest.min(tokens - micro.tokens.len())]);
        }
        micro
    }
}

/// What a model says of the completion tokens of a micro-batch, (R) each.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TokenStats {
    /// `log p(target)` at the temperature.
    pub logprobs: Vec<f32>,
    /// Entropy in nats of the distribution the target was drawn from.
    pub entropies: Vec<f32>,
}

/// The loss of a micro-batch and what the backward starts from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLosses {
    /// (R) derivative of the loss with respect to each completion token's log-probability, loss weight included.
    pub gradient: Vec<f32>,
    /// (R) derivative with respect to the entropy of each completion token's distribution; empty for 0.
    pub entropy_gradient: Vec<f32>,
    /// Sums for the metrics.
    pub stats: LossStats,
}

/// A loss: from a micro-batch and the model's log-probabilities of it to the gradient.
pub type Loss<'a> = dyn Fn(&MicroBatch, &TokenStats) -> TokenLosses + Sync + 'a;

/// What a model learns of a teacher beside its loss: the divergence of its distribution over the whole vocabulary from the
/// teacher's, a token weighed by its loss weight.
#[derive(Debug)]
pub struct Teaching<'a, T: ?Sized> {
    /// Who teaches.
    pub teacher: &'a T,
    /// Which divergence, over which tokens.
    pub divergence: Divergence,
    /// Its weight beside the loss.
    pub coef: f32,
}

// Not derived: a teacher need not be one that can be copied.
impl<T: ?Sized> Clone for Teaching<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Teaching<'_, T> {}

impl<'a, T: ?Sized> Teaching<'a, T> {
    /// The same of another form of the teacher.
    pub(crate) fn by<U: ?Sized>(self, teacher: &'a U) -> Teaching<'a, U> {
        Teaching { teacher, divergence: self.divergence, coef: self.coef }
    }

    /// Adds the divergences of the tokens of a micro-batch (R) to its sums.
    pub(crate) fn add_to(&self, stats: &mut LossStats, micro: &MicroBatch, divergences: &[f32]) {
        for (&weight, &divergence) in micro.loss_weights.iter().zip(divergences).filter(|(weight, _)| **weight != 0.0) {
            stats.loss += f64::from(self.coef) * f64::from(weight) * f64::from(divergence);
            stats.divergence += f64::from(divergence);
        }
    }
}

/// What gradients have beside that of their loss.
#[derive(Debug)]
pub struct Beside<'a, T: ?Sized> {
    /// A teacher.
    pub teaching: Option<Teaching<'a, T>>,
    /// The slopes of the auxiliary loss of routers by the shares of a row `(E)`.
    pub balance_slopes: Option<&'a [f32]>,
}

impl<T: ?Sized> Clone for Beside<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Beside<'_, T> {}

impl<T: ?Sized> Default for Beside<'_, T> {
    fn default() -> Self {
        Self { teaching: None, balance_slopes: None }
    }
}

/// Sums over tokens, added up in the order of the micro-batches so that a step's metrics are reproducible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossStats {
    /// The loss: tokens weighed by their loss weights, so micro-batches add up to the loss of an update.
    pub loss: f64,
    /// Tokens with a loss weight.
    pub tokens: u64,
    /// Sum of the entropies of these tokens' distributions.
    pub entropy: f64,
    /// Tokens that the objective's lower bound holds.
    pub clipped_low: u64,
    /// Tokens that its upper bound holds.
    pub clipped_high: u64,
    /// Tokens that the bound of a dual clip holds, or that of a truncated weight.
    pub dual_clipped: u64,
    /// Tokens that the objective treats apart.
    pub selected: u64,
    /// Sum of the configured KL estimate; 0 without reference log-probabilities.
    pub kl_ref: f64,
    /// Sum of `u - ln u - 1`, `u` the ratio of now to the time of sampling. In the first update of a step it compares
    /// sampler and trainer over the same weights; in later ones it measures how far the updates went.
    pub mismatch: f64,
    /// Sum of the divergences from the teacher's distributions; 0 without a teacher.
    pub divergence: f64,
}

impl LossStats {
    /// Adds the sums of the next micro-batch.
    pub fn add(&mut self, next: &Self) {
        self.loss += next.loss;
        self.tokens += next.tokens;
        self.entropy += next.entropy;
        self.clipped_low += next.clipped_low;
        self.clipped_high += next.clipped_high;
        self.dual_clipped += next.dual_clipped;
        self.selected += next.selected;
        self.kl_ref += next.kl_ref;
        self.mismatch += next.mismatch;
        self.divergence += next.divergence;
    }

    /// Tokens that some bound holds.
    pub fn clipped(&self) -> u64 {
        self.clipped_low + self.clipped_high + self.dual_clipped
    }

    /// A sum as a mean over tokens; 0 without tokens.
    pub fn per_token(&self, sum: f64) -> f64 {
        sum / self.tokens.max(1) as f64
    }
}
