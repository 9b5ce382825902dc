//! The loss of an update and its gradient, token by token: the objective, weighed, with the KL term and the entropy bonus.
//!
//! The gradient with respect to each token's log-probability is written out, so the model's backward starts from a
//! vector and no graph is built for the loss. Denominators and mask are already in the loss weights.

use super::kl::{KlEstimator, k3};
use super::objective::{Clip, Objective, Surrogate, Token};
use super::ratio::Ratio;
use crate::batch::{LossStats, MicroBatch, TokenLosses, TokenStats};

/// What the loss of an update is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossConfig {
    /// What of a token is raised.
    pub objective: Objective,
    /// What its ratio is.
    pub ratio: Ratio,
    /// Weight of the KL term; 0 needs no reference.
    pub kl_coef: f64,
    /// Which estimate the KL term is.
    pub kl_estimator: KlEstimator,
    /// Weight of the entropy of each token's distribution; 0 for none.
    pub entropy_coef: f64,
}

/// Loss, gradient and sums of one micro-batch, given what the policy says of each completion token.
///
/// ```text
/// loss = - sum_t w_t ( c_t S_t - kl_coef * KL_t + entropy_coef * H_t )       S_t: see Objective
/// d loss / d logprob_t = - w_t ( c_t dS_t - kl_coef * dKL_t )                d loss / d H_t = - w_t entropy_coef
/// rho_t = exp(logprob_t - old_logprob_t), or its completion's: see Ratio
/// ```
/// GRPO, arXiv:2402.03300, equation 3, with `w_t` for its denominators; `c_t` corrects for a sampler that was not the
/// policy, and is 1 without. Rows of weight 0 have no gradient and are in no sum. Everything is computed in f64.
///
/// # Panics
/// If `now` has not one log-probability for each row, or a KL term is asked for without those of the reference.
pub fn token_losses(now: &TokenStats, micro: &MicroBatch, config: &LossConfig) -> TokenLosses {
    let rows = micro.loss_weights.len();
    assert_eq!(now.logprobs.len(), rows, "the loss needs one log-probability for each row");
    assert!(config.kl_coef == 0.0 || micro.ref_logprobs.is_some(), "a KL term needs reference log-probabilities");
    let mut losses = TokenLosses { gradient: vec![0.0; rows], ..TokenLosses::default() };
    for sample in &micro.samples {
        let counted: Vec<usize> = sample.clone().filter(|&row| micro.loss_weights[row] != 0.0).collect();
        add_sample(now, micro, config, &counted, &mut losses);
    }
    if config.entropy_coef != 0.0 {
        let slope = |weight: &f32| (-f64::from(*weight) * config.entropy_coef) as f32;
        losses.entropy_gradient = micro.loss_weights.iter().map(slope).collect();
    }
    losses
}

/// Adds the rows of one completion, those that count.
fn add_sample(now: &TokenStats, micro: &MicroBatch, config: &LossConfig, rows: &[usize], losses: &mut TokenLosses) {
    let difference = |&row: &usize| f64::from(now.logprobs[row]) - f64::from(micro.old_logprobs[row]);
    let log_ratios = config.ratio.log_ratios(&rows.iter().map(difference).collect::<Vec<f64>>());
    let mut slopes = Vec::with_capacity(rows.len());
    for (&row, log_ratio) in rows.iter().zip(log_ratios) {
        let (weight, token) = (f64::from(micro.loss_weights[row]), token(now, micro, row, log_ratio));
        let Surrogate { value, slope, clip } = config.objective.surrogate(&token);
        let correction = micro.corrections.get(row).map_or(1.0, |&correction| f64::from(correction));
        slopes.push(weight * (correction * slope));
        let stats = &mut losses.stats;
        let entropy = f64::from(now.entropies[row]);
        // Without a bonus, an entropy that is not finite must not reach the loss.
        let bonus = if config.entropy_coef == 0.0 { 0.0 } else { config.entropy_coef * entropy };
        stats.loss -= weight * (correction * value + bonus);
        stats.tokens += 1;
        stats.entropy += entropy;
        stats.mismatch += k3(token.logprob - f64::from(micro.rollout_logprobs[row]));
        stats.selected += u64::from(token.selected);
        match clip {
            Clip::None => {}
            Clip::Low => stats.clipped_low += 1,
            Clip::High => stats.clipped_high += 1,
            Clip::Dual => stats.dual_clipped += 1,
        }
    }
    if !config.objective.is_detached() {
        config.ratio.backward(&mut slopes);
    }
    for (&row, slope) in rows.iter().zip(slopes) {
        losses.gradient[row] = -(slope - kl_slope(now, micro, config, row, &mut losses.stats)) as f32;
    }
}

