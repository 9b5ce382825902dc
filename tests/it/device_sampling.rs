//! Sampling on a device: its kernels against sums written out, run with threads in several orders, and whole rollouts
//! against the trainer's log-probabilities there and on a CPU.

use half::bf16;
use reckon::model::DeviceModel;
use reckon::ops::attention::Heads;
use reckon::ops::attention::cached::device::{Cache, Slot, partial_len};
use reckon::ops::device::Device;
use reckon::ops::sample;
use reckon::policy::Model;
use reckon::policy::Policy;
use reckon::prompt::Prompt;
use reckon::rollout::sampling::Sampled;
use reckon::rollout::{Completion, Engine, PromptTokens, Request, SampleKey, Sampling};

use super::device_lora::adapted;
use super::device_model::rounded;
use super::host_device::{device, device_of};
use super::kernels::{BF16, FP32, check, down, empty, random, to_bf16, up};
use super::models::{FAMILIES, cpu, generate, generate_by, micros, prompts, sampling};
use super::sampling::{check_stops, train_samples};

/// Softmax attention of the last token of each sequence over all of it, in f64. `qkv` holds the sequences end to end.
fn attention(heads: Heads, qkv: &[f32], lengths: &[usize]) -> Vec<f32> {
    let (mut out, mut start) = (Vec::new(), 0);
    for &length in lengths {
        let tokens: Vec<&[f32]> = qkv[start * heads.row()..][..length * heads.row()].chunks(heads.row()).collect();
        for head in 0..heads.query {
            let part = |token: &[f32], first: usize| token[first * heads.size..][..heads.size].to_vec();
            let (kv, query) = (head / (heads.query / heads.key_value), part(tokens[length - 1], head));
            let score = |token: &&[f32]| {
                let key = part(token, heads.query + kv);
                query.iter().zip(key).map(|(q, k)| f64::from(q * k)).sum::<f64>() / (heads.size as f64).sqrt()
            };
            let weights: Vec<f64> = tokens.iter().map(|token| score(token).exp()).collect();
            let total: f64 = weights.iter().sum();
            let values: Vec<Vec<f32>> =
                tokens.iter().map(|token| part(token, heads.query + heads.key_value + kv)).collect();
            out.extend((0..heads.size).map(|d| {
                let sum: f64 = weights.iter().zip(&values).map(|(w, value)| w * f64::from(value[d])).sum();
                (sum / total) as f32
            }));
        }
        start += length;
    }
    out
}

/// Puts whole sequences into the cache, one copied from another, and attends from the last token of those in `rows`.
fn attend(device: &Device, heads: Heads, qkv: &[f32], lengths: &[usize], rows: &[usize]) -> Vec<f32> {
    let (layers, layer, longest) = (2, 1, *lengths.iter().max().unwrap());
    let cache = Cache::new(device, heads, layers, lengths.len() + 1, longest + 3).unwrap();
    // The first sequence comes to its place by way of another.
    let place = |sequence: usize| if sequence == 0 { lengths.len() } else { sequence };
    let (mut slots, mut last) = (Vec::<Slot>::new(), Vec::new());
    for (sequence, &length) in lengths.iter().enumerate() {
        slots.extend((0..length).map(|position| cache.slot(place(sequence), position)));
        last.push(slots.len() - 1);
    }
    cache.put(layer, up(device, &to_bf16(qkv)).all(), up(device, &slots).all()).unwrap();
    cache.copy(place(0), 0, lengths[0]).unwrap();
    let row = |token: usize| &qkv[token * heads.row()..][..heads.row()];
    let qkv: Vec<bf16> = rows.iter().flat_map(|&sequence| to_bf16(row(last[sequence]))).collect();
    let slots: Vec<Slot> = rows.iter().map(|&sequence| cache.slot(sequence, lengths[sequence] - 1)).collect();
    let longest = rows.iter().map(|&sequence| lengths[sequence]).max().unwrap();
    let (o, partial) =
        (empty(device, rows.len() * heads.output()), empty(device, partial_len(heads, rows.len(), longest)));
    let (qkv, slots) = (up(device, &qkv), up(device, &slots));
    cache.attend(layer, qkv.all(), slots.all(), longest, o.all(), partial.all()).unwrap();
    down(o.all())
}

