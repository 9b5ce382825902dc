//! The batched sampler: continuous batching over the slots of a CPU or of a device.
//!
//! A worker keeps its rows full: a finished row leaves, and the next completion due enters at once. A prompt is
//! prefilled when its first completion enters, and its keys and values serve the others. Completions are handed on as
//! they finish. A token's random number depends on (seed, step, prompt, sample, position) alone, so capacity and threads
//! change the speed and nothing else. How rows are computed is left to `Runner`, and what they call to `turns`.

use std::panic::resume_unwind;

use anyhow::Result;
use reckon_datasets::Counted;
use tokenizers::Tokenizer;

use crate::batch::RoutedExperts;
use crate::model::Sharing;
use crate::ops::team::Team;
use crate::policy::{Model, Policy};

use super::cpu::CpuRunner;
use super::device::DeviceRunner;
use super::foreign::ForeignRunner;
use super::order::{Due, Fixed, Order};
use super::sampling::Sampled;
use super::turns::{Answered, Desk, Line, Talk, with_desk};
use super::{Calling, Completion, FinishReason, Finished, Request, SampleKey, Sampler, Sampling};

/// Samples from the very weights that the trainer updates, so that nothing has to be kept in step.
#[derive(Debug, Clone, Copy)]
pub struct LocalSampler {
    /// Most rows sampled at a time, over all threads.
    pub capacity: usize,
}

impl Sampler for LocalSampler {
    fn publish(&mut self, _: &Policy) -> Result<()> {
        Ok(())
    }

    fn sample(&self, policy: &Policy, request: &Request, finished: &Finished) -> Result<()> {
        Engine::of(policy, self.capacity).generate(request, finished)
    }

    fn beside(&self) -> Result<Box<dyn Sampler>> {
        Ok(Box::new(*self))
    }
}

/// A sampler over one version of the weights.
#[derive(Debug, Clone, Copy)]
pub struct Engine<'a> {
    /// What computes.
    pub model: Model<'a>,
    /// Turns sampled tokens into text.
    pub tokenizer: &'a Tokenizer,
    /// Threads to sample on.
    pub threads: usize,
    /// Most rows sampled at a time, over all threads; a small model on a CPU takes no more than stay in its caches.
    pub capacity: usize,
}

/// Holds the keys and values of rows, each in a slot, and computes what they go on with.
pub(super) trait Runner {
    /// Makes `tokens` the prompt at hand, which rows that enter go on from.
    fn prefill(&mut self, tokens: &[u32]) -> Result<()>;

    /// A slot behind the prompt at hand, and its first token, chosen by `uniform`.
    fn enter(&mut self, uniform: f64) -> Result<(usize, Sampled)>;

    /// Takes in the last token of every row and chooses the next one by its number of `uniforms`.
    fn next(&mut self, rows: &[Row], uniforms: &[f64]) -> Result<Vec<Sampled>>;

    /// Takes in several tokens of the row in `slot`, which are behind all that it has, and chooses the next one.
    fn take_in(&mut self, slot: usize, tokens: &[u32], uniform: f64) -> Result<Sampled>;

    /// Most rows that hold a slot, those included that wait for a tool.
    fn slots(&self) -> usize {
        usize::MAX
    }

    /// Frees a slot, and says which experts its tokens went to, where that was recorded.
    fn leave(&mut self, slot: usize) -> Option<RoutedExperts>;
}

/// A completion being sampled.
pub(super) struct Row {
    prompt: usize,
    sample: usize,
    /// At least one once the row is in the batch.
    pub(super) tokens: Vec<u32>,
    logprobs: Vec<f32>,
    pub(super) slot: usize,
    pub(super) talk: Talk,
}

impl Row {
    /// The place of its prompt in the request.
    pub(super) fn prompt(&self) -> usize {
        self.prompt
    }

    /// The tokens of the present turn.
    pub(super) fn turn(&self) -> &[u32] {
        &self.tokens[self.talk.begins..]
    }
}

impl<'a> Engine<'a> {
    /// The sampler over a policy's weights as they are now.
    pub fn of(policy: &'a Policy, capacity: usize) -> Self {
        let (model, threads) = (policy.learner.model(), policy.learner.threads());
        Self { model, tokenizer: &policy.tokenizer, threads, capacity }
    }

    /// As [`Sampler::sample`]. A device can fail; a CPU does not.
    pub fn generate(&self, request: &Request, finished: &Finished) -> Result<()> {
        match request.calling {
            None => self.run(request, finished, None),
            Some(calling) => with_desk(calling, self.tokenizer, |desk| self.run(request, finished, Some(&desk))),
        }
    }

