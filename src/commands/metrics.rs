//! `reckon metrics`: every name that `metrics.jsonl` can hold, and what the number is.

use anyhow::Result;

use crate::metrics::{METRICS, Metric, table};

/// Arguments of `reckon metrics`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a table of Markdown, as in `docs/metrics.md`.
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if args.markdown {
        print!("{}", table());
        return Ok(());
    }
    for Metric { name, meaning } in METRICS {
        println!("{name}\n    {meaning}");
    }
    Ok(())
}
