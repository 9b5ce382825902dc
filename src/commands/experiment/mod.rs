//! `reckon experiment`: arms by seeds from one file, some at a time, gone on with where they stopped, and one report at
//! the end. What an arm or a base is made of stands in [`work`]; who runs when, in [`board`].

mod board;
mod report;
mod work;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use reckon_rewards::Registry;

use super::{config_text, signals};
use crate::config::{ExperimentConfig, Target, TrainConfig};
use crate::disk::write_file;
use crate::output::{note, print};
use crate::progress::Bars;
use crate::strict;
use board::Board;
use work::{Experiment, Kind};

/// Arguments of `reckon experiment`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The experiment, as TOML.
    file: PathBuf,
    /// Override a key of the experiment, such as `--set seeds=[1]`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder of its models, runs and report; `runs/` and the name of the file's folder without it. What is finished there
    /// is not done again, and what is not goes on.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Say what would be run, and stop.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let source = args.file.display().to_string();
    let config: ExperimentConfig = strict::load(&config_text(&args.file)?, &source, &args.sets)?;
    config.validate().with_context(|| source.clone())?;
    let out = args.out.unwrap_or_else(|| default_out(&args.file));
    let folder = args.file.parent().unwrap_or(Path::new("")).to_owned();
    let mut experiment = Experiment { config, folder, out, registry, at_a_time: 1 };
    experiment.at_a_time = at_a_time(&experiment)?;
    let jobs = experiment.jobs()?;
    if args.dry_run {
        let lines = jobs.iter().map(|job| format!("{} ({} steps)\n", job.label, job.steps));
        return print(format_args!("{}", lines.collect::<String>()));
    }
    std::fs::create_dir_all(&experiment.out).with_context(|| format!("cannot create {}", experiment.out.display()))?;
    let stop = signals::stop_flag()?;
    let (board, bars) = (Board::new(&jobs), Bars::new());
    let (arms, at_a_time) =
        (jobs.iter().filter(|job| matches!(job.kind, Kind::Arm { .. })).count(), experiment.at_a_time);
    note!("{} runs and {} bases in {}, {at_a_time} at a time", arms, jobs.len() - arms, experiment.out.display());
    let work = || {
        while let Some(job) = board.next(&stop) {
            let bar = bars.bar(jobs[job].steps, &jobs[job].label);
            let done = experiment.work(&jobs[job].kind, &stop, bar);
            board.finished(job, done.with_context(|| jobs[job].label.clone()));
        }
    };
    std::thread::scope(|scope| (0..at_a_time).for_each(|_| drop(scope.spawn(work))));
    let text = report::text(&experiment)?;
    write_file(&experiment.out.join("report.txt"), text.as_bytes())?;
    print(format_args!("{text}"))?;
    match board.error() {
        Some(error) => Err(error),
        None if stop.load(Ordering::Relaxed) => {
            note!("stopped; the same command goes on from here");
            Ok(())
        }
        None => super::report::page(&experiment.arms(), &experiment.out.join("report.html")),
    }
}

/// `runs/` and the name of the folder that the file stands in.
fn default_out(file: &Path) -> PathBuf {
    let name = file.canonicalize().ok().and_then(|path| Some(path.parent()?.file_name()?.to_owned()));
    Path::new("runs").join(name.unwrap_or_else(|| "experiment".into()))
}

/// How many arms run at a time: threads of one run wait for each other between operations, and runs do not.
fn at_a_time(experiment: &Experiment) -> Result<usize> {
    let configs = experiment.train_configs()?;
    let on_card = configs.iter().any(|config: &TrainConfig| config.compute.target() != Target::Cpu);
    ensure!(
        !(on_card && experiment.config.at_a_time.is_some_and(|count| count > 1)),
        "at_a_time = {}: a card has room for one arm; leave it out, or set compute.device=cpu",
        experiment.config.at_a_time.unwrap_or_default()
    );
    if configs.iter().any(|config| config.eval.problems == 0) {
        bail!("eval.problems = 0: arms are compared on held-out problems, so there have to be some");
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(experiment.config.at_a_time.unwrap_or(if on_card { 1 } else { cores.min(2) }))
}