    fn run(&self, request: &Request, finished: &Finished, desk: Option<&Desk>) -> Result<()> {
        let Request { prompts, group_size, sampling, .. } = *request;
        let fixed = Fixed::new(prompts.len(), group_size);
        let stops = Stops::of(sampling, self.tokenizer);
        let order = request.order.unwrap_or(&fixed);
        let job = Job { request, tokenizer: self.tokenizer, stops: &stops, order, finished, desk };
        let rows = self.capacity.min(prompts.len() * group_size).max(1);
        match self.model {
            Model::Cpu(model) => Team::with(self.threads, |team| {
                let weights = model.weights(team);
                let work = |team: &Team, capacity: usize| {
                    let runner = CpuRunner::new(team, model, &weights, request);
                    let runner = Worker::new(job, capacity.max(1), runner).run()?;
                    model.keep_decoding_memory(runner.into_memory());
                    Ok(())
                };
                match model.sharing {
                    Sharing::Operations => work(team, rows),
                    Sharing::MicroBatches => {
                        let rows = rows.min(model.rows(self.threads, longest(request)));
                        let threads = self.threads.clamp(1, rows);
                        let share = |thread| (rows + threads - 1 - thread) / threads;
                        on_threads(threads, |thread| work(&Team::alone(), share(thread)))
                    }
                }
            }),
            Model::Device(model) => {
                let runner = DeviceRunner::new(model, request, rows, self.threads)?;
                Worker::new(job, rows, runner).run().map(drop)
            }
            Model::Foreign(model) => {
                model.with(|model| Worker::new(job, 1, ForeignRunner::new(model, sampling)).run().map(drop))
            }
        }
    }
}

/// Tokens that a prompt and its completion have at most.
fn longest(request: &Request) -> usize {
    request.prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0) + request.sampling.max_new_tokens
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

/// What ends a completion.
struct Stops<'a> {
    /// Tokens that are no part of its text.
    tokens: Vec<u32>,
    /// Texts that are.
    strings: Vec<&'a str>,
}

impl<'a> Stops<'a> {
    /// A stop string that is a special token of the tokenizer is that token.
    fn of(sampling: &'a Sampling, tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let special = |text: &str| added.iter().find(|(_, token)| token.special && token.content == text);
        let mut stops = Self { tokens: sampling.stop_tokens.clone(), strings: Vec::new() };
        for text in &sampling.stop_strings {
            match special(text) {
                Some((id, _)) => stops.tokens.push(*id),
                None => stops.strings.push(text),
            }
        }
        stops
    }
}

/// What all workers of one call share.
#[derive(Clone, Copy)]
struct Job<'a> {
    request: &'a Request<'a>,
    tokenizer: &'a Tokenizer,
    stops: &'a Stops<'a>,
    order: &'a dyn Order,
    finished: &'a Finished<'a>,
    /// Where calls are answered.
    desk: Option<&'a Desk>,
}

/// One share of the batch.
struct Worker<'a, R: Runner> {
    job: Job<'a>,
    capacity: usize,
    runner: R,
    rows: Vec<Row>,
    /// Which prompt the runner has at hand.
    at_hand: Option<usize>,
    /// Where rows wait for tools.
    line: Option<Line>,
}

impl<'a, R: Runner> Worker<'a, R> {
    fn new(job: Job<'a>, capacity: usize, runner: R) -> Self {
        let line = job.desk.map(|desk| desk.line());
        Self { job, capacity, runner, rows: Vec::new(), at_hand: None, line }
    }

    /// Samples until the queue is empty; returns the runner, all of whose slots are free.
    fn run(mut self) -> Result<R> {
        loop {
            while self.rows.len() < self.capacity {
                let Some(answered) = self.line.as_mut().and_then(Line::answered) else { break };
                self.go_on(answered?)?;
            }
            let mut due = Due::Never;
            while self.rows.len() < self.capacity && self.rows.len() + self.away() < self.runner.slots() {
                due = self.job.order.next(self.at_hand);
                let Due::Now(prompt, sample) = due else { break };
                self.enter(prompt, sample)?;
            }
            match (due, &mut self.line) {
                _ if !self.rows.is_empty() => self.next()?,
                (_, Some(line)) if line.away > 0 => {
                    let answered = line.wait()?;
                    self.go_on(answered)?;
                }
                // A completion that ended with its first token leaves its place to the next one.
                (Due::Now(..), _) => {}
                (Due::Later(known), _) => self.job.order.wait(known),
                (Due::Never, _) => return Ok(self.runner),
            }
        }
    }

    /// Rows that wait for tools.
    fn away(&self) -> usize {
        self.line.as_ref().map_or(0, |line| line.away)
    }

    /// Takes a row back with what its calls got, or ends it where that has no room.
    fn go_on(&mut self, Answered { mut row, tokens }: Answered) -> Result<()> {
        if row.tokens.len() + tokens.len() >= self.job.request.sampling.max_new_tokens {
            self.finish(row, FinishReason::Length);
            return Ok(());
        }
        let (last, before) = (row.tokens.len() - 1, row.tokens.len());
        row.tokens.extend(tokens);
        row.talk.used.observed.push(before..row.tokens.len());
        row.talk.begins = row.tokens.len();
        let uniform = self.job.uniform(row.prompt, row.sample, row.tokens.len());
        let sampled = self.runner.take_in(row.slot, &row.tokens[last..], uniform)?;
        self.extend(row, sampled);
        Ok(())
    }

