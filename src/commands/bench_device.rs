//! `reckon bench-device`: the update's speed and memory on a CUDA card at the shapes of real models, with random weights,
//! beside the card's own rate of matrix products.

use std::time::Instant;

use anyhow::Result;
use half::bf16;
use reckon_datasets::Counted;
use serde_json::{Value, json};

use crate::config::OptimConfig;
use crate::grpo::{LossNorm, MicroBatch, TrainSample, micro_batches};
use crate::model::folder::read_config;
use crate::model::{Decoder, DeviceModel, Layout, ModelConfig, Weights};
use crate::ops::attention::Heads;
use crate::ops::device::{Class, Device, attention, cuda, products};
use crate::optim::{DeviceAdamW, MomentKind};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which card.
    #[arg(long, default_value_t = 0)]
    card: usize,
    /// Packed tokens of a micro-batch, in one sequence.
    #[arg(long, default_value_t = 16384)]
    tokens: usize,
    /// Updates to time, after one that is not.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Keep the optimizer's moments in eight bits.
    #[arg(long)]
    eight_bit: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let card = cuda::card(args.card)?;
    let device = cuda::open(args.card)?;
    let rate = product_rate(&device)?;
    let (forward_s, backward_s) = attention_seconds(&device, args.tokens)?;
    let update = update(&args, &device, rate)?;
    let report = json!({
        "card": card.name, "capability": format!("{}.{}", card.capability.0, card.capability.1),
        "product_tflops": rate / 1e12, "attention_forward_s": forward_s, "attention_backward_s": backward_s,
        "update": update,
    });
    println!("{}", if args.json { report.to_string() } else { serde_json::to_string_pretty(&report)? });
    Ok(())
}

/// Seconds of `work`, the median of several runs after one that is not timed; `wait` ends with a download.
fn seconds(runs: usize, work: impl Fn() -> Result<()>, wait: impl Fn() -> Result<()>) -> Result<f64> {
    work()?;
    wait()?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        wait()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn random(name: u64, n: usize) -> Vec<bf16> {
    let mut stream = Counted::new(&[0xbe4c, name]);
    (0..n).map(|_| bf16::from_f32(stream.unit() as f32 - 0.5)).collect()
}

/// FLOP/s of a large product.
fn product_rate(device: &Device) -> Result<f64> {
    let n = 8192;
    let (x, w) = (random(1, n * n), random(2, n * n));
    let (x, w) = (device.upload(Class::Activations, &x)?, device.upload(Class::Activations, &w)?);
    let y = device.buffer::<bf16>(Class::Activations, n * n)?;
    let wait = || y.part(0..1).read().map(drop);
    Ok(2.0 * (n as f64).powi(3) / seconds(5, || products::forward(x.all(), w.all(), y.all(), n, false), wait)?)
}

/// Seconds of attention over one sequence, forward and backward, at the heads of Qwen3-0.6B.
fn attention_seconds(device: &Device, t: usize) -> Result<(f64, f64)> {
    let heads = Heads { query: 16, key_value: 8, size: 128 };
    let qkv = device.upload(Class::Activations, &random(3, t * heads.row()))?;
    let d_o = device.upload(Class::Activations, &random(4, t * heads.output()))?;
    let o = device.buffer::<bf16>(Class::Activations, t * heads.output())?;
    let d_qkv = device.buffer::<bf16>(Class::Activations, t * heads.row())?;
    let lse = device.buffer::<f32>(Class::Activations, t * heads.query)?;
    let delta = device.buffer::<f32>(Class::Activations, t * heads.query)?;
    let tiles = attention::upload_tiles(device, &[0, t as u32])?;
    let kept = attention::Kept { qkv: qkv.all(), o: o.all(), lse: lse.all() };
    let forward = || attention::forward(heads, qkv.all(), tiles.all(), o.all(), lse.all());
    let backward = || attention::backward(heads, kept, tiles.all(), d_o.all(), delta.all(), d_qkv.all());
    Ok((
        seconds(5, forward, || o.part(0..1).read().map(drop))?,
        seconds(5, backward, || d_qkv.part(0..1).read().map(drop))?,
    ))
}

/// The shape of Qwen3-0.6B.
fn shape(tokens: usize) -> Result<ModelConfig> {
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": tokens + 1, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": true,
    });
    read_config(config.to_string().as_bytes())
}

fn micro_batch(tokens: usize, vocab: usize) -> Option<MicroBatch> {
    let mut stream = Counted::new(&[0xbe4c, 5]);
    let sample = TrainSample {
        tokens: (0..=tokens).map(|_| stream.below(vocab) as u32).collect(),
        prompt_len: 1,
        rollout_logprobs: vec![0.0; tokens],
        ref_logprobs: None,
        advantage: 1.0,
        masked: false,
    };
    micro_batches(&[sample], LossNorm::Token, tokens).pop()
}

/// Whole updates: two micro-batches forward and backward with recompute, then AdamW.
fn update(args: &Args, device: &Device, rate: f64) -> Result<Value> {
    let config = shape(args.tokens)?;
    let weights = Weights::random(Layout::new(&config, config.family()?), 1).into();
    let model = DeviceModel::new(device.clone(), &Decoder::new(&config, true), &weights)?;
    let kind = if args.eight_bit { MomentKind::EightBit } else { MomentKind::Full };
    let mut optimizer = DeviceAdamW::new(OptimConfig::default().adamw(), kind, &model)?;
    let Some(micro) = micro_batch(args.tokens, config.vocab_size) else { anyhow::bail!("--tokens 0: at least 1") };
    let mut times = Vec::new();
    for step in 0..=args.steps {
        let start = Instant::now();
        for _ in 0..2 {
            model.gradient(&micro, 1.0, |micro, _| (micro.loss_weights.clone(), ()))?;
        }
        // Reads the gradient's norm, so it waits for all of the update before.
        optimizer.update(&model, 1e-6)?;
        if step > 0 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    let step_s = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    let tokens_per_s = 2.0 * args.tokens as f64 / step_s;
    let classes = [Class::Weights, Class::Optimizer, Class::Gradients, Class::Activations];
    let gib = classes.map(|class| device.held(class) as f64 / f64::from(1 << 30));
    let flops = 6.0 * weights.values().len() as f64 * tokens_per_s;
    Ok(json!({
        "shape": "Qwen3-0.6B", "tokens_per_s": tokens_per_s, "step_s": step_s, "share_of_product_rate": flops / rate,
        "gib": { "weights": gib[0], "optimizer": gib[1], "gradients": gib[2], "activations": gib[3] },
        "gib_total": gib.iter().sum::<f64>(),
    }))
}
