//! Every weight gets the gradient that finite differences say, however a batch is cut and on however many threads.

use reckon::batch::{LossStats, MicroBatch, TokenLosses, TokenStats};
use reckon::policy::Policy;

use super::models::{cpu, cpu_mut, families, micros, samples, shared_micros, tiny};

/// Distance of the two points of a difference quotient from the middle.
const STEP: f64 = 3e-4;

/// A smooth loss of the log-probabilities and the entropies: `sum of weight (l + 0.1 l² + 0.3 h)`.
pub(crate) fn loss(micro: &MicroBatch, stats: &TokenStats) -> TokenLosses {
    let rows = stats.logprobs.iter().zip(&micro.loss_weights);
    let value: f64 =
        rows.clone().map(|(&l, &w)| f64::from(w) * (f64::from(l) + 0.1 * f64::from(l) * f64::from(l))).sum();
    let entropy: f64 =
        stats.entropies.iter().zip(&micro.loss_weights).map(|(&h, &w)| 0.3 * f64::from(h) * f64::from(w)).sum();
    let gradient = rows.map(|(l, w)| w * (1.0 + 0.2 * l)).collect();
    let entropy_gradient = micro.loss_weights.iter().map(|w| 0.3 * w).collect();
    TokenLosses { gradient, entropy_gradient, stats: LossStats { loss: value + entropy, ..LossStats::default() } }
}

pub(crate) fn total(policy: &Policy, micros: &[MicroBatch]) -> f64 {
    cpu(policy).logprobs(None, micros, 0.9).iter().zip(micros).map(|(stats, micro)| loss(micro, stats).stats.loss).sum()
}

/// Asserts that the gradient of everything that is trained is that of difference quotients.
pub(crate) fn check_gradients(policy: &mut Policy, name: &str) {
    // Of experts all: a step that changes a choice is no slope. `parity` has the gradients behind a choice.
    if let Some(router) = &mut cpu_mut(policy).decoder.router {
        (router.active, router.groups) = (router.experts, None);
    }
    check_slopes(policy, &shared_micros(&samples(6), 64), name);
}

/// The same over given micro-batches.
pub(crate) fn check_slopes(policy: &mut Policy, micros: &[MicroBatch], name: &str) {
    let (gradient, _) = cpu(policy).gradients(micros, 0.9, &loss);
    check_quotients(policy, &gradient, |policy| total(policy, micros), name);
}

/// Asserts that `gradient` is that of the difference quotients of `total`.
pub(crate) fn check_quotients(policy: &mut Policy, gradient: &[f32], total: impl Fn(&Policy) -> f64, name: &str) {
    assert!(gradient.iter().all(|g| g.is_finite()));
    for entry in cpu(policy).parameters().trained_entries().to_vec() {
        let g = &gradient[entry.range.clone()];
        if entry.is_choice_bias() {
            assert!(g.iter().all(|&g| g == 0.0), "{name}: a choice has no gradient");
            continue;
        }
        assert!(g.iter().any(|&g| g != 0.0), "{name}: {} has no gradient", entry.name);
        // Along the gradient itself the difference quotient is its norm: one number that every value enters.
        let norm = g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        // The keys' biases shift all scores of a row alike: their gradient is rounding.
        if norm < 1e-5 {
            assert!(entry.name.contains("k_proj.bias"), "{name}: {} has gradient {norm}", entry.name);
            continue;
        }
        let step = STEP / norm;
        let saved = cpu(policy).parameters().trained_values()[entry.range.clone()].to_vec();
        let mut at = |sign: f64| {
            let values = &mut cpu_mut(policy).trainable().values[entry.range.clone()];
            for ((w, saved), g) in values.iter_mut().zip(&saved).zip(g) {
                *w = (f64::from(*saved) + sign * step * f64::from(*g)) as f32;
            }
            total(policy)
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * STEP);
        cpu_mut(policy).trainable().values[entry.range.clone()].copy_from_slice(&saved);
        assert!((slope - norm).abs() < 0.01 * norm + 2e-4, "{name}: {}: {slope}, not {norm}", entry.name);
    }
}

#[test]
fn every_weight_gets_a_gradient_that_agrees_with_finite_differences() {
    for (architecture, tied) in families().flat_map(|a| [(a, true), (a, false)]) {
        check_gradients(&mut tiny(architecture, tied), architecture);
    }
}

#[test]
fn splitting_into_micro_batches_and_recomputing_keep_the_gradient() {
    let mut policy = tiny("Qwen2ForCausalLM", true);
    let samples = samples(7);
    let (whole, _) = cpu(&policy).gradients(&shared_micros(&samples, 10_000), 1.0, &loss);
    let norm = whole.iter().map(|g| g * g).sum::<f32>().sqrt();
    for max_tokens in [1, 60] {
        for (threads, recompute) in [(1, false), (2, true)] {
            cpu_mut(&mut policy).threads = threads;
            cpu_mut(&mut policy).decoder.recompute = recompute;
            let (cut, _) = cpu(&policy).gradients(&shared_micros(&samples, max_tokens), 1.0, &loss);
            let difference = whole.iter().zip(&cut).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
            assert!(difference < 1e-6 * norm, "{difference} of {norm} with {max_tokens} tokens a micro-batch");
        }
    }
}

#[test]
fn a_shared_prompt_gives_the_bits_of_repeated_ones_and_their_gradient() {
    for architecture in families() {
        let policy = tiny(architecture, true);
        let (samples, model) = (samples(8), cpu(&policy));
        let (shared, repeated) = (shared_micros(&samples, 80), micros(&samples, 80));
        let tokens = |micros: &[MicroBatch]| micros.iter().map(|m| m.tokens.len()).sum::<usize>();
        assert!(tokens(&shared) < tokens(&repeated));
        let logprobs = |micros: &[MicroBatch]| -> Vec<f32> {
            model.logprobs(None, micros, 0.9).into_iter().flat_map(|stats| stats.logprobs).collect()
        };
        assert_eq!(logprobs(&shared), logprobs(&repeated), "{architecture}");
        let ((shared, _), (repeated, _)) =
            (model.gradients(&shared, 0.9, &loss), model.gradients(&repeated, 0.9, &loss));
        let norm = repeated.iter().map(|g| g * g).sum::<f32>().sqrt();
        let difference = shared.iter().zip(&repeated).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        assert!(difference < 1e-6 * norm, "{architecture}: {difference} of {norm}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let mut policy = tiny("Qwen3ForCausalLM", false);
    let micros = shared_micros(&samples(9), 30);
    let one = cpu(&policy).gradients(&micros, 1.0, &loss);
    cpu_mut(&mut policy).threads = 3;
    assert_eq!(one, cpu(&policy).gradients(&micros, 1.0, &loss));
}
