//! Rewards to advantages: how much better each rollout is than what it is compared with, which is its group, the batch or
//! the most likely completion.
//!
//! A new one is a word of [`AdvantageKind`] with its formula and paper, an arm of [`advantages`] and a function: over one
//! group in `group.rs`, over a batch in `batch.rs`. Leaves to others where rewards come from and what is done with groups
//! that teach nothing.

mod batch;
mod group;

use serde::{Deserialize, Serialize};

/// Added to a standard deviation before dividing, so that a group of nearly equal rewards stays finite.
const STD_EPSILON: f64 = 1e-6;

/// How a reward becomes relative. `r_i` are the `G` rewards of one group: those of the rollouts that were judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageKind {
    /// `A_i = (r_i - mean(r)) / (std(r) + 1e-6)`  (GRPO, arXiv:2402.03300).
    ///
    /// The sample standard deviation, over `G - 1`. Very easy and very hard prompts weigh more than in [`Self::Mean`].
    MeanStd,
    /// `A_i = r_i - mean(r)`  (Dr. GRPO, arXiv:2503.20783; GPG, arXiv:2504.02546).
    Mean,
    /// `A_i = r_i - mean(r_j, j != i) = G / (G - 1) * (r_i - mean(r))`  (RLOO, arXiv:2402.14740).
    LeaveOneOut,
    /// `A_i = (r_i - mean(r)) / (std(all rewards of the batch) + 1e-6)`  (Lite PPO, arXiv:2508.08221).
    ///
    /// The mean is the group's; the sample standard deviation is that of every reward of the batch around the mean of
    /// the batch.
    BatchStd,
    /// `A_i = r_i - sum_j |o_j| r_j / sum_j |o_j|`  (OPO, arXiv:2505.23585).
    ///
    /// The baseline of the least variance where the squared length of a completion's gradient grows with its tokens.
    LengthWeighted,
    /// `A_i = r_i - r(greedy)`  (ReMax, arXiv:2310.10505), the reward of the most likely tokens' completion.
    ///
    /// One more completion of each prompt. A group of equal rewards teaches, too.
    Greedy,
    /// `A_t = (R_t - mean(R)) / sqrt(var(R) + 1e-8)` over all tokens of the batch, `R_t` the reward of the completion less
    /// the KL terms from token `t` on  (REINFORCE++, arXiv:2501.03262).
    Whitened,
    /// `r_i - mean(r)` of the group, then as [`Self::Whitened`]  (REINFORCE++-baseline, arXiv:2501.03262).
    GroupWhitened,
    /// Of each verifier `k` apart `A_ik = (r_ik - mean(r_k)) / (std(r_k) + 1e-6)` within the group; then
    /// `sum_k weight_k A_ik`, less its mean over the batch, over its deviation there  (GDPO, arXiv:2601.05242).
    Decoupled,
    /// What a completion adds to the chance that one of `k` is right, over that chance's deviation: with `N` completions,
    /// `n` of them wrong, `p = 1 - C(n, k) / C(N, k)`; `(1 - p) / sqrt(p (1 - p))` for a right one,
    /// `(1 - p - C(n - 1, k - 1) / C(N - 1, k - 1)) / sqrt(p (1 - p))` for a wrong one  (Pass@k training,
    /// arXiv:2508.10751). Right is a reward above 1/2.
    PassAtK,
    /// `A_i = max(r) - max(r_j, j != i)`: the best alone, by how much it is ahead  (arXiv:2503.19595).
    MaxAtK,
    /// `A_i = (r_i - mean(r)) / mean(r)`, 0 where the mean is not above 0  (MaxRL, arXiv:2602.02710).
    ///
    /// Of rewards 0 and 1, the gradient of the logarithm of the pass rate: hard prompts weigh more.
    MaxRl,
}

