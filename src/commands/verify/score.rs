//! `reckon verify score`: one verdict for each row. Rows that cannot be judged are named, and the others are judged.

use crate::output::{note, say};
use std::path::PathBuf;

use anyhow::{Result, bail};
use reckon_rewards::Registry;
use serde_json::json;

use super::{VerifierArgs, read_rows, verdicts};

/// Rows that cannot be judged and are named one by one.
const NAMED: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    verifier: VerifierArgs,
    /// The file: JSON Lines, JSON, CSV or Parquet.
    file: PathBuf,
    /// Print one verdict in each line, in order; where there is none, `{"error": "..."}`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let verdicts = verdicts(&args.verifier.build(registry)?, &read_rows(&args.file)?)?;
    let (mut judged, mut passed, mut left_out) = (0, 0, 0);
    for verdict in &verdicts {
        match verdict {
            Ok(verdict) => {
                judged += usize::from(verdict.outcome.is_judged());
                left_out += usize::from(!verdict.outcome.is_judged());
                passed += usize::from(verdict.passed());
                if args.json {
                    say!("{}", json!(verdict))?;
                }
            }
            Err(error) if args.json => say!("{}", json!({ "error": error.to_string() }))?,
            Err(_) => {}
        }
    }
    if !args.json {
        let left_out = if left_out > 0 { format!(", {left_out} were not judged") } else { String::new() };
        say!("{passed} of {judged} pass{left_out}")?;
    }
    let faults: Vec<_> = verdicts.iter().filter_map(|verdict| verdict.as_ref().err()).collect();
    faults.iter().take(NAMED).for_each(|fault| note!("{fault}"));
    if !faults.is_empty() {
        bail!("{} of {} rows cannot be judged; the other verdicts stand", faults.len(), verdicts.len());
    }
    Ok(())
}
