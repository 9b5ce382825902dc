//! Who answers: a policy that is sampled here, or a service that speaks OpenAI's protocol.

use anyhow::Result;

use super::service::Service;
use crate::policy::Policy;
use crate::prompt::Prompt;
use crate::rollout::{Finished, LocalSampler, PromptTokens, Request, SampleKey, Sampler, Sampling};

/// What answers prompts.
pub enum Teacher {
    /// A model that is computed here.
    Local {
        /// The model.
        policy: Box<Policy>,
        /// How it is sampled.
        sampling: Sampling,
        /// Most rows sampled at a time.
        capacity: usize,
    },
    /// A service.
    Service(Box<Service>),
}

/// What answering cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens that were read.
    pub prompt_tokens: usize,
    /// Tokens that were written.
    pub completion_tokens: usize,
    /// Requests that were made again.
    pub retries: usize,
    /// Completions that were given up.
    pub failed: usize,
}

impl Usage {
    /// Adds what further answers cost.
    pub fn add(&mut self, next: Self) {
        self.prompt_tokens += next.prompt_tokens;
        self.completion_tokens += next.completion_tokens;
        self.retries += next.retries;
        self.failed += next.failed;
    }
}

impl Teacher {
    /// `samples` completions of every prompt, handed to `finished` as they end.
    pub fn answer(&self, prompts: &[Prompt], samples: usize, seed: u64, finished: &Finished) -> Result<Usage> {
        match self {
            Self::Local { policy, sampling, capacity } => {
                let tokens: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
                let key = SampleKey { seed, step: TRACES_STEP };
                let request = Request {
                    prompts: &tokens,
                    group_size: samples,
                    sampling,
                    key,
                    calling: None,
                    order: None,
                    routed: false,
                };
                let written = std::sync::atomic::AtomicUsize::new(0);
                LocalSampler { capacity: *capacity }.sample(policy, &request, &|prompt, sample, completion| {
                    written.fetch_add(completion.tokens.len(), std::sync::atomic::Ordering::Relaxed);
                    finished(prompt, sample, completion);
                })?;
                let prompt_tokens = tokens.iter().map(|prompt| prompt.tokens.len()).sum();
                Ok(Usage { prompt_tokens, completion_tokens: written.into_inner(), ..Usage::default() })
            }
            Self::Service(service) => service.answer(prompts, samples, finished),
        }
    }
}

/// The step number that stands for traces in the names of random numbers.
const TRACES_STEP: u64 = u64::MAX - 2;
