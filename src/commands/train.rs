//! `reckon train`: what a run starts or goes on from, a dry run, and the summary at the end; the run is [`crate::run`].

#[cfg(feature = "serve")]
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "serve")]
use anyhow::Context;
use anyhow::Result;
#[cfg(feature = "serve")]
use reckon_lab::serve;
use reckon_rewards::Registry;

#[cfg(feature = "serve")]
use super::arguments::address;
use super::arguments::whole;
use super::changes::check_changes;
#[cfg(feature = "serve")]
use super::report;
use super::{ConfigArgs, alike, compute, judge, machine, plan, policies, signals, summary};
use crate::checkpoint::{RunFolder, state};
use crate::config::TrainConfig;
use crate::disk::{read_text, write_file};
use crate::grpo::updates;
use crate::model::Layout;
use crate::output::{note, say};
use crate::progress::Bar;
use crate::ranks::{Ranks, Session};
use crate::run;
use crate::servers::ServerSampler;
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
    /// Continue the run in this folder, with its own config; `--set` changes keys of it from here on.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["config", "dry_run"])]
    resume: Option<PathBuf>,
    /// Show the run in a browser while it goes on, at this address.
    #[arg(
        long, value_parser = address, value_name = "ADDR", num_args = 0..=1, require_equals = true,
        default_missing_value = "127.0.0.1:7878", conflicts_with = "dry_run"
    )]
    #[cfg(feature = "serve")]
    serve: Option<SocketAddr>,
    /// Print the resolved config and what follows from it; run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Of several ranks: seconds that one may be waited for before the run ends on all.
    #[arg(long, value_parser = whole::<u64>(1), value_name = "SECONDS", default_value_t = 600)]
    rank_timeout: u64,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    if args.dry_run {
        return dry_run(&build(args.config.load()?, registry, &Ranks::alone())?);
    }
    let session = Session::begin(Duration::from_secs(args.rank_timeout))?;
    let ranks = session.ranks();
    if ranks.is_first() {
        session.how().iter().for_each(|how| note!("ranks    {how}"));
    }
    ranks.finish(train(args, registry, ranks))
}

/// The run, as one of its ranks makes it.
fn train(args: Args, registry: &Registry, ranks: &Ranks) -> Result<()> {
    let first = ranks.is_first();
    #[cfg(feature = "serve")]
    let listener = args.serve.filter(|_| first).map(listen).transpose()?;
    let (mut trainer, folder) = match args.resume {
        Some(path) => {
            let Resumed { trainer, folder, how } = resume_among(path, &args.config.sets, registry, ranks)?;
            if first {
                note!("{how}");
            }
            (trainer, first.then_some(folder))
        }
        None => {
            let mut config = args.config.load()?;
            config.begin_on(&ranks.from_first(Some(jiff::Zoned::now().date().to_string()))?);
            let threads = config.compute.threads;
            let trainer = prepared(config, registry, ranks)?;
            alike::check(&trainer)?;
            let folder = first.then(|| new_folder(&trainer, args.out, threads)).transpose()?;
            (trainer, folder)
        }
    };
    if first {
        tell(&trainer)?;
    }
    #[cfg(feature = "serve")]
    if let (Some(listener), Some(folder)) = (listener, &folder) {
        serve::serve(listener, folder.path().to_owned(), report::meaning)?;
    }
    let stop = signals::stop_flag_of(first)?;
    let bar = if first { Bar::new(trainer.config.steps, "train") } else { Bar::silent() };
    let outcome = run::run(&mut trainer, folder.as_ref(), &stop, bar)?;
    outcome.filter(|_| first).map_or(Ok(()), |outcome| summary::print(&outcome))
}

/// What a run computes on, and what becomes of a frozen base.
fn tell(trainer: &Trainer) -> Result<()> {
    note!("{}", compute::place(&trainer.config.compute));
    compute::between(&trainer.config.compute, &trainer.ranks).iter().for_each(|line| note!("{line}"));
    if let Some(lora) = &trainer.config.lora {
        let (bytes, weights) = (trainer.policy.learner.base_bytes(), Layout::of(&trainer.policy.config)?.len());
        compute::base(lora, &trainer.config.compute, bytes, weights).iter().for_each(|line| note!("{line}"));
    }
    Ok(())
}

/// Takes the address that the run is to be shown at, before anything long begins.
#[cfg(feature = "serve")]
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot show the run at {address}: name another address, such as --serve=127.0.0.1:0")
    })?;
    note!("serve    http://{}", listener.local_addr()?);
    if !address.ip().is_loopback() {
        note!("serve    whoever reaches this address can read the run");
    }
    Ok(listener)
}

/// A new run, whose config is written into its folder.
pub(super) fn start(config: TrainConfig, out: PathBuf, registry: &Registry) -> Result<(Trainer, RunFolder)> {
    let threads = config.compute.threads;
    let trainer = prepared(config, registry, &Ranks::alone())?;
    let folder = new_folder(&trainer, out, threads)?;
    Ok((trainer, folder))
}