/// What a rollout brings to its advantage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Its reward; `None` where it was not judged.
    pub reward: Option<f32>,
    /// What each verifier of its rubric said; `None` where one did not judge.
    pub parts: Vec<Option<f32>>,
    /// Tokens of the completion.
    pub length: usize,
    /// The KL term of each token, to be taken from its reward; empty where none stands there.
    pub kl: Vec<f32>,
}

/// What a group brings to its advantages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// In the order of their sample numbers.
    pub rollouts: Vec<Outcome>,
    /// Weights of the verifiers.
    pub weights: Vec<f32>,
    /// Reward of the most likely tokens' completion, where one was sampled and judged.
    pub greedy: Option<f32>,
}

impl AdvantageKind {
    /// Whether a group of equal rewards may still teach, because it is compared with more than itself.
    pub fn looks_beyond_the_group(self) -> bool {
        matches!(self, Self::Greedy | Self::Whitened | Self::Decoupled)
    }
}

/// The advantage of every token, in the shape of `groups`. A rollout without a reward was not judged: it is in no mean and
/// in no deviation, and its advantage is 0.
///
/// Sums are taken in f64. A rollout that is the only judged one of its group has nothing to be compared with: its
/// advantage is 0, but for kinds that look beyond the group. So is, exactly, every advantage of a group whose rewards are
/// all equal. `k` is that of [`AdvantageKind::PassAtK`].
pub fn advantages(groups: &[Outcomes], kind: AdvantageKind, k: usize) -> Vec<Vec<Vec<f32>>> {
    match kind {
        AdvantageKind::Whitened => batch::whitened(groups, &batch::returns(groups)),
        AdvantageKind::GroupWhitened => {
            batch::whitened(groups, &spread(groups, &relative(groups, AdvantageKind::Mean, k)))
        }
        AdvantageKind::Decoupled => spread(groups, &batch::decoupled(groups)),
        _ => spread(groups, &relative(groups, kind, k)),
    }
}

/// The advantage of each rollout, one group after the other.
fn relative(groups: &[Outcomes], kind: AdvantageKind, k: usize) -> Vec<Vec<f32>> {
    let penalised: Vec<Vec<Option<f32>>> =
        groups.iter().map(|group| group.rollouts.iter().map(penalised).collect()).collect();
    let batch_std = sample_std(penalised.iter().flatten().flatten().copied());
    let of_group = |(group, rewards): (&Outcomes, &Vec<Option<f32>>)| {
        let judged = group::Judged::of(group, rewards);
        let alone = judged.rewards.len() < 2 && kind != AdvantageKind::Greedy;
        let found = if alone { vec![0.0; judged.rewards.len()] } else { judged.advantages(kind, batch_std, k) };
        let mut found = found.into_iter();
        rewards.iter().map(|reward| reward.and_then(|_| found.next()).map_or(0.0, |a| a as f32)).collect()
    };
    groups.iter().zip(&penalised).map(of_group).collect()
}

/// A rollout's reward less its KL terms.
fn penalised(rollout: &Outcome) -> Option<f32> {
    let kl: f64 = rollout.kl.iter().copied().map(f64::from).sum();
    rollout.reward.map(|reward| if rollout.kl.is_empty() { reward } else { (f64::from(reward) - kl) as f32 })
}

/// Gives each token the advantage of its rollout.
fn spread(groups: &[Outcomes], advantages: &[Vec<f32>]) -> Vec<Vec<Vec<f32>>> {
    let of_group = |(group, advantages): (&Outcomes, &Vec<f32>)| {
        group.rollouts.iter().zip(advantages).map(|(rollout, advantage)| vec![*advantage; rollout.length]).collect()
    };
    groups.iter().zip(advantages).map(of_group).collect()
}

/// Whether a group teaches anything: do the rewards of its judged rollouts differ?
///
/// To filter as DAPO does (arXiv:2503.14476, `0 < #correct < G`), ask before a length penalty is added to the rewards.
pub fn has_signal(rewards: &[Option<f32>]) -> bool {
    let mut judged = rewards.iter().flatten();
    let first = judged.next();
    judged.any(|reward| Some(reward) != first)
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
mod tests;
