//! `reckon metrics`: every name that `metrics.jsonl` can hold, and what the number is.

use anyhow::Result;

use crate::behaviours;
use crate::metrics::{METRICS, Metric, table};
use crate::output::{print, say};

/// Arguments of `reckon metrics`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a table of Markdown, as in `docs/metrics.md`.
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if args.markdown {
        return print(format_args!("{}\n{}", table(), behaviours::table()));
    }
    for Metric { name, meaning } in METRICS {
        say!("{name}\n    {meaning}")?;
    }
    Ok(())
}
