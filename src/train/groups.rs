//! The groups of a step: which prompts are sampled, what their completions are worth, and which of them are trained on.

use anyhow::Result;
use reckon_datasets::Counted;
use reckon_rewards::soft_overlong;

use super::Trainer;
use super::entropies::Entropies;
use crate::config::{Control, Curriculum};
use crate::eval::passes;
use crate::groups::{RolloutTimes, Rollouts};
use crate::grpo::{AdvantageKind, TrainSample, Truncated, has_signal};
use crate::judge::{Group, Learned, Rollout};
use crate::prompt::Prompt;
use crate::rollout::{FinishReason, SampleKey, Sampling};

/// How many times as many rows as are needed are looked at for some that do not rest.
const LOOKED_AHEAD: usize = 16;

/// Added to the step in the names of random numbers for the most likely completions.
const GREEDY: u64 = 1 << 63;

/// The groups of a step.
#[derive(Default)]
pub(super) struct StepGroups {
    /// All that were sampled.
    pub(super) all: Vec<Group>,
    /// Whether each has a signal: rewards that differ before any penalty on length.
    pub(super) signal: Vec<bool>,
    /// Each one's most likely completion, where the advantage is relative to it.
    pub(super) greedy: Vec<Rollout>,
    /// Which of them are trained on.
    pub(super) kept: Vec<usize>,
    pub(super) prompts_used: u64,
    /// Prompts of the run's order that were left for another pass.
    pub(super) passed_over: u64,
    pub(super) times: RolloutTimes,
}

impl StepGroups {
    /// Those that are trained on.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Group> {
        self.kept.iter().map(|&index| &self.all[index])
    }

    /// Says of the rollouts that were trained on what was learned: `samples` are theirs, in their order.
    pub(super) fn set_learned(&mut self, samples: &[TrainSample], entropies: Entropies) {
        let mut learned = samples.iter().zip(entropies.into_samples());
        for &index in &self.kept {
            for (rollout, (sample, entropies)) in self.all[index].rollouts.iter_mut().zip(&mut learned) {
                let advantage = sample.advantages.iter().sum::<f32>() / sample.advantages.len().max(1) as f32;
                rollout.learned = Some(Learned { advantage, entropies });
            }
        }
    }
}

