//! The loss of an update and its gradient, token by token: the objective, weighed, with the KL term.
//!
//! The gradient with respect to each token's log-probability is written out, so the model's backward starts from a
//! vector and no graph is built for the loss. Denominators and mask are already in the loss weights.

use serde::{Deserialize, Serialize};

use super::objective::{Clip, Objective, Surrogate};
use crate::batch::{LossStats, MicroBatch, TokenLosses, TokenStats};

/// An estimate, from one sampled token, of the divergence of the policy from the reference.
///
/// With `d = logprob - ref_logprob`; all have their expectation under the policy's own samples in mind
/// (<http://joschu.net/blog/kl-approx.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `d`. Unbiased as a value. As a loss term its gradient is 1 at every token, whatever the reference says: it is
    /// noise of mean 0 and holds the policy nowhere. For measuring, not for training.
    K1,
    /// `d^2 / 2`, gradient `d`. Biased as a value; on-policy its gradient is that of the divergence.
    K2,
    /// `u - ln u - 1` with `u = exp(-d)`, gradient `1 - u`. Unbiased and never negative  (GRPO, arXiv:2402.03300).
    K3,
}

impl KlEstimator {
    /// The estimate and its derivative with respect to the policy's log-probability.
    fn estimate(self, difference: f64) -> (f64, f64) {
        match self {
            Self::K1 => (difference, 1.0),
            Self::K2 => (0.5 * difference * difference, difference),
            Self::K3 => (k3(-difference), -(-difference).exp_m1()),
        }
    }
}

/// What the loss of an update is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossConfig {
    /// What of a token is raised.
    pub objective: Objective,
    /// Weight of the KL term; 0 needs no reference.
    pub kl_coef: f64,
    /// Which estimate the KL term is.
    pub kl_estimator: KlEstimator,
}

/// Loss, gradient and sums of one micro-batch, given what the policy says of each completion token.
///
/// ```text
/// loss = - sum_t w_t ( S_t - kl_coef * KL_t )               S_t: see Objective
/// d loss / d logprob_t = - w_t ( dS_t - kl_coef * dKL_t )
/// rho_t = exp(logprob_t - old_logprob_t)
/// ```
/// GRPO, arXiv:2402.03300, equation 3, with `w_t` for its denominators. Rows of weight 0 have no gradient and are in no
/// sum. Everything is computed in f64.
///
/// # Panics
/// If `now` has not one log-probability for each row, or a KL term is asked for without those of the reference.
pub fn token_losses(now: &TokenStats, micro: &MicroBatch, config: &LossConfig) -> TokenLosses {
    let rows = micro.loss_weights.len();
    assert_eq!(now.logprobs.len(), rows, "the loss needs one log-probability for each row");
    assert!(config.kl_coef == 0.0 || micro.ref_logprobs.is_some(), "a KL term needs reference log-probabilities");
    let mut losses = TokenLosses { gradient: vec![0.0; rows], stats: LossStats::default() };
    for row in (0..rows).filter(|&row| micro.loss_weights[row] != 0.0) {
        let weight = f64::from(micro.loss_weights[row]);
        let token = Token {
            logprob: f64::from(now.logprobs[row]),
            old_logprob: f64::from(micro.old_logprobs[row]),
            ref_logprob: micro.ref_logprobs.as_ref().map(|logprobs| f64::from(logprobs[row])),
            advantage: f64::from(micro.advantages[row]),
        };
        let term = token.term(config);
        losses.gradient[row] = (-weight * term.slope) as f32;
        let stats = &mut losses.stats;
        stats.loss -= weight * term.value;
        stats.tokens += 1;
        stats.entropy += f64::from(now.entropies[row]);
        stats.kl_ref += term.kl;
        stats.mismatch += k3(token.logprob - f64::from(micro.rollout_logprobs[row]));
        match term.clip {
            Clip::None => {}
            Clip::Low => stats.clipped_low += 1,
            Clip::High => stats.clipped_high += 1,
            Clip::Dual => stats.dual_clipped += 1,
        }
    }
    losses
}

/// What the objective of one token depends on.
#[derive(Clone, Copy)]
struct Token {
    logprob: f64,
    old_logprob: f64,
    ref_logprob: Option<f64>,
    advantage: f64,
}

/// The objective of one token with its KL term (to be raised), before its weight.
struct Term {
    value: f64,
    /// Derivative of `value` with respect to the log-probability.
    slope: f64,
    kl: f64,
    clip: Clip,
}

impl Token {
    fn term(&self, config: &LossConfig) -> Term {
        let ratio = (self.logprob - self.old_logprob).exp();
        let Surrogate { value, slope, clip } = config.objective.surrogate(ratio, self.advantage);
        let (kl, kl_slope) = match self.ref_logprob {
            Some(ref_logprob) => config.kl_estimator.estimate(self.logprob - ref_logprob),
            None => (0.0, 0.0),
        };
        // Without a KL term, a reference far away must not turn 0 * infinity into NaN.
        if config.kl_coef == 0.0 {
            return Term { value, slope, kl, clip };
        }
        Term { value: value - config.kl_coef * kl, slope: slope - config.kl_coef * kl_slope, kl, clip }
    }
}

