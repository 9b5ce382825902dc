//! The batched sampler: continuous batching over a cache of shared blocks.
//!
//! Each thread keeps a batch of rows full: a finished row leaves, and the next completion due enters at once. A prompt
//! is prefilled when its first completion enters, and its cache is shared by the others. Completions are handed on as
//! they finish. What is sampled depends on (seed, step, prompt, sample, position) alone, so capacity and threads
//! change the speed and nothing else.

use std::sync::Mutex;

use reckon_datasets::Counted;
use tokenizers::Tokenizer;

use crate::model::decoder::Packed;
use crate::model::{Decoder, PackedWeights, Parameters, Workspace};
use crate::ops::attention::{Heads, Scratch, cached};
use crate::ops::linear::Onto;
use crate::ops::{LANES, rms_norm, swiglu};
use crate::parallel::{Pool, lock};

use super::cache::{self, BlockId, Cache};
use super::{Completion, FinishReason, Prompt, Sampling};

/// Samples completions from one version of the weights.
#[derive(Debug, Clone, Copy)]
pub struct Engine<'a> {
    /// The model's shape.
    pub decoder: &'a Decoder,
    /// Its values, the very ones the trainer updates.
    pub parameters: &'a Parameters,
    /// Turns sampled tokens into text.
    pub tokenizer: &'a Tokenizer,
    /// Version of the weights, noted on each completion.
    pub policy_version: u64,
    /// Threads to sample on.
    pub threads: usize,
    /// Rows sampled at a time, over all threads.
    pub capacity: usize,
    /// What earlier calls left for later ones, one a thread.
    pub memory: &'a Pool<Memory>,
}

/// Names the streams of random numbers of one call.
#[derive(Debug, Clone, Copy)]
pub struct SampleKey {
    /// The run's seed.
    pub seed: u64,
    /// What the completions are for: the step of training, or a number that stands for an evaluation.
    pub step: u64,
}

/// Completions not yet begun.
struct Queue {
    /// Samples already handed out, a prompt each.
    begun: Vec<usize>,
    group_size: usize,
}

impl Queue {
    /// The next (prompt, sample): of the prompt at hand, else of one nobody has prefilled, else of any.
    fn next(&mut self, at_hand: Option<usize>) -> Option<(usize, usize)> {
        let group_size = self.group_size;
        let left = |begun: &usize| *begun < group_size;
        let prompt = at_hand
            .filter(|&p| left(&self.begun[p]))
            .or_else(|| self.begun.iter().position(|&begun| begun == 0 && group_size > 0))
            .or_else(|| self.begun.iter().position(left))?;
        self.begun[prompt] += 1;
        Some((prompt, self.begun[prompt] - 1))
    }
}

impl Engine<'_> {
    /// Samples `group_size` completions of every prompt, and calls `finished(prompt, sample, completion)` with each
    /// as soon as it ends, on the thread that sampled it.
    pub fn generate(
        &self,
        prompts: &[Prompt],
        group_size: usize,
        sampling: &Sampling,
        key: SampleKey,
        finished: impl Fn(usize, usize, Completion) + Sync,
    ) {
        let queue = Mutex::new(Queue { begun: vec![0; prompts.len()], group_size });
        let decoder = Decoder { recompute: false, ..self.decoder.clone() };
        let packed = self.parameters.packed();
        let job = Job { engine: *self, decoder: &decoder, packed: &packed, prompts, sampling, key };
        let threads = self.threads.clamp(1, self.capacity.max(1)).min((prompts.len() * group_size).max(1));
        let run = |thread: usize| {
            let capacity = (self.capacity + threads - 1 - thread) / threads;
            let mut worker = Worker::new(job, capacity.max(1), self.memory.take());
            worker.run(&queue, &finished);
            self.memory.give_back(worker.memory);
        };
        std::thread::scope(|scope| {
            for thread in 1..threads {
                scope.spawn(move || run(thread));
            }
            run(0);
        });
    }
}

/// A completion being sampled.
struct Row {
    prompt: usize,
    sample: usize,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    blocks: Vec<BlockId>,
    /// Tokens in the cache, the prompt's included.
    cached: usize,
}

/// A prompt's cache, and the logits after its last token.
struct Prefilled {
    prompt: usize,
    blocks: Vec<BlockId>,
    logits: Vec<f32>,
}

/// Buffers of a decoding step.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    raw: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    logits: Vec<f32>,
}

/// What all threads of one call share.
#[derive(Clone, Copy)]
struct Job<'a> {
    engine: Engine<'a>,
    /// The engine's, keeping the keys and values of every layer when it prefills.
    decoder: &'a Decoder,
    packed: &'a PackedWeights<'a>,
    prompts: &'a [Prompt],
    sampling: &'a Sampling,
    key: SampleKey,
}

