//! Tiny random models of all families, and batches for them.

use std::sync::{Arc, Mutex};

use std::any::Any;

use reckon::batch::{MicroBatch, PromptLayout, TokenLosses, TokenStats};
use reckon::grpo::{LossNorm, TrainSample, micro_batches};
use reckon::model::files::folder::{read_config, read_tokenizer};
use reckon::model::{Companions, CpuModel, DeviceModel, Layout, ModelFolder, Weights};
use reckon::policy::{CpuLearner, DeviceLearner, Policy};
use reckon::prompt::Prompt;
use reckon::rollout::{Completion, Engine, PromptTokens, Request, SampleKey, Sampling};
use reckon_datasets::{Counted, Example};
use serde_json::json;

pub(crate) const FAMILIES: [&str; 3] = ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];
/// Families with experts, which a device does not compute.
pub(crate) const MIXTURES: [&str; 5] = [
    "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM",
    "OlmoeForCausalLM",
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
];
/// The family with delta nets.
pub(crate) const DELTA: &str = "Qwen3_5ForCausalLM";
pub(crate) const VOCAB: usize = 24;

/// All families that a CPU computes.
pub(crate) fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.into_iter().chain(MIXTURES).chain([DELTA])
}

/// What a family's config says beside what all have.
fn of_family(architecture: &str, head_dim: usize) -> serde_json::Value {
    match architecture {
        "Qwen2MoeForCausalLM" => json!({
            "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": false,
            "shared_expert_intermediate_size": 40, "mlp_only_layers": [0],
        }),
        "Qwen3MoeForCausalLM" => json!({
            "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": true,
        }),
        "OlmoeForCausalLM" => json!({ "num_experts": 6, "num_experts_per_tok": 3, "intermediate_size": 24 }),
        "DeepseekV2ForCausalLM" | "DeepseekV3ForCausalLM" => json!({
            "num_key_value_heads": 4, "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
            "v_head_dim": 10, "q_lora_rank": if architecture.contains("V3") { Some(24) } else { None },
            "n_routed_experts": 6, "num_experts_per_tok": 2, "n_group": 3, "topk_group": 2, "n_shared_experts": 1,
            "moe_intermediate_size": 24, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
            "rope_scaling": {
                "type": "yarn", "factor": 2.0, "beta_fast": 4.0, "mscale": 1.0, "mscale_all_dim": 0.7,
                "original_max_position_embeddings": 64,
            },
        }),
        DELTA => json!({
            "num_hidden_layers": 3, "layer_types": ["linear_attention", "linear_attention", "full_attention"],
            "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            // With a head size that a device computes, sizes of states that it does.
            "linear_key_head_dim": if head_dim == 32 { 8 } else { 6 },
            "linear_value_head_dim": if head_dim == 32 { 16 } else { 10 },
        }),
        _ => json!({}),
    }
}

/// A model with grouped heads, a head size apart from width / heads, and weights far from their start.
pub(crate) fn tiny(architecture: &str, tied: bool) -> Policy {
    tiny_with(architecture, tied, 16)
}

/// The same with another head size; with 32, all sizes are such that a device computes them.
pub(crate) fn tiny_with(architecture: &str, tied: bool, head_dim: usize) -> Policy {
    tiny_of(architecture, tied, head_dim, &json!({}))
}

/// The same with what a test sets of its config.
pub(crate) fn tiny_of(architecture: &str, tied: bool, head_dim: usize, set: &serde_json::Value) -> Policy {
    let mut config = json!({
        "architectures": [architecture], "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": head_dim,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": tied, "hidden_act": "silu", "sliding_window": null,
    });
    config.as_object_mut().unwrap().extend(of_family(architecture, head_dim).as_object().unwrap().clone());
    config.as_object_mut().unwrap().extend(set.as_object().unwrap().clone());
    let config = read_config(config.to_string().as_bytes()).unwrap();
    let vocab: serde_json::Map<_, _> = (0..VOCAB).map(|i| (((b'a' + i as u8) as char).to_string(), json!(i))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "." }, "behavior": "Isolated", "invert": false },
        "post_processor": null, "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "a" },
    });
    let companions = Companions::new(tokenizer.to_string().as_bytes());
    let tokenizer = read_tokenizer(tokenizer.to_string().as_bytes(), &config).unwrap();
    let mut weights = Weights::random(Layout::of(&config).unwrap(), 3);
    let mut noise = Counted::new(&[4]);
    weights.values.iter_mut().for_each(|w| *w = *w * 3.0 + 0.03 * noise.normal() as f32);
    for entry in weights.layout.entries.iter().filter(|e| e.name.ends_with("A_log") || e.name.ends_with("dt_bias")) {
        // So that states remember several tokens.
        weights.values[entry.range.clone()].fill_with(|| (0.5 * noise.normal() - 1.0) as f32);
    }
    Policy::new(ModelFolder { config, tokenizer, companions, weights }, reckon::model::CpuOptions::default())
}

