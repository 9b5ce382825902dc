//! `reckon sample`: completions of prompts from the command line or a file, printed as they finish.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use reckon_datasets::Example;
use reckon_datasets::Range::{AtLeast, PositiveShare, Share};

use super::arguments::{real, whole};
use super::{builtin, policies};
use crate::config::{ComputeConfig, DeviceChoice, PromptConfig};
use crate::disk::read_text;
use crate::output::say;
use crate::parallel::lock;
use crate::policy::Policy;
use crate::prompt::Prompt;
use crate::prompt::Template;
use crate::rollout::{Engine, PromptTokens, Request, SampleKey, Sampling};

/// Arguments of `reckon sample`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prompts, taken as they are unless `--chat` is given.
    prompts: Vec<String>,
    /// A file with one prompt in each line.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Model folder or adapter; the embedded base model without it.
    #[arg(long, default_value = builtin::MODEL)]
    model: String,
    /// Put each prompt into the model's chat template, as what the user says.
    #[arg(long)]
    chat: bool,
    /// Completions a prompt.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 1)]
    samples: usize,
    /// Longest completion, in tokens.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 256)]
    max_new_tokens: usize,
    /// Divides the logits; 0 takes the most likely token.
    #[arg(long, value_parser = real::<f32>(AtLeast(0.0)), default_value_t = 1.0)]
    temperature: f32,
    /// Keep the smallest set of tokens with this much probability.
    #[arg(long, value_parser = real::<f32>(PositiveShare), default_value_t = 1.0)]
    top_p: f32,
    /// Keep this many tokens; 0 keeps all.
    #[arg(long, value_parser = whole::<usize>(0), default_value_t = 0)]
    top_k: usize,
    /// Keep tokens at least this likely relative to the most likely one; 0 keeps all.
    #[arg(long, value_parser = real::<f32>(Share), default_value_t = 0.0)]
    min_p: f32,
    /// Text that ends a completion.
    #[arg(long)]
    stop: Vec<String>,
    /// Names the random numbers.
    #[arg(long, value_parser = whole::<u64>(0), default_value_t = 0)]
    seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceChoice,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let mut texts = args.prompts.clone();
    if let Some(file) = &args.file {
        texts.extend(read_text(file)?.lines().map(str::to_owned));
    }
    ensure!(!texts.is_empty(), "no prompt: give one on the command line, or a file with --file");
    let compute = ComputeConfig { device: args.device, ..ComputeConfig::default() };
    let mut policy = policies::sampled(&args.model, &compute)?;
    let named = if args.chat { "chat" } else { "plain" };
    let template = PromptConfig { template: Some(named.into()), ..PromptConfig::default() };
    let template = Template::new(&template, &policy.companions)?;
    policy.end_with(template.end_of_turn(&policy.tokenizer).map(|end| end.token))?;
    let prompts = prompts(&texts, args.max_new_tokens, &template, &policy)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        min_p: args.min_p,
        max_new_tokens: args.max_new_tokens,
        stop_tokens: policy.config.eos_token_id.clone(),
        stop_strings: args.stop.clone(),
    };
    let printed = Mutex::new(Ok(()));
    let prompts: Vec<PromptTokens> = prompts.iter().map(PromptTokens::from).collect();
    let key = SampleKey { seed: args.seed, step: 0 };
    let request = Request {
        prompts: &prompts,
        group_size: args.samples,
        sampling: &sampling,
        key,
        calling: None,
        order: None,
        routed: false,
    };
    Engine::of(&policy, 64).generate(&request, &|prompt, sample, c| {
        let line = if args.json {
            serde_json::json!({ "prompt": texts[prompt], "sample": sample, "completion": c.text, "finish": c.finish,
                "tokens": c.tokens, "logprobs": c.logprobs,
                "logprob": c.logprobs.iter().map(|&l| f64::from(l)).sum::<f64>() })
            .to_string()
        } else {
            format!("{}{}", texts[prompt], c.text)
        };
        // A reader that has gone away wants no more lines; sampling ends soon by itself.
        let mut printed = lock(&printed);
        if printed.is_ok() {
            *printed = say!("{line}");
        }
    })?;
    printed.into_inner()?
}

/// The texts as tokens, each with room for a completion behind it.
fn prompts(texts: &[String], max_new_tokens: usize, template: &Template, policy: &Policy) -> Result<Vec<Prompt>> {
    let room = policy.config.max_position_embeddings.saturating_sub(max_new_tokens);
    let mut prompts = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let example = Example {
            id: index.to_string(),
            question: text.clone(),
            answer: "".into(),
            messages: Vec::new(),
            info: Default::default(),
        };
        let tokens = template.encode(&policy.tokenizer, &template.render(&example)?.text)?;
        ensure!(!tokens.is_empty(), "prompt {} is empty", index + 1);
        ensure!(
            tokens.len() <= room,
            "prompt {} has {} tokens: {room} fit beside --max-new-tokens",
            index + 1,
            tokens.len()
        );
        prompts.push(Prompt::new(Arc::new(example), index as u64, tokens));
    }
    Ok(prompts)
}
