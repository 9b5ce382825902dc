//! Completions that another policy sampled than the one that is updated: another engine, an older version, another
//! precision.
//!
//! With `w_t = pi_old(o_t) / pi_sampler(o_t)`, `pi_old` the policy before the first update of the step, the objective of a
//! token is multiplied by a weight made of `w`, and completions that lie too far away are left out. The weights are
//! constants of the step. Where sampler and policy are one, every weight is exactly 1 and nothing is left out.

use serde::{Deserialize, Serialize};

use super::batch::TrainSample;
use super::kl::k3;
use crate::batch::{MicroBatch, TokenStats};

/// What the objective of a token is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorrectionKind {
    /// Nothing: `pi_old` is taken to be the sampler.
    None,
    /// Nothing, but `pi_old` is computed anew, so that ratios begin at 1.
    Recompute,
    /// `min(w_t, high)`  (truncated importance sampling, TIS: Ionides 2008; Yao et al. 2025, "Your efficient RL framework
    /// secretly brings you off-policy RL training").
    TruncateTokens,
    /// `w_t` where `low <= w_t <= high`, else 0  (IcePop of Ring-1T, arXiv:2510.18855).
    MaskTokens,
    /// `min(prod_t w_t, high)` for all tokens of a completion.
    TruncateSequences,
    /// `prod_t w_t` where `low <= prod_t w_t <= high`, else 0, for all tokens of a completion  (masked importance
    /// sampling, MIS: Liu et al. 2025, "When speed kills stability").
    MaskSequences,
}

/// Which completions are left out of the update, and of its denominators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reject {
    /// None.
    None,
    /// Those whose geometric mean of `w_t` is above `bound` or below `1 / bound`.
    MeanRatio,
    /// Those whose mean of `w_t - ln w_t - 1` is above `bound`.
    MeanKl,
    /// Those with a token whose `w_t - ln w_t - 1` is above `bound`.
    MaxKl,
}

impl CorrectionKind {
    /// Whether tokens are weighed.
    pub fn weighs(self) -> bool {
        !matches!(self, Self::None | Self::Recompute)
    }

    /// Whether small weights are masked.
    pub fn has_lower_bound(self) -> bool {
        matches!(self, Self::MaskTokens | Self::MaskSequences)
    }
}

/// A correction with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// What the weights are.
    pub kind: CorrectionKind,
    /// Below it a masked weight is 0.
    pub low: f64,
    /// Above it a weight is cut or masked.
    pub high: f64,
    /// What is left out.
    pub reject: Reject,
    /// How far is too far.
    pub bound: f64,
}

/// What a correction did to the completions of a step: sums over those that counted before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Corrected {
    /// Tokens.
    pub tokens: u64,
    /// Sum of the weights of the tokens that are left.
    pub weight: f64,
    /// Sum of their squares.
    pub squares: f64,
    /// Tokens whose weight is 0.
    pub masked: u64,
    /// Completions.
    pub samples: u64,
    /// Of these, left out.
    pub rejected: u64,
    /// Sum of `w_t - ln w_t - 1` over all tokens.
    pub kl: f64,
}

impl Corrected {
    /// `(sum w)^2 / (n sum w^2)`: the share of tokens that would weigh as much if all weighed the same; 1 where no weight
    /// differs from another.
    pub fn effective_share(&self) -> f64 {
        let all = self.tokens as f64 * self.squares;
        if all > 0.0 { self.weight * self.weight / all } else { 0.0 }
    }
}

impl Correction {
    /// Whether `pi_old` has to be computed.
    pub fn needs_old(&self) -> bool {
        self.kind != CorrectionKind::None
    }

