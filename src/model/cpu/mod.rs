//! A model on this machine's threads, in fp32: log-probabilities and gradients of micro-batches. Its twin on a device is
//! [`super::device::DeviceModel`].

pub mod cache;
pub mod decoder;
pub mod decoding;
pub mod reference;
pub mod weights;
pub mod workspace;

use crate::batch::{Loss, LossStats, MicroBatch, TokenStats};
use crate::ops::linear::Precision;
use crate::ops::linear_logprob;
use crate::parallel::{Pool, map_in_order};

use super::decoder::Decoder;
use super::parameters::Parameters;
use decoder::{Context, Input};
use decoding::DecodingMemory;
use reference::CpuReference;
use weights::PackedWeights;
use workspace::{Keep, Workspace};

/// How a model is computed on this machine's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads to compute on; changes no result.
    pub threads: usize,
    /// What products are computed in.
    pub precision: Precision,
    /// Whether the backward computes layers again instead of reading what the forward kept of them.
    pub recompute: bool,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { threads: 1, precision: Precision::Fp32, recompute: false }
    }
}

/// A model whose values and activations are in this machine's memory.
#[derive(Debug, Clone)]
pub struct CpuModel {
    /// The computation.
    pub decoder: Decoder,
    /// Its values, and which of them are trained.
    pub parameters: Parameters,
    /// Threads to compute on; changes no result.
    pub threads: usize,
    /// What products are computed in.
    pub precision: Precision,
    /// What sampling keeps between calls, one for each thread.
    pub decoding: Pool<DecodingMemory>,
    /// Memory of micro-batches that outlives a call, so that the next one need not ask the system for it again.
    workspaces: Pool<Workspace>,
    /// The same of a shard's gradients, in the layout of what is trained.
    gradients: Pool<Vec<f32>>,
}

impl CpuModel {
    /// A model of these values.
    pub fn new(decoder: Decoder, parameters: Parameters, threads: usize, precision: Precision) -> Self {
        let (decoding, workspaces, gradients) = (Pool::default(), Pool::default(), Pool::default());
        Self { decoder, parameters, threads, precision, decoding, workspaces, gradients }
    }

    /// Log-probabilities of all micro-batches, without gradients: the model's own, or those of `reference`.
    pub fn logprobs(
        &self,
        reference: Option<&CpuReference>,
        micros: &[MicroBatch],
        temperature: f32,
    ) -> Vec<TokenStats> {
        let weights = match reference {
            None => PackedWeights::of(&self.parameters, self.precision),
            Some(reference) => PackedWeights::of_reference(&self.parameters, reference, self.precision),
        };
        let work = |ws: &mut Workspace, i: usize| self.forward(&weights, &micros[i], temperature, Keep::Nothing, ws).1;
        let mut all = Vec::with_capacity(micros.len());
        map_in_order(micros.len(), self.threads, &self.workspaces, work, |stats| all.push(stats));
        all
    }

    /// Sum of the gradients of all micro-batches, and what `loss` says of each, in order.
    ///
    /// A thread computes a shard; gradients are added in the order of the shards, so that the number of threads changes
    /// nothing.
    pub fn gradients(&self, micros: &[MicroBatch], temperature: f32, loss: &Loss) -> (Vec<f32>, Vec<LossStats>) {
        let weights = PackedWeights::of(&self.parameters, self.precision);
        let n = self.parameters.trained_values().len();
        let mut total: Option<Vec<f32>> = None;
        let mut all = Vec::with_capacity(micros.len());
        let shards = shards(micros);
        let work = |ws: &mut Workspace, i: usize| {
            let mut gradient = self.gradients.take();
            gradient.clear();
            gradient.resize(n, 0.0);
            let add = |micro| self.add_gradient(&weights, micro, temperature, loss, ws, &mut gradient);
            let stats: Vec<LossStats> = shards[i].iter().map(add).collect();
            (gradient, stats)
        };
        map_in_order(shards.len(), self.threads, &self.workspaces, work, |(gradient, stats)| {
            all.extend(stats);
            let Some(total) = &mut total else { return total = Some(gradient) };
            total.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g);
            self.gradients.give_back(gradient);
        });
        (total.unwrap_or_else(|| vec![0f32; n]), all)
    }

    /// Takes back a sum of gradients that is done with: the next one needs its memory.
    pub fn reuse(&self, gradients: Vec<f32>) {
        self.gradients.give_back(gradients);
    }

    /// Forward, loss and backward of one micro-batch on this thread.
    fn add_gradient(
        &self,
        weights: &PackedWeights,
        micro: &MicroBatch,
        temperature: f32,
        loss: &Loss,
        ws: &mut Workspace,
        gradient: &mut [f32],
    ) -> LossStats {
        let keep = if self.decoder.recompute { Keep::Inputs } else { Keep::Activations };
        let (h, now) = self.forward(weights, micro, temperature, keep, ws);
        let losses = loss(micro, &now);
        let (k, d_logprobs) = (self.decoder.hidden, &losses.gradient);
        let mut dh = vec![0f32; h.len()];
        linear_logprob::backward(&h, &weights.lm_head, &micro.targets, temperature, d_logprobs, &mut dh, gradient);
        let mut d_hidden = vec![0f32; ws.hidden.len()];
        for (&row, dh) in micro.rows.iter().zip(dh.chunks_exact(k)) {
            // Completions that share a prompt share the row that predicts their first token.
            d_hidden[row as usize * k..][..k].iter_mut().zip(dh).for_each(|(sum, d)| *sum += d);
        }
        self.decoder.backward(weights, input(micro), &micro.segments, &d_hidden, gradient, ws);
        losses.stats
    }

    /// Hidden states of the rows that predict a target, and the targets' log-probabilities.
    fn forward(
        &self,
        weights: &PackedWeights,
        micro: &MicroBatch,
        temperature: f32,
        keep: Keep,
        ws: &mut Workspace,
    ) -> (Vec<f32>, TokenStats) {
        let k = self.decoder.hidden;
        self.decoder.forward(weights, input(micro), Context::Segments(&micro.segments), keep, ws);
        let h: Vec<f32> = micro.rows.iter().flat_map(|&row| &ws.hidden[row as usize * k..][..k]).copied().collect();
        let (logprobs, entropies) = linear_logprob::forward(&h, &weights.lm_head, &micro.targets, temperature);
        (h, TokenStats { logprobs, entropies })
    }
}

/// Tokens of a shard: the micro-batches that share a gradient buffer. Small micro-batches stay in the second cache; to
/// zero and add a buffer the size of the model for each would cost what that gains.
const SHARD_TOKENS: usize = 2048;

/// Cuts micro-batches, in order, into shards. The cut does not depend on the number of threads.
fn shards(micros: &[MicroBatch]) -> Vec<&[MicroBatch]> {
    let mut tokens = 0;
    micros
        .chunk_by(|_, next| {
            tokens += next.tokens.len();
            let same = tokens < SHARD_TOKENS;
            tokens = if same { tokens } else { 0 };
            same
        })
        .collect()
}

fn input(micro: &MicroBatch) -> Input<'_> {
    Input { tokens: &micro.tokens, positions: &micro.positions }
}
