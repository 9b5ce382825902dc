//! The clipped objective and its gradient, token by token.
//!
//! The gradient with respect to each token's log-probability is written out, so the model's backward starts from a
//! vector and no graph is built for the loss. Denominators and mask are already in the loss weights.

use serde::{Deserialize, Serialize};

use super::batch::MicroBatch;

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

/// The objective of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossConfig {
    /// The ratio is clipped from below at `1 - clip_low`; 1 or more never clips from below.
    pub clip_low: f64,
    /// The ratio is clipped from above at `1 + clip_high`.
    pub clip_high: f64,
    /// For a negative advantage the objective is at least `dual_clip * A`  (arXiv:1912.09729); above `1 + clip_high`.
    pub dual_clip: Option<f64>,
    /// Weight of the KL term; 0 needs no reference.
    pub kl_coef: f64,
    /// Which estimate the KL term is.
    pub kl_estimator: KlEstimator,
}

/// The loss of a micro-batch and what the backward starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLosses {
    /// (R) derivative of the loss with respect to each row's log-probability, loss weight included.
    pub gradient: Vec<f32>,
    /// The micro-batch's part of the update's loss; the same number as `stats.loss`.
    pub loss: f64,
    /// Sums for the metrics.
    pub stats: LossStats,
}

/// Sums over tokens, merged in the order of the micro-batches so that a step's metrics are reproducible.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossStats {
    /// The loss: tokens weighed by their loss weights, so micro-batches add up.
    pub loss: f64,
    /// Tokens with a loss weight.
    pub tokens: u64,
    /// Tokens of a negative advantage whose ratio is below `1 - clip_low`: no gradient but that of the KL term.
    pub clipped_low: u64,
    /// Tokens of a positive advantage whose ratio is above `1 + clip_high`: likewise.
    pub clipped_high: u64,
    /// Tokens of a negative advantage whose ratio is above `dual_clip`: likewise.
    pub dual_clipped: u64,
    /// Sum of the configured KL estimate; 0 without reference log-probabilities.
    pub kl_ref: f64,
    /// Sum of `u - ln u - 1`, `u` the ratio. In the first update of a step it compares sampler and trainer over the
    /// same weights; in later ones it measures how far the updates went.
    pub mismatch: f64,
    /// Largest `|logprob - old_logprob|`.
    pub max_abs_diff: f64,
    /// Sum of the ratios.
    pub ratio: f64,
}

/// Loss, gradient and sums of one micro-batch, given the policy's log-probability of each row's target.
///
/// ```text
/// loss = - sum_t w_t ( S_t - kl_coef * KL_t )
/// S_t  = min( rho_t A_t , clip(rho_t, 1 - clip_low, 1 + clip_high) A_t )      rho_t = exp(logprob_t - old_logprob_t)
///        with dual clip and A_t < 0: max( that , dual_clip * A_t )
/// d loss / d logprob_t = - w_t ( rho_t A_t [or 0 where clipped] - kl_coef * dKL_t )
/// ```
/// GRPO, arXiv:2402.03300, with `w_t` for its denominators. On a border of the clip the gradient is the unclipped one.
/// Rows of weight 0 have no gradient and are in no sum. Everything is computed in f64.
///
/// # Panics
/// If `logprobs` has not one entry a row, or a KL term is asked for without reference log-probabilities.
pub fn token_losses(logprobs: &[f32], micro: &MicroBatch, config: &LossConfig) -> TokenLosses {
    assert_eq!(logprobs.len(), micro.loss_weights.len(), "the loss needs one log-probability a row");
    assert!(config.kl_coef == 0.0 || micro.ref_logprobs.is_some(), "a KL term needs reference log-probabilities");
    let mut stats = LossStats::default();
    let mut gradient = vec![0.0; logprobs.len()];
    for (row, slope) in gradient.iter_mut().enumerate() {
        let weight = f64::from(micro.loss_weights[row]);
        if weight == 0.0 {
            continue;
        }
        let token = Token {
            logprob: f64::from(logprobs[row]),
            old_logprob: f64::from(micro.old_logprobs[row]),
            ref_logprob: micro.ref_logprobs.as_ref().map(|logprobs| f64::from(logprobs[row])),
            advantage: f64::from(micro.advantages[row]),
        };
        let term = token.term(config);
        *slope = (-weight * term.slope) as f32;
        stats.add(&token, &term, weight);
    }
    TokenLosses { gradient, loss: stats.loss, stats }
}