/// A run in memory, for which there is enough of it.
fn prepared(mut config: TrainConfig, registry: &Registry, ranks: &Ranks) -> Result<Trainer> {
    config.compute.threads = machine::threads_of_a_rank(config.compute.threads, ranks.local_size());
    let mut trainer = build(config, registry, ranks)?;
    check_memory(&mut trainer)?;
    if let Some(servers) = &trainer.config.servers {
        trainer.sampler = Box::new(ServerSampler::new(servers, ranks)?);
    }
    Ok(trainer)
}

/// The folder of a new run. Its config asks for as many threads as the user did: a rank may have a part of them.
fn new_folder(trainer: &Trainer, out: PathBuf, threads: usize) -> Result<RunFolder> {
    let folder = RunFolder::create(out)?;
    let mut config = trainer.config.clone();
    config.compute.threads = threads;
    write_file(&folder.config(), strict::print(&config)?.as_bytes())?;
    write_file(&folder.machine(), machine::describe(&trainer.config.compute).as_bytes())?;
    Ok(folder)
}

/// A run to go on with.
pub(super) struct Resumed {
    pub(super) trainer: Trainer,
    pub(super) folder: RunFolder,
    /// Where it stands, for people.
    pub(super) how: String,
}

/// A run as its newest checkpoint has it, but for the keys that `sets` changes.
pub(super) fn resume(path: PathBuf, sets: &[String], registry: &Registry) -> Result<Resumed> {
    resume_among(path, sets, registry, &Ranks::alone())
}

/// The same by several ranks, all of which read the folder; the first one has its lock.
fn resume_among(path: PathBuf, sets: &[String], registry: &Registry, ranks: &Ranks) -> Result<Resumed> {
    let folder = if ranks.is_first() { Some(RunFolder::resume(&path)?) } else { None };
    // The others look at it once it is tidy.
    ranks.gather(())?;
    let folder = folder.map_or_else(|| RunFolder::look(path), Ok)?;
    let text = read_text(&folder.config())?;
    let config: TrainConfig = strict::load(&text, &folder.config().display().to_string(), sets)?;
    check_changes(&config, sets, &folder, TrainConfig::may_change)?;
    let threads = config.compute.threads;
    let mut trainer = prepared(config, registry, ranks)?;
    let resumed = state::restore(&mut trainer, &folder)?;
    let how = if resumed { "resumed" } else { "no checkpoint yet: started" };
    alike::check(&trainer)?;
    let changed = ranks.from_first(Some(!sets.is_empty()))?;
    // The checkpoint comes first: one that its config is ahead of would ask for the same keys again.
    if changed && resumed {
        state::save(&trainer, ranks.is_first().then_some(&folder))?;
    }
    if changed && ranks.is_first() {
        let mut config = trainer.config.clone();
        config.compute.threads = threads;
        write_file(&folder.config(), strict::print(&config)?.as_bytes())?;
    }
    let how = format!("{how} at step {}", trainer.progress.step);
    Ok(Resumed { trainer, folder, how })
}

fn build(config: TrainConfig, registry: &Registry, ranks: &Ranks) -> Result<Trainer> {
    config.validate()?;
    let policy = policies::trained(&config, ranks)?;
    let judge = judge(&config, registry)?;
    let teacher = policies::teacher(&config, &policy)?;
    Trainer::among(ranks.clone(), config, policy, judge)?.taught_by(teacher)
}

/// How many of the first step's groups have how many right completions, as a line of bars.
fn difficulties(trainer: &Trainer) -> Result<String> {
    let counts = trainer.first_difficulties()?;
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let shown = ["none", "to 25%", "to 50%", "to 75%", "below 100%", "all"].iter().zip(counts).map(|(share, count)| {
        // Eighths of a bar.
        let bar = char::from_u32(0x2580 + (8 * count).div_ceil(most) as u32).filter(|_| count > 0).unwrap_or(' ');
        format!("{share} {bar} {count}")
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

/// Refuses a run that would end for want of memory: first by its plan, then by its worst step.
fn check_memory(trainer: &mut Trainer) -> Result<()> {
    if let Some(free) = compute::memory(trainer.config.compute.target(), &trainer.ranks)? {
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
    match updates(rows, config.grpo.completions_per_update) {
        1 => say!("# one update of {rows} completions")?,
        count => say!("# {count} updates of about {} completions each", rows.div_ceil(count))?,
    }
    if let Some(before) = run::held_out(trainer)? {
        let (p, g) = (before.accuracy, r.group_size as i32);
        let silent = p.powi(g) + (1.0 - p).powi(g);
        say!("# measured pass rate {p:.3} on held-out problems: a group has no signal with chance {silent:.3}")?;
        say!("# the first step's groups by right completions: {}", difficulties(trainer)?)?;
    }
    Ok(())
}