/// `u - ln u - 1` for `u = exp(log_u)`, exact near `u = 1`.
fn k3(log_u: f64) -> f64 {
    log_u.exp_m1() - log_u
}

#[cfg(test)]
mod tests {
    use super::super::batch::{LossNorm, TrainSample, micro_batches};
    use super::*;
    use crate::batch::PromptLayout;

    const CLIP: Objective = Objective::Clip { low: 0.2, high: 0.28 };
    const DUAL: Objective = Objective::DualClip { low: 0.2, high: 0.28, bound: 3.0 };
    const PLAIN: LossConfig = LossConfig { objective: CLIP, kl_coef: 0.0, kl_estimator: KlEstimator::K3 };

    fn configs() -> Vec<LossConfig> {
        let dual = LossConfig { objective: DUAL, ..PLAIN };
        let with_kl = |kl_estimator| LossConfig { kl_coef: 0.3, kl_estimator, ..dual };
        vec![PLAIN, dual, with_kl(KlEstimator::K1), with_kl(KlEstimator::K2), with_kl(KlEstimator::K3)]
    }

    /// The objective as the papers write it, with `min`, `clip` and `max`.
    fn objective_by_the_book(token: &Token, config: &LossConfig) -> f64 {
        let ratio = (token.logprob - token.old_logprob).exp();
        let clipped = ratio.clamp(1.0 - 0.2, 1.0 + 0.28);
        let clip = (ratio * token.advantage).min(clipped * token.advantage);
        let surrogate = match config.objective {
            Objective::DualClip { bound, .. } if token.advantage < 0.0 => clip.max(bound * token.advantage),
            Objective::Clip { .. } | Objective::DualClip { .. } => clip,
        };
        let u = token.ref_logprob.map_or(1.0, |ref_logprob| (ref_logprob - token.logprob).exp());
        let kl = match config.kl_estimator {
            KlEstimator::K1 => -u.ln(),
            KlEstimator::K2 => u.ln() * u.ln() / 2.0,
            KlEstimator::K3 => u - u.ln() - 1.0,
        };
        surrogate - config.kl_coef * kl
    }

    #[test]
    fn the_gradient_agrees_with_central_differences() {
        let step = 1e-6;
        // Ratios on both sides of 0.8, 1.28 and 3, as near as the differences allow.
        let ratios = [0.01, 0.5, 0.79999, 0.80001, 0.9, 1.0, 1.1, 1.27999, 1.28001, 2.0, 2.9999, 3.0001, 20.0];
        for config in configs() {
            for (ratio, advantage, ref_gap) in ratios.iter().flat_map(|&ratio: &f64| {
                [-1.5, 0.0, 0.7].into_iter().flat_map(move |a| [-2.0, 0.0, 0.4].map(|gap| (ratio, a, gap)))
            }) {
                let logprob = -2.0 + ratio.ln();
                let token = Token { logprob, old_logprob: -2.0, ref_logprob: Some(logprob - ref_gap), advantage };
                let at = |logprob| objective_by_the_book(&Token { logprob, ..token }, &config);
                let slope = (at(logprob + step) - at(logprob - step)) / (2.0 * step);
                let term = token.term(&config);
                let place = format!("{config:?}, ratio {ratio}, advantage {advantage}, gap {ref_gap}");
                assert!((term.value - at(logprob)).abs() < 1e-12, "value {} != {}: {place}", term.value, at(logprob));
                assert!((term.slope - slope).abs() < 1e-6, "slope {} != {slope}: {place}", term.slope);
            }
        }
    }

    fn now(logprobs: &[f32]) -> TokenStats {
        TokenStats { logprobs: logprobs.to_vec(), entropies: vec![0.5; logprobs.len()] }
    }

