//! From prompts to completions: the types that travel, the engine that samples, and where it computes.
//! Knows no rewards.

mod cpu;
mod device;
pub mod engine;
pub mod sampler;

use std::sync::Arc;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

pub use cpu::Memory;
pub use engine::{Engine, Place, SampleKey};
pub use sampler::Sampling;

/// An example as the model sees it.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Where it came from; the verifiers judge against it.
    pub example: Arc<Example>,
    /// Position in the run's order of prompts: names the prompt's stream of random numbers.
    pub index: u64,
    /// The tokens, never empty.
    pub tokens: Vec<u32>,
    /// Which source of the run's data it comes from, which names its rubric.
    pub source: usize,
    /// The start of the completion that stands in `tokens` already: verifiers read it before what was sampled.
    pub prefill: Arc<str>,
}

impl Prompt {
    /// A prompt of the first source, without a prefilled start.
    pub fn new(example: Arc<Example>, index: u64, tokens: Vec<u32>) -> Self {
        Self { example, index, tokens, source: 0, prefill: Arc::from("") }
    }
}

/// Why sampling a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token or stop string was sampled.
    Stop,
    /// The limit of new tokens was reached.
    Length,
}

/// Tokens sampled after a prompt. They are never re-tokenized: training uses exactly these ids.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The sampled tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Each token's log-probability at the sampling temperature, before top-p, top-k and min-p. Same length as `tokens`.
    pub logprobs: Vec<f32>,
    /// The text of `tokens` without the stop token.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Version of the policy that sampled it.
    pub policy_version: u64,
}
