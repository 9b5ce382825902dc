//! The groups of a step: which prompts are sampled, what their completions are worth, and which of them are trained on.

use std::sync::Arc;

use anyhow::Result;
use reckon_datasets::Counted;
use reckon_rewards::{Rubric, soft_overlong};
use serde::{Deserialize, Serialize};

use super::ration::{Rationed, Rations};
use super::{Progress, Trainer};
use crate::batch::{RouterReplay, TokenStats};
use crate::config::{Control, Curriculum, GoesOn, TrainConfig};
use crate::eval::{difficulties, passes};
use crate::groups::{Ration, RolloutTimes, Rollouts};
use crate::grpo::{AdvantageKind, TrainSample, Truncated, has_signal};
use crate::judge::{Group, Learned, Rollout};
use crate::prompt::{Prompt, PromptSource};
use crate::rollout::{FinishReason, SampleKey, Sampling};

/// How many rows are looked at for each that is wanted, before resting ones are asked.
const LOOKED_AHEAD: usize = 16;

/// Added to the step in the names of random numbers for the most likely completions.
const GREEDY: u64 = 1 << 63;

/// The groups of a step.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct StepGroups {
    /// All that were sampled. Their prompts are the data's to give again.
    #[serde(skip)]
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
    /// Says of the rollouts that were trained on what was learned: `samples` are theirs, in their order.
    pub(super) fn set_learned(&mut self, samples: &[TrainSample], said: Vec<TokenStats>) {
        let mut learned = samples.iter().zip(said);
        for &index in &self.kept {
            for (rollout, (sample, TokenStats { entropies, .. })) in
                self.all[index].rollouts.iter_mut().zip(&mut learned)
            {
                let advantage = sample.advantages.iter().sum::<f32>() / sample.advantages.len().max(1) as f32;
                rollout.learned = Some(Learned { advantage, entropies });
            }
        }
    }
}

/// What samples the groups of a step: all of a trainer but what its updates move.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) prompts: &'a PromptSource,
    /// Where the run stands before the step.
    pub(super) progress: &'a Progress,
    pub(super) rollouts: Rollouts<'a>,
}

impl Trainer {
    /// What samples by the weights as they are now.
    pub(super) fn asking(&self) -> Asking<'_> {
        Asking { config: &self.config, prompts: &self.prompts, progress: &self.progress, rollouts: self.rollouts() }
    }

    /// Where the run stands once `step`, which is that of these groups, is done: with what they say of their rows.
    pub(super) fn after(&self, groups: &StepGroups, step: u64) -> Progress {
        let mut progress = self.progress.clone();
        (progress.step, progress.prompts_used) = (step, groups.prompts_used);
        for group in groups.all.iter().filter(|_| self.config.curriculum.is_on()) {
            let verdicts = group.rollouts.iter().filter_map(|rollout| passes(&self.judge, group, rollout));
            let counts = verdicts.fold([0, 0], |[passed, judged], pass| [passed + u64::from(pass), judged + 1]);
            let row = (group.prompt.source, group.prompt.row);
            progress.difficulty.add(row, counts, step, &self.config.curriculum);
        }
        progress
    }

    /// How many groups of the first step have which share of right completions, in the order of
    /// [`crate::eval::PASS_RATES`]. Changes nothing.
    pub fn first_difficulties(&self) -> Result<[usize; 6]> {
        let (rollout, key) = (&self.config.rollout, SampleKey { seed: self.config.seed, step: 1 });
        let prompts = self.prompts.train(0, rollout.prompts_per_step)?;
        let (groups, _) = self.rollouts().groups(prompts, rollout.group_size, key)?;
        Ok(difficulties(&self.judge, &groups))
    }
}

