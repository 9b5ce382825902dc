//! Advantages that are normalised over a batch.

use super::{Outcome, Outcomes, STD_EPSILON, mean, sample_std};

/// Beside the variance of all tokens, so that equal ones stay finite.
const VARIANCE_EPSILON: f64 = 1e-8;

/// What each token has before it: the reward of its completion less the KL terms from the token on.
pub(super) fn returns(groups: &[Outcomes]) -> Vec<Vec<Vec<f32>>> {
    let of_rollout = |rollout: &Outcome| {
        let reward = rollout.reward.unwrap_or_default();
        let mut left = f64::from(reward);
        let mut returns = vec![reward; rollout.length];
        for (place, kl) in rollout.kl.iter().enumerate().rev() {
            left -= f64::from(*kl);
            returns[place] = left as f32;
        }
        returns
    };
    groups.iter().map(|group| group.rollouts.iter().map(of_rollout).collect()).collect()
}

/// `(x - mean) / sqrt(var + 1e-8)` over all `tokens` of the judged rollouts of `groups`, `var` over one less than there
/// are; 0 for those of the others.
pub(super) fn whitened(groups: &[Outcomes], tokens: &[Vec<Vec<f32>>]) -> Vec<Vec<Vec<f32>>> {
    let rollouts = || groups.iter().flat_map(|group| &group.rollouts).zip(tokens.iter().flatten());
    let counted = || rollouts().filter(|(rollout, _)| rollout.reward.is_some()).flat_map(|(_, tokens)| tokens).copied();
    let (mean, std) = (mean(counted()), sample_std(counted()));
    let scale = 1.0 / (std * std + VARIANCE_EPSILON).sqrt();
    let of_rollout = |(rollout, tokens): (&Outcome, &Vec<f32>)| {
        let whiten = |x: &f32| if rollout.reward.is_some() { ((f64::from(*x) - mean) * scale) as f32 } else { 0.0 };
        tokens.iter().map(whiten).collect()
    };
    let of_group =
        |(group, tokens): (&Outcomes, &Vec<Vec<f32>>)| group.rollouts.iter().zip(tokens).map(of_rollout).collect();
    groups.iter().zip(tokens).map(of_group).collect()
}

/// The verdicts of each verifier, normalised within the group, weighed, added up, and normalised over the batch.
pub(super) fn decoupled(groups: &[Outcomes]) -> Vec<Vec<f32>> {
    let sums: Vec<Vec<Option<f32>>> = groups.iter().map(sum_of_normalised).collect();
    let judged = || sums.iter().flatten().flatten().copied();
    let (mean, scale) = (mean(judged()), 1.0 / (sample_std(judged()) + STD_EPSILON));
    let normalise = |sum: &Option<f32>| sum.map_or(0.0, |sum| ((f64::from(sum) - mean) * scale) as f32);
    sums.iter().map(|group| group.iter().map(normalise).collect()).collect()
}

fn sum_of_normalised(group: &Outcomes) -> Vec<Option<f32>> {
    let judged = || group.rollouts.iter().filter(|rollout| rollout.reward.is_some());
    let of_part = |part: usize| {
        let said = || judged().filter_map(move |rollout| *rollout.parts.get(part)?);
        (mean(said()), 1.0 / (sample_std(said()) + STD_EPSILON))
    };
    let parts: Vec<(f64, f64)> = (0..group.weights.len()).map(of_part).collect();
    let sum = |rollout: &Outcome| {
        let terms = parts.iter().zip(&group.weights).zip(&rollout.parts);
        let terms = terms.filter_map(|(((mean, scale), weight), said)| {
            said.map(|said| f64::from(*weight) * (f64::from(said) - mean) * scale)
        });
        rollout.reward.map(|_| terms.sum::<f64>() as f32)
    };
    group.rollouts.iter().map(sum).collect()
}
