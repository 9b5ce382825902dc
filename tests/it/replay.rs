//! Experts are recorded with completions, and updates send tokens to them again (R3).

use std::fs;
use std::path::{Path, PathBuf};

use reckon::batch::{Choices, MicroBatch, RouterReplay};
use reckon::grpo::TrainSample;
use reckon::metrics::Record;
use reckon::policy::Policy;
use reckon_datasets::Counted;

use super::gradients::{check_slopes, loss};
use super::mixtures::balanced_run;
use super::models::{MIXTURES, cpu, cpu_mut, generate, micros, prompts, sampling, shared_micros, tiny};
use super::program::{fails, records, small_run, succeeds, text};
use super::ranks::succeeds_on;
use super::resuming::check_resumes;
use super::sampling::train_samples;

/// Completions of a policy with the experts of their tokens, as what an update learns from.
fn sampled(policy: &Policy) -> Vec<TrainSample> {
    let prompts = prompts(6);
    train_samples(&prompts, &generate(policy, &prompts, &sampling(40), 1, 5))
}

/// The same model with routers that choose other experts.
fn moved(architecture: &str) -> Policy {
    let (mut policy, mut random) = (tiny(architecture, true), Counted::new(&[5]));
    let entries = cpu(&policy).parameters().trained_entries().to_vec();
    let routers = entries.iter().filter(|entry| entry.name.ends_with("mlp.gate.weight"));
    for place in routers.flat_map(|entry| entry.range.clone()) {
        cpu_mut(&mut policy).trainable().values[place] += 0.05 * random.normal() as f32;
    }
    policy
}

fn replayed(mut micros: Vec<MicroBatch>) -> Vec<MicroBatch> {
    micros.iter_mut().for_each(|micro| micro.router_replay = RouterReplay::Rollout);
    micros
}

/// Gradients with what the routers chose for them.
fn gradients(policy: &Policy, micros: &[MicroBatch]) -> (Vec<f32>, Choices) {
    let (gradient, _) = cpu(policy).gradients(micros, 0.9, &loss);
    (gradient, cpu(policy).take_choices())
}

fn logprobs(policy: &Policy, micros: &[MicroBatch]) -> Vec<f32> {
    cpu(policy).logprobs(None, micros, 0.9).into_iter().flat_map(|stats| stats.logprobs).collect()
}

#[test]
fn every_input_of_a_completion_has_its_experts_and_replaying_them_at_once_changes_no_bit() {
    for architecture in MIXTURES {
        let policy = tiny(architecture, true);
        let samples = sampled(&policy);
        for sample in &samples {
            let routed = sample.routed.as_ref().unwrap();
            assert_eq!(routed.len(), sample.tokens.len() - 1, "{architecture}");
            assert_eq!(Some(routed.shape()), cpu(&policy).decoder.routed);
        }
        for (shared, max_tokens) in [(true, 10_000), (true, 60), (false, 60)] {
            let own = if shared { shared_micros(&samples, max_tokens) } else { micros(&samples, max_tokens) };
            let inputs = own.iter().map(|micro| micro.tokens.len() as u64).sum::<u64>();
            let ((expected, choices), (gradient, again)) =
                (gradients(&policy, &own), gradients(&policy, &replayed(own.clone())));
            assert_eq!((choices.known, choices.differing, choices.replaced), (inputs, 0, 0), "{architecture}");
            assert_eq!(again, choices, "{architecture}");
            assert!(gradient == expected, "{architecture}: other bits, {max_tokens} tokens, shared {shared}");
        }
    }
    assert!(
        sampled(&tiny("Qwen3ForCausalLM", true)).iter().all(|sample| sample.routed.is_none()),
        "none in a dense one"
    );
}

#[test]
fn moved_routers_choose_other_experts_and_with_replay_those_of_sampling() {
    for architecture in MIXTURES {
        let (samples, mut policy) = (sampled(&tiny(architecture, true)), moved(architecture));
        let own = shared_micros(&samples, 80);
        let again = replayed(own.clone());
        let (_, choices) = gradients(&policy, &own);
        assert!(choices.differing > 0 && choices.differing < choices.known, "{architecture}: {choices:?}");
        let mut expected = None;
        for (threads, recompute) in [(1, false), (3, false), (2, true)] {
            cpu_mut(&mut policy).threads = threads;
            cpu_mut(&mut policy).decoder.recompute = recompute;
            let (gradient, choices) = gradients(&policy, &again);
            assert_eq!(choices.differing, 0, "{architecture}");
            assert!(choices.replaced > 0, "{architecture}: {choices:?}");
            // The rows of each expert are those that were recorded.
            for (place, &layer) in cpu(&policy).decoder.routed_layers.iter().enumerate() {
                let mut rows = vec![0; choices.layers[layer].rows.len()];
                let recorded = again.iter().flat_map(|micro| micro.routed.as_ref().unwrap().layer(place));
                recorded.for_each(|expert| rows[expert as usize] += 1);
                assert_eq!(choices.layers[layer].rows, rows, "{architecture}, layer {layer}");
            }
            let expected = expected.get_or_insert(gradient.clone());
            assert!(*expected == gradient, "{architecture}: other bits with {threads} threads, recompute {recompute}");
        }
    }
}

