//! A model on this machine's threads, in fp32: log-probabilities and gradients of micro-batches. Its twin on a device is
//! [`super::DeviceModel`].

pub mod cache;
pub mod decoder;
pub mod weights;
pub mod workspace;

use crate::grpo::MicroBatch;
use crate::ops::linear_logprob;
use crate::parallel::{Pool, map_in_order};
use crate::policy::{Head, TokenStats};
use crate::rollout::Memory;

use super::{CpuReference, Parameters};
use decoder::{Decoder, Packed};
use weights::PackedWeights;
use workspace::Workspace;

/// A model whose values and activations are in this machine's memory.
#[derive(Debug, Clone)]
pub struct CpuModel {
    /// The computation.
    pub decoder: Decoder,
    /// Its values, and which of them learn.
    pub parameters: Parameters,
    /// Threads to compute on; changes no result.
    pub threads: usize,
    /// The gradients that the next update moves by, of the layout of what learns.
    pub sum: Vec<f32>,
    /// What the sampler keeps between calls.
    pub memory: Pool<Memory>,
    buffers: Buffers,
}

/// Memory that outlives a call, so that the next one need not ask the system for it again.
#[derive(Debug, Clone, Default)]
struct Buffers {
    /// One a thread.
    workspaces: Pool<Workspace>,
    /// Of a shard, in the layout of what learns.
    gradients: Pool<Vec<f32>>,
}

impl CpuModel {
    /// A model of these values.
    pub fn new(decoder: Decoder, parameters: Parameters, threads: usize) -> Self {
        Self { decoder, parameters, threads, sum: Vec::new(), memory: Pool::default(), buffers: Buffers::default() }
    }

    /// Log-probabilities of all micro-batches, without gradients.
    pub fn logprobs(&self, micros: &[MicroBatch], temperature: f32) -> Vec<TokenStats> {
        self.logprobs_of(&self.parameters.packed(), micros, temperature)
    }

    /// The same for the reference.
    pub fn reference_logprobs(
        &self,
        reference: &CpuReference,
        micros: &[MicroBatch],
        temperature: f32,
    ) -> Vec<TokenStats> {
        self.logprobs_of(&self.parameters.packed_as(reference), micros, temperature)
    }

    fn logprobs_of(&self, packed: &PackedWeights, micros: &[MicroBatch], temperature: f32) -> Vec<TokenStats> {
        let work = |ws: &mut Workspace, i: usize| self.forward(packed, &micros[i], temperature, ws).1;
        let mut all = Vec::with_capacity(micros.len());
        map_in_order(micros.len(), self.threads, &self.buffers.workspaces, work, |stats| all.push(stats));
        all
    }

    /// Sum of the gradients of all micro-batches, and what `head` kept of each, in order.
    ///
    /// A thread computes a shard; gradients are added in the order of the shards, so that the number of threads changes
    /// nothing.
    pub fn gradients<S: Send>(&self, micros: &[MicroBatch], temperature: f32, head: &Head<S>) -> (Vec<f32>, Vec<S>) {
        let packed = self.parameters.packed();
        let mut total = vec![0f32; self.parameters.values().len()];
        let mut kept = Vec::with_capacity(micros.len());
        let shards = shards(micros);
        let work = |ws: &mut Workspace, i: usize| {
            let mut gradient = self.buffers.gradients.take();
            gradient.clear();
            gradient.resize(self.parameters.values().len(), 0.0);
            let add = |micro| self.add_gradient(&packed, micro, temperature, head, ws, &mut gradient);
            let states: Vec<S> = shards[i].iter().map(add).collect();
            (gradient, states)
        };
        map_in_order(shards.len(), self.threads, &self.buffers.workspaces, work, |(gradient, states)| {
            total.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g);
            self.buffers.gradients.give_back(gradient);
            kept.extend(states);
        });
        (total, kept)
    }

    /// Forward, loss and backward of one micro-batch on this thread.
    fn add_gradient<S>(
        &self,
        packed: &PackedWeights,
        micro: &MicroBatch,
        temperature: f32,
        head: &Head<S>,
        ws: &mut Workspace,
        gradient: &mut [f32],
    ) -> S {
        let (h, stats) = self.forward(packed, micro, temperature, ws);
        let (d_logprobs, state) = head(micro, &stats);
        let k = self.decoder.hidden;
        let mut dh = vec![0f32; h.len()];
        linear_logprob::backward(&h, &packed.head, &micro.targets, temperature, &d_logprobs, &mut dh, gradient);
        let mut d_hidden = vec![0f32; ws.hidden.len()];
        for (&row, dh) in micro.rows.iter().zip(dh.chunks_exact(k)) {
            // Completions that share a prompt share the row that predicts their first token.
            d_hidden[row as usize * k..][..k].iter_mut().zip(dh).for_each(|(sum, d)| *sum += d);
        }
        self.decoder.backward(packed, input(micro), &d_hidden, gradient, ws);
        state
    }

    /// Hidden states of the rows that predict a target, and the targets' log-probabilities.
    fn forward(
        &self,
        packed: &PackedWeights,
        micro: &MicroBatch,
        temperature: f32,
        ws: &mut Workspace,
    ) -> (Vec<f32>, TokenStats) {
        let k = self.decoder.hidden;
        self.decoder.forward(packed, input(micro), ws);
        let h: Vec<f32> = micro.rows.iter().flat_map(|&row| &ws.hidden[row as usize * k..][..k]).copied().collect();
        let (logprobs, entropies) = linear_logprob::forward(&h, &packed.head, &micro.targets, temperature);
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

fn input(micro: &MicroBatch) -> Packed<'_> {
    Packed { tokens: &micro.tokens, positions: &micro.positions, segments: &micro.segments }
}
