//! [`Trainer::step`], the algorithm on one screen: sample groups from the policy, judge them, and move the policy toward
//! the better half. Evaluation, files and progress are left to the run around it.

mod stats;
pub mod teacher;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use reckon_datasets::Counted;
use reckon_rewards::soft_overlong;
use serde::{Deserialize, Serialize};

use crate::batch::{LossStats, MicroBatch, TokenStats};
use crate::behaviours::Behaviours;
use crate::config::{Control, GrpoConfig, TrainConfig};
use crate::groups::{RolloutTimes, Rollouts};
use crate::grpo::{TrainSample, Truncated, advantages, has_signal, micro_batches, mini_batches, token_losses};
use crate::judge::{Group, Judge, Rollout};
use crate::metrics::Record;
use crate::model::Layout;
use crate::optim::{Schedule, Update};
use crate::plan::{Job, Taught};
use crate::policy::{Largest, Policy, REHEARSAL, Training, Who};
use crate::prompt::PromptSource;
use crate::rollout::{FinishReason, LocalSampler, SampleKey, Sampler, Sampling};
use stats::StepStats;
use teacher::Teacher;

/// What of a run changes beside weights and optimizer: all that a resumed run needs to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Prompts used, resampled ones included.
    pub prompts_used: u64,
    /// Updates skipped in a row because a gradient was not finite.
    pub skipped: u64,
    /// Version of the policy after the last step.
    pub policy_version: u64,
    /// Best held-out accuracy so far and the step it was measured at.
    pub best: Option<(f64, u64)>,
}

/// A run in memory.
pub struct Trainer {
    /// The resolved config.
    pub config: TrainConfig,
    /// The model being trained.
    pub policy: Policy,
    /// What samples from it.
    pub sampler: Box<dyn Sampler>,
    /// Where the run stands.
    pub progress: Progress,
    /// Who teaches beside the rewards, or in their place.
    teacher: Option<Teacher>,
    grpo: GrpoConfig,
    schedule: Schedule,
    sampling: Sampling,
    judge: Judge,
    behaviours: Behaviours,
    prompts: PromptSource,
}

/// What a step did.
#[derive(Debug)]
pub struct Step {
    /// Its metrics.
    pub record: Record,
    /// All groups that were sampled.
    pub groups: Vec<Group>,
}

/// The groups of a step.
#[derive(Default)]
struct StepGroups {
    /// All that were sampled.
    all: Vec<Group>,
    /// Whether each has a signal: rewards that differ before any penalty on length.
    signal: Vec<bool>,
    /// Which of them are trained on.
    kept: Vec<usize>,
    prompts_used: u64,
    times: RolloutTimes,
}

impl Trainer {
    /// Puts a run together and refuses one that could not work, before step 0.
    pub fn new(mut config: TrainConfig, mut policy: Policy, judge: Judge) -> Result<Self> {
        config.validate()?;
        config.compute.suit(Layout::of(&policy.config)?.len());
        let (grpo, behaviours) = (config.grpo.clone(), Behaviours::of(&config)?);
        let prompts = PromptSource::of(&config, &mut policy)?;
        let (adamw, moments) = (config.optim.adamw(), config.optim.moments);
        policy.learner.begin(&Training { adamw, moments, reference: grpo.needs_reference() })?;
        let sampling = config.rollout.sampling(policy.config.eos_token_id.clone())?;
        let schedule = config.optim.schedule(config.steps);
        let sampler = Box::new(LocalSampler { capacity: config.rollout.capacity });
        let progress = Progress::default();
        let teacher = None;
        Ok(Self { config, policy, sampler, progress, teacher, grpo, schedule, sampling, judge, behaviours, prompts })
    }

    /// The same with a teacher, whom the config names.
    pub fn taught_by(mut self, teacher: Option<Teacher>) -> Result<Self> {
        ensure!(
            teacher.is_some() == self.config.teacher.is_some(),
            "the config's [teacher] and the trainer's are not the same"
        );
        self.teacher = teacher;
        Ok(self)
    }

