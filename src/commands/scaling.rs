//! `reckon plan --ranks`: what to expect of a run on several ranks, from the times of a run of one process.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use reckon_datasets::Range::{Above, AtLeast};

use super::arguments::{real, whole};
use super::memory::gib;
use crate::config::TrainConfig;
use crate::metrics;
use crate::output::say;
use crate::plan::{Alone, Job, Link, Plan, Sizes, Work};

/// What a plan for several ranks is made from.
#[derive(Debug, clap::Args)]
pub(super) struct Scaling {
    /// Also say what a step takes on so many ranks, such as 1,8,64,512; needs --measured.
    #[arg(long, value_parser = whole::<usize>(1), value_delimiter = ',', requires = "measured")]
    ranks: Vec<usize>,
    /// Folder of a run of the same config by one process on the threads of a rank, whose times are taken.
    #[arg(long, requires = "ranks")]
    measured: Option<PathBuf>,
    /// Gigabits a second between one rank and the next.
    #[arg(long, value_parser = real::<f64>(Above(0.0)), default_value_t = 10.0)]
    link_gbit: f64,
    /// Microseconds until the first byte is there.
    #[arg(long, value_parser = real::<f64>(AtLeast(0.0)), default_value_t = 50.0)]
    latency_us: f64,
}

/// Prints a row for each number of ranks.
pub(super) fn print(args: &Scaling, config: &TrainConfig, sizes: &Sizes, job: &Job) -> Result<()> {
    let Some(run) = &args.measured else { return Ok(()) };
    let (gbit, latency) = (args.link_gbit, args.latency_us);
    let link = Link { bytes_per_s: gbit * 1e9 / 8.0, latency_s: latency * 1e-6 };
    let alone = measured(run)?;
    let work = Work::of(config, sizes, job);
    let whole = work.on(1, &alone, &link).whole();
    say!("\nseconds of a step, of the slowest rank; a link of {gbit} Gbit/s and {latency} us\n")?;
    say!(
        "{:>6}{:>14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}",
        "ranks",
        "memory each",
        "sampling",
        "passes",
        "update",
        "sending",
        "serial",
        "step",
        "speed"
    )?;
    for &ranks in &args.ranks {
        let step = work.on(ranks, &alone, &link);
        let memory = Plan::new(sizes, &Job { ranks, rows: job.rows.min(work.rows(ranks)), ..*job }).peak();
        say!(
            "{ranks:>6}{:>14}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>8.1}x",
            gib(memory),
            step.sampling,
            step.passes,
            step.update,
            step.sending,
            step.serial,
            step.whole(),
            whole / step.whole()
        )?;
    }
    Ok(())
}

/// The times of a step of a run, each the median of its steps but the first, which warms up.
fn measured(run: &Path) -> Result<Alone> {
    let file = run.join("metrics.jsonl");
    ensure!(file.is_file(), "--measured {}: there is no run with a metrics.jsonl", run.display());
    let records = metrics::read(&file)?;
    let steps: Vec<_> = records.iter().filter(|record| record.get("time/step_s").is_some()).collect();
    let several = || format!("--measured {}: the run has no steps after its first", run.display());
    ensure!(
        steps.iter().all(|record| record.get("time/rank_busy_s/0").is_none()),
        "--measured {}: it is a run on several ranks; measure one process",
        run.display()
    );
    let after = steps.get(1..).filter(|after| !after.is_empty()).with_context(several)?;
    let median = |name: &str| {
        let mut values: Vec<f64> = after.iter().filter_map(|record| record.get(name)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let names = ["time/sample_s", "time/verify_s", "time/forward_backward_s", "time/update_s"];
    let [sampling, judging, passes, update] = names.map(median);
    let serial = (median("time/step_s") - sampling - judging - passes - update).max(0.0);
    Ok(Alone { sampling, judging, passes, update, serial })
}
