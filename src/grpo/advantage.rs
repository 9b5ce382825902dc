//! Rewards of a group to advantages: how much better each rollout is than its siblings.
//!
//! Leaves to others where rewards come from and what is done with groups that teach nothing.

use serde::{Deserialize, Serialize};

/// Added to a standard deviation before dividing, so that a group of nearly equal rewards stays finite.
const STD_EPSILON: f64 = 1e-6;

/// How a reward becomes relative to its group. `r_i` are the `G` rewards of one group: those of the rollouts that were
/// judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageKind {
    /// `A_i = (r_i - mean(r)) / (std(r) + 1e-6)`  (GRPO, arXiv:2402.03300).
    ///
    /// The sample standard deviation, over `G - 1`. Very easy and very hard prompts weigh more than in [`Self::Mean`].
    MeanStd,
    /// `A_i = r_i - mean(r)`  (Dr. GRPO, arXiv:2503.20783).
    Mean,
    /// `A_i = r_i - mean(r_j, j != i) = G / (G - 1) * (r_i - mean(r))`  (RLOO, arXiv:2402.14740).
    LeaveOneOut,
    /// `A_i = (r_i - mean(r)) / (std(all rewards of the batch) + 1e-6)`  (Lite PPO, arXiv:2508.08221).
    ///
    /// The mean is the group's; the sample standard deviation is that of every reward of the batch around the mean of
    /// the batch.
    BatchStd,
}

/// The advantages of a batch of groups, in the shape of `groups`. A rollout without a reward was not judged: it is in no
/// mean and in no deviation, and its advantage is 0.
///
/// Sums are taken in f64. A rollout that no other of its group was judged beside has no sibling to be compared with: its
/// advantage is 0. So is, exactly, every advantage of a group whose rewards are all equal.
pub fn advantages(groups: &[Vec<Option<f32>>], kind: AdvantageKind) -> Vec<Vec<f32>> {
    let batch_std = sample_std(groups.iter().flatten().flatten().copied());
    groups.iter().map(|rewards| group_advantages(rewards, kind, batch_std)).collect()
}

/// Whether a group teaches anything: do the rewards of its judged rollouts differ?
///
/// To filter as DAPO does (arXiv:2503.14476, `0 < #correct < G`), ask before a length penalty is added to the rewards.
pub fn has_signal(rewards: &[Option<f32>]) -> bool {
    let mut judged = rewards.iter().flatten();
    let first = judged.next();
    judged.any(|reward| Some(reward) != first)
}

fn group_advantages(rewards: &[Option<f32>], kind: AdvantageKind, batch_std: f64) -> Vec<f32> {
    let judged: Vec<f32> = rewards.iter().flatten().copied().collect();
    if judged.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let size = judged.len() as f64;
    let mean = mean(judged.iter().copied());
    let scale = match kind {
        AdvantageKind::MeanStd => 1.0 / (sample_std(judged.iter().copied()) + STD_EPSILON),
        AdvantageKind::Mean => 1.0,
        AdvantageKind::LeaveOneOut => size / (size - 1.0),
        AdvantageKind::BatchStd => 1.0 / (batch_std + STD_EPSILON),
    };
    rewards.iter().map(|reward| reward.map_or(0.0, |reward| ((f64::from(reward) - mean) * scale) as f32)).collect()
}

/// 0 for no values.
fn mean(values: impl Iterator<Item = f32>) -> f64 {
    let (count, sum) = values.fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + f64::from(value)));
    sum / count.max(1) as f64
}

