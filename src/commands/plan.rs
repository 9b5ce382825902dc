//! `reckon plan`: the memory of a run by class, and settings that make it fit. Reads config, data and the model's shape,
//! no weights. `reckon train` asks here whether its run fits.

use anyhow::{Context, Result, bail, ensure};

use super::memory::{self, gib};
use super::{ConfigArgs, compute, load_shape, open_prompts};
use crate::config::TrainConfig;
use crate::plan::{Device, Free, Job, Plan, Sizes, fit};
use crate::strict;
use crate::train::Trainer;

/// Arguments of `reckon plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the run will compute, in place of the config's `compute.device`.
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// Memory of the device, such as 80GiB or 24GB; what there is on this machine without it.
    #[arg(long)]
    memory: Option<String>,
    /// Longest prompt, in tokens; that of the data without it.
    #[arg(long)]
    prompt_tokens: Option<usize>,
}

pub(super) fn run(args: Args) -> Result<()> {
    let (text, source) = args.config.text()?;
    let mut config: TrainConfig = strict::load(&text, &source, &args.config.sets)?;
    config.compute.device = args.device.unwrap_or(config.compute.device);
    config.validate()?;
    let shape = load_shape(&config.model.name())?;
    let memory = match &args.memory {
        Some(text) => memory::parse(text)?,
        None => compute::memory(config.compute.device)
            .and_then(|known| known.context("the system does not tell"))
            .context("how much memory there is is not known: pass --memory")?,
    };
    let prompt = match args.prompt_tokens {
        Some(tokens) => tokens,
        None => open_prompts(&config)?.1.longest()?,
    };
    let (sizes, job) = (Sizes::of(&shape)?, Job::of(&config, &shape, shape.dtype(), prompt)?);
    let given = Given::new(&text, &args.config.sets)?;
    let free = Free {
        micro_batch_tokens: !given.has("compute", "micro_batch_tokens"),
        recompute: !given.has("compute", "recompute"),
        rows: !given.has("rollout", "capacity"),
    };
    let picked = fit(&sizes, &job, free, memory);
    print(&sizes, &picked.unwrap_or(job));
    let Some(job) = picked else {
        bail!("the run does not fit into {}: take a smaller model, or more memory", gib(memory))
    };
    println!("\nfits into {} with\n", gib(memory));
    println!("[compute]\nmicro_batch_tokens = {}\nrecompute = {}\n", job.micro_batch_tokens, job.recompute);
    println!("[rollout]\ncapacity = {}", job.rows);
    Ok(())
}

/// Refuses a run that would end for want of memory, before it begins. There are `memory` bytes for all that it takes.
pub(super) fn check(trainer: &Trainer, memory: usize) -> Result<()> {
    let (device, plan) =
        (trainer.config.compute.device, Plan::new(&Sizes::of(&trainer.policy.config)?, &trainer.job()?));
    let classes: Vec<String> = plan.classes().iter().map(|(name, bytes)| format!("{name} {}", gib(*bytes))).collect();
    ensure!(
        plan.peak() <= memory,
        "the run needs {}, but this {} has {}: {}; `reckon plan` names settings that fit, where there are some",
        gib(plan.peak()),
        if device == Device::Cpu { "machine" } else { "card" },
        gib(memory),
        classes.join(", ")
    );
    Ok(())
}

/// Which keys the user set, in the file or on the command line; the others have their defaults.
struct Given<'a> {
    file: toml::Table,
    sets: &'a [String],
}

impl<'a> Given<'a> {
    fn new(text: &str, sets: &'a [String]) -> Result<Self> {
        Ok(Self { file: text.parse()?, sets })
    }

    fn has(&self, table: &str, key: &str) -> bool {
        let in_file = self.file.get(table).is_some_and(|values| values.get(key).is_some());
        let name = format!("{table}.{key}");
        in_file || self.sets.iter().any(|set| set.split_once('=').is_some_and(|(set, _)| set.trim() == name))
    }
}

fn print(sizes: &Sizes, job: &Job) {
    let plan = Plan::new(sizes, job);
    let activations = |recompute| Plan::new(sizes, &Job { recompute, ..*job }).activations;
    let also = [
        ("activations if kept", activations(false)),
        ("activations if recomputed", activations(true)),
        ("peak", plan.peak()),
    ];
    for (name, bytes) in plan.classes().into_iter().chain(also) {
        println!("{name:<28}{:>14}", gib(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_file_and_of_overrides_are_given() {
        let sets = ["rollout.capacity = 3".to_owned()];
        let given = Given::new("[compute]\nrecompute = true\n", &sets).unwrap();
        assert!(given.has("compute", "recompute") && given.has("rollout", "capacity"));
        assert!(!given.has("compute", "micro_batch_tokens"));
    }
}