    /// One step of GRPO (Shao et al. 2024, arXiv:2402.03300). The preset says which of its variants: its advantage, its
    /// objective and denominators, how many updates a step makes, and whether groups that teach nothing are replaced.
    pub fn step(&mut self) -> Result<Step> {
        let (start, step, mut stats) = (Instant::now(), self.progress.step + 1, StepStats::default());
        let (loss, temperature) = (self.grpo.loss(), self.sampling.logprob_temperature());
        self.refresh_reference(step)?;
        self.limit_tokens(step);
        // Prompts to the sampler, completions to the judge, until enough groups have a signal.
        let groups = self.sample_groups(step)?;
        let rewards: Vec<_> = groups.kept().map(Group::penalised_rewards).collect();
        let samples = self.train_samples(groups.kept(), advantages(&rewards, self.grpo.advantage));
        for mini_batch in mini_batches(&samples, self.grpo.completions_per_update) {
            let mut micros = self.micro_batches(mini_batch);
            let losses = timed(&mut stats.forward_backward_s, || {
                self.add_reference_logprobs(&mut micros, temperature)?;
                let token_losses = |micro: &MicroBatch, now: &TokenStats| token_losses(now, micro, &loss);
                match &self.teacher {
                    None => self.policy.learner.gradients(&micros, temperature, &token_losses),
                    Some(teacher) => teacher.gradients(&mut self.policy, &mut micros, temperature, &token_losses),
                }
            })?;
            // Clips the gradient by its norm, then AdamW.
            let update = timed(&mut stats.update_s, || self.update(&losses, step))?;
            stats.add(&losses, update);
        }
        self.sampler.publish(&self.policy)?;
        let version = self.policy.version;
        self.progress = Progress { step, prompts_used: groups.prompts_used, policy_version: version, ..self.progress };
        let record = self.record(&groups, &stats, start.elapsed().as_secs_f64());
        Ok(Step { record, groups: groups.all })
    }

    /// Whether a checkpoint of now is one to go on from. A step that failed between its updates has moved the weights
    /// away from those after the last whole step, and weights that only give skipped updates lead nowhere.
    pub fn can_be_resumed(&self) -> bool {
        let whole = self.policy.version == self.progress.policy_version;
        whole && self.progress.skipped < self.config.optim.max_skipped
    }

    /// Prompts, completions and verdicts of a step.
    ///
    /// Groups without signal are dropped and, if asked, replaced from further prompts, a bounded number of times
    /// (dynamic sampling of DAPO, arXiv:2503.14476, section 3.2).
    fn sample_groups(&self, step: u64) -> Result<StepGroups> {
        let (wanted, group_size) = (self.config.rollout.prompts_per_step, self.config.rollout.group_size);
        let key = SampleKey { seed: self.config.seed, step };
        let mut groups = StepGroups { prompts_used: self.progress.prompts_used, ..StepGroups::default() };
        for _ in 0..=self.grpo.resample_max {
            let prompts = self.prompts.train(groups.prompts_used, wanted)?;
            groups.prompts_used += wanted as u64;
            let (sampled, times) = self.rollouts().groups(prompts, group_size, key)?;
            groups.times.sample_s += times.sample_s;
            groups.times.verify_s += times.verify_s;
            for mut group in sampled {
                let signal = self.set_rewards(&mut group, key);
                // A teacher has something to say of every completion.
                if (signal || !self.grpo.drop_zero_signal || self.teacher.is_some()) && groups.kept.len() < wanted {
                    groups.kept.push(groups.all.len());
                }
                groups.signal.push(signal);
                groups.all.push(group);
            }
            if groups.kept.len() >= wanted {
                break;
            }
        }
        Ok(groups)
    }

    /// Puts in place of the rubric's rewards what a control or the limit of tokens makes of them, sets the penalties on
    /// length, and returns whether the group has a signal. What was not judged stays so.
    fn set_rewards(&self, group: &mut Group, key: SampleKey) -> bool {
        let (index, truncated) = (group.prompt.index, self.grpo.truncated());
        let rubric = self.judge.rubric(group.prompt.source);
        for (sample, rollout) in group.rollouts.iter_mut().enumerate().filter(|(_, r)| r.reward.is_some()) {
            rollout.reward = rubric.total_at(&rollout.score, key.step);
            if self.config.control == Control::CoinFlip {
                let coin = Counted::new(&[key.seed, key.step, index, sample as u64, 0xc014]).next_u64() & 1;
                rollout.reward = Some(coin as f32);
            } else if truncated == Truncated::Zero && is_truncated(rollout) {
                rollout.reward = Some(0.0);
            } else if let Truncated::SoftOverlong { buffer } = truncated {
                let tokens = rollout.completion.tokens.len();
                rollout.penalty = soft_overlong(tokens, self.sampling.max_new_tokens, buffer);
            }
        }
        has_signal(&group.rewards())
    }

