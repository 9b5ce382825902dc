//! Sampling does not depend on how it is batched, and agrees with training to the bit.

use reckon::grpo::TrainSample;
use reckon::policy::Policy;
use reckon::prompt::Prompt;
use reckon::rollout::Completion;

use super::models::{DELTA, MIXTURES, cpu, families, generate, prompts, sampling, shared_micros, tiny};

#[test]
fn capacity_and_threads_do_not_change_what_is_sampled() {
    for architecture in ["Qwen2ForCausalLM", DELTA].into_iter().chain(MIXTURES) {
        let policy = tiny(architecture, true);
        let (prompts, sampling) = (prompts(9), sampling(40));
        let expected = generate(&policy, &prompts, &sampling, 1, 64);
        assert_eq!(expected.len(), 36);
        for (threads, capacity) in [(1, 1), (1, 7), (2, 7), (2, 64), (3, 5)] {
            let got = generate(&policy, &prompts, &sampling, threads, capacity);
            for (a, b) in expected.iter().zip(&got) {
                let how = format!("{architecture}, {threads} threads, capacity {capacity}");
                assert_eq!((&a.tokens, &a.text), (&b.tokens, &b.text), "{how}");
                assert_eq!((&a.logprobs, &a.routed), (&b.logprobs, &b.routed), "{how}");
            }
        }
    }
}

/// Samples of completions, four a prompt.
pub(crate) fn train_samples(prompts: &[Prompt], completions: &[Completion]) -> Vec<TrainSample> {
    let sample = |(i, c): (usize, &Completion)| TrainSample {
        tokens: [prompts[i / 4].tokens.as_slice(), &c.tokens].concat(),
        prompt_len: prompts[i / 4].tokens.len(),
        rollout_logprobs: c.logprobs.clone(),
        advantages: vec![1.0; c.tokens.len()],
        routed: c.routed.clone(),
        ..TrainSample::default()
    };
    completions.iter().enumerate().map(sample).collect()
}

/// Asserts that the trainer's log-probabilities are the sampler's, however the tokens are cut into micro-batches.
pub(crate) fn check_trainer_agrees(policy: &Policy, name: &str) {
    let (prompts, sampling) = (prompts(6), sampling(70));
    let samples = train_samples(&prompts, &generate(policy, &prompts, &sampling, 1, 5));
    for max_tokens in [1, 100, 10_000] {
        let micros = shared_micros(&samples, max_tokens);
        for (micro, stats) in micros.iter().zip(cpu(policy).logprobs(None, &micros, 0.8)) {
            assert_eq!(micro.old_logprobs, stats.logprobs, "{name}, {max_tokens} tokens a micro-batch");
        }
    }
}

#[test]
fn the_trainer_computes_the_log_probabilities_of_the_sampler_to_the_bit() {
    for architecture in families() {
        check_trainer_agrees(&tiny(architecture, false), architecture);
    }
}

#[test]
fn a_stop_token_and_a_stop_string_end_a_completion() {
    let policy = tiny("LlamaForCausalLM", true);
    let mut sampling = sampling(60);
    sampling.stop_strings = vec!["g".into(), "hi".into()];
    check_stops(&generate(&policy, &prompts(12), &sampling, 2, 16));
}

/// Asserts that token 5, `f`, and the texts `g` and `hi` end completions, and nothing else does before its time.
pub(crate) fn check_stops(completions: &[Completion]) {
    let ended_by_token = completions.iter().filter(|c| c.tokens.last() == Some(&5)).count();
    let ended_by_text = completions.iter().filter(|c| c.text.ends_with('g') || c.text.ends_with("hi")).count();
    assert!(ended_by_token > 0 && ended_by_text > 0, "{ended_by_token} by token, {ended_by_text} by text");
    for c in completions {
        assert!(!c.text.contains('f'), "the stop token is not part of the text: {}", c.text);
        assert!(c.tokens.iter().rev().skip(1).all(|&t| t != 5), "nothing follows the stop token");
        assert_eq!(c.tokens.len(), c.logprobs.len());
    }
}
