//! `reckon bench`: sampling and update on a job that other trainers can be given too.
//!
//! A decoder with random weights, prompts of random tokens, completions of exactly `--new` tokens, then updates over
//! them: one, unless `--completions-per-update` asks for more. Median of the timed steps after one to warm up. Which
//! decoder is said in `shape`, and what the machine could do at most is found in `limits`.

mod limits;
mod shape;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Result;
use reckon_datasets::{Counted, Example};
use serde_json::json;
use tokenizers::Tokenizer;

use super::arguments::whole;
use crate::config::{ComputeConfig, DeviceChoice, GrpoConfig, OptimConfig, PrecisionChoice};
use crate::grpo::{TrainSample, micro_batches, mini_batches, token_losses};
use crate::model::files::folder::read_tokenizer;
use crate::model::{Companions, CpuOptions, Layout, ModelConfig, ModelFolder, Weights};
use crate::optim::MomentKind;
use crate::output::say;
use crate::parallel::{default_threads, lock};
use crate::policy::{Policy, Training};
use crate::prompt::Prompt;
use crate::rollout::{Completion, Engine, PromptTokens, Request, SampleKey, Sampling};

use shape::{Shape, ShapeArgs};

/// Arguments of `reckon bench`: the job's shape.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    shape: ShapeArgs,
    /// What products are computed in.
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Fp32)]
    precision: PrecisionChoice,
    /// Tokens of each prompt.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 16)]
    prompt: usize,
    /// Prompts a step.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 16)]
    prompts: usize,
    /// Completions a prompt.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 16)]
    group: usize,
    /// New tokens of each completion.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 128)]
    new: usize,
    /// Completions an update; 0 makes one update of all.
    #[arg(long, value_parser = whole::<usize>(0), default_value_t = 0)]
    completions_per_update: usize,
    /// Timed steps.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 5)]
    steps: usize,
    /// Threads; 0 takes one for each core.
    #[arg(long, value_parser = whole::<usize>(0), default_value_t = 0)]
    threads: usize,
    /// Most rows sampled at a time, over all threads; a small model takes no more than stay in its caches.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 128)]
    capacity: usize,
    /// Most tokens of a micro-batch; 0 takes what a run would.
    #[arg(long, value_parser = whole::<usize>(0), default_value_t = 0)]
    micro_batch_tokens: usize,
    /// Compute layers again in the backward.
    #[arg(long)]
    recompute: bool,
    /// How the optimizer keeps its moments.
    #[arg(long, value_enum, default_value_t = MomentKind::Full)]
    moments: MomentKind,
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

pub(super) fn run(mut args: Args) -> Result<()> {
    let threads = if args.threads == 0 { default_threads() } else { args.threads };
    let shape = args.shape.shape();
    let model = random_model(&shape, args.prompt + args.new)?;
    let (weights, products) = (model.weights.layout.len(), shape.products()?);
    let bytes = products * args.precision.bytes();
    let (device, micro_batch_tokens) = (DeviceChoice::Cpu, args.micro_batch_tokens);
    let mut compute = ComputeConfig { device, micro_batch_tokens, ..ComputeConfig::default() };
    compute.suit(weights, false);
    args.micro_batch_tokens = compute.micro_batch_tokens;
    let mut policy =
        Policy::new(model, CpuOptions { threads, precision: args.precision.into(), recompute: args.recompute });
    let optim = OptimConfig::default();
    policy.learner.begin(&Training {
        adamw: optim.adamw(),
        moments: args.moments,
        reference: false,
        aux_loss_coef: 0.0,
    })?;
    let mut timings = Vec::new();
    let mut memory = Vec::new();
    for step in 0..=args.steps {
        let timing = one_step(&args, shape.vocab, &mut policy, step as u64)?;
        memory.push(memory_mib("VmRSS:"));
        if step > 0 {
            timings.push(timing);
        }
    }
    // Before the limits are looked for, which take memory of their own.
    let peak = memory_mib("VmHWM:");
    let tokens = (args.prompts * args.group * args.new) as f64;
    let sample_s = median(timings.iter().map(|t| t.sample_s));
    let update_s = median(timings.iter().map(|t| t.update_s));
    let trained = median(timings.iter().map(|t| t.trained as f64));
    let best = limits::best_product(threads, shape.d, shape.ffn, args.precision.into());
    let read = limits::memory_read(threads);
    let sample_flops = 2.0 * products as f64 * tokens / sample_s;
    let update_flops = 6.0 * products as f64 * trained / update_s;
    // A row that decodes alone reads every weight that it is multiplied with.
    let alone = read / bytes as f64;
    let report = json!({
        "threads": threads, "parameters": weights, "micro_batch_tokens": args.micro_batch_tokens,
        "sample_tokens_per_s": tokens / sample_s, "update_tokens_per_s": tokens / update_s,
        "step_s": sample_s + update_s,
        "matmul_best_gflops": best / 1e9, "memory_read_gb_per_s": read / 1e9, "one_row_limit_tokens_per_s": alone,
        "sample_matmul_gflops": sample_flops / 1e9, "update_matmul_gflops": update_flops / 1e9,
        "sample_share_of_best": sample_flops / best, "update_share_of_best": update_flops / best,
        "memory_mib_first": memory.first(), "memory_mib_last": memory.last(),
        "memory_mib_peak": peak,
    });
    if args.json { say!("{report}") } else { print(&report) }
}

