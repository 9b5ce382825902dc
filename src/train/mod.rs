//! [`Trainer::step`], the algorithm on one screen: sample groups from the policy, judge them, and move the policy toward
//! the better half. Evaluation, files and progress are left to the run around it.

mod ahead;
mod difficulty;
mod groups;
mod ration;
mod routers;
mod said;
mod samples;
mod stats;
pub mod teacher;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use reckon_rewards::Scope;
use serde::{Deserialize, Serialize};

use crate::batch::{LossStats, MicroBatch, RouterReplay, TokenStats};
use crate::behaviours::Behaviours;
use crate::config::{GrpoConfig, TrainConfig};
use crate::environment::Environment;
use crate::groups::Rollouts;
use crate::grpo::{EntropyState, mini_batches, token_losses};
use crate::judge::{Group, Judge};
use crate::metrics::Record;
use crate::model::Layout;
use crate::optim::{Schedule, Update};
use crate::plan::{Job, Taught};
use crate::policy::{Largest, Policy, REHEARSAL, Training};
use crate::prompt::PromptSource;
use crate::ranks::Ranks;
use crate::rollout::{LocalSampler, Sampler, Sampling};
use ahead::Ahead;
pub use difficulty::{Difficulty, Seen};
use said::Said;
use samples::corrected;
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
    /// The best value so far of what `eval.best_by` names, and the step it was measured at.
    pub best: Option<(f64, u64)>,
    /// Evaluations since then.
    #[serde(default)]
    pub since_best: u64,
    /// Where the weight of the entropy bonus stands, with a target and once an update was made.
    #[serde(default)]
    pub entropy: Option<EntropyState>,
    /// How rows have fared, where the config remembers them.
    #[serde(default)]
    pub difficulty: Difficulty,
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
    /// Who shares the work.
    pub ranks: Ranks,
    /// Who teaches beside the rewards, or in their place.
    teacher: Option<Teacher>,
    grpo: GrpoConfig,
    schedule: Schedule,
    sampling: Sampling,
    judge: Arc<Judge>,
    behaviours: Arc<Behaviours>,
    prompts: Arc<PromptSource>,
    environment: Option<Arc<Environment>>,
    /// What of the next step is sampled while this one updates.
    ahead: Ahead,
}

/// What a step did.
#[derive(Debug)]
pub struct Step {
    /// Its metrics.
    pub record: Record,
    /// All groups that were sampled.
    pub groups: Vec<Group>,
}

impl Trainer {
    /// Puts a run together and refuses one that could not work, before step 0.
    pub fn new(config: TrainConfig, policy: Policy, judge: Judge) -> Result<Self> {
        Self::among(Ranks::alone(), config, policy, judge)
    }

