//! From the groups of a step to what its updates learn from: samples with their log-probabilities by the reference and by
//! the policy before the step, their advantages, and micro-batches.

use anyhow::{Result, ensure};

use super::Trainer;
use super::groups::{StepGroups, is_truncated};
use crate::batch::{MicroBatch, RouterReplay, TokenStats};
use crate::config::Control;
use crate::grpo::{
    Corrected, Correction, KlPlace, Outcome, Outcomes, Reject, TrainSample, Truncated, advantages, micro_batches,
    select, updates,
};
use crate::judge::{Group, Rollout};
use crate::policy::Who;
use crate::prompt::Prompt;

/// In the names of the random numbers by which tokens are treated apart.
const SELECTION: u64 = 0x5e1e;

impl Trainer {
    /// The rollouts that are trained on, as token ids. Advantages are still 0.
    pub(super) fn train_samples(&self, groups: &mut StepGroups) -> Result<Vec<TrainSample>> {
        let mut samples = Vec::new();
        for &index in &groups.kept {
            let Group { prompt, rollouts } = &mut groups.all[index];
            samples.extend(rollouts.iter_mut().map(|rollout| self.train_sample(prompt, rollout)));
        }
        let known = samples.iter().all(|sample| sample.routed.is_some() || !sample.counts());
        ensure!(
            known || self.grpo.router_replay == RouterReplay::None,
            "grpo.router_replay: what samples does not tell the experts of its tokens; set it to \"none\""
        );
        Ok(samples)
    }

    /// Puts the log-probabilities that the objective asks for beside the samples: the reference's, and the policy's for a
    /// correction that they are needed for before the first update. Returns the correction that is made in passing.
    pub(super) fn look_back(&self, samples: &mut [TrainSample]) -> Result<Option<Correction>> {
        if self.grpo.needs_reference() {
            self.ask(Who::Reference, samples, |sample| &mut sample.ref_logprobs)?;
        }
        let in_passing = self.corrected_in_passing(samples.len());
        if self.grpo.correction().is_some() && in_passing.is_none() {
            self.ask(Who::Policy, samples, |sample| &mut sample.old_logprobs)?;
        }
        Ok(in_passing)
    }

    /// The correction, where the forward of the update tells its weights in passing and none is needed before: the step
    /// makes one update, so that the policy before it is the one that it computes, and nothing that is done before the
    /// update asks for that policy's log-probabilities.
    fn corrected_in_passing(&self, samples: usize) -> Option<Correction> {
        let asked = self.grpo.kl_place == KlPlace::Reward || self.grpo.loss(0.0).objective.selection().is_some();
        let one = updates(samples, self.grpo.completions_per_update) == 1;
        self.grpo.correction().filter(|correction| correction.reject == Reject::None && one && !asked)
    }

    /// The sample of a rollout, which gives away the experts of its tokens.
    fn train_sample(&self, prompt: &Prompt, rollout: &mut Rollout) -> TrainSample {
        TrainSample {
            tokens: [prompt.tokens.as_slice(), &rollout.completion.tokens].concat(),
            prompt_len: prompt.tokens.len(),
            routed: rollout.completion.routed.take(),
            rollout_logprobs: rollout.completion.logprobs.clone(),
            observed: rollout.completion.tools.observed.clone(),
            advantages: vec![0.0; rollout.completion.sampled_len()],
            masked: (self.learns_rewards() && rollout.reward.is_none())
                || self.grpo.truncated() == Truncated::Mask && is_truncated(rollout),
            ..TrainSample::default()
        }
    }

    /// Puts what `who` says of each sample that counts where `place` says.
    fn ask(
        &self,
        who: Who,
        samples: &mut [TrainSample],
        place: impl Fn(&mut TrainSample) -> &mut Option<Vec<f32>>,
    ) -> Result<()> {
        let micros = self.micro_batches(samples);
        let stats = self.policy.learner.logprobs(who, &micros, self.sampling.logprob_temperature())?;
        let of_micro = |(micro, stats): (&MicroBatch, Vec<f32>)| -> Vec<Vec<f32>> {
            micro.samples.iter().map(|rows| stats[rows.clone()].to_vec()).collect()
        };
        let said = micros.iter().zip(stats.into_iter().map(|stats| stats.logprobs)).flat_map(of_micro);
        let counting = samples.iter_mut().filter(|sample| sample.counts());
        counting.zip(said).for_each(|(sample, said)| *place(sample) = Some(said));
        Ok(())
    }

