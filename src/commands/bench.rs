//! `reckon bench`: sampling and update on a job that other trainers can be given too.
//!
//! A decoder of Qwen2 shape with random weights, prompts of 16 random tokens, completions of exactly `--new` tokens,
//! then one update over all of them. Median of the timed steps after one to warm up.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Result;
use reckon_datasets::{Counted, Example};
use serde_json::json;
use tokenizers::Tokenizer;

use crate::config::{GrpoConfig, OptimConfig, PrecisionChoice};
use crate::grpo::{TrainSample, micro_batches, token_losses};
use crate::model::files::folder::{read_config, read_tokenizer};
use crate::model::{Companions, CpuOptions, Layout, ModelConfig, ModelFolder, Weights};
use crate::ops::linear::{Epilogue, PackedMatrix, Precision};
use crate::output::say;
use crate::parallel::{default_threads, lock};
use crate::policy::{Policy, Training};
use crate::prompt::Prompt;
use crate::rollout::{Completion, Engine, PromptTokens, Request, SampleKey, Sampling};

/// Arguments of `reckon bench`: the job's shape.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Width of the residual stream.
    #[arg(long, default_value_t = 128)]
    d: usize,
    /// Layers.
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// Query heads.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Key and value heads; as many as query heads by default.
    #[arg(long)]
    kv_heads: Option<usize>,
    /// Width of the feed-forward layer.
    #[arg(long, default_value_t = 384)]
    ffn: usize,
    /// Size of the vocabulary.
    #[arg(long, default_value_t = 64)]
    vocab: usize,
    /// What products are computed in.
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Fp32)]
    precision: PrecisionChoice,
    /// Tokens of each prompt.
    #[arg(long, default_value_t = 16)]
    prompt: usize,
    /// Prompts a step.
    #[arg(long, default_value_t = 16)]
    prompts: usize,
    /// Completions a prompt.
    #[arg(long, default_value_t = 16)]
    group: usize,
    /// New tokens of each completion.
    #[arg(long, default_value_t = 128)]
    new: usize,
    /// Timed steps.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Threads; 0 takes one for each core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Rows sampled at a time, over all threads.
    #[arg(long, default_value_t = 128)]
    capacity: usize,
    /// Most tokens of a micro-batch. Two sequences of the job: what a layer keeps then stays in the second cache.
    #[arg(long, default_value_t = 320)]
    micro_batch_tokens: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Seconds of a step's halves, and the tokens that the update computed: a prompt once for the completions of a
/// micro-batch.
struct Timing {
    sample_s: f64,
    update_s: f64,
    trained: usize,
}

pub(super) fn run(args: Args) -> Result<()> {
    let threads = if args.threads == 0 { default_threads() } else { args.threads };
    let model = random_model(&args)?;
    let weights = model.weights.layout.len();
    let mut policy = Policy::new(model, CpuOptions { threads, precision: args.precision.into(), recompute: false });
    let optim = OptimConfig::default();
    policy.learner.begin(&Training { adamw: optim.adamw(), moments: optim.moments, reference: false })?;
    let mut timings = Vec::new();
    let mut memory = Vec::new();
    for step in 0..=args.steps {
        let timing = one_step(&args, &mut policy, step as u64)?;
        memory.push(resident_mib());
        if step > 0 {
            timings.push(timing);
        }
    }
    let tokens = (args.prompts * args.group * args.new) as f64;
    let sample_s = median(timings.iter().map(|t| t.sample_s));
    let update_s = median(timings.iter().map(|t| t.update_s));
    let best = best_product(args.d, args.ffn, args.precision.into()) * threads as f64;
    let sample_flops = 2.0 * products(&args) * tokens / sample_s;
    let trained = median(timings.iter().map(|t| t.trained as f64));
    let update_flops = 6.0 * products(&args) * trained / update_s;
    let report = json!({
        "threads": threads, "parameters": weights,
        "sample_tokens_per_s": tokens / sample_s, "update_tokens_per_s": tokens / update_s,
        "step_s": sample_s + update_s,
        "matmul_best_gflops": best / 1e9,
        "sample_matmul_gflops": sample_flops / 1e9, "update_matmul_gflops": update_flops / 1e9,
        "sample_share_of_best": sample_flops / best, "update_share_of_best": update_flops / best,
        "memory_mib_first": memory.first(), "memory_mib_last": memory.last(),
    });
    if args.json {
        say!("{report}")?;
        return Ok(());
    }
    say!("{weights} weights, {threads} threads")?;
    say!(
        "sampling {:>9.0} tokens/s   update {:>9.0} tokens/s   step {:.3} s",
        tokens / sample_s,
        tokens / update_s,
        sample_s + update_s
    )?;
    say!(
        "matrix products: sampling {:.0}, update {:.0}, best {:.0} GFLOP/s",
        sample_flops / 1e9,
        update_flops / 1e9,
        best / 1e9
    )?;
    Ok(())
}

