//! `reckon verify score`: one verdict for each row.

use crate::output::say;
use std::path::PathBuf;

use anyhow::Result;
use reckon_rewards::Registry;
use serde_json::json;

use super::{VerifierArgs, read_rows, verdicts};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    verifier: VerifierArgs,
    /// The file.
    file: PathBuf,
    /// Print one verdict in each line, in order.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let verifier = args.verifier.build(registry)?;
    let verdicts = verdicts(&*verifier, &read_rows(&args.file)?)?;
    if args.json {
        verdicts.iter().try_for_each(|verdict| say!("{}", json!(verdict)))?;
    } else {
        say!("{} of {} pass", verdicts.iter().filter(|v| v.passed()).count(), verdicts.len())?;
    }
    Ok(())
}