/// The model of a policy on a CPU.
pub(crate) fn cpu(policy: &Policy) -> &CpuModel {
    &(&*policy.learner as &dyn Any).downcast_ref::<CpuLearner>().unwrap().model
}

/// What is trained on a CPU.
pub(crate) fn cpu_learner(policy: &Policy) -> &CpuLearner {
    (&*policy.learner as &dyn Any).downcast_ref().unwrap()
}

/// The model of a policy on a device.
pub(crate) fn on_device(policy: &Policy) -> &DeviceModel {
    &(&*policy.learner as &dyn Any).downcast_ref::<DeviceLearner>().unwrap().model
}

/// The same, to be changed.
pub(crate) fn cpu_mut(policy: &mut Policy) -> &mut CpuModel {
    &mut (&mut *policy.learner as &mut dyn Any).downcast_mut::<CpuLearner>().unwrap().model
}

/// Samples of unequal length, from one token on, two a prompt, with random tokens, advantages and weights.
pub(crate) fn samples(count: usize) -> Vec<TrainSample> {
    let mut random = Counted::new(&[8]);
    (0..count)
        .map(|i| {
            let (prompt_len, new) = (2 + i / 2 % 3, 1 + 11 * i % 20);
            let mut prompt = Counted::new(&[9, i as u64 / 2]);
            let prompt = (0..prompt_len).map(|_| prompt.below(VOCAB) as u32);
            TrainSample {
                tokens: prompt.chain((0..new).map(|_| random.below(VOCAB) as u32)).collect(),
                prompt_len,
                rollout_logprobs: vec![-2.0; new],
                advantages: vec![random.normal() as f32; new],
                ..TrainSample::default()
            }
        })
        .collect()
}

/// A loss whose gradient is the tokens' weights.
pub(crate) fn rising(micro: &MicroBatch, _: &TokenStats) -> TokenLosses {
    TokenLosses { gradient: micro.loss_weights.clone(), ..TokenLosses::default() }
}

/// Micro-batches in which a group has its prompt once.
pub(crate) fn shared_micros(samples: &[TrainSample], max_tokens: usize) -> Vec<MicroBatch> {
    micro_batches(samples, LossNorm::Token, max_tokens, PromptLayout::Shared)
}

/// Micro-batches of whole sequences.
pub(crate) fn micros(samples: &[TrainSample], max_tokens: usize) -> Vec<MicroBatch> {
    micro_batches(samples, LossNorm::Token, max_tokens, PromptLayout::Repeated)
}

pub(crate) fn prompts(count: u64) -> Vec<Prompt> {
    let example = Arc::new(Example {
        id: "t".into(),
        question: String::new(),
        answer: "".into(),
        messages: Vec::new(),
        info: Default::default(),
    });
    (0..count)
        .map(|index| {
            let tokens = (0..3 + 5 * index % 19).map(|i| ((index * 7 + i * 3) % VOCAB as u64) as u32).collect();
            Prompt::new(example.clone(), index, tokens)
        })
        .collect()
}

pub(crate) fn sampling(max_new_tokens: usize) -> Sampling {
    Sampling {
        temperature: 0.8,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        max_new_tokens,
        stop_tokens: vec![5],
        stop_strings: vec!["gh".into()],
    }
}

/// Completions in the order of prompt and sample.
pub(crate) fn generate(
    policy: &Policy,
    prompts: &[Prompt],
    sampling: &Sampling,
    threads: usize,
    capacity: usize,
) -> Vec<Completion> {
    generate_by(&Engine { threads, ..Engine::of(policy, capacity) }, prompts, sampling)
}

/// The same by any engine.
pub(crate) fn generate_by(engine: &Engine, prompts: &[Prompt], sampling: &Sampling) -> Vec<Completion> {
    let done = Mutex::new(Vec::new());
    let key = SampleKey { seed: 1, step: 2 };
    let prompts: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
    let request = Request { prompts: &prompts, group_size: 4, sampling, key, calling: None, order: None, routed: true };
    engine.generate(&request, &|p, s, c| done.lock().unwrap().push((p, s, c))).unwrap();
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(p, s, _)| (*p, *s));
    done.into_iter().map(|(_, _, c)| c).collect()
}

/// A prompt of given tokens.
pub(crate) fn prompt_of(tokens: &[u32], index: u64) -> Prompt {
    Prompt { tokens: tokens.to_vec(), index, ..prompts(1).remove(0) }
}

/// The likeliest continuation of `tokens`, `count` tokens long.
pub(crate) fn generate_greedily(policy: &Policy, tokens: &[u32], count: usize) -> Completion {
    let (stop_tokens, stop_strings) = (Vec::new(), Vec::new());
    let sampling = Sampling { temperature: 0.0, stop_tokens, stop_strings, ..sampling(count) };
    generate(policy, &[prompt_of(tokens, 0)], &sampling, 1, 4).remove(0)
}
