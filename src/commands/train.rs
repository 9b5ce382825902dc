//! `reckon train`: what a run starts or goes on from, a dry run, and the summary at the end; the run is [`crate::run`].

use std::path::PathBuf;

use anyhow::Result;
use reckon_rewards::Registry;

use super::{ConfigArgs, compute, judge, plan, policies, signals, summary};
use crate::checkpoint::{RunFolder, state};
use crate::config::TrainConfig;
use crate::disk::{read_text, write_file};
use crate::output::{note, say};
use crate::run;
use crate::strict;
use crate::train::Trainer;

/// Arguments of `reckon train`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder of the run.
    #[arg(long, default_value = "runs/countdown")]
    out: PathBuf,
    /// Continue the run in this folder, with its own config.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["config", "sets", "dry_run"])]
    resume: Option<PathBuf>,
    /// Print the resolved config and what follows from it; run nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    if args.dry_run {
        return dry_run(&build(args.config.load()?, registry)?);
    }
    let (mut trainer, folder) = match args.resume {
        Some(path) => resume(path, registry)?,
        None => start(args.config.load()?, args.out, registry)?,
    };
    note!("{}", compute::place(&trainer.config.compute));
    let stop = signals::stop_flag()?;
    if let Some(outcome) = run::run(&mut trainer, &folder, &stop)? {
        summary::print(&outcome)?;
    }
    Ok(())
}

/// A new run, whose config is written into its folder.
fn start(config: TrainConfig, out: PathBuf, registry: &Registry) -> Result<(Trainer, RunFolder)> {
    let mut trainer = build(config, registry)?;
    check_memory(&mut trainer)?;
    let folder = RunFolder::create(out)?;
    write_file(&folder.config(), strict::print(&trainer.config)?.as_bytes())?;
    Ok((trainer, folder))
}

/// A run as its newest checkpoint has it.
fn resume(path: PathBuf, registry: &Registry) -> Result<(Trainer, RunFolder)> {
    let folder = RunFolder::resume(path)?;
    let text = read_text(&folder.config())?;
    let config = strict::load(&text, &folder.config().display().to_string(), &[])?;
    let mut trainer = build(config, registry)?;
    check_memory(&mut trainer)?;
    let resumed = state::restore(&mut trainer, &folder)?;
    let how = if resumed { "resumed" } else { "no checkpoint yet: started" };
    note!("{how} at step {}", trainer.progress.step);
    Ok((trainer, folder))
}

fn build(config: TrainConfig, registry: &Registry) -> Result<Trainer> {
    config.validate()?;
    let policy = policies::trained(&config)?;
    let judge = judge(&config, registry)?;
    Trainer::new(config, policy, judge)
}

/// Refuses a run that would end for want of memory: first by its plan, then by its worst step.
fn check_memory(trainer: &mut Trainer) -> Result<()> {
    if let Some(free) = compute::memory(trainer.config.compute.target())? {
        plan::check(trainer, free + trainer.policy.learner.held())?;
    }
    trainer.rehearse()
}

/// The resolved config, and what follows from it.
fn dry_run(trainer: &Trainer) -> Result<()> {
    let config = &trainer.config;
    say!("{}", strict::print(config)?)?;
    let r = &config.rollout;
    let rows = r.prompts_per_step * r.group_size;
    say!("# {rows} completions in a step, at most {} tokens", rows * r.max_new_tokens)?;
    if let Some(before) = run::held_out(trainer)? {
        let (p, g) = (before.accuracy, r.group_size as i32);
        let silent = p.powi(g) + (1.0 - p).powi(g);
        say!("# measured pass rate {p:.3} on held-out problems: a group has no signal with chance {silent:.3}")?;
    }
    Ok(())
}