    /// The same as one of several ranks, all of which make every step together.
    pub fn among(ranks: Ranks, mut config: TrainConfig, mut policy: Policy, judge: Judge) -> Result<Self> {
        config.validate()?;
        let (parts, ahead) = (config.compute.gradient_parts, config.rollout.ahead);
        ensure!(
            ahead == 0 || ranks.size() == 1,
            "rollout.ahead = {ahead}: ranks share sampling and updates in turn; set 0, or start one process"
        );
        policy.learner.join(&ranks, parts)?;
        config.compute.suit(Layout::of(&policy.config)?.len(), config.lora.is_some());
        ensure!(
            config.rollout.probe == 0 || judge.rubrics().iter().all(|rubric| rubric.scope() == Scope::Completion),
            "rollout.probe = {}: a verifier judges whole groups, so no group can stop early; remove one of them",
            config.rollout.probe
        );
        let (grpo, behaviours) = (config.grpo.clone(), Behaviours::of(&config)?);
        let prompts = PromptSource::of(&config, &mut policy)?;
        let environment = Environment::of(&config, &prompts)?;
        count_epochs(&mut config, &prompts)?;
        let (adamw, moments) = (config.optim.adamw(), config.optim.moments);
        let (reference, coef) = (grpo.needs_reference(), config.optim.router_aux_loss_coef);
        let aux_loss_coef = policy.aux_loss_coef(coef)?;
        policy.learner.begin(&Training { adamw, moments, reference, aux_loss_coef })?;
        policy.can_be_balanced(config.optim.balance)?;
        ensure!(
            grpo.router_replay == RouterReplay::None || policy.learner.active_experts() > 0,
            "grpo.router_replay is for models with experts, and this one has none: set it to \"none\""
        );
        let ahead = Ahead::of(&config, &policy)?;
        let sampling = config.rollout.sampling(policy.config.eos_token_id.clone())?;
        let schedule = config.optim.schedule(config.steps);
        let sampler = Box::new(LocalSampler { capacity: config.rollout.capacity });
        Ok(Self {
            config,
            policy,
            sampler,
            progress: Progress::default(),
            ranks,
            teacher: None,
            grpo,
            schedule,
            sampling,
            judge: Arc::new(judge),
            behaviours: Arc::new(behaviours),
            prompts: Arc::new(prompts),
            environment: environment.map(Arc::new),
            ahead,
        })
    }

    /// The same with a teacher, whom the config names.
    pub fn taught_by(mut self, mut teacher: Option<Teacher>) -> Result<Self> {
        ensure!(
            teacher.is_some() == self.config.teacher.is_some(),
            "the config's [teacher] and the trainer's are not the same"
        );
        let parts = self.config.compute.gradient_parts;
        teacher.iter_mut().try_for_each(|teacher| teacher.policy.learner.join(&self.ranks, parts))?;
        self.teacher = teacher;
        Ok(self)
    }

    /// One step of GRPO (Shao et al. 2024, arXiv:2402.03300). The preset says which of its variants: its advantage, its
    /// objective and denominators, how many updates a step makes, and whether groups that teach nothing are replaced.
    pub fn step(&mut self) -> Result<Step> {
        let (start, step, mut stats) = (self.ranks.begin_step(), self.progress.step + 1, StepStats::default());
        let temperature = self.sampling.logprob_temperature();
        self.refresh_reference(step)?;
        self.limit_tokens(step);
        // Prompts to the sampler, completions to the judge, until enough groups have a signal.
        let mut groups = self.groups_of(step)?;
        // Those of the next step meanwhile, by the weights as they are now, where `rollout.ahead` says so.
        let next = self.sample_ahead(&groups, step)?;
        let mut samples = self.train_samples(&mut groups)?;
        // What the reference says of them, and the policy, unless the update's forward tells a correction's weights.
        let in_passing = timed(&mut stats.forward_backward_s, || self.look_back(&mut samples))?;
        if in_passing.is_none() {
            stats.corrected = self.grpo.correction().map(|correction| correction.apply(&mut samples));
        }
        self.set_advantages(&groups, &mut samples);
        stats.kl_penalty = self.kl_penalty(&samples);
        let mut said = Said::default();
        for (index, mini_batch) in mini_batches(&samples, self.grpo.completions_per_update).into_iter().enumerate() {
            let loss = self.grpo.loss(self.grpo.entropy().weight(self.progress.entropy));
            let said = said.of_update(mini_batch.len(), in_passing.is_some());
            let losses = timed(&mut stats.forward_backward_s, || {
                let mut micros = self.selected(self.micro_batches(mini_batch), step, index)?;
                let token_losses = |micro: &MicroBatch, now: &TokenStats| {
                    said.add(micro, now);
                    match in_passing {
                        None => token_losses(now, micro, &loss),
                        Some(correction) => token_losses(now, &correction.weighed(micro, now), &loss),
                    }
                };
                match &self.teacher {
                    None => self.policy.learner.gradients(&micros, temperature, &token_losses),
                    Some(teacher) => teacher.gradients(&mut self.policy, &mut micros, temperature, &token_losses),
                }
            })?;
            said.gather(&self.ranks)?;
            stats.routers.add(&*self.policy.learner);
            // Clips the gradient by its norm, then AdamW.
            let update = timed(&mut stats.update_s, || self.update(&losses, step))?;
            stats.add(&losses, update, loss.entropy_coef);
        }
        let said = said.into_samples();
        if let Some(correction) = in_passing {
            stats.corrected = Some(corrected(correction, &mut samples, &said));
        }
        groups.set_learned(&samples, said);
        self.sampler.compared(stats.mismatch_kl());
        self.sampler.publish(&self.policy)?;
        self.ahead.take(next);
        self.progress = self.after(&groups, step);
        self.progress.policy_version = self.policy.version;
        let record = self.record(&groups, &stats, start.elapsed().as_secs_f64())?;
        Ok(Step { record, groups: groups.all })
    }