    /// Weighs the tokens of a step's samples by `old_logprobs`, and masks the samples that are rejected.
    ///
    /// # Panics
    /// If a sample has no `old_logprobs`.
    pub fn apply(&self, samples: &mut [TrainSample]) -> Corrected {
        let mut done = Corrected::default();
        for sample in samples.iter_mut().filter(|sample| sample.counts()) {
            let old = sample.old_logprobs.as_ref().expect("log-probabilities by the policy before the step");
            let log_weights = log_weights(old, &sample.rollout_logprobs);
            let weights = self.weights(&log_weights);
            done.samples += 1;
            done.tokens += weights.len() as u64;
            done.kl += log_weights.iter().map(|log_weight| k3(*log_weight)).sum::<f64>();
            sample.masked = self.rejects(&log_weights);
            done.rejected += u64::from(sample.masked);
            if !sample.masked {
                done.weight += weights.iter().sum::<f64>();
                done.squares += weights.iter().map(|weight| weight * weight).sum::<f64>();
                done.masked += weights.iter().filter(|weight| **weight == 0.0).count() as u64;
            }
            sample.corrections = Some(weights.iter().map(|weight| *weight as f32).collect());
        }
        done
    }

    /// The micro-batch of a step's only update, by what its own forward says of it: `pi_old` is the policy as it is now,
    /// so that every ratio is 1, and its tokens weigh what [`Self::apply`] would have made them weigh.
    pub fn weighed(&self, micro: &MicroBatch, now: &TokenStats) -> MicroBatch {
        let mut corrections = vec![1.0; now.logprobs.len()];
        for rows in &micro.samples {
            let log_weights = log_weights(&now.logprobs[rows.clone()], &micro.rollout_logprobs[rows.clone()]);
            let weights = self.weights(&log_weights);
            corrections[rows.clone()].iter_mut().zip(weights).for_each(|(place, weight)| *place = weight as f32);
        }
        MicroBatch { old_logprobs: now.logprobs.clone(), corrections, ..micro.clone() }
    }

    fn weights(&self, log_weights: &[f64]) -> Vec<f64> {
        let (cut, mask) = (
            |weight: f64| weight.min(self.high),
            |weight: f64| if (self.low..=self.high).contains(&weight) { weight } else { 0.0 },
        );
        let sequence = log_weights.iter().sum::<f64>().exp();
        match self.kind {
            CorrectionKind::None | CorrectionKind::Recompute => vec![1.0; log_weights.len()],
            CorrectionKind::TruncateTokens => log_weights.iter().map(|log_weight| cut(log_weight.exp())).collect(),
            CorrectionKind::MaskTokens => log_weights.iter().map(|log_weight| mask(log_weight.exp())).collect(),
            CorrectionKind::TruncateSequences => vec![cut(sequence); log_weights.len()],
            CorrectionKind::MaskSequences => vec![mask(sequence); log_weights.len()],
        }
    }

    fn rejects(&self, log_weights: &[f64]) -> bool {
        let mean =
            |value: fn(f64) -> f64| log_weights.iter().copied().map(value).sum::<f64>() / log_weights.len() as f64;
        match self.reject {
            Reject::None => false,
            Reject::MeanRatio => mean(|log_weight| log_weight).abs() > self.bound.ln(),
            Reject::MeanKl => mean(k3) > self.bound,
            Reject::MaxKl => log_weights.iter().any(|log_weight| k3(*log_weight) > self.bound),
        }
    }
}