/// What a thread samples in. Used again, because to get a cache anew from the system costs a tenth of the sampling.
#[derive(Default)]
pub struct Memory {
    cache: Cache,
    buffers: Buffers,
    scratch: Scratch,
    /// For prefilling.
    workspace: Workspace,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// One thread's share of the batch.
struct Worker<'a> {
    job: Job<'a>,
    capacity: usize,
    rows: Vec<Row>,
    prefilled: Option<Prefilled>,
    memory: Memory,
}

impl<'a> Worker<'a> {
    fn new(job: Job<'a>, capacity: usize, mut memory: Memory) -> Self {
        memory.cache.shape(job.packed.layers.len(), cached::block_len(job.decoder.heads));
        Self { job, capacity, rows: Vec::new(), prefilled: None, memory }
    }

    fn run(&mut self, queue: &Mutex<Queue>, finished: &(impl Fn(usize, usize, Completion) + Sync)) {
        loop {
            while self.rows.len() < self.capacity {
                let at_hand = self.prefilled.as_ref().map(|p| p.prompt);
                let next = lock(queue).next(at_hand);
                let Some((prompt, sample)) = next else { break };
                self.enter(prompt, sample, finished);
            }
            if self.rows.is_empty() {
                return self.forget_prefilled();
            }
            self.decode();
            self.sample(finished);
        }
    }

    /// Begins a completion: shares the prompt's cache and samples the first token.
    fn enter(&mut self, prompt: usize, sample: usize, finished: &impl Fn(usize, usize, Completion)) {
        if self.prefilled.as_ref().is_none_or(|p| p.prompt != prompt) {
            self.prefill(prompt);
        }
        let Some(prefilled) = &self.prefilled else { return };
        let cached = self.job.prompts[prompt].tokens.len();
        let blocks = self.memory.cache.fork(&prefilled.blocks, cached);
        let mut row = Row { prompt, sample, tokens: Vec::new(), logprobs: Vec::new(), blocks, cached };
        let ended = self.extend(&mut row, &mut prefilled.logits.clone());
        self.keep(row, ended, finished);
    }

    /// Runs the prompt through the model and fills its blocks.
    fn prefill(&mut self, prompt: usize) {
        self.forget_prefilled();
        let Job { decoder, packed, prompts, .. } = self.job;
        let tokens = &prompts[prompt].tokens;
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let input = Packed { tokens, positions: &positions, starts: &[0, tokens.len() as u32] };
        decoder.forward(packed, input, &mut self.memory.workspace);
        let blocks: Vec<BlockId> = (0..cache::blocks(tokens.len())).map(|_| self.memory.cache.take()).collect();
        for (layer, qkv) in self.memory.workspace.qkv().enumerate() {
            for (position, qkv) in qkv.chunks_exact(decoder.heads.row()).enumerate() {
                let block = self.memory.cache.layer_mut(blocks[position / LANES], layer);
                cached::put(decoder.heads, qkv, position, block);
            }
        }
        let mut logits = vec![0f32; packed.head.outputs()];
        let hidden = &self.memory.workspace.hidden;
        packed.head.forward(&hidden[hidden.len() - decoder.hidden..], &mut logits, Onto::Nothing);
        self.prefilled = Some(Prefilled { prompt, blocks, logits });
    }

    fn forget_prefilled(&mut self) {
        if let Some(old) = self.prefilled.take() {
            old.blocks.into_iter().for_each(|id| self.memory.cache.release(id));
        }
    }

