//! Speed and memory of whole updates: two micro-batches forward and backward, then AdamW.

use std::time::Instant;

use anyhow::{Context, Result};
use reckon_datasets::Counted;
use serde_json::{Value, json};

use crate::timing::{RandomWeights, median};
use crate::{Args, attention, gib, products};
use reckon::batch::{MicroBatch, PromptLayout, TokenLosses};
use reckon::config::{LoraConfig, OptimConfig, Target};
use reckon::grpo::{LossNorm, TrainSample, micro_batches};
use reckon::model::files::Source;
use reckon::model::layout::Mlp;
use reckon::model::{Adapter, Decoder, DeviceModel, Layout, ModelConfig, Parameters, Weights};
use reckon::ops::attention::Heads;
use reckon::ops::device::{Class, Device};
use reckon::ops::linear::Precision;
use reckon::optim::{DeviceAdamW, MomentKind};
use reckon::plan::{Job, Lora, Plan, Sizes};
use reckon::ranks::DeviceRanks;

/// Micro-batches of an update.
const MICRO_BATCHES: usize = 2;

/// A model with its optimizer, ready for updates.
pub(crate) struct Bench {
    pub(crate) config: ModelConfig,
    pub(crate) model: DeviceModel,
    optimizer: DeviceAdamW,
    /// Weights that a token meets.
    active: usize,
    /// Layers that attend, and their heads.
    attending: usize,
    heads: Heads,
    plan: Plan,
}

impl Bench {
    pub(crate) fn new(device: &Device, args: &Args) -> Result<Self> {
        let config = args.shape.config(args.tokens)?;
        let layout = Layout::of(&config)?;
        let decoder = Decoder::new(&config, args.recompute);
        let source = RandomWeights::new(&layout.entries);
        let adapter = adapter(args, &layout)?;
        let model = match &adapter {
            Some(adapter) => DeviceModel::frozen(device.clone(), &decoder, &layout, &source, Some(adapter))?,
            None => DeviceModel::new(device.clone(), &decoder, &all(&layout, &source)?)?,
        };
        let moments = if args.eight_bit { MomentKind::EightBit } else { MomentKind::Full };
        let optimizer = DeviceAdamW::new(OptimConfig::default().adamw(), moments, &model, DeviceRanks::default())?;
        let plan = Plan::new(&Sizes::of(&config)?, &job(args, adapter.as_ref(), moments));
        let (active, attending) = (active_weights(&layout, &decoder), layout.layers.len() - decoder.states);
        Ok(Self { config, model, optimizer, active, attending, heads: decoder.heads, plan })
    }

    /// One update, over micro-batches of `tokens`.
    pub(crate) fn update(&mut self, micro: &MicroBatch) -> Result<()> {
        self.model.trainable.gradients.all().zero()?;
        for _ in 0..MICRO_BATCHES {
            let loss =
                |micro: &MicroBatch, _: &_| TokenLosses { gradient: micro.loss_weights.clone(), ..Default::default() };
            self.model.gradient(micro, 1.0, &loss)?;
        }
        // Reads the gradient's norm, so it waits for all of the update before.
        self.optimizer.update(&self.model, 1e-6).map(drop)
    }

    /// FLOPs that a token of a sequence of `t` takes, recomputing not counted: 2 a weight that it meets forward, 2 for the input's gradient,
    /// 2 for the weight's if it is trained; and attention three times its forward.
    fn flops(&self, args: &Args) -> f64 {
        let of_weight = if args.lora.is_some() { 4.0 } else { 6.0 };
        let attention = attention::flops(self.heads, args.tokens) / args.tokens as f64;
        of_weight * self.active as f64 + 3.0 * self.attending as f64 * attention
    }
}

/// Weights that a token meets: all but those of experts that it does not go to.
fn active_weights(layout: &Layout, decoder: &Decoder) -> usize {
    let Some(router) = &decoder.router else { return layout.len() };
    let idle = layout.layers.iter().map(|layer| match &layer.mlp {
        Mlp::Dense(_) => 0,
        Mlp::Experts(mlp) => {
            let expert = mlp.experts[0].gate_up.range.len() + mlp.experts[0].down.range.len();
            (router.experts - router.active) * expert
        }
    });
    layout.len() - idle.sum::<usize>()
}

/// The adapter that is trained, if one does.
pub(crate) fn adapter(args: &Args, layout: &Layout) -> Result<Option<Adapter>> {
    let lora = args.lora.map(|rank| LoraConfig { rank, ..LoraConfig::default() });
    lora.map(|lora| lora.start(layout, "random", 1)).transpose()
}

