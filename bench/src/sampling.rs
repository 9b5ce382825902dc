//! Speed and memory of sampling: whole groups of completions of one length, from the first prompt to the last token.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use reckon_datasets::Counted;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::timing::RandomWeights;
use crate::update::{adapter, job};
use crate::{Args, gib};
use reckon::commands::bench::{character_tokenizer, random_prompts};
use reckon::model::{Decoder, DeviceModel, Layout, ModelConfig};
use reckon::ops::device::{Class, Device};
use reckon::optim::MomentKind;
use reckon::parallel::default_threads;
use reckon::plan::{Job, Plan, Sizes};
use reckon::policy::Model;
use reckon::rollout::{Engine, PromptTokens, Request, SampleKey, Sampling};

/// Tokens of a prompt.
const PROMPT_TOKENS: usize = 128;
/// Completions that share a prompt.
const GROUP: usize = 8;

/// Tokens a second, milliseconds a step, and GiB beside those planned, for each number of rows.
pub(crate) fn measure(device: &Device, args: &Args) -> Result<Value> {
    ensure!(args.new > 0 && args.rows.iter().all(|&rows| rows > 0), "--new and --rows are at least 1");
    let config = args.shape.config(PROMPT_TOKENS + args.new)?;
    let layout = Layout::of(&config)?;
    let adapter = adapter(args, &layout)?;
    let (source, decoder) = (RandomWeights::new(&layout.entries), Decoder::new(&config, true));
    let model = DeviceModel::frozen(device.clone(), &decoder, &layout, &source, adapter.as_ref())?;
    let (sizes, tokenizer) = (Sizes::of(&config)?, character_tokenizer(&config)?);
    let job = Job {
        prompt: PROMPT_TOKENS,
        sequence: PROMPT_TOKENS + args.new,
        ..job(args, adapter.as_ref(), MomentKind::Full)
    };
    let mut report = Map::new();
    for &rows in &args.rows {
        let plan = Plan::new(&sizes, &Job { rows, ..job });
        // Kernels and library are loaded by the first call.
        run(&model, &config, &tokenizer, rows, 2)?;
        let (seconds, held) = run(&model, &config, &tokenizer, rows, args.new)?;
        let figures = json!({
            "tokens_per_s": (rows * args.new) as f64 / seconds, "step_ms": 1e3 * seconds / args.new as f64,
            "gib": { "held": gib(held), "planned": gib(plan.cache + plan.prefill) },
        });
        report.insert(rows.to_string(), figures);
    }
    Ok(json!({
        "shape": args.shape.name(), "lora": args.lora, "prompt_tokens": PROMPT_TOKENS, "new_tokens": args.new,
        "rows": report,
    }))
}

/// Seconds of sampling `rows` completions at a time, and bytes held meanwhile.
fn run(
    model: &DeviceModel,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    rows: usize,
    new: usize,
) -> Result<(f64, usize)> {
    let engine = Engine { model: Model::Device(model), tokenizer, threads: default_threads(), capacity: rows };
    let sampling = Sampling {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        max_new_tokens: new,
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
    };
    let group = GROUP.min(rows);
    let shape = [rows.div_ceil(group), PROMPT_TOKENS, config.vocab_size];
    let prompts = random_prompts(shape, &mut Counted::new(&[0xbe4c, 7]));
    let held = AtomicUsize::new(0);
    let start = Instant::now();
    let prompts: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
    let key = SampleKey { seed: 0, step: 0 };
    let request = Request {
        prompts: &prompts,
        group_size: group,
        sampling: &sampling,
        key,
        calling: None,
        order: None,
        routed: false,
    };
    engine.generate(&request, &|_, _, _| held.store(model.device.held(Class::Cache), Ordering::Relaxed))?;
    Ok((start.elapsed().as_secs_f64(), held.into_inner()))
}
