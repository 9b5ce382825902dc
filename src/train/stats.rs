//! What the updates of a step did, and the step's metrics. What each means is in the table of [`crate::metrics`].

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Trainer;
use super::groups::StepGroups;
use super::routers::Routers;
use crate::batch::LossStats;
use crate::environment::tool_use;
use crate::grpo::{Corrected, KlPlace, Truncated};
use crate::judge::Group;
use crate::metrics::Record;
use crate::optim::Update;

/// Sums over the updates of a step.
#[derive(Default)]
pub(super) struct StepStats {
    /// Of all updates that were not empty, skipped ones included.
    all: LossStats,
    /// Of the first of them, whose weights are those that were sampled from.
    first: Option<LossStats>,
    /// `policy/mismatch_kl` of each further update, by the number of updates between sampling and it.
    ages: Vec<f64>,
    /// How completions were weighed because the sampler was not the policy.
    pub(super) corrected: Option<Corrected>,
    /// Mean of what KL terms take from rewards.
    pub(super) kl_penalty: f64,
    /// Weight of the entropy bonus in the last update.
    entropy_coef: f64,
    /// What routers chose, where there are experts.
    pub(super) routers: Routers,
    /// Sum of the norms of the applied updates' gradients, before they were clipped.
    grad_norm: f64,
    /// Updates that moved the weights.
    applied: u64,
    /// Updates whose loss or gradient was not finite.
    skipped: u64,
    /// Seconds of all that the model computed of the samples: the reference's, the sampler's correction, the updates'.
    pub(super) forward_backward_s: f64,
    /// Seconds of clipping and of the optimizer.
    pub(super) update_s: f64,
}

/// What a rank did of a step.
#[derive(Serialize, Deserialize)]
struct ByRank {
    /// Seconds in which it did not wait for others.
    busy_s: f64,
    /// Bytes that it sent.
    sent: u64,
}

impl StepStats {
    /// How far the sampler was from the policy before the step's first update: nats a token.
    pub(super) fn mismatch_kl(&self) -> f64 {
        self.first.map_or(0.0, |first| first.per_token(first.mismatch))
    }

    /// Adds an update, given what the loss said of its micro-batches.
    pub(super) fn add(&mut self, losses: &[LossStats], update: Update, entropy_coef: f64) {
        let mut stats = LossStats::default();
        losses.iter().for_each(|next| stats.add(next));
        match update {
            Update::Applied { grad_norm } => {
                self.applied += 1;
                self.grad_norm += grad_norm;
            }
            Update::Skipped => self.skipped += 1,
            Update::Nothing => return,
        }
        self.all.add(&stats);
        self.entropy_coef = entropy_coef;
        if self.first.is_some() {
            self.ages.push(stats.per_token(stats.mismatch));
        }
        self.first.get_or_insert(stats);
    }
}

impl Trainer {
    /// What each rank did of a step that took this one so many seconds; nothing for a process alone.
    fn time_by_rank(&self, step_s: f64) -> Result<Vec<ByRank>> {
        let Some(spent) = self.ranks.spent() else { return Ok(Vec::new()) };
        self.ranks.gather(ByRank { busy_s: (step_s - spent.waited_s).max(0.0), sent: spent.sent })
    }

    /// The metrics of the step just done.
    pub(super) fn record(&self, groups: &StepGroups, stats: &StepStats, step_s: f64) -> Result<Record> {
        let mut record = Record::new(self.progress.step);
        crate::eval::record_rollouts(&mut record, &groups.all, &self.judge, &self.behaviours);
        if self.environment.is_some() {
            tool_use(&groups.all).into_iter().for_each(|(name, value)| record.set(name, value));
            let rollouts = groups.all.iter().flat_map(|group| &group.rollouts);
            record.set("time/tools_s", rollouts.map(|rollout| rollout.completion.tools.waited_s).sum());
        }
        let sampled = groups.all.len();
        let silent = groups.signal.iter().filter(|signal| !**signal).count();
        record.set("group/zero_signal_frac", silent as f64 / sampled.max(1) as f64);
        record.set("group/resampled", sampled.saturating_sub(self.config.rollout.prompts_per_step) as f64);
        record.set("group/kept", groups.kept.len() as f64);
        if self.config.rollout.probe > 0 {
            let stops = |group: &&Group| group.rollouts.len() < self.config.rollout.group_size;
            let stopped = groups.all.iter().filter(stops).count();
            record.set("group/stopped_frac", stopped as f64 / sampled.max(1) as f64);
        }
        if let Truncated::SoftOverlong { .. } = self.grpo.truncated() {
            let penalties = groups.all.iter().flat_map(|group| &group.rollouts).filter(|r| r.reward.is_some());
            let (sum, count) = penalties.fold((0.0, 0), |(sum, n), r| (sum + f64::from(r.penalty), n + 1));
            record.set("penalty/overlong_mean", sum / f64::from(count.max(1)));
        }
        if self.grpo.kl_place == KlPlace::Reward {
            record.set("penalty/kl_mean", stats.kl_penalty);
        }
        let greedy: Vec<f64> = groups.greedy.iter().filter_map(|r| r.reward).map(f64::from).collect();
        if !greedy.is_empty() {
            record.set("reward/greedy_mean", greedy.iter().sum::<f64>() / greedy.len() as f64);
        }
        if self.config.curriculum.is_on() {
            self.record_difficulty(&mut record, groups.passed_over);
        }
        self.record_updates(&mut record, stats);
        let sampled = groups.all.iter().flat_map(|group| &group.rollouts).chain(&groups.greedy);
        let tokens: usize = sampled.map(|rollout| rollout.completion.sampled_len()).sum();
        record.set("time/sample_s", groups.times.sample_s);
        record.set("time/verify_s", groups.times.verify_s);
        record.set("time/forward_backward_s", stats.forward_backward_s);
        record.set("time/update_s", stats.update_s);
        record.set("time/step_s", step_s);
        for (rank, ByRank { busy_s, sent }) in self.time_by_rank(step_s)?.into_iter().enumerate() {
            record.set(format!("time/rank_busy_s/{rank}"), busy_s);
            record.set(format!("speed/rank_sent_mb/{rank}"), sent as f64 / 1e6);
        }
        let update_s = stats.forward_backward_s + stats.update_s;
        record.set("speed/sample_tokens_per_s", tokens as f64 / groups.times.sample_s.max(1e-9));
        record.set("speed/update_tokens_per_s", stats.all.tokens as f64 / update_s.max(1e-9));
        Ok(record)
    }