impl Asking<'_> {
    /// Prompts, completions and verdicts of a step.
    ///
    /// Groups without signal are dropped and, if asked, replaced by those of further prompts as soon as they are known
    /// (dynamic sampling of DAPO, arXiv:2503.14476, section 3.2); with a probe they stop early.
    pub(super) fn groups(&self, step: u64) -> Result<StepGroups> {
        let group_size = self.config.rollout.group_size;
        let key = SampleKey { seed: self.config.seed, step };
        let rations = self.rations();
        let candidates = self.candidates(rations.map_or(1, |rations| rations.prompts()), step)?;
        let rewarding = Arc::new(self.rewarding(key));
        let prompts: Vec<Prompt> = candidates.iter().map(|candidate| candidate.prompt.clone()).collect();
        let ration = rations.map(|rations| rationed(rations, &prompts, rewarding.clone()));
        let rollouts = Rollouts { routed: self.records_experts(), ..self.rollouts };
        let (sampled, times) = rollouts.rationed(prompts, group_size, key, ration)?;
        let mut groups = StepGroups { times, ..StepGroups::default() };
        let last = sampled.len().checked_sub(1).map(|last| &candidates[last]);
        groups.prompts_used = last.map_or(self.progress.prompts_used, |last| last.end);
        groups.passed_over = groups.prompts_used - self.progress.prompts_used - sampled.len() as u64;
        if self.config.grpo.advantage == AdvantageKind::Greedy {
            let prompts = sampled.iter().map(|group| group.prompt.clone()).collect();
            self.sample_greedy(prompts, key, &mut groups)?;
        }
        for mut group in sampled {
            let signal = rewarding.set(&mut group);
            // A teacher has something to say of every completion.
            let kept = signal || !self.config.grpo.drop_zero_signal || self.config.teacher.is_some();
            if kept && groups.kept.len() < rations.map_or(usize::MAX, |rations| rations.wanted) {
                groups.kept.push(groups.all.len());
            }
            groups.signal.push(signal);
            groups.all.push(group);
        }
        Ok(groups)
    }

    /// Whether completions are to come with the experts that their tokens went to. Servers are asked for them where they
    /// are replayed alone.
    fn records_experts(&self) -> bool {
        self.config.servers.is_none() || self.config.grpo.router_replay == RouterReplay::Rollout
    }

    /// How the step's completions are shared out, where groups may differ in size or number.
    fn rations(&self) -> Option<Rations> {
        let TrainConfig { rollout, grpo, teacher, .. } = self.config;
        let (wanted, group_size, resample) = (rollout.prompts_per_step, rollout.group_size, grpo.resample_max);
        let dropped = grpo.drop_zero_signal && teacher.is_none();
        let probe = if rollout.probe > 0 { rollout.probe } else { group_size };
        let (goes_on, completions) = (rollout.goes_on, wanted * group_size * (1 + resample));
        // Groups that stop once they have a signal are smaller: as many are taken as there are completions for.
        let wanted = if probe < group_size && goes_on == GoesOn::Flat { completions } else { wanted };
        let rations = Rations { probe, goes_on, group_size, wanted, completions };
        (dropped && (probe < group_size || resample > 0)).then_some(rations)
    }

    /// The prompts that may be asked, at least `count` of them, or those of one pass where that is enough.
    fn candidates(&self, count: usize, step: u64) -> Result<Vec<Candidate>> {
        let (mut candidates, mut end) = (Vec::new(), self.progress.prompts_used);
        while candidates.len() < count {
            let (prompts, passed) = self.next_prompts(end, step)?;
            // Those in the order of the run come one by one, those of a pool all at once.
            let one_by_one = prompts.len() as u64 == passed;
            let start = end;
            end += passed;
            let ends = (1..).map(|used| if one_by_one { start + used } else { end });
            candidates.extend(prompts.into_iter().zip(ends).map(|(prompt, end)| Candidate { prompt, end }));
        }
        Ok(candidates)
    }

    /// What makes the rewards of a step.
    fn rewarding(&self, key: SampleKey) -> Rewarding {
        Rewarding {
            rubrics: self.rollouts.judge.rubrics().to_vec(),
            key,
            control: self.config.control,
            truncated: self.config.grpo.truncated(),
            max_new_tokens: self.rollouts.sampling.max_new_tokens,
        }
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

    /// The most likely completion of each prompt, judged as the others are  (ReMax, arXiv:2310.10505).
    fn sample_greedy(&self, prompts: Vec<Prompt>, key: SampleKey, groups: &mut StepGroups) -> Result<()> {
        let sampling = Sampling { temperature: 0.0, ..self.rollouts.sampling.clone() };
        let rollouts = Rollouts { sampling: &sampling, ..self.rollouts };
        let key = SampleKey { step: key.step + GREEDY, ..key };
        let rewarding = self.rewarding(key);
        let (sampled, times) = rollouts.groups(prompts, 1, key)?;
        groups.times.add(times);
        for mut group in sampled {
            rewarding.set(&mut group);
            groups.greedy.append(&mut group.rollouts);
        }
        Ok(())
    }
}

/// A prompt that may come to be asked, and how far the run's order has come with it.
struct Candidate {
    prompt: Prompt,
    end: u64,
}

/// The order of completions that are shared out by their rewards.
fn rationed(rations: Rations, prompts: &[Prompt], rewarding: Arc<Rewarding>) -> Arc<dyn Ration> {
    let places: Vec<(u64, usize)> = prompts.iter().map(|prompt| (prompt.index, prompt.source)).collect();
    let count = places.len();
    let reward = move |prompt: usize, sample: usize, rollout: &Rollout| {
        let (index, source) = places[prompt];
        rewarding.reward(index, source, sample, rollout)
    };
    Arc::new(Rationed::new(rations, count, Box::new(reward)))
}

/// What makes rewards of the rubric's: a control, or the limit of tokens.
struct Rewarding {
    rubrics: Vec<Arc<Rubric>>,
    key: SampleKey,
    control: Control,
    truncated: Truncated,
    max_new_tokens: usize,
}

impl Rewarding {
    /// The reward of a completion; what was not judged has none.
    fn reward(&self, index: u64, source: usize, sample: usize, rollout: &Rollout) -> Option<f32> {
        let SampleKey { seed, step } = self.key;
        // The most likely completions have a key beyond all steps; their rewards are those of the step.
        let reward = self.rubrics[source].total_at(&rollout.score, step % GREEDY);
        Some(match rollout.reward {
            None => return None,
            Some(_) if self.control == Control::CoinFlip => {
                (Counted::new(&[seed, step, index, sample as u64, 0xc014]).next_u64() & 1) as f32
            }
            Some(_) if self.truncated == Truncated::Zero && is_truncated(rollout) => 0.0,
            Some(_) => return reward,
        })
    }

    /// Gives a group its rewards and penalties on length, and returns whether it has a signal.
    fn set(&self, group: &mut Group) -> bool {
        let (index, source) = (group.prompt.index, group.prompt.source);
        for (sample, rollout) in group.rollouts.iter_mut().enumerate().filter(|(_, r)| r.reward.is_some()) {
            rollout.reward = self.reward(index, source, sample, rollout);
            if let (Control::None, Truncated::SoftOverlong { buffer }) = (self.control, self.truncated) {
                rollout.penalty = soft_overlong(rollout.completion.sampled_len(), self.max_new_tokens, buffer);
            }
        }
        has_signal(&group.rewards())
    }
}

/// Whether a completion reached the limit of new tokens.
pub(super) fn is_truncated(rollout: &Rollout) -> bool {
    rollout.completion.finish == FinishReason::Length
}