impl LossStats {
    /// Adds the sums of the next micro-batch.
    pub fn merge(&mut self, next: &Self) {
        self.loss += next.loss;
        self.tokens += next.tokens;
        self.clipped_low += next.clipped_low;
        self.clipped_high += next.clipped_high;
        self.dual_clipped += next.dual_clipped;
        self.kl_ref += next.kl_ref;
        self.mismatch += next.mismatch;
        self.max_abs_diff = self.max_abs_diff.max(next.max_abs_diff);
        self.ratio += next.ratio;
    }

    /// Share of tokens that some clip took the gradient from.
    pub fn clip_frac(&self) -> f64 {
        self.per_token((self.clipped_low + self.clipped_high + self.dual_clipped) as f64)
    }

    /// Mean KL estimate to the reference, in nats a token.
    pub fn kl_ref(&self) -> f64 {
        self.per_token(self.kl_ref)
    }

    /// Mean difference of the policy that sampled and the one that trains, in nats a token; see [`Self::mismatch`].
    pub fn mismatch_kl(&self) -> f64 {
        self.per_token(self.mismatch)
    }

    /// Mean ratio.
    pub fn ratio_mean(&self) -> f64 {
        self.per_token(self.ratio)
    }

    fn per_token(&self, sum: f64) -> f64 {
        if self.tokens == 0 { 0.0 } else { sum / self.tokens as f64 }
    }

    fn add(&mut self, token: &Token, term: &Term, weight: f64) {
        let difference = token.logprob - token.old_logprob;
        self.loss -= weight * term.value;
        self.tokens += 1;
        match term.clip {
            Clip::None => {}
            Clip::Low => self.clipped_low += 1,
            Clip::High => self.clipped_high += 1,
            Clip::Dual => self.dual_clipped += 1,
        }
        self.kl_ref += term.kl;
        self.mismatch += k3(difference);
        self.max_abs_diff = self.max_abs_diff.max(difference.abs());
        self.ratio += difference.exp();
    }
}

/// What the objective of one token depends on.
#[derive(Clone, Copy)]
struct Token {
    logprob: f64,
    old_logprob: f64,
    ref_logprob: Option<f64>,
    advantage: f64,
}

/// The objective of one token (to be raised), before its weight.
struct Term {
    value: f64,
    /// Derivative of `value` with respect to the log-probability.
    slope: f64,
    kl: f64,
    clip: Clip,
}

/// Which clip holds the objective of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clip {
    None,
    Low,
    High,
    Dual,
}

impl Token {
    fn term(&self, config: &LossConfig) -> Term {
        let ratio = (self.logprob - self.old_logprob).exp();
        let clip = self.clip(ratio, config);
        let (bound, slope) = match clip {
            Clip::None => (ratio, ratio * self.advantage),
            Clip::Low => (1.0 - config.clip_low, 0.0),
            Clip::High => (1.0 + config.clip_high, 0.0),
            Clip::Dual => (config.dual_clip.unwrap_or(ratio), 0.0),
        };
        let (kl, kl_slope) = match self.ref_logprob {
            Some(ref_logprob) => config.kl_estimator.estimate(self.logprob - ref_logprob),
            None => (0.0, 0.0),
        };
        // Without a KL term, a reference far away must not turn 0 * infinity into NaN.
        let (penalty, penalty_slope) =
            if config.kl_coef == 0.0 { (0.0, 0.0) } else { (config.kl_coef * kl, config.kl_coef * kl_slope) };
        Term { value: bound * self.advantage - penalty, slope: slope - penalty_slope, kl, clip }
    }