    /// What the step's updates did.
    fn record_updates(&self, record: &mut Record, stats: &StepStats) {
        let all = &stats.all;
        record.set("loss/total", all.loss / (stats.applied + stats.skipped).max(1) as f64);
        record.set("policy/entropy", all.per_token(all.entropy));
        if self.grpo.needs_reference() {
            record.set("policy/kl_ref", all.per_token(all.kl_ref));
        }
        if let Some(teacher) = &self.teacher {
            // Of the first update: later ones are of a policy that has moved since it sampled.
            let divergence = stats.first.map_or(0.0, |first| first.per_token(first.divergence));
            record.set(format!("teacher/{}", teacher.measure()), divergence);
        }
        record.set("policy/clip_frac", all.per_token(all.clipped() as f64));
        record.set("policy/clip_low_frac", all.per_token(all.clipped_low as f64));
        record.set("policy/clip_high_frac", all.per_token(all.clipped_high as f64));
        record.set("policy/mismatch_kl", stats.mismatch_kl());
        self.record_choices(record, stats);
        stats.routers.record(self.policy.learner.active_experts(), self.grpo.router_replay, record);
        record.set("optim/grad_norm", stats.grad_norm / stats.applied.max(1) as f64);
        record.set("optim/lr", self.schedule.at(self.progress.step - 1));
        record.set("optim/updates", stats.applied as f64);
        record.set("optim/skipped", stats.skipped as f64);
    }

    /// What is known of the rows.
    fn record_difficulty(&self, record: &mut Record, passed_over: u64) {
        let (next, memory) = (self.progress.step + 1, &self.progress.difficulty);
        let (mut seen, mut resting, mut easy, mut hard) = (0u32, 0u32, 0u32, 0u32);
        for row in memory.seen() {
            seen += 1;
            resting += u32::from(row.rests_until > next);
            easy += u32::from(10 * row.passed >= 9 * row.judged);
            hard += u32::from(10 * row.passed <= row.judged);
        }
        record.set("curriculum/passed_over", passed_over as f64);
        record.set("curriculum/seen", f64::from(seen));
        record.set("curriculum/resting", f64::from(resting));
        record.set("curriculum/easy_frac", f64::from(easy) / f64::from(seen.max(1)));
        record.set("curriculum/hard_frac", f64::from(hard) / f64::from(seen.max(1)));
    }

    /// What only some objectives have.
    fn record_choices(&self, record: &mut Record, stats: &StepStats) {
        let all = &stats.all;
        if self.grpo.loss(0.0).objective.selection().is_some() {
            record.set("policy/selected_frac", all.per_token(all.selected as f64));
        }
        if self.grpo.entropy_coef > 0.0 || self.grpo.entropy_target.is_some() {
            record.set("policy/entropy_coef", stats.entropy_coef);
        }
        for (age, kl) in (1..).zip(&stats.ages) {
            record.set(format!("policy/kl_age/{age}"), *kl);
        }
        if let Some(corrected) = stats.corrected.filter(|corrected| corrected.tokens > 0) {
            let per_token = |sum: f64| sum / corrected.tokens.max(1) as f64;
            record.set("correction/kl", per_token(corrected.kl));
            record.set("correction/weight_mean", per_token(corrected.weight));
            record.set("correction/effective_frac", corrected.effective_share());
            record.set("correction/masked_frac", per_token(corrected.masked as f64));
            record.set("correction/rejected_frac", corrected.rejected as f64 / corrected.samples.max(1) as f64);
        }
    }
}
