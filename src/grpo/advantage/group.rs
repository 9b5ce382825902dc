//! Advantages within one group.

use super::{AdvantageKind, Outcomes, STD_EPSILON, mean, sample_std};

/// The rollouts of a group that were judged.
pub(super) struct Judged {
    /// Their rewards, less KL terms where these stand in the reward.
    pub(super) rewards: Vec<f32>,
    lengths: Vec<usize>,
    greedy: Option<f32>,
}

impl Judged {
    /// Of a group with its `rewards`.
    pub(super) fn of(group: &Outcomes, rewards: &[Option<f32>]) -> Self {
        let judged = || rewards.iter().zip(&group.rollouts).filter_map(|(reward, rollout)| Some(((*reward)?, rollout)));
        Self {
            rewards: judged().map(|(reward, _)| reward).collect(),
            lengths: judged().map(|(_, rollout)| rollout.length).collect(),
            greedy: group.greedy,
        }
    }

    /// One for each of them, in order.
    pub(super) fn advantages(&self, kind: AdvantageKind, batch_std: f64, k: usize) -> Vec<f64> {
        let size = self.rewards.len() as f64;
        let mean = mean(self.rewards.iter().copied());
        let relative = |baseline: f64, scale: f64| self.each(move |reward| (reward - baseline) * scale);
        match kind {
            AdvantageKind::MeanStd => relative(mean, 1.0 / (sample_std(self.rewards.iter().copied()) + STD_EPSILON)),
            AdvantageKind::LeaveOneOut => relative(mean, size / (size - 1.0)),
            AdvantageKind::BatchStd => relative(mean, 1.0 / (batch_std + STD_EPSILON)),
            AdvantageKind::LengthWeighted => relative(self.length_weighted_mean(mean), 1.0),
            AdvantageKind::Greedy => {
                self.greedy.map_or_else(|| vec![0.0; self.rewards.len()], |greedy| relative(f64::from(greedy), 1.0))
            }
            AdvantageKind::PassAtK => self.pass_at_k(k),
            AdvantageKind::MaxAtK => self.ahead(),
            AdvantageKind::MaxRl => relative(mean, if mean > 0.0 { 1.0 / mean } else { 0.0 }),
            // Of a batch these are what is left to be normalised.
            AdvantageKind::Mean | AdvantageKind::Whitened | AdvantageKind::GroupWhitened | AdvantageKind::Decoupled => {
                relative(mean, 1.0)
            }
        }
    }

    fn each(&self, advantage: impl Fn(f64) -> f64) -> Vec<f64> {
        self.rewards.iter().map(|reward| advantage(f64::from(*reward))).collect()
    }

    /// `sum |o_j| r_j / sum |o_j|`; where all rewards are equal, or nothing was sampled, the mean, so that equal rewards
    /// give exactly 0.
    fn length_weighted_mean(&self, mean: f64) -> f64 {
        let tokens: usize = self.lengths.iter().sum();
        if tokens == 0 || self.rewards.iter().all(|reward| *reward == self.rewards[0]) {
            return mean;
        }
        let weighed =
            self.rewards.iter().zip(&self.lengths).map(|(reward, length)| f64::from(*reward) * *length as f64);
        weighed.sum::<f64>() / tokens as f64
    }

    fn pass_at_k(&self, k: usize) -> Vec<f64> {
        let (all, wrong) = (self.rewards.len(), self.rewards.iter().filter(|reward| **reward <= 0.5).count());
        // Of k drawn from `all` none is right.
        let fails = share_without(all, wrong, k);
        let deviation = (fails * (1.0 - fails)).sqrt();
        if deviation == 0.0 {
            return vec![0.0; all];
        }
        let fails_with_a_wrong_one = share_without(all - 1, wrong - 1, k - 1);
        self.each(|reward| if reward > 0.5 { fails / deviation } else { (fails - fails_with_a_wrong_one) / deviation })
    }

    /// By how much the best is ahead of all others.
    fn ahead(&self) -> Vec<f64> {
        let mut sorted: Vec<f64> = self.each(|reward| reward);
        sorted.sort_by(|a, b| b.total_cmp(a));
        let (best, second) = (sorted[0], sorted[1]);
        self.each(|reward| if reward == best { best - second } else { 0.0 })
    }
}

/// `C(wrong, k) / C(all, k)`: the share of the choices of `k` that are all wrong.
fn share_without(all: usize, wrong: usize, k: usize) -> f64 {
    if k > wrong {
        return 0.0;
    }
    (0..k).map(|taken| (wrong - taken) as f64 / (all - taken) as f64).product()
}
