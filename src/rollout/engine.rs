//! The batched sampler: continuous batching over the seats of a CPU or of a device.
//!
//! A worker keeps its rows full: a finished row leaves, and the next completion due enters at once. A prompt is
//! prefilled when its first completion enters, and its keys and values serve the others. Completions are handed on as
//! they finish. A draw's random number depends on (seed, step, prompt, sample, position) alone, so capacity and threads
//! change the speed and nothing else. How rows are computed is left to `Seats`.

use std::panic::resume_unwind;
use std::sync::Mutex;

use anyhow::Result;
use reckon_datasets::Counted;
use tokenizers::Tokenizer;

use crate::model::{Decoder, DeviceModel, Parameters};
use crate::parallel::{Pool, lock};

use super::cpu::{CpuSeats, Memory};
use super::device::DeviceSeats;
use super::{Completion, FinishReason, Prompt, Sampling};

/// Samples completions from one version of the weights.
#[derive(Debug, Clone, Copy)]
pub struct Engine<'a> {
    /// Where it computes, with the very weights that the trainer updates.
    pub place: Place<'a>,
    /// Turns sampled tokens into text.
    pub tokenizer: &'a Tokenizer,
    /// Version of the weights, noted on each completion.
    pub policy_version: u64,
    /// Threads to sample on.
    pub threads: usize,
    /// Rows sampled at a time, over all threads.
    pub capacity: usize,
}

/// Where completions are computed.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// On this machine's processor, a share of the rows a thread.
    Cpu {
        /// The model's shape.
        decoder: &'a Decoder,
        /// Its values.
        parameters: &'a Parameters,
        /// What earlier calls left for later ones, one a thread.
        memory: &'a Pool<Memory>,
    },
    /// On a device, all rows in one batch.
    Device(&'a DeviceModel),
}

/// Names the streams of random numbers of one call.
#[derive(Debug, Clone, Copy)]
pub struct SampleKey {
    /// The run's seed.
    pub seed: u64,
    /// What the completions are for: the step of training, or a number that stands for an evaluation.
    pub step: u64,
}

/// A token and its log-probability.
pub(super) type Draw = (u32, f32);

/// Holds the keys and values of rows, a seat each, and computes what they go on with.
pub(super) trait Seats {
    /// What one row has so far.
    type Seat;

    /// Makes `tokens` the prompt at hand, which rows that enter go on from.
    fn prefill(&mut self, tokens: &[u32]) -> Result<()>;

    /// A seat behind the prompt at hand, and its first token, drawn by `uniform`.
    fn enter(&mut self, uniform: f64) -> Result<(Self::Seat, Draw)>;

    /// Takes in the last token of every row and draws the next one by its number of `uniforms`.
    fn next(&mut self, rows: &mut [Row<Self::Seat>], uniforms: &[f64]) -> Result<Vec<Draw>>;

    /// Frees a seat.
    fn leave(&mut self, seat: Self::Seat);
}

/// A completion being sampled.
pub(super) struct Row<S> {
    prompt: usize,
    sample: usize,
    /// At least one once the row is in the batch.
    pub(super) tokens: Vec<u32>,
    logprobs: Vec<f32>,
    pub(super) seat: S,
}

impl Engine<'_> {
    /// Samples `group_size` completions of every prompt, and calls `finished(prompt, sample, completion)` with each
    /// as soon as it ends, on the thread that sampled it. A device can fail; a CPU does not.
    pub fn generate(
        &self,
        prompts: &[Prompt],
        group_size: usize,
        sampling: &Sampling,
        key: SampleKey,
        finished: impl Fn(usize, usize, Completion) + Sync,
    ) -> Result<()> {
        let queue = Mutex::new(Queue { begun: vec![0; prompts.len()], group_size });
        let job = Job { engine: self, prompts, sampling, key, queue: &queue };
        let rows = self.capacity.min(prompts.len() * group_size).max(1);
        match self.place {
            Place::Cpu { decoder, parameters, memory } => {
                let decoder = Decoder { recompute: false, ..decoder.clone() };
                let packed = parameters.packed();
                let threads = self.threads.clamp(1, rows);
                on_threads(threads, |thread| {
                    let capacity = (self.capacity + threads - 1 - thread) / threads;
                    let seats = CpuSeats::new(&decoder, &packed, sampling, memory.take());
                    let seats = Worker::new(job, capacity.max(1), seats).run(&finished)?;
                    memory.give_back(seats.into_memory());
                    Ok(())
                })
            }
            Place::Device(model) => {
                let seats = DeviceSeats::new(model, prompts, sampling, rows, self.threads)?;
                Worker::new(job, rows, seats).run(&finished).map(drop)
            }
        }
    }
}

/// Runs `work(thread)` on each of `threads` threads, of which this is one.
fn on_threads(threads: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        let own = work(0);
        others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))).fold(own, Result::and)
    })
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