/// The report for people.
fn print(report: &serde_json::Value) -> Result<()> {
    let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    let (threads, weights, tokens) = (number("threads"), number("parameters"), number("micro_batch_tokens"));
    say!("{weights} weights, {threads} threads, micro-batches of {tokens} tokens")?;
    let (sampling, update) = (number("sample_tokens_per_s"), number("update_tokens_per_s"));
    say!("sampling {sampling:>9.0} tokens/s   update {update:>9.0} tokens/s   step {:.3} s", number("step_s"))?;
    let (sampling, update) = (number("sample_matmul_gflops"), number("update_matmul_gflops"));
    say!("products {sampling:>9.0} GFLOP/s    {update:>16.0} GFLOP/s")?;
    let (best, read, alone) = ("matmul_best_gflops", "memory_read_gb_per_s", "one_row_limit_tokens_per_s");
    say!(
        "limit    {:>9.0} GFLOP/s; memory reads {:.1} GB/s: {:.0} tokens/s for a row alone",
        number(best),
        number(read),
        number(alone)
    )?;
    say!("memory   {:>9.0} MiB at most", number("memory_mib_peak"))
}

/// Samples, invents rewards, updates.
fn one_step(args: &Args, vocab: usize, policy: &mut Policy, step: u64) -> Result<Timing> {
    let mut stream = Counted::new(&[0xbe4c, step]);
    let prompts = random_prompts([args.prompts, args.prompt, vocab], &mut stream);
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
    let request = Request {
        prompts: &tokens,
        group_size: args.group,
        sampling: &sampling,
        key,
        calling: None,
        order: None,
        routed: false,
    };
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
            advantages: vec![stream.normal() as f32; c.tokens.len()],
            rollout_logprobs: c.logprobs,
            ..TrainSample::default()
        })
        .collect();
    let (grpo, mut trained) = (GrpoConfig::default(), 0);
    let (loss, layout) = (grpo.loss(0.0), policy.learner.prompt_layout());
    for mini_batch in mini_batches(&samples, args.completions_per_update) {
        let micros = micro_batches(mini_batch, grpo.loss_norm(), args.micro_batch_tokens, layout);
        policy.learner.gradients(&micros, 1.0, &|micro, now| token_losses(now, micro, &loss))?;
        policy.update(1e-4)?;
        trained += micros.iter().map(|micro| micro.tokens.len()).sum::<usize>();
    }
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

/// A model of a shape with a context of so many tokens.
fn random_model(shape: &Shape, context: usize) -> Result<ModelFolder> {
    let config = shape.config(context)?;
    let tokenizer = character_tokenizer(&config)?;
    let weights = Weights::random(Layout::of(&config)?, 1);
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

/// A size of this process in MiB, where the system tells: `VmRSS:`, what it has, or `VmHWM:`, the most that it had.
fn memory_mib(name: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