#[test]
fn replayed_log_probabilities_do_not_depend_on_how_samples_are_packed() {
    for architecture in MIXTURES {
        let (samples, policy) = (sampled(&tiny(architecture, true)), moved(architecture));
        let expected = logprobs(&policy, &replayed(shared_micros(&samples, 10_000)));
        assert_ne!(logprobs(&policy, &shared_micros(&samples, 10_000)), expected, "{architecture}: replay shows");
        for max_tokens in [1, 70] {
            assert_eq!(logprobs(&policy, &replayed(shared_micros(&samples, max_tokens))), expected, "{architecture}");
            assert_eq!(logprobs(&policy, &replayed(micros(&samples, max_tokens))), expected, "{architecture}");
        }
    }
}

#[test]
fn a_prompt_that_was_sampled_with_other_experts_is_not_shared() {
    let mut samples = sampled(&tiny("Qwen3MoeForCausalLM", true));
    let longest = samples[4..8].iter().map(|sample| sample.tokens.len()).max().unwrap();
    assert!(longest > samples[4].prompt_len, "there are completions");
    let tokens = |samples: &[TrainSample]| shared_micros(&samples[4..8], 10_000)[0].tokens.len();
    let before = tokens(&samples);
    samples[6].routed = sampled(&moved("Qwen3MoeForCausalLM"))[6].routed.clone().map(|other| {
        let mut routed = reckon::batch::RoutedExperts::new(other.shape());
        routed.extend(&other, 0..samples[6].prompt_len);
        routed.extend(samples[6].routed.as_ref().unwrap(), samples[6].prompt_len..samples[6].tokens.len() - 1);
        routed
    });
    // It has one of its own, and so has the sample behind it.
    assert_eq!(tokens(&samples), before + 2 * samples[6].prompt_len);
}

#[test]
fn gradients_through_replayed_experts_agree_with_finite_differences() {
    for architecture in ["Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "DeepseekV3ForCausalLM"] {
        let (samples, mut policy) = (sampled(&tiny(architecture, true)), moved(architecture));
        check_slopes(&mut policy, &replayed(shared_micros(&samples, 64)), architecture);
    }
}

/// A config of a run with several updates a step, which move the routers.
pub(crate) fn run_of(folder: &Path, replay: &str) -> PathBuf {
    let config = balanced_run(folder, 3);
    let more = format!("completions_per_update = 4, drop_zero_signal = false, router_replay = '{replay}'");
    let edited = fs::read_to_string(&config).unwrap().replace("completions_per_update = 8", &more);
    fs::write(&config, edited.replace("lr = 1e-3", "lr = 1e-2")).unwrap();
    config
}

fn of_steps<'a>(records: &'a [Record], name: &'a str) -> impl Iterator<Item = Option<f64>> + 'a {
    records[1..].iter().map(move |record| record.get(name))
}

#[test]
fn a_run_of_four_updates_a_step_replays_on_any_ranks_and_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = run_of(folder.path(), "rollout");
    let expected = records(&check_resumes(&config, &[1]));
    assert!(of_steps(&expected, "optim/updates").all(|updates| updates == Some(4.0)));
    assert!(of_steps(&expected, "router/differ_frac").all(|share| share == Some(0.0)));
    assert!(of_steps(&expected, "router/replayed_frac").any(|share| share > Some(0.0)), "{expected:?}");
    succeeds_on(2, &["train", text(&config), "--out", text(&at("ranks"))]);
    assert_eq!(records(&at("ranks")), expected);

    let apart = at("own");
    let own = ["--set", "grpo.router_replay=none", "--out", text(&apart)];
    succeeds(&[&["train", text(&config)][..], &own].concat());
    let own = records(&at("own"));
    assert!(of_steps(&own, "router/differ_frac").any(|share| share > Some(0.0)), "{own:?}");
    assert!(of_steps(&own, "router/replayed_frac").all(|share| share.is_none()));
}

#[test]
fn replay_is_refused_in_a_line_where_no_experts_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 1, "grpo = {router_replay = 'rollout'}");
    let complaint = fails(&["train", text(&config), "--out", text(&folder.path().join("run"))]);
    assert!(complaint.contains("this one has none") && complaint.trim().lines().count() == 1, "{complaint}");
}
