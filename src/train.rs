//! `Trainer::step`, the algorithm on one screen: sample groups from the policy, score them, and move the policy
//! toward the better half. Files, progress and evaluation are left to `commands/`.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{GrpoConfig, TrainConfig};
use crate::grpo::{
    LossStats, TrainSample, Truncated, advantages, has_signal, micro_batches, mini_batches, soft_overlong, token_losses,
};
use crate::metrics::Record;
use crate::optim::{Optimizer, Schedule, Update};
use crate::plan::Job;
use crate::policy::{Policy, Reference};
use crate::prompt::PromptSource;
use crate::rollout::{Engine, FinishReason, SampleKey, Sampling};
use crate::score::{Group, RolloutTimes, Scorer, apply_control};

/// What of a run changes beside weights and optimizer: all that a resumed run needs to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Prompts used, resampled ones included.
    pub prompts_used: u64,
    /// Updates skipped in a row because a gradient was not finite.
    pub skipped: u64,
    /// Best held-out accuracy so far and the step it was measured at.
    pub best: Option<(f64, u64)>,
}

/// What an error of a step that is tried before the first one is about.
pub(crate) const REHEARSAL: &str = "the worst step of the run, tried before the first";

/// A run in memory.
pub struct Trainer {
    /// The resolved config.
    pub config: TrainConfig,
    /// The model being trained.
    pub policy: Policy,
    /// Its optimizer.
    pub optimizer: Optimizer,
    /// What the KL term holds on to, where there is one.
    pub reference: Option<Reference>,
    /// Where the run stands.
    pub progress: Progress,
    /// Whether a step is between its rollouts and its end: a checkpoint of then would go on to something else.
    pub updating: bool,
    grpo: GrpoConfig,
    schedule: Schedule,
    sampling: Sampling,
    scorer: Scorer,
    prompts: PromptSource,
}

/// What the updates of a step did.
#[derive(Default)]
struct UpdateReport {
    stats: LossStats,
    first_stats: Option<LossStats>,
    entropy: f64,
    grad_norm: f64,
    applied: u64,
    skipped: u64,
    tokens: usize,
    forward_backward_s: f64,
    update_s: f64,
}

impl Trainer {
    /// Puts a run together and refuses one that could not work, before step 0.
    pub fn new(config: TrainConfig, policy: Policy, scorer: Scorer) -> Result<Self> {
        config.validate()?;
        let grpo = config.grpo.clone();
        let (tokenizer, companions) = (policy.tokenizer.clone(), &policy.companions);
        let prompts = PromptSource::open(&config.sources()?, tokenizer, companions, config.seed)?;
        prompts.check_lengths(policy.config.max_position_embeddings, config.rollout.max_new_tokens)?;
        let optimizer = Optimizer::new(&config.optim, &policy)?;
        let sampling = config.rollout.sampling(policy.config.eos_token_id.clone());
        ensure!(
            !sampling.stop_tokens.is_empty() || !sampling.stop_strings.is_empty(),
            "nothing ends a completion: set eos_token_id in the model's config.json or rollout.stop"
        );
        let schedule = config.optim.schedule(config.steps);
        let reference = grpo.needs_reference().then(|| policy.reference()).transpose()?;
        let progress = Progress::default();
        let updating = false;
        Ok(Self { config, policy, optimizer, reference, progress, updating, grpo, schedule, sampling, scorer, prompts })
    }

    /// What of the run decides its memory.
    pub fn job(&self) -> Result<Job> {
        Job::of(&self.config, &self.policy.config, self.policy.companions.dtype, self.prompts.longest()?)
    }

    /// Runs the worst step there can be where a lack of memory would end the run hours later. Changes nothing.
    pub fn rehearse(&mut self) -> Result<()> {
        let job = self.job()?;
        let tried = self.policy.rehearse_sampling(&job);
        tried.and_then(|()| self.policy.rehearse_update(job.tokens(), job.sequence)).context(REHEARSAL)
    }

    /// One step of GRPO (Shao et al. 2024, arXiv:2402.03300). Returns its metrics and its groups.
    pub fn step(&mut self) -> Result<(Record, Vec<Group>)> {
        let start = Instant::now();
        let step = self.progress.step + 1;
        self.refresh_reference(step)?;
        let (groups, times, sampled) = self.rollouts(step).with_context(|| format!("step {step}"))?;
        let samples = self.samples(&groups);
        let mut report = UpdateReport::default();
        self.updating = true;
        for batch in mini_batches(&samples, self.grpo.updates_per_step) {
            self.update(batch, step, &mut report).with_context(|| format!("step {step}"))?;
        }
        self.updating = false;
        self.progress.step = step;
        let mut record = self.record(&groups, &sampled, &report);
        record_times(&mut record, times, &report, &sampled, start.elapsed().as_secs_f64());
        Ok((record, sampled))
    }

