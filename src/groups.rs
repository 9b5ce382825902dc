//! From prompts to judged groups: where sampler and judge meet. Training and evaluation both come here.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::behaviours::Behaviours;
use crate::environment::Environment;
use crate::judge::{Group, Judge, Watch};
use crate::policy::Policy;
use crate::prompt::Prompt;
use crate::rollout::{Calling, Order, PromptTokens, Request, SampleKey, Sampler, Sampling};

/// What samples, and what judges.
#[derive(Clone, Copy)]
pub struct Rollouts<'a> {
    /// The model that is sampled from.
    pub policy: &'a Policy,
    /// What samples.
    pub sampler: &'a dyn Sampler,
    /// What judges.
    pub judge: &'a Judge,
    /// How completions are sampled.
    pub sampling: &'a Sampling,
    /// What is counted in them.
    pub behaviours: &'a Behaviours,
    /// What completions may call.
    pub environment: Option<&'a Environment>,
}

/// Seconds of sampling and judging. They overlap: completions are judged while others are being sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RolloutTimes {
    /// From the first prefill to the last token.
    pub sample_s: f64,
    /// From the last token to the last verdict: what judging adds.
    pub verify_s: f64,
}

impl RolloutTimes {
    /// Adds those of another call.
    pub fn add(&mut self, next: Self) {
        self.sample_s += next.sample_s;
        self.verify_s += next.verify_s;
    }
}

/// Which completions begin when, by what others were worth.
pub trait Ration: Order + Watch {}

impl<T: Order + Watch> Ration for T {}

impl Rollouts<'_> {
    /// `group_size` judged completions of every prompt.
    pub fn groups(
        &self,
        prompts: Vec<Prompt>,
        group_size: usize,
        key: SampleKey,
    ) -> Result<(Vec<Group>, RolloutTimes)> {
        self.rationed(prompts, group_size, key, None)
    }

    /// The same, or as many completions of as many prompts as `ration` has them.
    pub fn rationed(
        &self,
        prompts: Vec<Prompt>,
        group_size: usize,
        key: SampleKey,
        ration: Option<Arc<dyn Ration>>,
    ) -> Result<(Vec<Group>, RolloutTimes)> {
        let start = Instant::now();
        let judging = self.judge.begin(prompts, group_size, ration.clone().map(|ration| ration as Arc<dyn Watch>));
        let prompts: Vec<PromptTokens> = judging.prompts().iter().map(PromptTokens::from).collect();
        let asked = self.environment.map(|environment| (environment, environment.asked_by(judging.prompts())));
        let order = ration.as_deref().map(|ration| ration as &dyn Order);
        let calling = asked.as_ref().map(|(environment, tools)| Calling { turns: &environment.turns, tools });
        let request = Request { prompts: &prompts, group_size, sampling: self.sampling, key, calling, order };
        self.sampler.sample(self.policy, &request, &|prompt, sample, completion| {
            judging.take(prompt, sample, completion);
        })?;
        let sampled = Instant::now();
        let groups = judging.groups()?;
        let (sample_s, verify_s) = ((sampled - start).as_secs_f64(), sampled.elapsed().as_secs_f64());
        Ok((groups, RolloutTimes { sample_s, verify_s }))
    }
}