/// What all workers of one call share.
#[derive(Clone, Copy)]
struct Job<'a> {
    engine: &'a Engine<'a>,
    prompts: &'a [Prompt],
    sampling: &'a Sampling,
    key: SampleKey,
    queue: &'a Mutex<Queue>,
}

/// One share of the batch.
struct Worker<'a, S: Seats> {
    job: Job<'a>,
    capacity: usize,
    seats: S,
    rows: Vec<Row<S::Seat>>,
    /// Which prompt the seats have at hand.
    at_hand: Option<usize>,
}

impl<'a, S: Seats> Worker<'a, S> {
    fn new(job: Job<'a>, capacity: usize, seats: S) -> Self {
        Self { job, capacity, seats, rows: Vec::new(), at_hand: None }
    }

    /// Samples until the queue is empty; returns the seats, all of them free.
    fn run(mut self, finished: &impl Fn(usize, usize, Completion)) -> Result<S> {
        loop {
            while self.rows.len() < self.capacity {
                let next = lock(self.job.queue).next(self.at_hand);
                let Some((prompt, sample)) = next else { break };
                self.enter(prompt, sample, finished)?;
            }
            if self.rows.is_empty() {
                return Ok(self.seats);
            }
            self.next(finished)?;
        }
    }

    /// Begins a completion.
    fn enter(&mut self, prompt: usize, sample: usize, finished: &impl Fn(usize, usize, Completion)) -> Result<()> {
        if self.at_hand != Some(prompt) {
            self.seats.prefill(&self.job.prompts[prompt].tokens)?;
            self.at_hand = Some(prompt);
        }
        let (seat, draw) = self.seats.enter(self.job.uniform(prompt, sample, 0))?;
        let row = Row { prompt, sample, tokens: Vec::new(), logprobs: Vec::new(), seat };
        self.extend(row, draw, finished);
        Ok(())
    }

    /// Samples the next token of every row.
    fn next(&mut self, finished: &impl Fn(usize, usize, Completion)) -> Result<()> {
        let uniform = |row: &Row<S::Seat>| self.job.uniform(row.prompt, row.sample, row.tokens.len());
        let uniforms: Vec<f64> = self.rows.iter().map(uniform).collect();
        let draws = self.seats.next(&mut self.rows, &uniforms)?;
        for (row, draw) in std::mem::take(&mut self.rows).into_iter().zip(draws) {
            self.extend(row, draw, finished);
        }
        Ok(())
    }

    /// Puts a row with one more token back into the batch, or hands on its completion.
    fn extend(&mut self, mut row: Row<S::Seat>, draw: Draw, finished: &impl Fn(usize, usize, Completion)) {
        row.tokens.push(draw.0);
        row.logprobs.push(draw.1);
        let Some(finish) = self.job.ends(&row.tokens) else {
            self.rows.push(row);
            return;
        };
        self.seats.leave(row.seat);
        let completion = Completion {
            text: self.job.text(&row.tokens),
            tokens: row.tokens,
            logprobs: row.logprobs,
            finish,
            policy_version: self.job.engine.policy_version,
        };
        finished(row.prompt, row.sample, completion);
    }
}

impl Job<'_> {
    /// The random number of a draw.
    fn uniform(&self, prompt: usize, sample: usize, position: usize) -> f64 {
        let (SampleKey { seed, step }, index) = (self.key, self.prompts[prompt].index);
        Counted::new(&[seed, step, index, sample as u64, position as u64]).unit()
    }

    /// Why a completion ends with the last of `tokens`, if it does.
    fn ends(&self, tokens: &[u32]) -> Option<FinishReason> {
        match () {
            () if self.ends_in_stop_token(tokens) => Some(FinishReason::Stop),
            () if self.ends_with_stop_string(tokens) => Some(FinishReason::Stop),
            () if tokens.len() >= self.sampling.max_new_tokens => Some(FinishReason::Length),
            () => None,
        }
    }

    fn ends_in_stop_token(&self, tokens: &[u32]) -> bool {
        tokens.last().is_some_and(|token| self.sampling.stop_tokens.contains(token))
    }

    /// Whether one of the stop strings has just been completed. Only as many tokens as it can span are looked at.
    fn ends_with_stop_string(&self, tokens: &[u32]) -> bool {
        let stops = &self.sampling.stop_strings;
        let Some(longest) = stops.iter().map(String::len).max() else { return false };
        let tail = &tokens[tokens.len().saturating_sub(longest + 1)..];
        let text = self.engine.tokenizer.decode(tail, false).unwrap_or_default();
        stops.iter().any(|stop| text.contains(stop.as_str()))
    }

    /// The text of a completion, without the stop token.
    fn text(&self, tokens: &[u32]) -> String {
        let text = &tokens[..tokens.len() - usize::from(self.ends_in_stop_token(tokens))];
        self.engine.tokenizer.decode(text, false).unwrap_or_default()
    }
}