/// Samples, invents rewards, updates.
fn one_step(args: &Args, policy: &mut Policy, step: u64) -> Result<Timing> {
    let mut stream = Counted::new(&[0xbe4c, step]);
    let prompts = random_prompts([args.prompts, args.prompt, args.vocab], &mut stream);
    let sampling = Sampling {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        max_new_tokens: args.new,
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
    };
    let start = Instant::now();
    let done: Mutex<Vec<(usize, usize, Completion)>> = Mutex::new(Vec::new());
    let tokens: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
    let key = SampleKey { seed: 0, step };
    let request = Request { prompts: &tokens, group_size: args.group, sampling: &sampling, key };
    Engine::of(policy, args.capacity).generate(&request, &|p, s, c| lock(&done).push((p, s, c)))?;
    let sample_s = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_by_key(|(p, s, _)| (*p, *s));
    let samples: Vec<TrainSample> = done
        .into_iter()
        .map(|(p, _, c)| TrainSample {
            tokens: [prompts[p].tokens.as_slice(), &c.tokens].concat(),
            prompt_len: args.prompt,
            rollout_logprobs: c.logprobs,
            advantage: stream.normal() as f32,
            masked: false,
        })
        .collect();
    let grpo = GrpoConfig::default();
    let micros = micro_batches(&samples, grpo.loss_norm(), args.micro_batch_tokens, policy.learner.prompt_layout());
    let loss = grpo.loss();
    policy.learner.gradients(&micros, 1.0, &|micro, now| token_losses(now, micro, &loss))?;
    policy.update(1e-4)?;
    let trained = micros.iter().map(|micro| micro.tokens.len()).sum();
    Ok(Timing { sample_s, update_s: start.elapsed().as_secs_f64(), trained })
}

/// Prompts of as many random tokens of a vocabulary.
pub fn random_prompts([count, tokens, vocab]: [usize; 3], stream: &mut Counted) -> Vec<Prompt> {
    let example = Arc::new(Example {
        id: "bench".into(),
        question: String::new(),
        answer: "".into(),
        messages: Vec::new(),
        info: Default::default(),
    });
    (0..count as u64)
        .map(|index| {
            let tokens = (0..tokens).map(|_| stream.below(vocab) as u32).collect();
            Prompt::new(example.clone(), index, tokens)
        })
        .collect()
}

/// A model of the job's shape.
fn random_model(args: &Args) -> Result<ModelFolder> {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "vocab_size": args.vocab, "hidden_size": args.d,
        "intermediate_size": args.ffn, "num_hidden_layers": args.layers, "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv_heads.unwrap_or(args.heads),
        "max_position_embeddings": args.prompt + args.new, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
    });
    let config = read_config(config.to_string().as_bytes())?;
    let tokenizer = character_tokenizer(&config)?;
    let weights = Weights::random(Layout::new(&config, config.family()?), 1);
    Ok(ModelFolder { config, tokenizer, companions: Companions::default(), weights })
}

/// A tokenizer whose tokens are characters.
pub fn character_tokenizer(config: &ModelConfig) -> Result<Tokenizer> {
    let character = |i: usize| char::from_u32(0x4e00 + i as u32 % 0x5000).unwrap_or('?').to_string();
    let vocab: serde_json::Map<_, _> = (0..config.vocab_size.min(0x5000)).map(|i| (character(i), json!(i))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "." }, "behavior": "Isolated", "invert": false },
        "post_processor": null, "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": character(0) },
    });
    read_tokenizer(tokenizer.to_string().as_bytes(), config)
}

/// Multiply-adds in matrix products that a token costs, forward.
fn products(args: &Args) -> f64 {
    let (d, f) = (args.d as f64, args.ffn as f64);
    let kv = args.kv_heads.unwrap_or(args.heads) as f64 / args.heads as f64;
    args.layers as f64 * ((2.0 + 2.0 * kv) * d * d + 3.0 * d * f) + args.vocab as f64 * d
}

/// FLOP/s of one thread on a product of the model's widths whose operands stay in the cache, best of 20.
fn best_product(d: usize, f: usize, precision: Precision) -> f64 {
    let rows = 512;
    let (x, mut y) = (vec![0.5f32; rows * d], vec![0f32; rows * 2 * f]);
    let w = PackedMatrix::new(&vec![0.25f32; 2 * f * d], d, precision);
    let seconds = (0..20).map(|_| {
        let start = Instant::now();
        w.forward(&x, &mut y, Epilogue::None);
        start.elapsed().as_secs_f64()
    });
    2.0 * (rows * d * 2 * f) as f64 / seconds.fold(f64::INFINITY, f64::min)
}

/// Resident memory of this process in MiB, where the system tells.
fn resident_mib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