    /// One forward of every row's last token; leaves the logits in the buffers.
    fn decode(&mut self) {
        let Job { decoder, packed, .. } = self.job;
        let (heads, k, f, m) = (decoder.heads, decoder.hidden, decoder.intermediate, self.rows.len());
        for row in &mut self.rows {
            if row.cached.is_multiple_of(LANES) {
                row.blocks.push(self.memory.cache.take());
            }
        }
        let tokens: Vec<u32> = self.rows.iter().filter_map(|row| row.tokens.last().copied()).collect();
        let positions: Vec<u32> = self.rows.iter().map(|row| row.cached as u32).collect();
        let b = &mut self.memory.buffers;
        for (buffer, width) in [
            (&mut b.x, k),
            (&mut b.normed, k),
            (&mut b.qkv, heads.row()),
            (&mut b.attended, heads.output()),
            (&mut b.gate_up, 2 * f),
            (&mut b.activated, f),
            (&mut b.logits, packed.head.outputs()),
        ] {
            buffer.resize(m * width, 0.0);
        }
        packed.embedding.forward(&tokens, k, &mut b.x);
        for (index, layer) in packed.layers.iter().enumerate() {
            rms_norm::forward(&b.x, layer.attention_norm.values, decoder.eps, &mut b.normed);
            decoder.project_qkv(layer, &b.normed, &mut b.qkv, &mut b.raw);
            decoder.rope.rotate(&mut b.qkv, &positions, heads.query + heads.key_value, heads.row());
            attend(heads, &self.rows, index, &mut self.memory.cache, &b.qkv, &mut b.attended, &mut self.memory.scratch);
            layer.output.forward(&b.attended, &mut b.x, Onto::Held);
            rms_norm::forward(&b.x, layer.mlp_norm.values, decoder.eps, &mut b.normed);
            layer.gate_up.forward(&b.normed, &mut b.gate_up, Onto::Nothing);
            swiglu::forward(&b.gate_up, f, &mut b.activated);
            layer.down.forward(&b.activated, &mut b.x, Onto::Held);
        }
        rms_norm::forward(&b.x, packed.norm.values, decoder.eps, &mut b.normed);
        packed.head.forward(&b.normed, &mut b.logits, Onto::Nothing);
        self.rows.iter_mut().for_each(|row| row.cached += 1);
    }

    /// Samples the next token of every row; rows that end leave.
    fn sample(&mut self, finished: &impl Fn(usize, usize, Completion)) {
        let mut logits = std::mem::take(&mut self.memory.buffers.logits);
        let width = logits.len() / self.rows.len();
        for (mut row, z) in std::mem::take(&mut self.rows).into_iter().zip(logits.chunks_exact_mut(width)) {
            let ended = self.extend(&mut row, z);
            self.keep(row, ended, finished);
        }
        self.memory.buffers.logits = logits;
    }

    /// Samples one token of a row; says why the row ends, if it does.
    fn extend(&self, row: &mut Row, logits: &mut [f32]) -> Option<FinishReason> {
        let prompt = self.job.prompts[row.prompt].index;
        let position = row.tokens.len() as u64;
        let uniform = Counted::new(&[self.job.key.seed, self.job.key.step, prompt, row.sample as u64, position]).unit();
        let (token, logprob) = self.job.sampling.draw(logits, uniform);
        row.tokens.push(token);
        row.logprobs.push(logprob);
        match () {
            () if self.job.sampling.stop_tokens.contains(&token) => Some(FinishReason::Stop),
            () if self.ends_with_stop_string(&row.tokens) => Some(FinishReason::Stop),
            () if row.tokens.len() >= self.job.sampling.max_new_tokens => Some(FinishReason::Length),
            () => None,
        }
    }

    /// Whether one of the stop strings has just been completed. Only as many tokens as it can span are looked at.
    fn ends_with_stop_string(&self, tokens: &[u32]) -> bool {
        let stops = &self.job.sampling.stop_strings;
        let Some(longest) = stops.iter().map(String::len).max() else { return false };
        let tail = &tokens[tokens.len().saturating_sub(longest + 1)..];
        let text = self.job.engine.tokenizer.decode(tail, false).unwrap_or_default();
        stops.iter().any(|stop| text.contains(stop.as_str()))
    }

    /// Puts a row back into the batch, or hands on its completion.
    fn keep(&mut self, row: Row, ended: Option<FinishReason>, finished: &impl Fn(usize, usize, Completion)) {
        let Some(finish) = ended else {
            self.rows.push(row);
            return;
        };
        row.blocks.iter().for_each(|&id| self.memory.cache.release(id));
        let ends_in_token = row.tokens.last().is_some_and(|t| self.job.sampling.stop_tokens.contains(t));
        let text = &row.tokens[..row.tokens.len() - usize::from(ends_in_token)];
        let completion = Completion {
            text: self.job.engine.tokenizer.decode(text, false).unwrap_or_default(),
            tokens: row.tokens,
            logprobs: row.logprobs,
            finish,
            policy_version: self.job.engine.policy_version,
        };
        finished(row.prompt, row.sample, completion);
    }
}

/// Puts every row's new key and value into its cache, then attends over it.
fn attend(
    heads: Heads,
    rows: &[Row],
    layer: usize,
    cache: &mut Cache,
    qkv: &[f32],
    attended: &mut [f32],
    scratch: &mut Scratch,
) {
    let buffers = qkv.chunks_exact(heads.row()).zip(attended.chunks_exact_mut(heads.output()));
    for (row, (qkv, out)) in rows.iter().zip(buffers) {
        let block = cache.layer_mut(row.blocks[row.cached / LANES], layer);
        cached::put(heads, qkv, row.cached, block);
        cached::decode(heads, qkv, row.cached + 1, &|b| cache.layer(row.blocks[b], layer), out, scratch);
    }
}
