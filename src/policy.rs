//! The model being trained, with its weights and their version: log-probabilities of given tokens, with gradients.

use tokenizers::Tokenizer;

use crate::grpo::MicroBatch;
use crate::model::decoder::{Activations, Packed};
use crate::model::folder::ModelFolder;
use crate::model::{Decoder, ModelConfig, Weights};
use crate::ops::attention::Scratch;
use crate::ops::linear_logprob;
use crate::parallel::map_in_order;

/// A model and how it is computed.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `config.json`.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The computation.
    pub decoder: Decoder,
    /// What learns.
    pub weights: Weights,
    /// Number of updates made.
    pub version: u64,
    /// Threads to compute on; changes no result.
    pub threads: usize,
}

/// Log-probability and entropy of each row of a micro-batch.
#[derive(Debug, Clone, Default)]
pub struct TokenStats {
    /// `log p(target)` at the temperature.
    pub logprobs: Vec<f32>,
    /// Entropy in nats of the distribution the target was drawn from.
    pub entropies: Vec<f32>,
}

/// What a head makes of a micro-batch's log-probabilities: `dlogprob`, and whatever it wants to keep.
pub type Head<'a, S> = dyn Fn(&MicroBatch, &TokenStats) -> (Vec<f32>, S) + Sync + 'a;

impl Policy {
    /// The policy that a model folder holds.
    pub fn new(folder: ModelFolder, recompute: bool, threads: usize) -> Self {
        let decoder = Decoder::new(&folder.config, recompute);
        let ModelFolder { config, tokenizer, weights } = folder;
        Self { config, tokenizer, decoder, weights, version: 0, threads }
    }

    /// The model folder as it would be saved now.
    pub fn folder(&self) -> ModelFolder {
        ModelFolder { config: self.config.clone(), tokenizer: self.tokenizer.clone(), weights: self.weights.clone() }
    }

    /// Log-probabilities of all micro-batches, without gradients.
    pub fn logprobs(&self, micros: &[MicroBatch], temperature: f32) -> Vec<TokenStats> {
        self.logprobs_of(&self.weights, micros, temperature)
    }

    /// The same for other weights of this shape: the reference's.
    pub fn logprobs_of(&self, weights: &Weights, micros: &[MicroBatch], temperature: f32) -> Vec<TokenStats> {
        let work = |scratch: &mut Scratch, i: usize| self.forward(weights, &micros[i], temperature, scratch).2;
        let mut all = Vec::with_capacity(micros.len());
        map_in_order(micros.len(), self.threads, Scratch::default, work, |stats| all.push(stats));
        all
    }

    /// Sum of the gradients of all micro-batches, and what `head` kept of each, in order.
    ///
    /// A thread computes a micro-batch; gradients are added in the order of the micro-batches, so that the number of
    /// threads changes nothing.
    pub fn gradients<S: Send>(&self, micros: &[MicroBatch], temperature: f32, head: &Head<S>) -> (Vec<f32>, Vec<S>) {
        let mut total = vec![0f32; self.weights.values.len()];
        let mut kept = Vec::with_capacity(micros.len());
        let work = |scratch: &mut Scratch, i: usize| self.gradient(&micros[i], temperature, head, scratch);
        map_in_order(micros.len(), self.threads, Scratch::default, work, |(gradient, state)| {
            total.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g);
            kept.push(state);
        });
        (total, kept)
    }

    /// Forward, loss and backward of one micro-batch on this thread.
    fn gradient<S>(
        &self,
        micro: &MicroBatch,
        temperature: f32,
        head: &Head<S>,
        scratch: &mut Scratch,
    ) -> (Vec<f32>, S) {
        let (activations, h, stats) = self.forward(&self.weights, micro, temperature, scratch);
        let (d_logprobs, state) = head(micro, &stats);
        let k = self.decoder.hidden;
        let w = &self.weights.values[self.weights.layout.head.clone()];
        let mut gradient = vec![0f32; self.weights.values.len()];
        let mut dh = vec![0f32; h.len()];
        let dw = &mut gradient[self.weights.layout.head.clone()];
        linear_logprob::backward(&h, w, k, &micro.targets, temperature, &d_logprobs, &mut dh, dw);
        let mut d_hidden = vec![0f32; activations.hidden.len()];
        for (&row, dh) in micro.rows.iter().zip(dh.chunks_exact(k)) {
            d_hidden[row as usize * k..][..k].copy_from_slice(dh);
        }
        self.decoder.backward(&self.weights, packed(micro), activations, &d_hidden, &mut gradient, scratch);
        (gradient, state)
    }

    /// Hidden states of the rows that predict a target, and the targets' log-probabilities.
    fn forward(
        &self,
        weights: &Weights,
        micro: &MicroBatch,
        temperature: f32,
        scratch: &mut Scratch,
    ) -> (Activations, Vec<f32>, TokenStats) {
        let k = self.decoder.hidden;
        let activations = self.decoder.forward(weights, packed(micro), scratch);
        let h: Vec<f32> =
            micro.rows.iter().flat_map(|&row| &activations.hidden[row as usize * k..][..k]).copied().collect();
        let w = &weights.values[weights.layout.head.clone()];
        let (logprobs, entropies) = linear_logprob::forward(&h, w, k, &micro.targets, temperature);
        (activations, h, TokenStats { logprobs, entropies })
    }
}

fn packed(micro: &MicroBatch) -> Packed<'_> {
    Packed { tokens: &micro.tokens, positions: &micro.positions, starts: &micro.cu_seqlens }
}