    /// Samples and scores this step's groups: (those to train on, seconds, all that were sampled).
    ///
    /// Groups without signal are dropped and, if asked, replaced from further prompts, a bounded number of times
    /// (dynamic sampling of DAPO, arXiv:2503.14476).
    fn rollouts(&mut self, step: u64) -> Result<(Vec<Group>, RolloutTimes, Vec<Group>)> {
        let wanted = self.config.rollout.prompts_per_step;
        let key = SampleKey { seed: self.config.seed, step };
        let (mut kept, mut all, mut times) = (Vec::new(), Vec::new(), RolloutTimes::default());
        // The run's own count moves at the end: a step that a verifier stopped is sampled again on resume.
        let mut used = self.progress.prompts_used;
        for _ in 0..=self.grpo.resample_max {
            let prompts = self.prompts.train(used, wanted)?;
            used += wanted as u64;
            let group_size = self.config.rollout.group_size;
            let (mut groups, more) = self.scorer.rollouts(self.engine(), prompts, group_size, &self.sampling, key)?;
            self.judge_length(&mut groups);
            apply_control(&mut groups, self.config.control, key);
            times.sample_s += more.sample_s;
            times.verify_s += more.verify_s;
            kept.extend(groups.iter().filter(|g| !self.grpo.drop_zero_signal || has_signal(&g.rewards())).cloned());
            all.extend(groups);
            if kept.len() >= wanted {
                break;
            }
        }
        self.progress.prompts_used = used;
        kept.truncate(wanted);
        Ok((kept, times, all))
    }