/// All weights of `source`, to learn.
fn all(layout: &Layout, source: &RandomWeights) -> Result<Parameters> {
    let mut values = vec![0f32; layout.len()];
    for entry in &layout.entries {
        source.values(entry, 0..entry.range.len(), &mut values[entry.range.clone()])?;
    }
    Ok(Weights { layout: layout.clone(), values }.into())
}

/// What the plan is asked for.
pub(crate) fn job(args: &Args, adapter: Option<&Adapter>, moments: MomentKind) -> Job {
    Job {
        device: Target::Cuda,
        ranks: 1,
        threads: 1,
        precision: Precision::Bf16,
        micro_batch_tokens: args.tokens,
        recompute: args.recompute,
        rows: 0,
        prompt: 1,
        sequence: args.tokens,
        update_tokens: MICRO_BATCHES * args.tokens,
        reference: false,
        lora: adapter.map(|adapter| Lora::of(&adapter.layout, 0)),
        moments,
        teacher: None,
        routed: 0,
        ahead: false,
    }
}

/// One sequence of `tokens` random tokens, all of which predict the next.
pub(crate) fn micro_batch(tokens: usize, vocab: usize) -> Result<MicroBatch> {
    let mut stream = Counted::new(&[0xbe4c, 5]);
    let sample = TrainSample {
        tokens: (0..=tokens).map(|_| stream.below(vocab) as u32).collect(),
        prompt_len: 1,
        rollout_logprobs: vec![0.0; tokens],
        advantages: vec![1.0; tokens],
        ..TrainSample::default()
    };
    micro_batches(&[sample], LossNorm::Token, tokens, PromptLayout::Repeated)
        .pop()
        .context("a micro-batch has at least one token")
}

/// Tokens a second, their share of the rate of products, and GiB of each class beside those planned.
pub(crate) fn measure(device: &Device, args: &Args) -> Result<Value> {
    let rate = products::rate(device, args.shape.product())?;
    let mut bench = Bench::new(device, args)?;
    let micro = micro_batch(args.tokens, bench.config.vocab_size)?;
    let mut times = Vec::new();
    for step in 0..=args.updates {
        let start = Instant::now();
        bench.update(&micro)?;
        if step > 0 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let step_s = median(times);
    let tokens_per_s = (MICRO_BATCHES * args.tokens) as f64 / step_s;
    Ok(json!({
        "shape": args.shape.name(),
        "lora": args.lora, "recompute": args.recompute, "eight_bit": args.eight_bit, "tokens": args.tokens,
        "tokens_per_s": tokens_per_s, "step_s": step_s, "product_tflops": rate / 1e12,
        "share_of_product_rate": bench.flops(args) * tokens_per_s / rate,
        "gib": memory(device, &bench.plan),
    }))
}

/// GiB that each class holds, and that the plan says; a vocabulary's chunk counts as activations.
fn memory(device: &Device, plan: &Plan) -> Value {
    let classes = [
        ("weights", Class::Weights, plan.weights + plan.copy),
        ("optimizer", Class::Optimizer, plan.optimizer),
        ("gradients", Class::Gradients, plan.gradients),
        ("activations", Class::Activations, plan.activations + plan.logits),
    ];
    let total: usize = classes.iter().map(|(_, class, _)| device.held(*class)).sum();
    let each = classes.map(|(name, class, planned)| {
        (name.to_owned(), json!({ "held": gib(device.held(class)), "planned": gib(planned) }))
    });
    let mut all = serde_json::Map::from_iter(each);
    all.insert("total".into(), json!({ "held": gib(total), "planned": gib(plan.peak()) }));
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_jobs_of_the_check_on_a_card_are_planned_to_fit_what_they_aim_at() {
        for (options, aim) in [
            ("", 12.5),
            ("--eight-bit", 9.0),
            ("--lora 16", 5.1),
            ("--lora 16 --shape qwen3-4b", 23.3),
            ("--lora 16 --shape olmoe-4-layers", 8.0),
            ("--lora 16 --shape deepseek-v2-lite-4-layers", 10.0),
            ("--lora 16 --shape qwen3.5-0.8b", 5.3),
        ] {
            let line = format!("bench-device {options}");
            let args = Line::try_parse_from(line.split_whitespace()).unwrap().args;
            let config = args.shape.config(args.tokens).unwrap();
            let layout = Layout::of(&config).unwrap();
            let lora = args.lora.map(|rank| LoraConfig { rank, ..LoraConfig::default() });
            let adapter = lora.map(|lora| lora.start(&layout, "random", 1).unwrap());
            let moments = if args.eight_bit { MomentKind::EightBit } else { MomentKind::Full };
            let plan = Plan::new(&Sizes::of(&config).unwrap(), &job(&args, adapter.as_ref(), moments));
            assert!(gib(plan.peak()) < aim, "{options}: {:.2} GiB", gib(plan.peak()));
        }
    }
}