    /// The minimum takes the clipped side only where moving on would still pay; the dual clip ends what is left.
    fn clip(&self, ratio: f64, config: &LossConfig) -> Clip {
        if self.advantage > 0.0 && ratio > 1.0 + config.clip_high {
            Clip::High
        } else if self.advantage < 0.0 && ratio < 1.0 - config.clip_low {
            Clip::Low
        } else if self.advantage < 0.0 && config.dual_clip.is_some_and(|bound| ratio > bound) {
            Clip::Dual
        } else {
            Clip::None
        }
    }
}

/// `u - ln u - 1` for `u = exp(log_u)`, exact near `u = 1`.
fn k3(log_u: f64) -> f64 {
    log_u.exp_m1() - log_u
}

#[cfg(test)]
mod tests {
    use super::super::batch::{LossNorm, Prompts, TrainSample, micro_batches};
    use super::*;

    const PLAIN: LossConfig =
        LossConfig { clip_low: 0.2, clip_high: 0.28, dual_clip: None, kl_coef: 0.0, kl_estimator: KlEstimator::K3 };

    fn configs() -> Vec<LossConfig> {
        let dual = LossConfig { dual_clip: Some(3.0), ..PLAIN };
        let with_kl = |kl_estimator| LossConfig { kl_coef: 0.3, kl_estimator, ..dual };
        vec![PLAIN, dual, with_kl(KlEstimator::K1), with_kl(KlEstimator::K2), with_kl(KlEstimator::K3)]
    }

    /// The objective as the papers write it, with `min`, `clip` and `max`.
    fn objective_by_the_book(token: &Token, config: &LossConfig) -> f64 {
        let ratio = (token.logprob - token.old_logprob).exp();
        let clipped = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high);
        let mut surrogate = (ratio * token.advantage).min(clipped * token.advantage);
        if let Some(bound) = config.dual_clip.filter(|_| token.advantage < 0.0) {
            surrogate = surrogate.max(bound * token.advantage);
        }
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

    #[test]
    fn each_clip_holds_on_its_side_only() {
        let config = LossConfig { dual_clip: Some(3.0), ..PLAIN };
        let check = |ratio: f64, advantage, expected| {
            let token = Token { logprob: ratio.ln(), old_logprob: 0.0, ref_logprob: None, advantage };
            assert_eq!(token.clip(ratio, &config), expected, "ratio {ratio}, advantage {advantage}");
        };
        check(1.3, 1.0, Clip::High);
        check(1.3, -1.0, Clip::None);
        check(0.7, -1.0, Clip::Low);
        check(0.7, 1.0, Clip::None);
        check(3.1, -1.0, Clip::Dual);
        check(3.1, 1.0, Clip::High);
        check(3.1, 0.0, Clip::None);
        // On the border itself the gradient still flows.
        check(1.0 + config.clip_high, 1.0, Clip::None);
        check(1.0 - config.clip_low, -1.0, Clip::None);
    }