/// `ln w_t` of the tokens of a completion.
fn log_weights(old: &[f32], sampled: &[f32]) -> Vec<f64> {
    old.iter().zip(sampled).map(|(old, sampled)| f64::from(*old) - f64::from(*sampled)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(weights: &[f64]) -> TrainSample {
        TrainSample {
            tokens: vec![0; 1 + weights.len()],
            prompt_len: 1,
            rollout_logprobs: vec![-1.0; weights.len()],
            old_logprobs: Some(weights.iter().map(|weight| (weight.ln() - 1.0) as f32).collect()),
            advantages: vec![1.0; weights.len()],
            ..TrainSample::default()
        }
    }

    fn apply(kind: CorrectionKind, reject: Reject, bound: f64, weights: &[f64]) -> (TrainSample, Corrected) {
        let mut samples = [sample(weights)];
        let done = Correction { kind, low: 0.5, high: 2.0, reject, bound }.apply(&mut samples);
        let [sample] = samples;
        (sample, done)
    }

    #[test]
    fn weights_are_cut_and_masked_as_each_kind_says() {
        for (kind, expected) in [
            (CorrectionKind::Recompute, [1.0, 1.0, 1.0]),
            (CorrectionKind::TruncateTokens, [0.25, 1.5, 2.0]),
            (CorrectionKind::MaskTokens, [0.0, 1.5, 0.0]),
            (CorrectionKind::TruncateSequences, [1.5; 3]),
            (CorrectionKind::MaskSequences, [1.5; 3]),
        ] {
            let (sample, done) = apply(kind, Reject::None, 1.0, &[0.25, 1.5, 4.0]);
            let found = sample.corrections.unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{kind:?}: {found:?}");
            let masked = expected.iter().filter(|weight| **weight == 0.0).count() as u64;
            assert_eq!((done.tokens, done.masked, done.samples, done.rejected), (3, masked, 1, 0), "{kind:?}");
        }
        for (weights, expected) in [(&[2.0, 1.5], 0.0), (&[0.5, 0.5], 0.0), (&[0.5, 1.5], 0.75)] {
            let (sample, _) = apply(CorrectionKind::MaskSequences, Reject::None, 1.0, weights);
            assert!((sample.corrections.unwrap()[1] - expected).abs() < 1e-6, "{weights:?}");
        }
        let (sample, _) = apply(CorrectionKind::TruncateSequences, Reject::None, 1.0, &[2.0, 1.5]);
        assert_eq!(sample.corrections.unwrap(), [2.0, 2.0]);
    }

    #[test]
    fn completions_too_far_away_are_left_out_with_their_place_in_the_denominators() {
        // Geometric mean sqrt(3/8); k3 of 1/4: 0.64, of 1.5: 0.09.
        let weights = [0.25, 1.5];
        for (reject, bound, rejected) in [
            (Reject::None, 1.0, false),
            (Reject::MeanRatio, 1.7, false),
            (Reject::MeanRatio, 1.6, true),
            (Reject::MeanKl, 0.37, false),
            (Reject::MeanKl, 0.36, true),
            (Reject::MaxKl, 0.65, false),
            (Reject::MaxKl, 0.63, true),
        ] {
            let (sample, done) = apply(CorrectionKind::TruncateTokens, reject, bound, &weights);
            assert_eq!((sample.masked, done.rejected), (rejected, u64::from(rejected)), "{reject:?} {bound}");
        }
    }

    #[test]
    fn the_effective_share_falls_as_weights_differ_and_no_difference_changes_nothing() {
        let (_, done) = apply(CorrectionKind::TruncateTokens, Reject::None, 1.0, &[0.5, 1.5]);
        assert!((done.effective_share() - 4.0 / (2.0 * 2.5)).abs() < 1e-6, "{done:?}");
        for kind in [CorrectionKind::TruncateTokens, CorrectionKind::MaskTokens, CorrectionKind::MaskSequences] {
            for reject in [Reject::MeanRatio, Reject::MeanKl, Reject::MaxKl] {
                let (sample, done) = apply(kind, reject, 1.0 + 1e-12, &[1.0; 4]);
                assert_eq!((sample.corrections.unwrap(), sample.masked), (vec![1.0; 4], false));
                let expected = Corrected { tokens: 4, weight: 4.0, squares: 4.0, samples: 1, ..Corrected::default() };
                assert_eq!((done, done.effective_share()), (expected, 1.0));
            }
        }
        let mut masked = [TrainSample { masked: true, ..sample(&[9.0]) }];
        let correction =
            Correction { kind: CorrectionKind::MaskTokens, low: 0.5, high: 2.0, reject: Reject::None, bound: 1.0 };
        assert_eq!(correction.apply(&mut masked), Corrected::default());
    }
}