/// `sqrt(sum (x - mean)^2 / (n - 1))`; 0 for fewer than two values.
fn sample_std(values: impl Iterator<Item = f32> + Clone) -> f64 {
    let mean = mean(values.clone());
    let (count, squares) = values.fold((0usize, 0.0), |(count, squares), value| {
        (count + 1, squares + (f64::from(value) - mean) * (f64::from(value) - mean))
    });
    if count < 2 { 0.0 } else { (squares / (count - 1) as f64).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AdvantageKind::{BatchStd, LeaveOneOut, Mean, MeanStd};

    const KINDS: [AdvantageKind; 4] = [MeanStd, Mean, LeaveOneOut, BatchStd];

    fn judged(rewards: &[f32]) -> Vec<Option<f32>> {
        rewards.iter().copied().map(Some).collect()
    }

    fn check(groups: &[&[f32]], kind: AdvantageKind, expected: &[&[f32]]) {
        let groups: Vec<Vec<Option<f32>>> = groups.iter().map(|group| judged(group)).collect();
        let found = advantages(&groups, kind);
        assert_eq!(found.len(), expected.len(), "{kind:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.len(), expected.len(), "{kind:?}");
            for (a, b) in found.iter().zip(*expected) {
                assert!((a - b).abs() < 1e-5, "{kind:?}: {found:?}, expected {expected:?}");
            }
        }
    }

    #[test]
    fn each_kind_gives_the_numbers_worked_by_hand() {
        // One right of four: mean 1/4; squares 9/16 + 3/16 = 3/4; over three, 1/4; std 1/2.
        let one_of_four: &[f32] = &[1.0, 0.0, 0.0, 0.0];
        check(&[one_of_four], MeanStd, &[&[1.5, -0.5, -0.5, -0.5]]);
        check(&[one_of_four], Mean, &[&[0.75, -0.25, -0.25, -0.25]]);
        check(&[one_of_four], LeaveOneOut, &[&[1.0, -1.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0]]);
        check(&[one_of_four], BatchStd, &[&[1.5, -0.5, -0.5, -0.5]]);
    }

    #[test]
    fn batch_std_divides_every_group_by_the_spread_of_the_batch() {
        // All eight rewards: mean 1/2; eight squares of 1/4 make 2; over seven; std sqrt(2/7).
        let std = (2.0f32 / 7.0).sqrt();
        check(
            &[&[1.0, 0.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 0.0]],
            BatchStd,
            &[&[0.75 / std, -0.25 / std, -0.25 / std, -0.25 / std], &[0.25 / std, 0.25 / std, 0.25 / std, -0.75 / std]],
        );
    }

    #[test]
    fn a_group_of_one_an_empty_group_and_equal_rewards_give_exactly_zero() {
        for kind in KINDS {
            let groups = [vec![1.0], vec![], vec![0.1; 7], vec![0.0; 3]].map(|group| judged(&group));
            let expected = vec![vec![0.0], vec![], vec![0.0; 7], vec![0.0; 3]];
            assert_eq!(advantages(&groups, kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn only_differing_rewards_are_a_signal() {
        for (rewards, signal) in [
            (&[Some(0.0), Some(1.0), Some(0.0)][..], true),
            (&[Some(1.0), Some(1.0), Some(0.0)], true),
            (&[None, Some(1.0), None, Some(0.0)], true),
            (&[Some(1.0), Some(1.0)], false),
            (&[None, Some(1.0), Some(1.0), Some(1.0)], false),
            (&[Some(1.0), None], false),
            (&[None, None], false),
            (&[Some(0.0)], false),
            (&[], false),
        ] {
            assert_eq!(has_signal(rewards), signal, "{rewards:?}");
        }
    }

    #[test]
    fn a_rollout_that_was_not_judged_has_advantage_zero_and_changes_no_other() {
        let groups = [vec![Some(1.0), Some(0.0), Some(0.0), Some(0.0)], vec![Some(0.25), Some(0.75)]];
        let holed = [
            vec![None, Some(1.0), Some(0.0), None, Some(0.0), Some(0.0), None],
            vec![Some(0.25), None, Some(0.75)],
            vec![None, None],
        ];
        for kind in KINDS {
            let whole = advantages(&groups, kind);
            for (found, (group, expected)) in advantages(&holed, kind).iter().zip(holed.iter().zip(&whole)) {
                let kept: Vec<f32> = found
                    .iter()
                    .zip(group)
                    .filter(|(_, reward)| reward.is_some())
                    .map(|(advantage, _)| *advantage)
                    .collect();
                assert_eq!(&kept, expected, "{kind:?}");
                let mut left_out = found.iter().zip(group).filter(|(_, reward)| reward.is_none());
                assert!(left_out.all(|(advantage, _)| advantage.to_bits() == 0), "{kind:?}: {found:?}");
            }
            for equal in [vec![None, Some(1.0), Some(1.0), Some(1.0)], vec![Some(0.1), None], vec![None; 3]] {
                let found = &advantages(std::slice::from_ref(&equal), kind)[0];
                assert!(found.iter().all(|advantage| *advantage == 0.0), "{kind:?}: {found:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_advantages_of_a_group_sum_to_zero(rewards in proptest::collection::vec(-2.0f32..2.0, 2..20)) {
            for kind in [MeanStd, Mean, LeaveOneOut] {
                let sum: f32 = advantages(&[judged(&rewards)], kind)[0].iter().sum();
                proptest::prop_assert!(sum.abs() < 1e-4, "{:?}: {}", kind, sum);
            }
        }
    }
}