    /// Whether a checkpoint of now is one to go on from. A step that failed between its updates has moved the weights
    /// away from those after the last whole step, and weights that only give skipped updates lead nowhere.
    pub fn can_be_resumed(&self) -> bool {
        let whole = self.policy.version == self.progress.policy_version;
        whole && self.progress.skipped < self.config.optim.max_skipped
    }

    /// Whether rewards teach, and not a teacher alone.
    fn learns_rewards(&self) -> bool {
        self.teacher.as_ref().is_none_or(|teacher| teacher.config().rewards)
    }

    /// Clips the gradient and moves the weights, or skips the update when loss or gradient is not finite and stops after
    /// several in a row.
    fn update(&mut self, losses: &[LossStats], step: u64) -> Result<Update> {
        let loss: f64 = losses.iter().map(|stats| stats.loss).sum();
        if losses.is_empty() {
            return Ok(Update::Nothing);
        }
        let update = match loss.is_finite() {
            true => self.policy.update_balanced(self.schedule.at(step - 1), self.config.optim.balance)?,
            false => Update::Skipped,
        };
        self.progress.skipped = if update == Update::Skipped { self.progress.skipped + 1 } else { 0 };
        if update != Update::Skipped {
            let mut all = LossStats::default();
            losses.iter().for_each(|stats| all.add(stats));
            self.progress.entropy = self.grpo.entropy().next(self.progress.entropy, all.per_token(all.entropy));
        }
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
        Ok(Job { teacher, ranks: self.ranks.size(), ..job })
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

    /// How held-out problems are sampled: as in the step, but for what the config says of evaluations.
    pub fn eval_sampling(&self) -> Sampling {
        self.config.eval.sampling(&self.sampling)
    }

    /// The same as [`Self::rollouts`], sampled in another way.
    pub fn rollouts_by<'a>(&'a self, sampling: &'a Sampling) -> Rollouts<'a> {
        Rollouts {
            policy: &self.policy,
            sampler: &*self.sampler,
            judge: &self.judge,
            sampling,
            behaviours: &self.behaviours,
            environment: self.environment.as_deref(),
            ranks: Some(&self.ranks),
            routed: false,
        }
    }

    /// Where the run's prompts come from.
    pub fn prompts(&self) -> &PromptSource {
        &self.prompts
    }
}

/// Puts the steps of `epochs` in their place.
fn count_epochs(config: &mut TrainConfig, prompts: &PromptSource) -> Result<()> {
    let Some(epochs) = config.epochs.take() else { return Ok(()) };
    let rows = prompts.rows().with_context(|| {
        format!("epochs = {epochs}: problems that are generated have no end to pass over; give steps")
    })?;
    config.steps = (epochs * rows as f64 / config.rollout.prompts_per_step as f64).ceil().max(1.0) as u64;
    Ok(())
}

/// Does `work` and adds the seconds that it took.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    *seconds += start.elapsed().as_secs_f64();
    done
}
