//! The ratio of the policy now to that before the first update of the step, by token or by completion, and the way of a
//! slope back through it.

use serde::{Deserialize, Serialize};

/// What the ratio of a token is, with `l_t = logprob_t - old_logprob_t` over the `|o|` tokens of its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ratio {
    /// `rho_t = exp(l_t)`  (PPO, arXiv:1707.06347).
    Token,
    /// `s = exp(1/|o| sum_t l_t)` for every token, with its gradient  (GSPO, arXiv:2507.18071, equation 7).
    Sequence,
    /// `sg[s] exp(l_t) / sg[exp(l_t)]`: the value of `s`, and each token's own gradient  (GSPO-token, arXiv:2507.18071,
    /// equation 14).
    SequenceToken,
    /// `exp(sum_t l_t)`, the ratio of the completion's probabilities, for every token  (RLOO, arXiv:2402.14740).
    Product,
}

impl Ratio {
    /// The logarithm of each token's ratio, of one completion.
    pub fn log_ratios(self, differences: &[f64]) -> Vec<f64> {
        let sum = || differences.iter().sum::<f64>();
        match self {
            Self::Token => differences.to_vec(),
            Self::Sequence | Self::SequenceToken => {
                vec![sum() / differences.len().max(1) as f64; differences.len()]
            }
            Self::Product => vec![sum(); differences.len()],
        }
    }

    /// From derivatives with respect to the logarithms of the ratios to derivatives with respect to the
    /// log-probabilities, in place.
    pub fn backward(self, slopes: &mut [f64]) {
        let share = match self {
            Self::Token | Self::SequenceToken => return,
            Self::Sequence => 1.0 / slopes.len().max(1) as f64,
            Self::Product => 1.0,
        };
        let slope = share * slopes.iter().sum::<f64>();
        slopes.fill(slope);
    }

    /// Whether a token's ratio has its gradient through the token alone.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Token | Self::SequenceToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_go_back_through_each_ratio_as_differences_say() {
        let (at, weights) = ([0.3, -0.2, 0.6], [0.5, 1.0, -2.0]);
        for ratio in [Ratio::Token, Ratio::Sequence, Ratio::Product] {
            let value = |x: &[f64]| -> f64 {
                ratio.log_ratios(x).iter().zip(weights).map(|(log_ratio, weight)| weight * log_ratio.exp()).sum()
            };
            let mut slopes: Vec<f64> =
                ratio.log_ratios(&at).iter().zip(weights).map(|(log_ratio, weight)| weight * log_ratio.exp()).collect();
            ratio.backward(&mut slopes);
            for t in 0..3 {
                let (mut up, mut down) = (at, at);
                (up[t], down[t]) = (at[t] + 1e-6, at[t] - 1e-6);
                let slope = (value(&up) - value(&down)) / 2e-6;
                assert!((slopes[t] - slope).abs() < 1e-8, "{ratio:?}, token {t}: {} != {slope}", slopes[t]);
            }
        }
        // The value of the completion's, the slope of the token's own.
        let mut slopes = vec![1.0, 2.0, 3.0];
        Ratio::SequenceToken.backward(&mut slopes);
        assert_eq!(slopes, [1.0, 2.0, 3.0]);
        assert_eq!(Ratio::SequenceToken.log_ratios(&at), Ratio::Sequence.log_ratios(&at));
    }
}
