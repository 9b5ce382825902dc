//! A model on this machine's threads: log-probabilities and gradients of micro-batches. Its twin on a device is
//! [`super::device::DeviceModel`].

mod balance;
pub mod cache;
pub mod decoder;
pub mod decoding;
mod delta;
mod experts;
mod grouped;
mod latent;
mod mlp;
pub mod parts;
pub mod reference;
pub mod weights;
pub mod workspace;

use crate::batch::{Beside, Choices, Loss, LossStats, MicroBatch, Teaching, TokenStats};
use crate::ops::experts::LoadBalance;
use crate::ops::linear::{Linear, Precision};
use crate::ops::linear_logprob::{self, Logits, Rows, Slopes, distill};
use crate::ops::team::Team;
use crate::parallel::{Pool, map_in_order};

use super::decoder::Decoder;
use super::parameters::{Parameters, Trainable};
use decoder::{Context, Input, Sequences};
use decoding::DecodingMemory;
use reference::CpuReference;
use weights::{Matrices, PackedCache, PackedWeights};
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

/// How threads share the work on a model. It is the model's size that decides, never the number of threads, because
/// the two ways add the gradients of micro-batches in different orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Each thread takes micro-batches, or rows being sampled, of its own. Several micro-batches share a gradient, so
    /// that small ones can stay in a thread's cache.
    MicroBatches,
    /// All threads compute each operation together, over one micro-batch and into one gradient: weights are read once
    /// for all, and a gradient too large for the caches is held once.
    Operations,
}

impl Sharing {
    /// For a model of so many weights.
    pub fn of(weights: usize) -> Self {
        if weights < SMALL { Self::MicroBatches } else { Self::Operations }
    }

    /// Tokens of a micro-batch that is fast: a few sequences of a small model, of which little leaves a thread's cache;
    /// of others enough that weights and their gradient, which come from memory, are worth the way, and few enough that
    /// the logits of a large vocabulary are held and not computed again. A frozen base has no gradient, so that fewer are
    /// as fast, and what they keep is most of the memory that an adapter takes.
    pub fn micro_batch_tokens(self, frozen: bool) -> usize {
        match (self, frozen) {
            (Self::Operations, true) => 256,
            (Self::MicroBatches, _) | (Self::Operations, false) => linear_logprob::CHUNK_ROWS,
        }
    }

    /// Rows that are sampled at a time, at most, by all threads together, where the cache has so many bytes of the longest
    /// of them. A small model's weights are near at any number of rows, but each new token reads what the cache has of
    /// its row: as many rows as stay near too. A large one's weights come from memory for all rows at once, so that more
    /// rows are always better.
    pub fn rows(self, threads: usize, sequence_bytes: usize) -> usize {
        match self {
            Self::MicroBatches => threads * (NEAR / sequence_bytes.max(1)).max(FEWEST_ROWS),
            Self::Operations => usize::MAX,
        }
    }

    /// What becomes of the memory of sampling and of updates between the two: a step of a small model is short, and to
    /// ask the system for it again would be a tenth of the sampling; that of a large one is much, and its steps long.
    pub fn phases(self) -> Phases {
        match self {
            Self::MicroBatches => Phases::SideBySide,
            Self::Operations => Phases::InTurn,
        }
    }
}

/// Whether the memory of sampling and that of updates are held at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phases {
    /// Both are kept from step to step.
    SideBySide,
    /// The one is given back before the other is taken.
    InTurn,
}

/// Weights of a model whose gradient a thread can afford to have for itself.
const SMALL: usize = 1 << 22;

/// Bytes of keys and values that a thread can count on finding in the last cache.
const NEAR: usize = 8 << 20;

/// Rows that a thread samples at a time however long they may grow: two tiles of a product.
const FEWEST_ROWS: usize = 16;

/// A model whose values and activations are in this machine's memory.
#[derive(Debug, Clone)]
pub struct CpuModel {
    /// The computation.
    pub decoder: Decoder,
    /// Threads to compute on; changes no result.
    pub threads: usize,
    /// How they share work.
    pub sharing: Sharing,
    precision: Precision,
    parameters: Parameters,
    packed: PackedCache,
    /// Memory of sampling that outlives a call, so that the next one need not ask the system for it again; one for each
    /// team.
    decoding: Pool<DecodingMemory>,
    /// The same of micro-batches.
    workspaces: Pool<Workspace>,
    /// The same of gradients, in the layout of what is trained.
    gradients: Pool<Vec<f32>>,
    /// What the routers of the layers chose in micro-batches whose gradients were taken.
    choices: Pool<Choices>,
}