fn token(now: &TokenStats, micro: &MicroBatch, row: usize, log_ratio: f64) -> Token {
    Token {
        logprob: f64::from(now.logprobs[row]),
        old_logprob: f64::from(micro.old_logprobs[row]),
        log_ratio,
        advantage: f64::from(micro.advantages[row]),
        selected: micro.selected.get(row).copied().unwrap_or(false),
    }
}

/// Adds the KL estimate of a row, and its share of the loss; returns the share's slope. Without a KL term a reference far
/// away must not turn 0 times infinity into NaN.
fn kl_slope(now: &TokenStats, micro: &MicroBatch, config: &LossConfig, row: usize, stats: &mut LossStats) -> f64 {
    let Some(reference) = &micro.ref_logprobs else { return 0.0 };
    let (kl, slope) = config.kl_estimator.estimate(f64::from(now.logprobs[row]) - f64::from(reference[row]));
    stats.kl_ref += kl;
    if config.kl_coef == 0.0 {
        return 0.0;
    }
    let weight = f64::from(micro.loss_weights[row]) * config.kl_coef;
    stats.loss += weight * kl;
    weight * slope
}

#[cfg(test)]
mod tests {
    use super::super::batch::{LossNorm, TrainSample, micro_batches};
    use super::*;
    use crate::batch::PromptLayout;

    use crate::grpo::objective::{Numbers, ObjectiveKind};