    /// Gives each token its advantage; where rewards do not teach, it stays 0.
    pub(super) fn set_advantages(&self, groups: &StepGroups, samples: &mut [TrainSample]) {
        if !self.learns_rewards() {
            return;
        }
        let mut rest = &*samples;
        let mut outcomes = Vec::with_capacity(groups.kept.len());
        for &index in &groups.kept {
            let (of_group, after) = rest.split_at(groups.all[index].rollouts.len());
            outcomes.push(self.outcomes(&groups.all[index], groups.greedy.get(index), of_group));
            rest = after;
        }
        let found = advantages(&outcomes, self.grpo.advantage, self.grpo.pass_k());
        for (sample, advantages) in samples.iter_mut().zip(found.into_iter().flatten()) {
            sample.advantages = advantages;
        }
    }

    /// What a group brings to its advantages.
    fn outcomes(&self, group: &Group, greedy: Option<&Rollout>, samples: &[TrainSample]) -> Outcomes {
        let coin = self.config.control == Control::CoinFlip;
        let rubric = self.judge.rubric(group.prompt.source);
        let outcome = |((rollout, reward), sample): ((&Rollout, Option<f32>), &TrainSample)| Outcome {
            reward,
            parts: if coin { vec![reward] } else { self.parts(rollout) },
            length: sample.completion_len(),
            kl: self.kl_terms(sample),
        };
        let rewarded = group.rollouts.iter().zip(group.penalised_rewards()).zip(samples);
        Outcomes {
            rollouts: rewarded.map(outcome).collect(),
            weights: if coin { vec![1.0] } else { rubric.weights_at(self.progress.step + 1) },
            greedy: greedy.and_then(|rollout| Some(rollout.reward? + rollout.penalty)),
        }
    }

    /// What each verifier said; 0 where the limit of tokens makes the reward 0.
    fn parts(&self, rollout: &Rollout) -> Vec<Option<f32>> {
        let zero = self.grpo.truncated() == Truncated::Zero && is_truncated(rollout);
        rollout.score.parts.iter().map(|verdict| verdict.judged().map(|said| if zero { 0.0 } else { said })).collect()
    }

    /// What is taken from the reward of each token; nothing where the KL term stands in the loss.
    fn kl_terms(&self, sample: &TrainSample) -> Vec<f32> {
        let reference = sample.ref_logprobs.as_ref().filter(|_| self.grpo.kl_place == KlPlace::Reward);
        let Some(reference) = reference else { return Vec::new() };
        let policy = sample.old_logprobs.as_ref().unwrap_or(&sample.rollout_logprobs);
        let term = |(now, reference): (&f32, &f32)| {
            let (kl, _) = self.grpo.kl_estimator.estimate(f64::from(*now) - f64::from(*reference));
            (self.grpo.kl_coef * kl) as f32
        };
        policy.iter().zip(reference).map(term).collect()
    }

    /// The samples of an update, packed.
    pub(super) fn micro_batches(&self, mini_batch: &[TrainSample]) -> Vec<MicroBatch> {
        let (tokens, layout) = (self.config.compute.micro_batch_tokens, self.policy.learner.prompt_layout());
        let mut micros = micro_batches(mini_batch, self.grpo.loss_norm(), tokens, layout);
        micros.iter_mut().for_each(|micro| micro.router_replay = self.grpo.router_replay);
        micros
    }

    /// Marks the tokens that the objective treats apart, in update `index` of a step.
    pub(super) fn selected(&self, mut micros: Vec<MicroBatch>, step: u64, index: usize) -> Result<Vec<MicroBatch>> {
        let Some(selection) = self.grpo.loss(0.0).objective.selection() else { return Ok(micros) };
        // Before the first update the policy is the one that the old log-probabilities are of.
        let now = match index {
            0 => micros.iter().map(|micro| micro.old_logprobs.clone()).collect(),
            _ => {
                let temperature = self.sampling.logprob_temperature();
                let stats = self.policy.learner.logprobs(Who::Policy, &micros, temperature)?;
                stats.into_iter().map(|stats| stats.logprobs).collect::<Vec<_>>()
            }
        };
        select(&mut micros, &now, selection, &[self.config.seed, step, index as u64, SELECTION]);
        Ok(micros)
    }

    /// Mean over the judged completions that are trained on of what KL terms take from their rewards.
    pub(super) fn kl_penalty(&self, samples: &[TrainSample]) -> f64 {
        let terms = samples.iter().filter(|sample| sample.counts()).map(|sample| self.kl_terms(sample));
        let sums = terms.map(|terms| terms.iter().copied().map(f64::from).sum::<f64>());
        let (sum, count) = sums.fold((0.0, 0), |(sum, count), of_sample| (sum + of_sample, count + 1));
        sum / f64::from(count.max(1))
    }
}

/// What a correction did that was made in passing, from what the policy said of each sample then.
pub(super) fn corrected(correction: Correction, samples: &mut [TrainSample], said: &[TokenStats]) -> Corrected {
    for (sample, said) in samples.iter_mut().zip(said).filter(|(sample, _)| sample.counts()) {
        sample.old_logprobs = Some(said.logprobs.clone());
    }
    correction.apply(samples)
}
