//! `reckon plan`: the memory of a run by class, and settings that make it fit. Reads config, data and the model's shape,
//! no weights. `reckon train` asks here whether its run fits.

use anyhow::{Context, Result, bail, ensure};

use super::arguments::whole;
use super::memory::{self, gib};
use super::scaling::{self, Scaling};
use super::{ConfigArgs, builtin, compute, load_shape, open_prompts};
use crate::config::{Target, TrainConfig};
use crate::hub::{self, Wanted};
use crate::model::files::folder;
use crate::model::{BaseType, Layout, ModelConfig, Sharing};
use crate::output::say;
use crate::plan::{Free, Job, Plan, Sizes, Taught, fit};
use crate::ranks::Ranks;
use crate::strict::{self, Tree};
use crate::train::Trainer;

/// Bytes of the running program, verifiers included, without a tokenizer.
const PROGRAM: usize = 40 << 20;
/// Bytes that a tokenizer with merges holds of each token, by one of 49,152.
const TOKEN: usize = 800;

/// Arguments of `reckon plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the run will compute, in place of the config's `compute.device`.
    #[arg(long)]
    device: Option<String>,
    /// Memory of the device, such as 80GiB or 24GB; what there is on this machine without it.
    #[arg(long)]
    memory: Option<String>,
    /// Longest prompt, in tokens; that of the data without it.
    #[arg(long, value_parser = whole::<usize>(1))]
    prompt_tokens: Option<usize>,
    #[command(flatten)]
    scaling: Scaling,
}

pub(super) fn run(args: Args) -> Result<()> {
    let (text, source) = args.config.text()?;
    let device = args.device.iter().map(|device| format!("compute.device={device}"));
    let sets: Vec<String> = args.config.sets.iter().cloned().chain(device).collect();
    let config: TrainConfig = strict::load(&text, &source, &sets)?;
    config.validate()?;
    let shape = load_shape(&config.model.name())?;
    let memory = match &args.memory {
        Some(text) => memory::parse(text)?,
        None => compute::memory(config.compute.target(), &Ranks::alone())
            .and_then(|known| known.context("the system does not tell"))
            .context("how much memory there is is not known: pass --memory")?,
    };
    let prompt = match args.prompt_tokens {
        Some(tokens) => tokens,
        None => open_prompts(&config)?.1.longest(),
    };
    let bytes = base_bytes(&config, &shape)?;
    let (sizes, mut job) = (Sizes::of(&shape)?, Job::of(&config, &shape, bytes, prompt)?);
    if let Some(teacher) = &config.teacher {
        let shape = load_shape(&teacher.name())?;
        job.teacher = Some(Taught::of(teacher, &shape, frozen_bytes(&teacher.name(), &shape, None)?)?);
    }
    let given = Tree::parse(&text, &source, &args.config.sets)?;
    let free = Free {
        micro_batch_tokens: config.compute.micro_batch_tokens == 0,
        recompute: !given.has("compute.recompute"),
        rows: !given.has("rollout.capacity"),
    };
    let picked = fit(&sizes, &job, free, memory);
    print(&sizes, &picked.unwrap_or(job))?;
    if job.device == Target::Cpu {
        let how = match Sharing::of(sizes.weights()) {
            Sharing::MicroBatches => "takes micro-batches, and rows to sample, of its own",
            Sharing::Operations => "shares in each operation, over one micro-batch and one gradient",
        };
        say!("\neach of {} threads {how}", job.threads)?;
        say!("the program itself and its tokenizer come on top: about {}", gib(program(&shape)))?;
    }
    if let Some(lora) = &config.lora {
        compute::base(lora, &config.compute, bytes, sizes.weights()).iter().try_for_each(|line| say!("{line}"))?;
    }
    let Some(job) = picked else {
        bail!("the run does not fit into {}: take a smaller model, or more memory", gib(memory))
    };
    say!("\nfits into {} with\n", gib(memory))?;
    say!("[compute]\nmicro_batch_tokens = {}\nrecompute = {}\n", job.micro_batch_tokens, job.recompute)?;
    say!("[rollout]\ncapacity = {}", job.rows)?;
    scaling::print(&args.scaling, &config, &sizes, &job)
}

/// Bytes that a run takes beside what a plan counts: the program itself, and the tokenizer.
fn program(shape: &ModelConfig) -> usize {
    PROGRAM + TOKEN * shape.vocab_size
}

/// Bytes of the frozen base of a run with an adapter, as far as they can be told without its weights.
fn base_bytes(config: &TrainConfig, shape: &ModelConfig) -> Result<usize> {
    config.lora.as_ref().map_or(Ok(0), |lora| frozen_bytes(&config.model.name(), shape, lora.base))
}

/// Bytes of a frozen model of such a shape, kept in the type of its file or in another one.
fn frozen_bytes(path: &str, shape: &ModelConfig, base: Option<BaseType>) -> Result<usize> {
    if path == builtin::MODEL {
        return Ok(builtin::base(base)?.weights.bytes);
    }
    folder::base_bytes(&hub::model_path(path, Wanted::Small)?, &Layout::of(shape)?, base, shape.dtype())
}

/// Refuses a run that would end for want of memory, before it begins. There are `memory` bytes for all that it takes.
pub(super) fn check(trainer: &Trainer, memory: usize) -> Result<()> {
    let (target, plan) =
        (trainer.config.compute.target(), Plan::new(&Sizes::of(&trainer.policy.config)?, &trainer.job()?));
    let classes: Vec<String> = plan.classes().iter().map(|(name, bytes)| format!("{name} {}", gib(*bytes))).collect();
    ensure!(
        plan.peak() <= memory,
        "the run needs {}, but this {} has {}: {}; `reckon plan` names settings that fit, where there are some",
        gib(plan.peak()),
        if target == Target::Cpu { "machine" } else { "card" },
        gib(memory),
        classes.join(", ")
    );
    Ok(())
}

fn print(sizes: &Sizes, job: &Job) -> Result<()> {
    let plan = Plan::new(sizes, job);
    let activations = |recompute| Plan::new(sizes, &Job { recompute, ..*job }).activations;
    let also = [
        ("activations if kept", activations(false)),
        ("activations if recomputed", activations(true)),
        ("peak", plan.peak()),
    ];
    for (name, bytes) in plan.classes().into_iter().chain(also) {
        say!("{name:<28}{:>14}", gib(bytes))?;
    }
    Ok(())
}