impl Trainer {
    /// Prompts, completions and verdicts of a step.
    ///
    /// Groups without signal are dropped and, if asked, replaced from further prompts, a bounded number of times
    /// (dynamic sampling of DAPO, arXiv:2503.14476, section 3.2).
    pub(super) fn sample_groups(&self, step: u64) -> Result<StepGroups> {
        let (wanted, group_size) = (self.config.rollout.prompts_per_step, self.config.rollout.group_size);
        let key = SampleKey { seed: self.config.seed, step };
        let mut groups = StepGroups { prompts_used: self.progress.prompts_used, ..StepGroups::default() };
        for _ in 0..=self.grpo.resample_max {
            let (prompts, passed) = self.next_prompts(groups.prompts_used, step)?;
            groups.prompts_used += passed;
            groups.passed_over += passed - prompts.len() as u64;
            if self.grpo.advantage == AdvantageKind::Greedy {
                self.sample_greedy(prompts.clone(), key, &mut groups)?;
            }
            let (sampled, times) = self.rollouts().groups(prompts, group_size, key)?;
            groups.times.add(times);
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

    /// The prompts that are asked next, and how many of the run's order they take.
    ///
    /// Rows that rest are passed over, as are those of the pool that the curriculum does not choose. Where too few are
    /// awake, resting ones are asked.
    fn next_prompts(&self, from: u64, step: u64) -> Result<(Vec<Prompt>, u64)> {
        let (curriculum, wanted) = (&self.config.curriculum, self.config.rollout.prompts_per_step);
        if !curriculum.is_on() {
            return Ok((self.prompts.train(from, wanted)?, wanted as u64));
        }
        let memory = &self.progress.difficulty;
        let pool = if curriculum.order == Curriculum::Uniform { wanted } else { wanted * curriculum.pool };
        let (mut awake, mut resting, mut end) = (Vec::new(), Vec::new(), from);
        while awake.len() < pool && end - from < (LOOKED_AHEAD * pool) as u64 {
            let turn = self.prompts.turns(end, 1)[0];
            if memory.is_awake(turn, step) { &mut awake } else { &mut resting }.push((end, turn));
            end += 1;
        }
        resting.truncate(wanted.saturating_sub(awake.len()));
        awake.append(&mut resting);
        awake.sort_unstable();
        let turns: Vec<(usize, usize)> = awake.iter().map(|(_, turn)| *turn).collect();
        let done = (step - 1) as f64 / self.config.steps.max(2) as f64;
        let chosen = memory.choose(&turns, wanted, curriculum.order, done, self.config.rollout.group_size);
        let prompts = chosen.into_iter().map(|place| self.prompts.turn(awake[place].1, awake[place].0));
        Ok((prompts.collect::<Result<_>>()?, end - from))
    }

    /// Adds what the groups of a step say of their rows.
    pub(super) fn remember(&mut self, groups: &StepGroups, step: u64) {
        if !self.config.curriculum.is_on() {
            return;
        }
        for group in &groups.all {
            let verdicts = group.rollouts.iter().filter_map(|rollout| passes(&self.judge, group, rollout));
            let counts = verdicts.fold([0, 0], |[passed, judged], pass| [passed + u64::from(pass), judged + 1]);
            let row = (group.prompt.source, group.prompt.row);
            self.progress.difficulty.add(row, counts, step, &self.config.curriculum);
        }
    }

    /// The most likely completion of each prompt, judged as the others are  (ReMax, arXiv:2310.10505).
    fn sample_greedy(&self, prompts: Vec<Prompt>, key: SampleKey, groups: &mut StepGroups) -> Result<()> {
        let sampling = Sampling { temperature: 0.0, ..self.sampling.clone() };
        let rollouts = Rollouts { sampling: &sampling, ..self.rollouts() };
        let key = SampleKey { step: key.step + GREEDY, ..key };
        let (sampled, times) = rollouts.groups(prompts, 1, key)?;
        groups.times.add(times);
        for mut group in sampled {
            self.set_rewards(&mut group, key);
            groups.greedy.append(&mut group.rollouts);
        }
        Ok(())
    }

    /// Puts in place of the rubric's rewards what a control or the limit of tokens makes of them, sets the penalties on
    /// length, and returns whether the group has a signal. What was not judged stays so.
    fn set_rewards(&self, group: &mut Group, key: SampleKey) -> bool {
        let (index, truncated) = (group.prompt.index, self.grpo.truncated());
        let rubric = self.judge.rubric(group.prompt.source);
        for (sample, rollout) in group.rollouts.iter_mut().enumerate().filter(|(_, r)| r.reward.is_some()) {
            rollout.reward = rubric.total_at(&rollout.score, key.step % GREEDY);
            if self.config.control == Control::CoinFlip {
                let coin = Counted::new(&[key.seed, key.step, index, sample as u64, 0xc014]).next_u64() & 1;
                rollout.reward = Some(coin as f32);
            } else if truncated == Truncated::Zero && is_truncated(rollout) {
                rollout.reward = Some(0.0);
            } else if let Truncated::SoftOverlong { buffer } = truncated {
                let tokens = rollout.completion.sampled_len();
                rollout.penalty = soft_overlong(tokens, self.sampling.max_new_tokens, buffer);
            }
        }
        has_signal(&group.rewards())
    }
}

/// Whether a completion reached the limit of new tokens.
pub(super) fn is_truncated(rollout: &Rollout) -> bool {
    rollout.completion.finish == FinishReason::Length
}