    fn micro(old: &[f32], reference: Option<&[f32]>, advantages: &[f32], weights: &[f32]) -> MicroBatch {
        MicroBatch {
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
        let losses = token_losses(&[-1.0, 0.0, -1.0 + half, f32::NEG_INFINITY], &micro, &PLAIN);
        // -(0.25 * 1 + 0.25 * 1.28 - 0.5 * 0.8)
        near(losses.loss, -0.17);
        assert_eq!(losses.gradient, [-0.25, 0.0, 0.0, 0.0]);
        let stats = losses.stats;
        assert_eq!((stats.tokens, stats.clipped_low, stats.clipped_high, stats.dual_clipped), (3, 1, 1, 0));
        near(stats.clip_frac(), 2.0 / 3.0);
        near(stats.ratio_mean(), 3.5 / 3.0);
        near(stats.max_abs_diff, 2.0f64.ln());
        // (2 - ln 2 - 1) + (1/2 + ln 2 - 1) = 1/2
        near(stats.mismatch_kl(), 0.5 / 3.0);
        near(stats.kl_ref(), 0.0);
    }

    #[test]
    fn a_kl_term_adds_the_coefficient_of_the_paper() {
        // On-policy, GRPO's gradient coefficient is A + kl_coef (u - 1); here u = pi_ref / pi = 2.
        let micro = micro(&[-1.0], Some(&[-1.0 + 2.0f32.ln()]), &[0.5], &[1.0]);
        let config = LossConfig { kl_coef: 0.1, ..PLAIN };
        let losses = token_losses(&[-1.0], &micro, &config);
        near(f64::from(losses.gradient[0]), -(0.5 + 0.1));
        near(losses.loss, -(0.5 - 0.1 * (1.0 - 2.0f64.ln())));
        near(losses.stats.kl_ref(), 1.0 - 2.0f64.ln());
    }

    #[test]
    fn the_first_update_of_a_step_has_ratio_one_and_no_mismatch() {
        let old = [-0.3, -1.7, -0.001];
        let losses = token_losses(&old, &micro(&old, None, &[1.0; 3], &[1.0; 3]), &PLAIN);
        assert_eq!(losses.gradient, [-1.0; 3]);
        assert_eq!((losses.stats.mismatch_kl(), losses.stats.ratio_mean(), losses.stats.clip_frac()), (0.0, 1.0, 0.0));
    }

    #[test]
    fn no_tokens_make_means_of_zero() {
        let stats = token_losses(&[], &MicroBatch::default(), &PLAIN).stats;
        assert_eq!((stats.clip_frac(), stats.kl_ref(), stats.mismatch_kl(), stats.ratio_mean()), (0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    #[should_panic(expected = "needs reference log-probabilities")]
    fn a_kl_term_without_a_reference_is_a_bug() {
        token_losses(&[-1.0], &micro(&[-1.0], None, &[1.0], &[1.0]), &LossConfig { kl_coef: 0.1, ..PLAIN });
    }

    /// Sample `index` of 14: two prompt tokens, one to five completion tokens.
    fn sample(index: usize) -> TrainSample {
        let length = 1 + index * 3 % 5;
        let rollout_logprobs: Vec<f32> = (0..length).map(|t| -0.1 - 0.3 * ((index + t) % 4) as f32).collect();
        TrainSample {
            tokens: vec![7; 2 + length],
            prompt_len: 2,
            ref_logprobs: Some(rollout_logprobs.iter().map(|logprob| logprob - 0.2).collect()),
            rollout_logprobs,
            advantage: [1.0, -0.5, -0.5][index % 3],
            masked: index == 4,
        }
    }

    /// All sums and the gradient of an update, as the trainer collects them.
    fn update(samples: &[TrainSample], norm: LossNorm, max_tokens: usize) -> (usize, LossStats, Vec<f32>) {
        let config = LossConfig { kl_coef: 0.04, dual_clip: Some(3.0), ..PLAIN };
        let micros = micro_batches(samples, norm, max_tokens, Prompts::Repeated);
        let mut stats = LossStats::default();
        let mut gradient = Vec::new();
        for micro in &micros {
            let rows = micro.old_logprobs.iter().zip(&micro.advantages);
            let logprobs: Vec<f32> = rows.map(|(old, advantage)| old * 1.4 + 0.2 * advantage).collect();
            let losses = token_losses(&logprobs, micro, &config);
            stats.merge(&losses.stats);
            gradient.extend(losses.gradient);
        }
        (micros.len(), stats, gradient)
    }

    #[test]
    fn cutting_an_update_into_micro_batches_keeps_loss_and_gradient() {
        let samples: Vec<TrainSample> = (0..14).map(sample).collect();
        for norm in [LossNorm::Sequence, LossNorm::Token, LossNorm::Constant { length: 16 }] {
            let (_, whole, whole_gradient) = update(&samples, norm, usize::MAX);
            assert!(whole.clip_frac() > 0.0 && whole.kl_ref() > 0.0);
            for (budget, pieces) in [(1000, 1), (28, 2), (9, 7)] {
                let (found, stats, gradient) = update(&samples, norm, budget);
                assert_eq!(found, pieces, "budget {budget}");
                near(stats.loss, whole.loss);
                near(stats.kl_ref(), whole.kl_ref());
                near(stats.mismatch_kl(), whole.mismatch_kl());
                assert_eq!((stats.tokens, stats.clip_frac()), (whole.tokens, whole.clip_frac()));
                assert_eq!(gradient, whole_gradient);
            }
        }
    }
}