    /// The sampler over the weights as they are now.
    pub fn engine(&self) -> Engine<'_> {
        self.policy.engine(self.config.rollout.capacity)
    }

    /// The scorer, for evaluations beside the run.
    pub fn scorer(&self) -> &Scorer {
        &self.scorer
    }

    /// How the run samples.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Where the run's prompts come from.
    pub fn prompts(&self) -> &PromptSource {
        &self.prompts
    }

    /// What a completion's length does to its reward.
    fn judge_length(&self, groups: &mut [Group]) {
        let longest = self.config.rollout.max_new_tokens;
        for rollout in groups.iter_mut().flat_map(|g| &mut g.rollouts) {
            let cut = rollout.completion.finish == FinishReason::Length;
            match self.grpo.truncated() {
                Truncated::SoftOverlong { buffer } => {
                    rollout.reward += soft_overlong(rollout.completion.tokens.len(), longest, buffer);
                }
                Truncated::Zero if cut => rollout.reward = 0.0,
                Truncated::Zero | Truncated::Mask => {}
            }
        }
    }

    /// Rollouts with their advantages.
    fn samples(&self, groups: &[Group]) -> Vec<TrainSample> {
        let rewards: Vec<Vec<f32>> = groups.iter().map(Group::rewards).collect();
        let advantages = advantages(&rewards, self.grpo.advantage);
        let mut samples = Vec::new();
        for (group, advantages) in groups.iter().zip(advantages) {
            for (rollout, advantage) in group.rollouts.iter().zip(advantages) {
                let completion = &rollout.completion;
                let cut = completion.finish == FinishReason::Length;
                samples.push(TrainSample {
                    tokens: [group.prompt.tokens.as_slice(), &completion.tokens].concat(),
                    prompt_len: group.prompt.tokens.len(),
                    rollout_logprobs: completion.logprobs.clone(),
                    ref_logprobs: None,
                    advantage,
                    masked: cut && self.grpo.truncated() == Truncated::Mask,
                });
            }
        }
        samples
    }

    /// One optimizer update over a mini-batch.
    fn update(&mut self, batch: &[TrainSample], step: u64, report: &mut UpdateReport) -> Result<()> {
        let mut micros =
            micro_batches(batch, self.grpo.loss_norm(), self.config.compute.micro_batch_tokens, self.policy.prompts());
        if micros.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let temperature = self.sampling.logprob_temperature();
        if let Some(reference) = &self.reference {
            let stats = self.policy.reference_logprobs(reference, &micros, temperature)?;
            for (micro, stats) in micros.iter_mut().zip(stats) {
                micro.ref_logprobs = Some(stats.logprobs);
            }
        }
        let loss = &self.grpo.loss();
        let kept = self.policy.gradients(&micros, temperature, &|micro, stats| {
            let losses = token_losses(&stats.logprobs, micro, loss);
            let entropy: f64 = stats.entropies.iter().map(|&e| f64::from(e)).sum();
            (losses.gradient, (losses.stats, entropy))
        })?;
        report.forward_backward_s += start.elapsed().as_secs_f64();
        let mut stats = LossStats::default();
        for (micro_stats, entropy) in &kept {
            stats.merge(micro_stats);
            report.entropy += entropy;
        }
        report.tokens += micros.iter().map(|m| m.targets.len()).sum::<usize>();
        report.first_stats.get_or_insert(stats);
        report.stats.merge(&stats);
        let start = Instant::now();
        self.apply(stats.loss, step, report)?;
        report.update_s += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Moves the weights, or skips the update when loss or gradient is not finite and stops after several in a row.
    fn apply(&mut self, loss: f64, step: u64, report: &mut UpdateReport) -> Result<()> {
        let lr = self.schedule.at(step - 1);
        let update = match loss.is_finite() {
            true => self.optimizer.update(&mut self.policy, lr)?,
            false => Update::Skipped,
        };
        let Update::Applied { grad_norm } = update else {
            report.skipped += 1;
            self.progress.skipped += 1;
            if self.progress.skipped >= self.config.optim.max_skipped {
                bail!(
                    "loss or gradient was not finite in {} updates in a row (loss {loss}): lower optim.lr",
                    self.progress.skipped
                );
            }
            return Ok(());
        };
        self.progress.skipped = 0;
        report.applied += 1;
        report.grad_norm += grad_norm;
        Ok(())
    }

    /// Replaces the reference by the policy every `ref_refresh_every` steps; 0 keeps the first.
    fn refresh_reference(&mut self, step: u64) -> Result<()> {
        let every = self.grpo.ref_refresh_every;
        let due = every > 0 && step > 1 && (step - 1).is_multiple_of(every);
        self.reference.iter_mut().filter(|_| due).try_for_each(|reference| self.policy.refresh(reference))
    }

    /// The step's metrics; see the table in [`crate::metrics`].
    fn record(&self, kept: &[Group], sampled: &[Group], report: &UpdateReport) -> Record {
        let mut record = Record::new(self.progress.step);
        crate::eval::record_rollouts(&mut record, sampled, &self.scorer.names());
        let without = sampled.iter().filter(|g| !has_signal(&g.rewards())).count();
        record.set("group/zero_signal_frac", without as f64 / sampled.len().max(1) as f64);
        let resampled = sampled.len().saturating_sub(self.config.rollout.prompts_per_step);
        record.set("group/resampled", resampled as f64);
        record.set("group/kept", kept.len() as f64);
        let tokens = report.tokens.max(1) as f64;
        record.set("loss/total", report.stats.loss);
        record.set("policy/entropy", report.entropy / tokens);
        if self.reference.is_some() {
            record.set("policy/kl_ref", report.stats.kl_ref());
        }
        record.set("policy/clip_frac", report.stats.clip_frac());
        record.set("policy/clip_low_frac", report.stats.clipped_low as f64 / tokens);
        record.set("policy/clip_high_frac", report.stats.clipped_high as f64 / tokens);
        // Before the first update of the step: the sampler's weights and the trainer's are the same.
        record.set("policy/mismatch_kl", report.first_stats.as_ref().map_or(0.0, LossStats::mismatch_kl));
        record.set("optim/grad_norm", report.grad_norm / report.applied.max(1) as f64);
        record.set("optim/lr", self.schedule.at(self.progress.step - 1));
        record.set("optim/updates", report.applied as f64);
        record.set("optim/skipped", report.skipped as f64);
        record
    }
}

fn record_times(record: &mut Record, times: RolloutTimes, report: &UpdateReport, sampled: &[Group], step_s: f64) {
    let tokens: usize = sampled.iter().flat_map(|g| &g.rollouts).map(|r| r.completion.tokens.len()).sum();
    let update_s = report.forward_backward_s + report.update_s;
    record.set("time/sample_s", times.sample_s);
    record.set("time/verify_s", times.verify_s);
    record.set("time/forward_backward_s", report.forward_backward_s);
    record.set("time/update_s", report.update_s);
    record.set("time/step_s", step_s);
    record.set("speed/sample_tokens_per_s", tokens as f64 / times.sample_s.max(1e-9));
    record.set("speed/update_tokens_per_s", report.tokens as f64 / update_s.max(1e-9));
}
