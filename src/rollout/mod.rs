//! From prompts to completions: what samples, and what it is asked. Knows neither examples nor rewards.

mod cpu;
mod device;
pub mod engine;
mod foreign;
mod order;
pub mod sampling;
mod turns;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

pub use engine::{Engine, LocalSampler};
pub use order::{Due, Order};
pub use sampling::Sampling;
pub use turns::{Answer, Calling, Memory, ToolUse, Tools, Turns};

use crate::batch::RoutedExperts;
use crate::policy::Policy;

/// What completes prompts: this program over the policy's own weights ([`LocalSampler`]), or what stands in for it.
pub trait Sampler: Send + Sync {
    /// Brings the weights as they are now to where they are sampled from.
    fn publish(&mut self, policy: &Policy) -> Result<()>;

    /// Samples all completions of a request, and calls `finished(prompt, sample, completion)` with each as soon as it
    /// ends, on the thread that sampled it.
    fn sample(&self, policy: &Policy, request: &Request, finished: &Finished) -> Result<()>;

    /// What samples in its place from a copy of the policy, on another thread, while the policy itself is updated.
    fn beside(&self) -> Result<Box<dyn Sampler>> {
        bail!("rollout.ahead = 1: this sampler does not sample while the policy is updated; set 0")
    }

    /// Hears how far its log-probabilities in a step were from the trainer's, as a KL divergence in nats a token.
    fn compared(&mut self, _mismatch_kl: f64) {}
}

/// Takes a completion: the place of its prompt in the request, its number among those of the prompt, and itself.
pub type Finished<'a> = dyn Fn(usize, usize, Completion) + Sync + 'a;

/// What is to be sampled.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What to go on from.
    pub prompts: &'a [PromptTokens<'a>],
    /// Completions of each prompt.
    pub group_size: usize,
    /// How tokens are chosen, and when a completion ends.
    pub sampling: &'a Sampling,
    /// Names the random numbers.
    pub key: SampleKey,
    /// What completions may call between their turns; they have one turn without it.
    pub calling: Option<Calling<'a>>,
    /// Which completions begin when, at most `group_size` of each prompt; all of them without it.
    pub order: Option<&'a dyn Order>,
    /// Whether completions come with the experts that their tokens went to, of a model that has some.
    pub routed: bool,
}

/// A prompt as the model sees it.
#[derive(Debug, Clone, Copy)]
pub struct PromptTokens<'a> {
    /// Position in the run's order of prompts: names the prompt's stream of random numbers.
    pub index: u64,
    /// The tokens, never empty.
    pub tokens: &'a [u32],
}

/// Names the streams of random numbers of one call.
#[derive(Debug, Clone, Copy)]
pub struct SampleKey {
    /// The run's seed.
    pub seed: u64,
    /// What the completions are for: the step of training, or a number that stands for an evaluation.
    pub step: u64,
}

/// Why sampling a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token or stop string was sampled.
    Stop,
    /// The limit of new tokens was reached, or that of calls.
    Length,
}

/// Tokens sampled after a prompt. They are never re-tokenized: training uses exactly these ids.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Completion {
    /// The sampled tokens, the stop token included, and between them what tools said.
    pub tokens: Vec<u32>,
    /// Each sampled token's log-probability at the sampling temperature, before top-p, top-k and min-p. Same length as
    /// `tokens`, less those of tools.
    pub logprobs: Vec<f32>,
    /// The text of `tokens` without the stop token.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// What tools did in it.
    pub tools: ToolUse,
    /// The experts that prompt and completion went to but for the last token, where they were asked for.
    pub routed: Option<RoutedExperts>,
}

impl Completion {
    /// How many tokens the policy sampled.
    pub fn sampled_len(&self) -> usize {
        self.tokens.len() - self.tools.observed_len()
    }

    /// Whether each of `tokens` was sampled, and not a tool's.
    pub fn is_sampled(&self) -> impl Iterator<Item = bool> {
        (0..self.tokens.len()).map(|place| !self.tools.observed.iter().any(|range| range.contains(&place)))
    }

    /// The tokens that the policy sampled.
    pub fn sampled(&self) -> Vec<u32> {
        self.tokens.iter().zip(self.is_sampled()).filter_map(|(token, sampled)| sampled.then_some(*token)).collect()
    }
}