/// One token, lengths that fill no tile, one more than a tile and than a stretch; more heads a key than a block takes.
#[test]
fn attention_over_a_cache_agrees_with_sums_written_out_and_a_row_with_itself_alone() {
    for (size, query, key_value, lengths) in [
        (32, 4, 2, &[1usize, 70, 16, 257][..]),
        (64, 3, 1, &[65, 3]),
        (128, 2, 2, &[1]),
        (128, 1, 1, &[20, 530]),
        (32, 38, 2, &[17]),
        (256, 2, 1, &[1, 65, 130]),
        (256, 18, 1, &[300]),
    ] {
        let heads = Heads::alike(query, key_value, size);
        let qkv = random(1, lengths.iter().sum::<usize>() * heads.row());
        let expected = attention(heads, &qkv, lengths);
        let all: Vec<usize> = (0..lengths.len()).collect();
        check(&format!("cached attention of {heads:?} over {lengths:?}"), &[(&expected, BF16)], |d| {
            let together = attend(d, heads, &qkv, lengths, &all);
            for (row, together) in all.iter().zip(together.chunks(heads.output())) {
                assert_eq!(attend(d, heads, &qkv, lengths, &[*row]), together, "row {row} alone");
            }
            vec![together]
        });
    }
}

#[test]
fn draws_are_those_of_the_sampler() {
    let greedy = Sampling { temperature: 0.0, ..sampling(1) };
    for (v, scale) in [(1, 1.0), (24, 3.0), (700, 1.0), (5000, 6.0)] {
        let uniforms = [0.0, 0.1, 0.37, 0.5, 0.73, 0.99, 0.9999];
        let logits: Vec<f32> = random(v as u64, v * uniforms.len()).iter().map(|z| z * scale).collect();
        for sampling in [&sampling(1), &greedy] {
            let sampled = logits.chunks(v).zip(uniforms).map(|(z, uniform)| sampling.sample(&mut z.to_vec(), uniform));
            let (tokens, logprobs): (Vec<f32>, Vec<f32>) =
                sampled.map(|Sampled { token, logprob }| (token as f32, logprob)).unzip();
            let what = format!("sampled at temperature {} of {v}", sampling.temperature);
            check(&what, &[(&tokens, 0.0), (&logprobs, FP32)], |d| {
                let (logits, sampled) = (up(d, &logits), empty::<sample::Sampled>(d, uniforms.len()));
                if sampling.temperature > 0.0 {
                    sample::rows(logits.all(), up(d, &uniforms).all(), sampling.temperature, sampled.all())
                } else {
                    sample::argmax(logits.all(), sampled.all())
                }
                .unwrap();
                let sampled = sampled.all().read().unwrap();
                vec![
                    sampled.iter().map(|sampled| sampled[0] as f32).collect(),
                    sampled.iter().map(|sampled| f32::from_bits(sampled[1])).collect(),
                ]
            });
        }
    }
}

pub(crate) fn model(policy: &Policy, device: Device) -> DeviceModel {
    DeviceModel::new(device, &cpu(policy).decoder, cpu(policy).parameters()).unwrap()
}

fn generate_on(
    model: &DeviceModel,
    policy: &Policy,
    prompts: &[Prompt],
    sampling: &Sampling,
    capacity: usize,
) -> Vec<Completion> {
    let engine = Engine { model: Model::Device(model), ..Engine::of(policy, capacity) };
    generate_by(&engine, prompts, sampling)
}

/// Log-probabilities are 1 to 4 here; rounding to bf16 in two layers moves one by up to 0.05.
const LOGPROB: f32 = 0.05;

fn assert_near(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let near = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < LOGPROB);
    assert!(near, "{what}: log-probabilities {got:?}, not {expected:?}");
}

/// Rows enter and leave all the time: there are fewer sequences than completions, and four of them share a prompt.
#[test]
fn log_probabilities_of_a_rollout_are_those_of_the_trainer_there_and_on_a_cpu() {
    let policies = FAMILIES.map(|family| (family, rounded(family, true)));
    let adapted = ("an adapter", adapted(FAMILIES[2], 4, &["*_proj"]));
    for (what, policy) in policies.into_iter().chain([adapted]) {
        check_rollouts(what, &policy);
    }
}

/// Log-probabilities of rollouts of a policy against those of the trainer there and on a CPU.
pub(super) fn check_rollouts(what: &str, policy: &Policy) {
    let Some(device) = device(0) else { return };
    let model = model(policy, device);
    let (prompts, sampling) = (prompts(4), sampling(9));
    let completions = generate_on(&model, policy, &prompts, &sampling, 5);
    assert_eq!(completions.len(), 16, "{what}");
    let micros = micros(&train_samples(&prompts, &completions), 60);
    for (micro, on_cpu) in micros.iter().zip(cpu(policy).logprobs(None, &micros, sampling.temperature)) {
        let there = model.logprobs(None, micro, sampling.temperature).unwrap();
        assert_near(&format!("{what}, trainer on the device"), &micro.old_logprobs, &there.logprobs);
        assert_near(&format!("{what}, trainer on a CPU"), &micro.old_logprobs, &on_cpu.logprobs);
    }
}