    /// Of the default knobs, but these.
    fn objective(kind: ObjectiveKind, numbers: &[(&str, f64)]) -> Objective {
        kind.with(&Numbers(&|name| numbers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)))
    }

    fn plain() -> LossConfig {
        let objective = objective(ObjectiveKind::Clip, &[("clip_high", 0.28)]);
        LossConfig { objective, ratio: Ratio::Token, kl_coef: 0.0, kl_estimator: KlEstimator::K3, entropy_coef: 0.0 }
    }

    /// The loss of a completion of three tokens, in f64.
    fn loss_of(logprobs: [f64; 3], config: &LossConfig) -> f64 {
        let (old, reference, advantages) = ([-1.0, -0.5, -2.0], [-1.2, -0.7, -1.0], [0.7, 0.7, 0.7]);
        let log_ratios = config.ratio.log_ratios(&[0, 1, 2].map(|t| logprobs[t] - old[t]));
        let term = |t: usize| {
            let (logprob, old_logprob, advantage) = (logprobs[t], old[t], advantages[t]);
            let token = Token { logprob, old_logprob, log_ratio: log_ratios[t], advantage, selected: false };
            let kl = config.kl_estimator.estimate(logprob - reference[t]).0;
            config.objective.surrogate(&token).value - config.kl_coef * kl
        };
        -(0..3).map(|t| 0.25 * term(t)).sum::<f64>()
    }

    #[test]
    fn the_gradient_agrees_with_central_differences() {
        let now = [-0.9f32, -0.75, -1.875];
        let kinds = [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3];
        let ratios = [Ratio::Token, Ratio::Sequence, Ratio::Product];
        for (kl_estimator, ratio) in kinds.iter().flat_map(|kl| ratios.iter().map(move |ratio| (*kl, *ratio))) {
            let config = LossConfig { ratio, kl_coef: 0.3, kl_estimator, ..plain() };
            let mut micro = micro(&[-1.0, -0.5, -2.0], Some(&[-1.2, -0.7, -1.0]), &[0.7; 3], &[0.25; 3]);
            micro.samples.drain(1..);
            micro.samples[0] = 0..3;
            let losses = token_losses(&self::now(&now), &micro, &config);
            let place = now.map(f64::from);
            assert!((losses.stats.loss - loss_of(place, &config)).abs() < 1e-6, "{config:?}: {losses:?}");
            for t in 0..3 {
                let at = |step: f64| {
                    let mut moved = place;
                    moved[t] += step;
                    loss_of(moved, &config)
                };
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                let found = f64::from(losses.gradient[t]);
                assert!((found - slope).abs() < 1e-6, "token {t}: {found} != {slope}: {config:?}");
            }
        }
    }

    #[test]
    fn a_correction_scales_the_objective_and_a_bonus_adds_the_entropy() {
        let mut micro = micro(&[-1.0, -1.0], Some(&[-2.0, -1.0]), &[0.5, 0.5], &[0.5, 0.5]);
        micro.corrections = vec![1.0, 2.0];
        let losses = token_losses(&now(&[-1.0, -1.0]), &micro, &LossConfig { entropy_coef: 0.1, ..plain() });
        assert_eq!((losses.gradient, losses.entropy_gradient), (vec![-0.25, -0.5], vec![-0.05, -0.05]));
        // -(0.5 * 0.5 + 0.5 * 2 * 0.5) - 0.1 * 0.5
        near(losses.stats.loss, -0.8);
        // Of the KL term nothing is scaled.
        let with_kl = LossConfig { kl_coef: 1.0, kl_estimator: KlEstimator::K2, ..plain() };
        let losses = token_losses(&now(&[-1.0, -1.0]), &micro, &with_kl);
        assert_eq!(losses.gradient, [0.25, -0.5]);
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
            samples: (0..weights.len()).map(|row| row..row + 1).collect(),
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
        let losses = token_losses(&now(&[-1.0, 0.0, -1.0 + half, f32::NEG_INFINITY]), &micro, &plain());
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
        let config = LossConfig { kl_coef: 0.1, ..plain() };
        let losses = token_losses(&now(&[-1.0]), &micro, &config);
        near(f64::from(losses.gradient[0]), -(0.5 + 0.1));
        near(losses.stats.loss, -(0.5 - 0.1 * (1.0 - 2.0f64.ln())));
        near(losses.stats.kl_ref, 1.0 - 2.0f64.ln());
    }

    #[test]
    fn the_first_update_of_a_step_has_ratio_one_and_no_mismatch() {
        let old = [-0.3, -1.7, -0.001];
        let losses = token_losses(&now(&old), &micro(&old, None, &[1.0; 3], &[1.0; 3]), &plain());
        assert_eq!(losses.gradient, [-1.0; 3]);
        assert_eq!((losses.stats.mismatch, losses.stats.clipped()), (0.0, 0));
    }

    #[test]
    fn no_tokens_make_means_of_zero() {
        let stats = token_losses(&now(&[]), &MicroBatch::default(), &plain()).stats;
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
            advantages: vec![[1.0, -0.5, -0.5][index % 3]; length],
            masked: index == 4,
            ..TrainSample::default()
        }
    }

    /// All sums and the gradient of an update, as the trainer collects them.
    fn update(samples: &[TrainSample], norm: LossNorm, max_tokens: usize) -> (usize, LossStats, Vec<f32>) {
        let config = LossConfig {
            kl_coef: 0.04,
            objective: objective(ObjectiveKind::Clip, &[("clip_high", 0.28), ("dual_clip", 3.0)]),
            ..plain()
        };
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