    /// Begins a completion.
    fn enter(&mut self, prompt: usize, sample: usize) -> Result<()> {
        if self.at_hand != Some(prompt) {
            self.runner.prefill(self.job.request.prompts[prompt].tokens)?;
            self.at_hand = Some(prompt);
        }
        let (slot, sampled) = self.runner.enter(self.job.uniform(prompt, sample, 0))?;
        let (tokens, logprobs, talk) = Default::default();
        self.extend(Row { prompt, sample, tokens, logprobs, slot, talk }, sampled);
        Ok(())
    }

    /// Samples the next token of every row.
    fn next(&mut self) -> Result<()> {
        let uniform = |row: &Row| self.job.uniform(row.prompt, row.sample, row.tokens.len());
        let uniforms: Vec<f64> = self.rows.iter().map(uniform).collect();
        let sampled = self.runner.next(&self.rows, &uniforms)?;
        for (row, sampled) in std::mem::take(&mut self.rows).into_iter().zip(sampled) {
            self.extend(row, sampled);
        }
        Ok(())
    }

    /// Puts a row with one more token back into the batch, lets it wait for a tool, or hands on its completion.
    fn extend(&mut self, mut row: Row, sampled: Sampled) {
        row.tokens.push(sampled.token);
        row.logprobs.push(sampled.logprob);
        let wanted = self.job.order.sampled(row.prompt, row.sample, sampled.token);
        let next = if wanted { self.job.goes_on(&row) } else { Next::End(FinishReason::Length) };
        match (next, &mut self.line) {
            (Next::Call(calls), Some(line)) => line.ask(row, calls),
            (Next::End(finish), _) => self.finish(row, finish),
            _ => self.rows.push(row),
        }
    }

    /// Hands on a completion.
    fn finish(&mut self, row: Row, finish: FinishReason) {
        let routed = self.runner.leave(row.slot);
        let Row { prompt, sample, tokens, logprobs, talk, .. } = row;
        let text = self.job.text(&tokens);
        (self.job.finished)(prompt, sample, Completion { text, tokens, logprobs, finish, tools: talk.used, routed });
    }
}

/// What comes after a token.
enum Next {
    /// Another one.
    Token,
    /// Answers to these calls.
    Call(Vec<String>),
    /// Nothing.
    End(FinishReason),
}

impl Job<'_> {
    /// The random number of a token.
    fn uniform(&self, prompt: usize, sample: usize, position: usize) -> f64 {
        let (SampleKey { seed, step }, index) = (self.request.key, self.request.prompts[prompt].index);
        Counted::new(&[seed, step, index, sample as u64, position as u64]).unit()
    }

    /// What comes after the last token of a row.
    fn goes_on(&self, row: &Row) -> Next {
        let stops = self.ends_in_stop_token(&row.tokens);
        let full = row.tokens.len() >= self.request.sampling.max_new_tokens;
        let calls = self.calls(row, stops);
        match self.request.calling {
            // There is room for neither the answers nor what would follow.
            Some(Calling { turns, .. }) if !calls.is_empty() => {
                let too_many = row.talk.used.calls + calls.len() > turns.max_calls;
                if full || too_many { Next::End(FinishReason::Length) } else { Next::Call(calls) }
            }
            _ if stops || self.ends_with(row.turn(), &self.stops.strings) => Next::End(FinishReason::Stop),
            _ if full => Next::End(FinishReason::Length),
            _ => Next::Token,
        }
    }

    /// The calls of a turn that is over.
    fn calls(&self, row: &Row, stops: bool) -> Vec<String> {
        let Some(Calling { turns, .. }) = self.request.calling else { return Vec::new() };
        let over = if turns.whole_turns { stops } else { self.ends_with(row.turn(), &[&turns.call[1]]) };
        if !over {
            return Vec::new();
        }
        let turn = self.tokenizer.decode(row.turn(), false).unwrap_or_default();
        turns.calls(&turn).into_iter().map(ToOwned::to_owned).collect()
    }

    fn ends_in_stop_token(&self, tokens: &[u32]) -> bool {
        tokens.last().is_some_and(|token| self.stops.tokens.contains(token))
    }

    /// Whether one of `stops` has just been completed. Only as many tokens as it can span are looked at.
    fn ends_with(&self, tokens: &[u32], stops: &[&str]) -> bool {
        let Some(longest) = stops.iter().map(|stop| stop.len()).max() else { return false };
        let tail = &tokens[tokens.len().saturating_sub(longest + 1)..];
        let text = self.tokenizer.decode(tail, false).unwrap_or_default();
        stops.iter().any(|stop| text.contains(stop))
    }

    /// The text of a completion, without the stop token.
    fn text(&self, tokens: &[u32]) -> String {
        let text = &tokens[..tokens.len() - usize::from(self.ends_in_stop_token(tokens))];
        self.tokenizer.decode(text, false).unwrap_or_default()
    }
}