    /// Rollouts with their advantages, as token ids.
    fn train_samples<'a>(
        &self,
        groups: impl Iterator<Item = &'a Group>,
        advantages: Vec<Vec<f32>>,
    ) -> Vec<TrainSample> {
        let mut samples = Vec::new();
        for (group, advantages) in groups.zip(advantages) {
            for (rollout, advantage) in group.rollouts.iter().zip(advantages) {
                samples.push(TrainSample {
                    tokens: [group.prompt.tokens.as_slice(), &rollout.completion.tokens].concat(),
                    prompt_len: group.prompt.tokens.len(),
                    rollout_logprobs: rollout.completion.logprobs.clone(),
                    advantage: if self.learns_rewards() { advantage } else { 0.0 },
                    masked: (self.learns_rewards() && rollout.reward.is_none())
                        || self.grpo.truncated() == Truncated::Mask && is_truncated(rollout),
                });
            }
        }
        samples
    }

    /// Whether rewards teach, and not a teacher alone.
    fn learns_rewards(&self) -> bool {
        self.teacher.as_ref().is_none_or(|teacher| teacher.config().rewards)
    }

    /// The samples of an update, packed.
    fn micro_batches(&self, mini_batch: &[TrainSample]) -> Vec<MicroBatch> {
        let (tokens, layout) = (self.config.compute.micro_batch_tokens, self.policy.learner.prompt_layout());
        micro_batches(mini_batch, self.grpo.loss_norm(), tokens, layout)
    }

    /// What the KL term compares with.
    fn add_reference_logprobs(&self, micros: &mut [MicroBatch], temperature: f32) -> Result<()> {
        if !self.grpo.needs_reference() {
            return Ok(());
        }
        let stats = self.policy.learner.logprobs(Who::Reference, micros, temperature)?;
        micros.iter_mut().zip(stats).for_each(|(micro, stats)| micro.ref_logprobs = Some(stats.logprobs));
        Ok(())
    }

    /// Clips the gradient and moves the weights, or skips the update when loss or gradient is not finite and stops after
    /// several in a row.
    fn update(&mut self, losses: &[LossStats], step: u64) -> Result<Update> {
        let loss: f64 = losses.iter().map(|stats| stats.loss).sum();
        if losses.is_empty() {
            return Ok(Update::Nothing);
        }
        let update = if loss.is_finite() { self.policy.update(self.schedule.at(step - 1))? } else { Update::Skipped };
        self.progress.skipped = if update == Update::Skipped { self.progress.skipped + 1 } else { 0 };
        ensure!(
            self.progress.skipped < self.config.optim.max_skipped,
            "loss or gradient was not finite in {} updates in a row (loss {loss}): lower optim.lr",
            self.progress.skipped
        );
        Ok(update)
    }

    /// Replaces the reference by the policy every `ref_refresh_every` steps; 0 keeps the first.
    fn refresh_reference(&mut self, step: u64) -> Result<()> {
        let every = self.grpo.ref_refresh_every;
        if every > 0 && step > 1 && (step - 1).is_multiple_of(every) {
            self.policy.learner.refresh_reference()?;
        }
        Ok(())
    }

    /// Gives completions the longest length of `step`, counted from 1; those of its evaluation too.
    pub fn limit_tokens(&mut self, step: u64) {
        self.sampling.max_new_tokens = self.config.rollout.max_new_tokens_at(step);
    }

    /// What decides the run's memory.
    pub fn job(&self) -> Result<Job> {
        let bytes = |policy: &Policy| policy.learner.base_bytes();
        let taught = |teacher: &Teacher| Taught::of(teacher.config(), &teacher.policy.config, bytes(&teacher.policy));
        let teacher = self.teacher.as_ref().map(taught).transpose()?;
        let job = Job::of(&self.config, &self.policy.config, bytes(&self.policy), self.prompts.longest())?;
        Ok(Job { teacher, ..job })
    }

    /// Runs the worst step there can be where a lack of memory would end the run hours later. Changes nothing.
    pub fn rehearse(&mut self) -> Result<()> {
        let job = self.job()?;
        let (rows, prompt, sequence) = (job.rows, job.prompt, job.sequence);
        let largest = Largest { rows, prompt, sequence, micro_batch: job.tokens() };
        self.policy.learner.rehearse(&largest).context(REHEARSAL)
    }

    /// The sampler over the weights as they are now, and the judge.
    pub fn rollouts(&self) -> Rollouts<'_> {
        self.rollouts_by(&self.sampling)
    }

    /// How held-out problems are sampled: as in the step, or greedily where the config says so.
    pub fn eval_sampling(&self) -> Sampling {
        let temperature = if self.config.eval.greedy { 0.0 } else { self.sampling.temperature };
        Sampling { temperature, ..self.sampling.clone() }
    }

    /// The same as [`Self::rollouts`], sampled in another way.
    pub fn rollouts_by<'a>(&'a self, sampling: &'a Sampling) -> Rollouts<'a> {
        Rollouts {
            policy: &self.policy,
            sampler: &*self.sampler,
            judge: &self.judge,
            sampling,
            behaviours: &self.behaviours,
        }
    }

    /// Where the run's prompts come from.
    pub fn prompts(&self) -> &PromptSource {
        &self.prompts
    }
}

impl StepGroups {
    /// Those that are trained on.
    fn kept(&self) -> impl Iterator<Item = &Group> {
        self.kept.iter().map(|&index| &self.all[index])
    }
}

/// Whether a completion reached the limit of new tokens.
fn is_truncated(rollout: &Rollout) -> bool {
    rollout.completion.finish == FinishReason::Length
}

/// Does `work` and adds the seconds that it took.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    *seconds += start.elapsed().as_secs_f64();
    done
}
