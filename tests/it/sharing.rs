//! The two ways in which threads share a model's work: they give the same model, and neither depends on the number of
//! threads.

use reckon::model::{CpuModel, CpuOptions, SaveDtype, Sharing};
use reckon::ops::linear::Precision;
use reckon::policy::Policy;

use super::gradients::check_gradients;
use super::lora::{all, saved, trained_with};
use super::models::{
    FAMILIES, cpu, cpu_mut, families, generate, prompts, rising, samples, sampling, shared_micros, tiny,
};
use super::sampling::check_trainer_agrees;

/// Tiny models of all families, in both precisions, and an adapted one, whose threads compute each operation together.
fn policies() -> Vec<(String, Policy)> {
    let mut policies = Vec::new();
    for architecture in families() {
        for precision in [Precision::Fp32, Precision::Bf16] {
            let mut policy = tiny(architecture, architecture == FAMILIES[0]);
            let model = cpu_mut(&mut policy);
            *model = CpuModel::new(model.decoder.clone(), model.parameters().clone(), 1, precision);
            policies.push((format!("{architecture} in {precision:?}"), policy));
        }
    }
    let folder = saved(FAMILIES[1], SaveDtype::Bf16);
    policies.push(("an adapted model".into(), trained_with(folder.path(), &all(), CpuOptions::default())));
    policies.iter_mut().for_each(|(_, policy)| cpu_mut(policy).sharing = Sharing::Operations);
    policies
}

#[test]
fn a_model_is_small_until_a_thread_cannot_afford_its_gradient() {
    assert_eq!(cpu(&tiny(FAMILIES[0], true)).sharing, Sharing::MicroBatches);
    assert_eq!(Sharing::of(900_000), Sharing::MicroBatches, "the embedded model");
    assert_eq!(Sharing::of(134_515_008), Sharing::Operations, "SmolLM2-135M");
}

#[test]
fn a_small_model_samples_as_many_rows_as_stay_near_a_thread_and_a_large_one_all_that_it_may() {
    const KIB: usize = 1 << 10;
    for (weights, threads, sequence_bytes, rows) in [
        (900_000, 1, 256 * KIB, 32),
        (900_000, 4, 256 * KIB, 128),
        (900_000, 2, 4096 * KIB, 32),
        (900_000, 2, 0, 1 << 24),
        (134_515_008, 2, 4096 * KIB, usize::MAX),
    ] {
        let got = Sharing::of(weights).rows(threads, sequence_bytes);
        assert_eq!(got, rows, "{weights} weights, {threads} threads, {sequence_bytes} bytes a row");
    }
}

#[test]
fn gradients_have_the_same_bits_on_any_number_of_threads() {
    for (name, mut policy) in policies() {
        for recompute in [false, true] {
            cpu_mut(&mut policy).decoder.recompute = recompute;
            for max_tokens in [1, 60, 10_000] {
                let micros = shared_micros(&samples(8), max_tokens);
                let mut gradient = |threads| {
                    cpu_mut(&mut policy).threads = threads;
                    cpu(&policy).gradients(&micros, 0.9, &rising)
                };
                let alone = gradient(1);
                assert!(alone.0.iter().any(|&g| g != 0.0), "{name}");
                for threads in [2, 5] {
                    assert_eq!(gradient(threads), alone, "{name}: {threads} threads, {max_tokens} tokens");
                }
            }
        }
    }
}

#[test]
fn both_ways_give_the_same_gradient_but_for_the_order_of_its_sum() {
    for (name, mut policy) in policies() {
        let micros = shared_micros(&samples(8), 60);
        let (together, stats) = cpu(&policy).gradients(&micros, 0.9, &rising);
        cpu_mut(&mut policy).sharing = Sharing::MicroBatches;
        let (apart, stats_apart) = cpu(&policy).gradients(&micros, 0.9, &rising);
        assert_eq!(stats, stats_apart, "{name}");
        let largest = apart.iter().fold(0f32, |largest, g| largest.max(g.abs()));
        for (a, b) in together.iter().zip(&apart) {
            assert!((a - b).abs() <= 1e-5 * largest, "{name}: {a} and {b}, beside {largest}");
        }
    }
}

#[test]
fn every_weight_has_the_gradient_of_the_difference_quotient() {
    for architecture in families() {
        let mut policy = tiny(architecture, false);
        let model = cpu_mut(&mut policy);
        (model.sharing, model.threads) = (Sharing::Operations, 3);
        check_gradients(&mut policy, architecture);
    }
}

#[test]
fn both_ways_sample_the_same_tokens_which_the_trainer_agrees_with() {
    for (name, mut policy) in policies() {
        check_trainer_agrees(&policy, &name);
        let (prompts, sampling) = (prompts(6), sampling(40));
        cpu_mut(&mut policy).sharing = Sharing::MicroBatches;
        let expected = generate(&policy, &prompts, &sampling, 1, 64);
        cpu_mut(&mut policy).sharing = Sharing::Operations;
        for (threads, capacity) in [(1, 1), (2, 17), (3, 64)] {
            let got = generate(&policy, &prompts, &sampling, threads, capacity);
            for (a, b) in expected.iter().zip(&got) {
                assert_eq!((&a.tokens, &a.logprobs), (&b.tokens, &b.logprobs), "{name}: {threads} threads, {capacity}");
            }
        }
    }
}
