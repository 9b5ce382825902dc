//! The model being trained, with its weights and their version: log-probabilities of given tokens, with gradients.

use std::path::Path;

use anyhow::Result;
use tokenizers::Tokenizer;

use crate::grpo::MicroBatch;
use crate::model::decoder::Packed;
use crate::model::folder;
use crate::model::{
    Companions, Decoder, ModelConfig, ModelFolder, PackedWeights, Parameters, Reference, SaveDtype, Workspace, peft,
};
use crate::ops::linear_logprob;
use crate::parallel::{Pool, map_in_order};
use crate::rollout::{Engine, Memory, Place};

/// A model and how it is computed.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `config.json`.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The files beside them, kept for saving.
    pub companions: Companions,
    /// The computation.
    pub decoder: Decoder,
    /// Its values, and which of them learn.
    pub parameters: Parameters,
    /// Number of updates made.
    pub version: u64,
    /// Threads to compute on; changes no result.
    pub threads: usize,
    buffers: Buffers,
}

/// Memory that outlives a call, so that the next one need not ask the system for it again.
#[derive(Debug, Clone, Default)]
struct Buffers {
    /// One a thread.
    workspaces: Pool<Workspace>,
    /// Of a shard, in the layout of what learns.
    gradients: Pool<Vec<f32>>,
    /// The sampler's.
    rollout: Pool<Memory>,
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
    pub fn new(folder: ModelFolder<impl Into<Parameters>>, recompute: bool, threads: usize) -> Self {
        let decoder = Decoder::new(&folder.config, recompute);
        let ModelFolder { config, tokenizer, companions, weights } = folder;
        let (parameters, buffers) = (weights.into(), Buffers::default());
        Self { config, tokenizer, companions, decoder, parameters, version: 0, threads, buffers }
    }

    /// Writes what learns into `folder`, which exists: a model folder, or the files of an adapter.
    pub fn save(&self, folder: &Path, dtype: SaveDtype) -> Result<()> {
        match self.parameters.adapter() {
            Some(adapter) => peft::write(folder, adapter, dtype),
            None => self.save_merged(folder, dtype),
        }
    }

    /// Writes a model folder into `folder`, which exists, an adapter merged into its base.
    pub fn save_merged(&self, folder: &Path, dtype: SaveDtype) -> Result<()> {
        folder::write(folder, &self.config, &self.tokenizer, &self.companions, &self.parameters, dtype)
    }

    /// The sampler over the weights as they are now, `capacity` rows at a time.
    pub fn engine(&self, capacity: usize) -> Engine<'_> {
        Engine {
            place: Place::Cpu { decoder: &self.decoder, parameters: &self.parameters, memory: &self.buffers.rollout },
            tokenizer: &self.tokenizer,
            policy_version: self.version,
            threads: self.threads,
            capacity,
        }
    }

    /// Log-probabilities of all micro-batches, without gradients.
    pub fn logprobs(&self, micros: &[MicroBatch], temperature: f32) -> Vec<TokenStats> {
        self.logprobs_of(&self.parameters.packed(), micros, temperature)
    }

    /// The same for the reference.
    pub fn reference_logprobs(
        &self,
        reference: &Reference,
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
            d_hidden[row as usize * k..][..k].copy_from_slice(dh);
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
    Packed { tokens: &micro.tokens, positions: &micro.positions, starts: &micro.cu_seqlens }
}