impl CpuModel {
    /// A model of these values.
    pub fn new(decoder: Decoder, parameters: Parameters, threads: usize, precision: Precision) -> Self {
        let (packed, decoding, workspaces, gradients, choices) = Default::default();
        let sharing = Sharing::of(parameters.weights());
        Self { decoder, threads, sharing, precision, parameters, packed, decoding, workspaces, gradients, choices }
    }

    /// Its values, and which of them are trained.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The same, to be moved or replaced.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        self.packed.forget();
        &mut self.parameters
    }

    /// What is trained, to be moved.
    pub fn trainable(&mut self) -> Trainable<'_> {
        self.parameters_mut().trainable()
    }

    /// The weights as they are now, ready for forwards.
    pub fn weights(&self, team: &Team) -> PackedWeights<'_> {
        match &self.parameters {
            Parameters::Full(weights) => {
                let matrices = self.packed.get(team, &weights.layout, &weights.values, self.precision);
                PackedWeights::trained(&weights.layout, &weights.values, matrices)
            }
            Parameters::Frozen(base, adapter) => {
                PackedWeights::frozen(base, adapter.as_ref().map(|adapter| (&adapter.layout, &adapter.values[..])))
            }
        }
    }

    /// Rows that are sampled at a time, at most, if none grows longer than so many tokens.
    pub fn rows(&self, threads: usize, longest: usize) -> usize {
        self.sharing.rows(threads, self.decoder.cache_shape().sequence_bytes(longest))
    }

    /// Memory to sample in. That of updates is freed first where a large model's would have to fit beside it.
    pub fn decoding_memory(&self) -> DecodingMemory {
        if self.sharing.phases() == Phases::InTurn {
            self.workspaces.take_all().into_iter().for_each(Workspace::give_back);
        }
        self.decoding.take()
    }

    /// Takes back what [`CpuModel::decoding_memory`] gave.
    pub fn keep_decoding_memory(&self, memory: DecodingMemory) {
        self.decoding.give_back(memory);
    }

    /// Runs `work` in the memory of micro-batches, that of sampling freed first.
    fn with_workspace<R>(&self, work: impl FnOnce(&mut Workspace) -> R) -> R {
        self.decoding.take_all().into_iter().for_each(DecodingMemory::give_back);
        let mut workspace = self.workspaces.take();
        let result = work(&mut workspace);
        self.workspaces.give_back(workspace);
        result
    }

    /// The weights as `reference` has them; `memory` is for what has to be packed.
    fn reference_weights<'a>(
        &'a self,
        team: &Team,
        reference: &'a CpuReference,
        memory: &'a mut Matrices,
    ) -> PackedWeights<'a> {
        match (&self.parameters, reference) {
            (Parameters::Full(weights), CpuReference::Values(values)) => {
                *memory = weights::pack(team, &weights.layout, values, self.precision, std::mem::take(memory));
                PackedWeights::trained(&weights.layout, values, memory)
            }
            (Parameters::Frozen(base, Some(adapter)), CpuReference::Values(values)) => {
                PackedWeights::frozen(base, Some((&adapter.layout, values)))
            }
            (Parameters::Frozen(base, _), _) => PackedWeights::frozen(base, None),
            (Parameters::Full(_), CpuReference::Base) => self.weights(team),
        }
    }

    /// Log-probabilities of all micro-batches, without gradients: the model's own, or those of `reference`, whose tokens
    /// go to experts of its own choice.
    pub fn logprobs(
        &self,
        reference: Option<&CpuReference>,
        micros: &[MicroBatch],
        temperature: f32,
    ) -> Vec<TokenStats> {
        let mut memory = Matrices::new();
        let mut all = Vec::with_capacity(micros.len());
        Team::with(self.threads, |team| {
            let weights = match reference {
                None => self.weights(team),
                Some(reference) => self.reference_weights(team, reference, &mut memory),
            };
            let forward = |team: &Team, ws: &mut Workspace, micro: &MicroBatch| {
                let input = if reference.is_none() { input(micro) } else { plain(micro) };
                self.forward(team, &weights, (micro, input), temperature, Keep::Nothing, ws).1
            };
            match self.sharing {
                Sharing::MicroBatches => {
                    let work = |ws: &mut Workspace, i: usize| forward(&Team::alone(), ws, &micros[i]);
                    map_in_order(micros.len(), self.threads, &self.workspaces, work, |stats| all.push(stats));
                }
                Sharing::Operations => {
                    self.with_workspace(|ws| all.extend(micros.iter().map(|micro| forward(team, ws, micro))))
                }
            }
        });
        all
    }

    /// Sum of the gradients of all micro-batches, and what `loss` says of each, in order. The number of threads changes
    /// nothing.
    pub fn gradients(&self, micros: &[MicroBatch], temperature: f32, loss: &Loss) -> (Vec<f32>, Vec<LossStats>) {
        self.taught(micros, temperature, loss, Beside::default())
    }

    /// The same, with the gradients of what there is beside the loss.
    pub fn taught(
        &self,
        micros: &[MicroBatch],
        temperature: f32,
        loss: &Loss,
        beside: Beside<'_, CpuModel>,
    ) -> (Vec<f32>, Vec<LossStats>) {
        Team::with(self.threads, |team| {
            let job = Job { weights: self.weights(team), temperature, loss, beside: Ready::new(team, beside) };
            match self.sharing {
                Sharing::MicroBatches => self.gradients_by_shard(&job, micros),
                Sharing::Operations => self.gradients_together(team, &job, micros),
            }
        })
    }

    /// What the auxiliary loss of routers is made of in these micro-batches, by a forward of each.
    pub fn load_balance(&self, micros: &[MicroBatch]) -> LoadBalance {
        let mut sum = LoadBalance::default();
        Team::with(self.threads, |team| {
            let weights = self.weights(team);
            let forward = |team: &Team, ws: &mut Workspace, micro: &MicroBatch| {
                (ws.balance, ws.inputs.experts.times) = (Some(LoadBalance::default()), micro.times());
                let context = Context::Segments(&micro.segments);
                self.decoder.forward(team, &weights, input(micro), context, Keep::Nothing, ws);
                ws.balance.take().unwrap_or_default()
            };
            match self.sharing {
                Sharing::MicroBatches => {
                    let work = |ws: &mut Workspace, i: usize| forward(&Team::alone(), ws, &micros[i]);
                    map_in_order(micros.len(), self.threads, &self.workspaces, work, |of_micro| sum.add(&of_micro));
                }
                Sharing::Operations => {
                    self.with_workspace(|ws| micros.iter().for_each(|micro| sum.add(&forward(team, ws, micro))));
                }
            }
        });
        sum
    }

    /// A thread computes a shard; gradients are added in the order of the shards.
    fn gradients_by_shard(&self, job: &Job, micros: &[MicroBatch]) -> (Vec<f32>, Vec<LossStats>) {
        let mut total: Option<Vec<f32>> = None;
        let all = self.each_shard(job, &shards(micros), |gradient| {
            let Some(total) = &mut total else { return total = Some(gradient) };
            total.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g);
            self.gradients.give_back(gradient);
        });
        (total.unwrap_or_else(|| vec![0f32; self.parameters.trained_values().len()]), all)
    }

    /// The team computes one micro-batch after the other into one gradient.
    fn gradients_together(&self, team: &Team, job: &Job, micros: &[MicroBatch]) -> (Vec<f32>, Vec<LossStats>) {
        let mut gradient = self.gradients.take();
        gradient.resize(self.parameters.trained_values().len(), 0.0);
        team.each(gradient.chunks_mut(1 << 20), |piece| piece.fill(0.0));
        let all = self.with_workspace(|ws| {
            micros.iter().map(|micro| self.add_gradient(team, job, micro, ws, &mut gradient)).collect()
        });
        (gradient, all)
    }

    /// Takes back a sum of gradients that is done with: the next one needs its memory.
    pub fn reuse(&self, gradients: Vec<f32>) {
        self.gradients.give_back(gradients);
    }

    /// Forward, loss and backward of one micro-batch.
    fn add_gradient(
        &self,
        team: &Team,
        job: &Job,
        micro: &MicroBatch,
        ws: &mut Workspace,
        gradient: &mut [f32],
    ) -> LossStats {
        let (weights, keep) = (&job.weights, if self.decoder.recompute { Keep::Inputs } else { Keep::Activations });
        let balance = job.beside.balance_slopes;
        let experts = &mut ws.inputs.experts;
        experts.balance_slopes.clear();
        if let Some(slopes) = balance {
            experts.balance_slopes.extend_from_slice(slopes);
            experts.times = micro.times();
        }
        let (h, now) = self.forward(team, weights, (micro, input(micro)), job.temperature, keep, ws);
        let mut losses = (job.loss)(micro, &now);
        let (k, d_logprobs) = (self.decoder.hidden, &losses.gradient);
        let slopes = Slopes { logprobs: d_logprobs, entropies: &losses.entropy_gradient };
        let rows = Rows { h: &h, targets: &micro.targets, temperature: job.temperature };
        let mut dh = vec![0f32; h.len()];
        let logits = &mut ws.logits;
        match &job.beside.lesson {
            None => linear_logprob::backward(team, rows, &weights.lm_head, slopes, logits, &mut dh, gradient),
            Some(lesson) => {
                let divergences =
                    lesson.backward(team, (micro, rows), &weights.lm_head, d_logprobs, logits, &mut dh, gradient);
                lesson.teaching.add_to(&mut losses.stats, micro, &divergences);
            }
        }
        let mut d_hidden = vec![0f32; ws.hidden.len()];
        for (&row, dh) in micro.rows.iter().zip(dh.chunks_exact(k)) {
            // Completions that share a prompt share the row that predicts their first token.
            d_hidden[row as usize * k..][..k].iter_mut().zip(dh).for_each(|(sum, d)| *sum += d);
        }
        let sequences = Sequences { input: input(micro), segments: &micro.segments };
        self.decoder.backward(team, weights, sequences, &d_hidden, gradient, ws);
        if self.decoder.router.is_some() {
            let mut choices = std::mem::take(&mut ws.choices);
            choices.compare(&ws.differ, micro.router_replay);
            self.choices.give_back(choices);
        }
        losses.stats
    }

    /// Hidden states of the rows that predict a target.
    fn hidden(
        &self,
        team: &Team,
        weights: &PackedWeights,
        (micro, input): (&MicroBatch, Input),
        keep: Keep,
        ws: &mut Workspace,
    ) -> Vec<f32> {
        let k = self.decoder.hidden;
        self.decoder.forward(team, weights, input, Context::Segments(&micro.segments), keep, ws);
        micro.rows.iter().flat_map(|&row| &ws.hidden[row as usize * k..][..k]).copied().collect()
    }

    /// The same, and the targets' log-probabilities.
    fn forward(
        &self,
        team: &Team,
        weights: &PackedWeights,
        (micro, input): (&MicroBatch, Input),
        temperature: f32,
        keep: Keep,
        ws: &mut Workspace,
    ) -> (Vec<f32>, TokenStats) {
        let h = self.hidden(team, weights, (micro, input), keep, ws);
        let rows = Rows { h: &h, targets: &micro.targets, temperature };
        let (logprobs, entropies) = linear_logprob::forward(team, rows, &weights.lm_head, &mut ws.logits);
        (h, TokenStats { logprobs, entropies })
    }
}

