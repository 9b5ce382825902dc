//! `reckon serve`: a model behind OpenAI's protocol.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};

use super::arguments::{address, whole};
use super::{builtin, load_model, policies};
use crate::config::{ComputeConfig, DeviceChoice, PromptConfig};
use crate::output::note;
use crate::prompt::Template;
use crate::serve::{Served, serve};

/// Arguments of `reckon serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Model folder, checkpoint, adapter, GGUF file or name of the hub; the embedded base model without it.
    #[arg(default_value = builtin::MODEL)]
    model: String,
    /// Where it listens.
    #[arg(long, value_parser = address, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    /// What clients call it; its path without one.
    #[arg(long)]
    name: Option<String>,
    /// Most completions sampled at a time.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 64)]
    capacity: usize,
    /// Tokens of a completion where a request does not say.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 256)]
    max_new_tokens: usize,
    /// Threads; 0 takes one per core.
    #[arg(long, value_parser = whole::<usize>(0), default_value_t = 0)]
    threads: usize,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceChoice,
    /// Environment variable that holds a key which clients have to show.
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// Let clients replace the weights by those of a folder, as a run with `[servers]` does. For a folder of all
    /// weights.
    #[arg(long)]
    updates: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let listener = TcpListener::bind(args.address)
        .with_context(|| format!("cannot listen at {}: name another --address, such as 127.0.0.1:0", args.address))?;
    let key = args.key_env.as_ref().map(|name| {
        std::env::var(name).with_context(|| format!("--key-env {name}: there is no such variable in the environment"))
    });
    let key = key.transpose()?;
    let compute = ComputeConfig { device: args.device, threads: args.threads, ..ComputeConfig::default() };
    // Weights that are replaced are held as those that are trained.
    let mut policy = match args.updates {
        true => policies::computed(&compute, || load_model(&args.model))?,
        false => policies::sampled(&args.model, &compute)?,
    };
    let template = |name: &str| {
        let config = PromptConfig { template: Some(name.into()), ..PromptConfig::default() };
        Template::new(&config, &policy.companions)
    };
    let (plain, chat) = (template("plain")?, template(PromptConfig::CHAT).ok());
    if let Some(chat) = &chat {
        policy.end_with(chat.end_of_turn(&policy.tokenizer).map(|end| end.token))?;
    }
    note!("serve    http://{}/v1", listener.local_addr()?);
    if !args.address.ip().is_loopback() && key.is_none() {
        note!("serve    whoever reaches this address can use the model: --key-env asks for a key");
    }
    let (name, updates) = (args.name.unwrap_or(args.model), args.updates);
    let (capacity, max_new_tokens) = (args.capacity, args.max_new_tokens);
    let served = Served { name, capacity, max_new_tokens, chat, plain, key, updates };
    serve(listener, policy, served)
}
