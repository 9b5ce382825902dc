//! Estimates of the divergence of the policy from the reference, token by token.

use serde::{Deserialize, Serialize};

/// An estimate, from one sampled token, of the divergence of the policy from the reference.
///
/// With `d = logprob - ref_logprob`; all have their expectation under the policy's own samples in mind
/// (<http://joschu.net/blog/kl-approx.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `d`. Unbiased as a value. As a loss term its gradient is 1 at every token, whatever the reference says: it is
    /// noise of mean 0 and holds the policy nowhere. For measuring, and for rewards.
    K1,
    /// `d^2 / 2`, gradient `d`. Biased as a value; on-policy its gradient is that of the divergence.
    K2,
    /// `u - ln u - 1` with `u = exp(-d)`, gradient `1 - u`. Unbiased and never negative  (GRPO, arXiv:2402.03300).
    K3,
}

/// Where the KL term stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlPlace {
    /// In the loss, beside the objective of each token  (GRPO, arXiv:2402.03300).
    Loss,
    /// In the reward of each token, before advantages are taken  (REINFORCE++, arXiv:2501.03262).
    Reward,
}

impl KlEstimator {
    /// The estimate and its derivative with respect to the policy's log-probability, given `d`.
    pub fn estimate(self, difference: f64) -> (f64, f64) {
        match self {
            Self::K1 => (difference, 1.0),
            Self::K2 => (0.5 * difference * difference, difference),
            Self::K3 => (k3(-difference), -(-difference).exp_m1()),
        }
    }
}

/// `u - ln u - 1` for `u = exp(log_u)`, exact near `u = 1`.
pub(super) fn k3(log_u: f64) -> f64 {
    log_u.exp_m1() - log_u
}
