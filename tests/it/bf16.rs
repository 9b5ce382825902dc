//! Products of bf16 operands on a CPU: the sampler is the trainer to the bit, and gradients are fp32's but for rounding.

use reckon::model::{CpuModel, CpuOptions, SaveDtype, Trainable};
use reckon::ops::linear::Precision;
use reckon::policy::Policy;

use super::lora::{all, saved, trained_with};
use super::models::{
    DELTA, FAMILIES, MIXTURES, cpu, cpu_mut, families, generate, prompts, rising, samples, sampling, shared_micros,
    tiny,
};
use super::sampling::check_trainer_agrees;

const BF16: CpuOptions = CpuOptions { threads: 1, precision: Precision::Bf16, recompute: false };

/// The same tiny model with products of a precision.
fn tiny_in(precision: Precision, architecture: &str, tied: bool) -> Policy {
    let mut policy = tiny(architecture, tied);
    let model = cpu_mut(&mut policy);
    *model = CpuModel::new(model.decoder.clone(), model.parameters().clone(), model.threads, precision);
    policy
}

fn tiny_in_bf16(architecture: &str, tied: bool) -> Policy {
    tiny_in(Precision::Bf16, architecture, tied)
}

fn gradient(policy: &Policy, max_tokens: usize) -> Vec<f32> {
    cpu(policy).gradients(&shared_micros(&samples(8), max_tokens), 0.9, &rising).0
}

/// Makes the norms of queries and keys small: where a softmax is nearly all or nothing, rounding decides which.
fn soften_attention(policy: &mut Policy) {
    let Trainable { entries, values } = cpu_mut(policy).trainable();
    for entry in entries.iter().filter(|entry| entry.name.contains("q_norm") || entry.name.contains("k_norm")) {
        values[entry.range.clone()].iter_mut().for_each(|value| *value *= 0.3);
    }
}

/// `|a - b| / |b|`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn the_trainer_computes_the_log_probabilities_of_the_sampler_to_the_bit() {
    for architecture in families() {
        check_trainer_agrees(&tiny_in_bf16(architecture, false), architecture);
    }
}

#[test]
fn an_adapted_model_agrees_with_its_sampler_too() {
    for dtype in [SaveDtype::F32, SaveDtype::Bf16] {
        let folder = saved(FAMILIES[1], dtype);
        check_trainer_agrees(&trained_with(folder.path(), &all(), BF16), "adapted");
    }
}

#[test]
fn capacity_and_threads_do_not_change_what_is_sampled() {
    let policy = tiny_in_bf16("Qwen3ForCausalLM", true);
    let (prompts, sampling) = (prompts(9), sampling(40));
    let expected = generate(&policy, &prompts, &sampling, 1, 64);
    for (threads, capacity) in [(1, 1), (1, 7), (2, 17), (3, 40)] {
        let got = generate(&policy, &prompts, &sampling, threads, capacity);
        for (a, b) in expected.iter().zip(&got) {
            assert_eq!((&a.tokens, &a.logprobs), (&b.tokens, &b.logprobs), "{threads} threads, capacity {capacity}");
        }
    }
}

#[test]
fn gradients_are_those_of_fp32_but_for_rounding_and_the_same_on_any_number_of_threads() {
    for architecture in families() {
        let mut policy = tiny_in_bf16(architecture, architecture == FAMILIES[0]);
        soften_attention(&mut policy);
        let in_bf16 = gradient(&policy, 40);
        cpu_mut(&mut policy).threads = 3;
        assert_eq!(gradient(&policy, 40), in_bf16, "{architecture}: three threads");
        // A rounding may change a choice of experts, and then the gradient is another one.
        if MIXTURES.contains(&architecture) {
            continue;
        }
        let mut whole = tiny_in(Precision::Fp32, architecture, architecture == FAMILIES[0]);
        soften_attention(&mut whole);
        let difference = distance(&in_bf16, &gradient(&whole, 40));
        // The output of a delta net's first token is `(q k) v`, and then normed: where `q k` is near zero, what a rounding
        // did to it becomes that much larger.
        let most = if architecture == DELTA { 0.2 } else { 0.02 };
        assert!(difference > 1e-4 && difference < most, "{architecture}: {difference}");
    }
}

#[test]
fn a_delta_net_s_gradients_are_as_near_to_those_of_fp32_as_others_where_no_norm_makes_small_outputs_large() {
    let [in_bf16, whole] = [Precision::Bf16, Precision::Fp32].map(|precision| {
        let mut policy = tiny_in(precision, DELTA, false);
        cpu_mut(&mut policy).decoder.eps = 0.1;
        soften_attention(&mut policy);
        gradient(&policy, 40)
    });
    let difference = distance(&in_bf16, &whole);
    assert!(difference > 1e-4 && difference < 0.02, "{difference}");
}

#[test]
fn an_adapters_gradients_are_those_of_fp32_but_for_rounding() {
    let folder = saved(FAMILIES[0], SaveDtype::Bf16);
    let [fp32, bf16] = [CpuOptions::default(), BF16].map(|options| trained_with(folder.path(), &all(), options));
    let difference = distance(&gradient(&bf16, 40), &gradient(&fp32, 40));
    assert!(difference > 1e-4 && difference < 0.02, "{difference}");
}
