//! `rollout.ahead = 1`: the groups of the next step are sampled while this one updates, by the weights that stand before
//! its first update. A step then learns from completions of the weights before the last step, which `grpo.correction`
//! weighs.
//!
//! They are sampled on threads of their own from a copy of the policy and of where the run will stand, which is known
//! from this step's groups, so that the result is that of sampling first and updating then, whoever is faster. A
//! checkpoint holds the groups, not the weights that they are of.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

use super::Trainer;
use super::groups::{Asking, StepGroups};
use crate::config::TrainConfig;
use crate::groups::Rollouts;
use crate::judge::{Group, Rollout};
use crate::policy::Policy;

/// What is there of the next step before it begins.
#[derive(Default)]
pub(super) struct Ahead {
    /// What it is sampled from; kept for the memory that it has.
    copy: Option<Policy>,
    /// Its groups. An error of theirs is the next step's: this one is whole without them.
    groups: Option<Result<StepGroups>>,
}

/// Groups that are being sampled.
pub(super) struct UnderWay(Option<JoinHandle<(Policy, Result<StepGroups>)>>);

/// No thread outlives its step, also where that fails.
impl Drop for UnderWay {
    fn drop(&mut self) {
        // A panic of what is not needed any more hides nothing: the step has an error of its own.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

/// A group as a checkpoint has it: source and row of its prompt, its place in the run's order, and its rollouts.
type Saved<R> = ((usize, usize), u64, R);

impl Ahead {
    /// Takes the memory of a run's copy, where its config asks for one.
    pub(super) fn of(config: &TrainConfig, policy: &Policy) -> Result<Self> {
        let copy = (config.rollout.ahead > 0).then(|| policy.copy()).transpose()?;
        Ok(Self { copy, groups: None })
    }

    /// Waits for the groups of the next step.
    pub(super) fn take(&mut self, next: Option<UnderWay>) {
        let Some(thread) = next.and_then(|mut next| next.0.take()) else { return };
        let (copy, groups) = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        (self.copy, self.groups) = (Some(copy), Some(groups));
    }
}

impl Trainer {
    /// The groups of a step: those that were sampled ahead, else sampled now.
    pub(super) fn groups_of(&mut self, step: u64) -> Result<StepGroups> {
        self.ahead.groups.take().unwrap_or_else(|| self.asking().groups(step))
    }

    /// Begins to sample the groups of the step behind `step`, whose own are `groups`: behind the last one none.
    pub(super) fn sample_ahead(&mut self, groups: &StepGroups, step: u64) -> Result<Option<UnderWay>> {
        if self.config.rollout.ahead == 0 || step >= self.config.steps {
            return Ok(None);
        }
        let sampler = self.sampler.beside()?;
        let mut copy = self.ahead.copy.take().map_or_else(|| self.policy.copy(), Ok)?;
        copy.follow(&self.policy)?;
        let (config, progress, mut sampling) = (self.config.clone(), self.after(groups, step), self.sampling.clone());
        sampling.max_new_tokens = config.rollout.max_new_tokens_at(step + 1);
        let (judge, behaviours) = (self.judge.clone(), self.behaviours.clone());
        let (prompts, environment) = (self.prompts.clone(), self.environment.clone());
        let thread = thread::spawn(move || {
            let rollouts = Rollouts {
                policy: &copy,
                sampler: &*sampler,
                judge: &judge,
                sampling: &sampling,
                behaviours: &behaviours,
                environment: environment.as_deref(),
                ranks: None,
                routed: false,
            };
            let asking = Asking { config: &config, prompts: &prompts, progress: &progress, rollouts };
            let groups = asking.groups(step + 1);
            (copy, groups)
        });
        Ok(Some(UnderWay(Some(thread))))
    }

    /// The groups of the next step as a checkpoint has them, where they are sampled.
    pub fn next_groups(&self) -> Result<Option<Vec<u8>>> {
        let Some(Ok(groups)) = &self.ahead.groups else { return Ok(None) };
        let all =
            groups.all.iter().map(|Group { prompt, rollouts }| ((prompt.source, prompt.row), prompt.index, rollouts));
        let all: Vec<Saved<&Vec<Rollout>>> = all.collect();
        postcard::to_stdvec(&(all, groups)).context("cannot encode the groups of the next step").map(Some)
    }

    /// Puts those of a checkpoint in their place. A run that does not sample ahead samples its next step anew.
    pub fn set_next_groups(&mut self, bytes: &[u8]) -> Result<()> {
        if self.config.rollout.ahead == 0 {
            return Ok(());
        }
        let (all, groups): (Vec<Saved<Vec<Rollout>>>, StepGroups) = postcard::from_bytes(bytes)?;
        let group = |(turn, index, rollouts)| Ok(Group { prompt: self.prompts.turn(turn, index)?, rollouts });
        let all = all.into_iter().map(group).collect::<Result<_>>()?;
        self.ahead.groups = Some(Ok(StepGroups { all, ..groups }));
        Ok(())
    }
}