#[test]
fn capacity_does_not_change_what_is_sampled_on_a_device() {
    check_capacity(&rounded(FAMILIES[2], true));
}

/// What is sampled of a policy with much room and with little.
pub(super) fn check_capacity(policy: &Policy) {
    // A card's products may add in another order for another number of rows: this holds where they are plain loops.
    let Some(device) = device_of(0, usize::MAX) else { return };
    let model = model(policy, device);
    let ordered = Sampling { top_p: 0.9, ..sampling(8) };
    for sampling in [sampling(8), ordered] {
        let expected = generate_on(&model, policy, &prompts(3), &sampling, 7);
        for (a, b) in expected.iter().zip(generate_on(&model, policy, &prompts(3), &sampling, 1)) {
            assert_eq!((&a.tokens, &a.logprobs, &a.text), (&b.tokens, &b.logprobs, &b.text));
        }
    }
}

#[test]
fn a_stop_token_and_a_stop_string_end_a_completion_on_a_device() {
    let Some(device) = device(0) else { return };
    let policy = rounded(FAMILIES[0], true);
    let sampling = Sampling { stop_strings: vec!["g".into(), "hi".into()], ..sampling(20) };
    check_stops(&generate_on(&model(&policy, device), &policy, &prompts(8), &sampling, 16));
}

#[test]
fn the_likeliest_tokens_on_a_device_are_those_of_a_cpu_but_where_two_are_as_likely() {
    let Some(device) = device(0) else { return };
    let (policy, prompts) = (rounded(FAMILIES[1], true), prompts(6));
    let greedy = Sampling { temperature: 0.0, stop_tokens: Vec::new(), stop_strings: Vec::new(), ..sampling(10) };
    // Of one token that is kept the device's host orders all: it has to be the likeliest too.
    let only = Sampling { temperature: 1.0, top_k: 1, ..greedy.clone() };
    let model = model(&policy, device);
    let expected = generate(&policy, &prompts, &greedy, 1, 8);
    let got = generate_on(&model, &policy, &prompts, &greedy, 8);
    let same = generate_on(&model, &policy, &prompts, &only, 8);
    let micros = micros(&train_samples(&prompts, &got), 10_000);
    let mut on_cpu = cpu(&policy).logprobs(None, &micros, 1.0).into_iter().flat_map(|stats| stats.logprobs);
    let mut equal = 0;
    for ((expected, got), same) in expected.iter().zip(&got).zip(same) {
        assert_eq!(got.tokens, same.tokens);
        let on_cpu: Vec<f32> = on_cpu.by_ref().take(got.tokens.len()).collect();
        match expected.tokens.iter().zip(&got.tokens).position(|(a, b)| a != b) {
            None => equal += 1,
            Some(at) => assert!((expected.logprobs[at] - on_cpu[at]).abs() < LOGPROB, "{expected:?}, not {got:?}"),
        }
    }
    assert!(equal > 12, "{equal} of 24 completions are the CPU's");
}

#[test]
fn a_cache_that_does_not_fit_names_itself_and_what_to_set() {
    let Some(device) = device_of(0, 1 << 20) else { return };
    let policy = rounded(FAMILIES[0], true);
    let engine = model(&policy, device.clone());
    let engine = Engine { model: Model::Device(&engine), ..Engine::of(&policy, 512) };
    let refused = |prompts: &[Prompt], group_size, new| {
        let prompts: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
        let (sampling, key) = (sampling(new), SampleKey { seed: 1, step: 2 });
        let request = Request {
            prompts: &prompts,
            group_size,
            sampling: &sampling,
            key,
            calling: None,
            order: None,
            routed: false,
        };
        engine.generate(&request, &|_, _, _| ()).unwrap_err().to_string()
    };
    let error = refused(&prompts(8), 64, 50);
    assert!(error.contains("cache asked for") && error.contains("lower rollout.capacity"), "{error}");
    let error = refused(&prompts(1), 1, 200);
    assert!(error.contains("take 202 tokens: the model's context has 128"), "{error}");
}