/// What gradients are taken of.
struct Job<'a> {
    weights: PackedWeights<'a>,
    temperature: f32,
    loss: &'a Loss<'a>,
    beside: Ready<'a>,
}

/// What gradients have beside that of their loss, ready for forwards.
struct Ready<'a> {
    lesson: Option<Lesson<'a>>,
    balance_slopes: Option<&'a [f32]>,
}

impl<'a> Ready<'a> {
    fn new(team: &Team, Beside { teaching, balance_slopes }: Beside<'a, CpuModel>) -> Self {
        let lesson = teaching.map(|teaching| Lesson { weights: teaching.teacher.weights(team), teaching });
        Self { lesson, balance_slopes }
    }
}

/// A teacher at work: its weights, ready for forwards.
struct Lesson<'a> {
    weights: PackedWeights<'a>,
    teaching: Teaching<'a, CpuModel>,
}

impl Lesson<'_> {
    /// From the rows of a micro-batch to the divergence of each, and the gradients of loss and divergence together.
    #[expect(clippy::too_many_arguments, reason = "those of a head's backward")]
    fn backward(
        &self,
        team: &Team,
        (micro, rows): (&MicroBatch, Rows),
        head: &Linear,
        d_logprobs: &[f32],
        logits: &mut Logits,
        dh: &mut [f32],
        gradient: &mut [f32],
    ) -> Vec<f32> {
        let Teaching { teacher, divergence, coef } = self.teaching;
        let mut ws = teacher.workspaces.take();
        let h = teacher.hidden(team, &self.weights, (micro, plain(micro)), Keep::Nothing, &mut ws);
        let slopes: Vec<f32> = micro.loss_weights.iter().map(|weight| coef * weight).collect();
        let slopes = distill::Slopes { logprob: d_logprobs, divergence: &slopes };
        let taught = distill::Teacher { h: &h, head: &self.weights.lm_head };
        let both = [logits, &mut ws.logits];
        let divergences = distill::backward(team, rows, head, taught, (divergence, slopes), both, dh, gradient);
        teacher.workspaces.give_back(ws);
        divergences
    }
}

/// Tokens of a shard: the micro-batches that share a gradient buffer. Small micro-batches stay in the second cache; to
/// zero and add a buffer the size of the model for each would cost what that gains.
pub(crate) const SHARD_TOKENS: usize = 2048;

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

/// The inputs of a micro-batch, with the experts that they were sampled with.
fn input(micro: &MicroBatch) -> Input<'_> {
    let recorded = micro.routed.as_ref().map(|routed| (routed, micro.router_replay));
    Input { recorded, ..plain(micro) }
}

/// The same for another model than the one that sampled them.
fn plain(micro: &MicroBatch) -> Input<'_> {
    Input::new(&micro.tokens, &micro.positions)
}