    fn micro(old: &[f32], reference: Option<&[f32]>, advantages: &[f32], weights: &[f32]) -> MicroBatch {
        MicroBatch {
            rollout_logprobs: old.to_vec(),
            old_logprobs: old.to_vec(),
            ref_logprobs: reference.map(<[f32]>::to_vec),
            advantages: advantages.to_vec(),
            loss_weights: weights.to_vec(),
            ..Default::default()
        }
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn four_tokens_give_the_numbers_worked_by_hand() {
        let half = 0.5f32.ln();
        let micro = micro(&[-1.0, half, -1.0, -1.0], None, &[1.0, 1.0, -1.0, 2.0], &[0.25, 0.25, 0.5, 0.0]);
        // Ratios 1; 2 (clipped to 1.28); 1/2 (clipped to 0.8); the last token is masked.
        let losses = token_losses(&now(&[-1.0, 0.0, -1.0 + half, f32::NEG_INFINITY]), &micro, &PLAIN);
        // -(0.25 * 1 + 0.25 * 1.28 - 0.5 * 0.8)
        assert_eq!(losses.gradient, [-0.25, 0.0, 0.0, 0.0]);
        let stats = losses.stats;
        near(stats.loss, -0.17);
        assert_eq!((stats.tokens, stats.clipped_low, stats.clipped_high, stats.dual_clipped), (3, 1, 1, 0));
        assert_eq!(stats.clipped(), 2);
        near(stats.entropy, 1.5);
        // (2 - ln 2 - 1) + (1/2 + ln 2 - 1) = 1/2
        near(stats.mismatch, 0.5);
        near(stats.kl_ref, 0.0);
    }

    #[test]
    fn a_kl_term_adds_the_coefficient_of_the_paper() {
        // On-policy, GRPO's gradient coefficient is A + kl_coef (u - 1); here u = pi_ref / pi = 2.
        let micro = micro(&[-1.0], Some(&[-1.0 + 2.0f32.ln()]), &[0.5], &[1.0]);
        let config = LossConfig { kl_coef: 0.1, ..PLAIN };
        let losses = token_losses(&now(&[-1.0]), &micro, &config);
        near(f64::from(losses.gradient[0]), -(0.5 + 0.1));
        near(losses.stats.loss, -(0.5 - 0.1 * (1.0 - 2.0f64.ln())));
        near(losses.stats.kl_ref, 1.0 - 2.0f64.ln());
    }

    #[test]
    fn the_first_update_of_a_step_has_ratio_one_and_no_mismatch() {
        let old = [-0.3, -1.7, -0.001];
        let losses = token_losses(&now(&old), &micro(&old, None, &[1.0; 3], &[1.0; 3]), &PLAIN);
        assert_eq!(losses.gradient, [-1.0; 3]);
        assert_eq!((losses.stats.mismatch, losses.stats.clipped()), (0.0, 0));
    }

    #[test]
    fn no_tokens_make_means_of_zero() {
        let stats = token_losses(&now(&[]), &MicroBatch::default(), &PLAIN).stats;
        assert_eq!((stats, stats.per_token(stats.kl_ref)), (LossStats::default(), 0.0));
    }

    /// Sample `index` of 14: two prompt tokens, one to five completion tokens.
    fn sample(index: usize) -> TrainSample {
        let length = 1 + index * 3 % 5;
        let rollout_logprobs: Vec<f32> = (0..length).map(|t| -0.1 - 0.3 * ((index + t) % 4) as f32).collect();
        TrainSample {
            tokens: vec![7; 2 + length],
            prompt_len: 2,
            rollout_logprobs,
            advantage: [1.0, -0.5, -0.5][index % 3],
            masked: index == 4,
        }
    }

    /// All sums and the gradient of an update, as the trainer collects them.
    fn update(samples: &[TrainSample], norm: LossNorm, max_tokens: usize) -> (usize, LossStats, Vec<f32>) {
        let config = LossConfig { kl_coef: 0.04, objective: DUAL, ..PLAIN };
        let mut micros = micro_batches(samples, norm, max_tokens, PromptLayout::Repeated);
        let mut stats = LossStats::default();
        let mut gradient = Vec::new();
        for micro in &mut micros {
            micro.ref_logprobs = Some(micro.rollout_logprobs.iter().map(|logprob| logprob - 0.2).collect());
            let rows = micro.old_logprobs.iter().zip(&micro.advantages);
            let logprobs: Vec<f32> = rows.map(|(old, advantage)| old * 1.4 + 0.2 * advantage).collect();
            let losses = token_losses(&now(&logprobs), micro, &config);
            stats.add(&losses.stats);
            gradient.extend(losses.gradient);
        }
        (micros.len(), stats, gradient)
    }

    #[test]
    fn cutting_an_update_into_micro_batches_keeps_loss_and_gradient() {
        let samples: Vec<TrainSample> = (0..14).map(sample).collect();
        for norm in [LossNorm::Sequence, LossNorm::Token, LossNorm::Constant { length: 16 }] {
            let (_, whole, whole_gradient) = update(&samples, norm, usize::MAX);
            assert!(whole.clipped() > 0 && whole.kl_ref > 0.0);
            for (budget, pieces) in [(1000, 1), (28, 2), (9, 7)] {
                let (found, stats, gradient) = update(&samples, norm, budget);
                assert_eq!(found, pieces, "budget {budget}");
                near(stats.loss, whole.loss);
                near(stats.kl_ref, whole.kl_ref);
                near(stats.mismatch, whole.mismatch);
                assert_eq!((stats.tokens, stats.clipped()), (whole.tokens, whole.clipped()));
                assert_eq!(gradient, whole_gradient);
            }
        }
    }
}
